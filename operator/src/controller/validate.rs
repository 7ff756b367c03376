//! From the raw resource to one that the rest of the code may rely on. Pure: takes no client. Nothing
//! after this reads the raw spec again.

mod withheld;

use crate::crd::{self, OrderedConsumer};
use crate::names;
use crate::scale::schedule::{InvalidSchedule, Schedule};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keylane_consumer::contract::spec::ConsumerSpec;
use keylane_consumer::contract::{ADMIN_PORT, METRICS_PORT, PROBE_PORT};
use kube::{Resource, ResourceExt};
use serde_json::Value;

pub use crate::crd::{Autoscaling, Executor};

/// Why an OrderedConsumer cannot be deployed: a person must change it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The template is not a pod template.
    #[error("spec.template is not a pod template: {0}")]
    Template(String),
    /// The template says something that a pod template cannot say; most likely a typing error.
    #[error("spec.template{0} is not a field of a pod template: correct its name or take it out")]
    UnknownField(String),
    /// The template sets what Keylane sets itself.
    #[error("spec.template.spec.{field} cannot be set: {reason}")]
    Fixed {
        /// The field.
        field: &'static str,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// No container of the template is the handler.
    #[error(
        "spec.template has no container named {name:?} (found: {found}); name the handler's container in spec.handler.container"
    )]
    NoHandler {
        /// The handler's name.
        name: String,
        /// Names of the containers there are.
        found: String,
    },
    /// A name that Keylane uses itself.
    #[error("spec.template names {what} {name:?}, which Keylane adds itself: choose another name")]
    Reserved {
        /// What is named so.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A label or annotation that Keylane sets itself.
    #[error(
        "spec.template.metadata.{what}[{name:?}] cannot be set: Keylane marks its pods by it; choose another name"
    )]
    Marked {
        /// labels or annotations.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A port of the pod that the executor listens on.
    #[error(
        "spec.template: container {container:?} has containerPort {port}, which the executor listens on: choose another than {PROBE_PORT}, {METRICS_PORT} and {ADMIN_PORT}"
    )]
    ContainerPort {
        /// The container.
        container: String,
        /// Its port.
        port: i32,
    },
    /// A hook that would end the handler before the executor has drained.
    #[error(
        "spec.template: container {0:?} has a preStop hook, which Kubernetes runs as soon as the pod is to stop, while calls still run; handle SIGTERM instead, it comes after the executor has drained"
    )]
    PreStop(String),
    /// The handler listens where the executor does.
    #[error(
        "spec.handler: port {0} is the executor's own: choose another than {PROBE_PORT}, {METRICS_PORT} and {ADMIN_PORT}"
    )]
    Port(u16),
    /// The directory of the handler's socket is mounted by Keylane.
    #[error(
        "spec.template: container {container:?} mounts a volume at {directory}, where Keylane mounts the one that the handler's unixSocket is shared by: take the mount out, or choose another directory for the socket"
    )]
    SocketMount {
        /// The handler's container.
        container: String,
        /// The directory.
        directory: String,
    },
    /// A Secret that no container but the executor's may see.
    #[error(
        "spec.template{path} is {name:?}, a Secret that only the executor's container may have: {reason}"
    )]
    Withheld {
        /// Where it is named.
        path: String,
        /// Its name.
        name: String,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// An environment variable that Keylane sets itself.
    #[error("spec.executor.env sets {0:?}, which Keylane sets itself: take it out")]
    ReservedVariable(String),
    /// A schedule that cannot be followed.
    #[error("spec.autoscaling.schedules[{index}]: {source}")]
    Schedule {
        /// Which one.
        index: usize,
        /// What is wrong with it.
        source: InvalidSchedule,
    },
    /// The API server sent an object without an identity.
    #[error("the object has no uid or namespace; it was not read from an API server")]
    NoIdentity,
}

/// An OrderedConsumer that can be deployed.
#[derive(Clone, Debug)]
pub struct Consumer {
    name: String,
    namespace: String,
    uid: String,
    owner: OwnerReference,
    replicas: i32,
    spec: ConsumerSpec,
    autoscaling: Autoscaling,
    schedules: Vec<Schedule>,
    executor: Executor,
    template: PodTemplateSpec,
    handler: Container,
}

impl Consumer {
    /// The same, with no pods to be run.
    pub fn without_pods(self) -> Self {
        Self {
            replicas: 0,
            ..self
        }
    }

    /// metadata.name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// metadata.namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// metadata.uid.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Whether an object is a child of this very OrderedConsumer: what is not is never touched.
    pub fn controls(&self, object: &impl Resource) -> bool {
        let mut owners = object.owner_references().iter();
        owners.any(|owner| owner.controller == Some(true) && owner.uid == self.uid)
    }

    /// Reference that children carry.
    pub fn owner(&self) -> &OwnerReference {
        &self.owner
    }

    /// spec.replicas.
    pub fn replicas(&self) -> i32 {
        self.replicas
    }

    /// What the executor obeys.
    pub fn spec(&self) -> &ConsumerSpec {
        &self.spec
    }

    /// spec.autoscaling.
    pub fn autoscaling(&self) -> &Autoscaling {
        &self.autoscaling
    }

    /// spec.autoscaling.schedules.
    pub fn schedules(&self) -> &[Schedule] {
        &self.schedules
    }

    /// spec.executor.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The user's template without the handler's container.
    pub fn template(&self) -> &PodTemplateSpec {
        &self.template
    }

    /// The handler's container, as the user wrote it.
    pub fn handler(&self) -> &Container {
        &self.handler
    }
}

/// Checks what the schema cannot.
pub fn validate(object: &OrderedConsumer) -> Result<Consumer, Invalid> {
    let spec = &object.spec;
    let mut template: PodTemplateSpec = serde_json::from_value(spec.template.clone())
        .map_err(|error| Invalid::Template(error.to_string()))?;
    let known =
        serde_json::to_value(&template).map_err(|error| Invalid::Template(error.to_string()))?;
    if let Some(path) = unknown_field(&spec.template, &known) {
        return Err(Invalid::UnknownField(path));
    }
    withheld::refuse(&spec.template, &spec.consumer.rocketmq)?;
    let port = spec.consumer.handler.port();
    if let Some(port) = port.filter(|port| [PROBE_PORT, METRICS_PORT, ADMIN_PORT].contains(port)) {
        return Err(Invalid::Port(port));
    }
    marked(&template)?;
    let pod = template
        .spec
        .as_mut()
        .ok_or_else(|| Invalid::Template("spec.template.spec is missing".into()))?;
    if let Some((field, reason)) = fixed(pod) {
        return Err(Invalid::Fixed { field, reason });
    }
    let name = &spec.consumer.handler.container;
    let Some(index) = pod
        .containers
        .iter()
        .position(|container| container.name == *name)
    else {
        let found: Vec<_> = pod
            .containers
            .iter()
            .map(|container| container.name.as_str())
            .collect();
        return Err(Invalid::NoHandler {
            name: name.clone(),
            found: found.join(", "),
        });
    };
    let handler = pod.containers.remove(index);
    reserved(pod, &handler)?;
    if let Some(socket) = spec.consumer.handler.unix_socket() {
        let directory = socket.directory();
        let mut mounts = handler.volume_mounts.iter().flatten();
        if mounts.any(|mount| mount.mount_path.trim_end_matches('/') == directory) {
            return Err(Invalid::SocketMount {
                container: handler.name,
                directory: directory.to_owned(),
            });
        }
    }
    if handler
        .lifecycle
        .as_ref()
        .is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
    {
        return Err(Invalid::PreStop(handler.name));
    }
    let variables = spec.executor.env.iter().map(|variable| &variable.name);
    if let Some(name) = variables
        .into_iter()
        .find(|name| names::RESERVED_VARIABLES.contains(&name.as_str()))
    {
        return Err(Invalid::ReservedVariable(name.clone()));
    }
    let schedules = schedules(&spec.autoscaling)?;
    let identity = (
        object.controller_owner_ref(&()),
        object.uid(),
        object.namespace(),
    );
    let (Some(owner), Some(uid), Some(namespace)) = identity else {
        return Err(Invalid::NoIdentity);
    };
    Ok(Consumer {
        name: object.name_any(),
        namespace,
        uid,
        owner,
        replicas: spec.replicas,
        spec: spec.consumer.clone(),
        autoscaling: spec.autoscaling.clone(),
        schedules,
        executor: spec.executor.clone(),
        template,
        handler,
    })
}

/// Names and ports that Keylane's own container and volumes have.
fn reserved(pod: &PodSpec, handler: &Container) -> Result<(), Invalid> {
    let own = [PROBE_PORT, METRICS_PORT, ADMIN_PORT].map(i32::from);
    let init = pod.init_containers.iter().flatten();
    for container in pod.containers.iter().chain(init).chain([handler]) {
        if container.name == names::EXECUTOR_CONTAINER {
            return Err(Invalid::Reserved {
                what: "a container",
                name: container.name.clone(),
            });
        }
        let mut ports = container.ports.iter().flatten();
        if let Some(port) = ports.find(|port| own.contains(&port.container_port)) {
            return Err(Invalid::ContainerPort {
                container: container.name.clone(),
                port: port.container_port,
            });
        }
    }
    let init = pod.init_containers.iter().flatten();
    for container in pod.containers.iter().chain(init).chain([handler]) {
        // They hold what only the executor may have.
        let mut mounts = container.volume_mounts.iter().flatten();
        if let Some(mount) = mounts.find(|mount| mount.name.starts_with("keylane-")) {
            return Err(Invalid::Reserved {
                what: "a mount of volume",
                name: mount.name.clone(),
            });
        }
    }
    let mut volumes = pod.volumes.iter().flatten();
    match volumes.find(|volume| volume.name.starts_with("keylane-")) {
        Some(volume) => Err(Invalid::Reserved {
            what: "a volume",
            name: volume.name.clone(),
        }),
        None => Ok(()),
    }
}

/// Labels and annotations that tell pods of Keylane from others.
fn marked(template: &PodTemplateSpec) -> Result<(), Invalid> {
    let Some(metadata) = &template.metadata else {
        return Ok(());
    };
    let fields = [
        ("labels", &metadata.labels),
        ("annotations", &metadata.annotations),
    ];
    for (what, all) in fields {
        let ours = |name: &&String| name.starts_with(names::PREFIX) || *name == names::MANAGED_BY;
        if let Some(name) = all.iter().flatten().map(|(name, _)| name).find(ours) {
            let name = name.clone();
            return Err(Invalid::Marked { what, name });
        }
    }
    Ok(())
}

fn schedules(autoscaling: &Autoscaling) -> Result<Vec<Schedule>, Invalid> {
    let read = |schedule: &crd::Schedule| {
        let (lasts, rate) = (schedule.duration.get(), schedule.expected_per_second as f64);
        match (&schedule.start, &schedule.cron) {
            (Some(start), _) => Schedule::once(start, lasts, rate),
            (None, cron) => {
                let cron = cron.as_deref().unwrap_or_default();
                Schedule::again(cron, schedule.time_zone.as_deref(), lasts, rate)
            }
        }
    };
    let schedules = autoscaling.schedules.iter().enumerate();
    schedules
        .map(|(index, schedule)| {
            read(schedule).map_err(|source| Invalid::Schedule { index, source })
        })
        .collect()
}

/// A field of the pod that Keylane sets itself, if the template sets it.
fn fixed(pod: &PodSpec) -> Option<(&'static str, &'static str)> {
    let fields = [
        (
            pod.termination_grace_period_seconds.is_some(),
            "terminationGracePeriodSeconds",
            "it follows from spec.drain.timeout, change that",
        ),
        (
            pod.restart_policy
                .as_deref()
                .is_some_and(|policy| policy != "Always"),
            "restartPolicy",
            "pods of a consumer always restart, take it out",
        ),
        (
            pod.automount_service_account_token == Some(true),
            "automountServiceAccountToken",
            "the executor would get the token too; mount a projected serviceAccountToken volume in the handler's container",
        ),
        (
            pod.host_network == Some(true),
            "hostNetwork",
            "the executor's ports would be open on the node, take it out",
        ),
        (
            pod.share_process_namespace == Some(true),
            "shareProcessNamespace",
            "with true the other containers would reach the executor's files by /proc, and among them what lets it into RocketMQ: take it out",
        ),
        (
            pod.host_pid == Some(true),
            "hostPID",
            "with true the other containers would reach the executor's files by /proc, and among them what lets it into RocketMQ: take it out",
        ),
    ];
    let (_, field, reason) = fields.into_iter().find(|(set, ..)| *set)?;
    Some((field, reason))
}

/// The path of the first field of `given` that is lost in `known`, its typed form. Kubernetes ignores
/// such fields, and a typing error would go unnoticed.
fn unknown_field(given: &Value, known: &Value) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(name, value)| {
            match known.get(name) {
                Some(known) => unknown_field(value, known),
                None => (!value.is_null()).then(String::new),
            }
            .map(|path| format!(".{name}{path}"))
        }),
        (Value::Array(given), Value::Array(known)) => {
            let pairs = given.iter().zip(known).enumerate();
            pairs.into_iter().find_map(|(index, (given, known))| {
                unknown_field(given, known).map(|path| format!("[{index}]{path}"))
            })
        }
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// An OrderedConsumer as the API server would return it, with this template.
    pub fn object(template: Value) -> OrderedConsumer {
        serde_json::from_value(json!({
            "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer",
            "metadata": {"name": "order-status", "namespace": "shop", "uid": "u1"},
            "spec": {
                "rocketmq": {"nameServers": ["ns:9876"]}, "topic": "T", "consumerGroup": "g",
                "handler": {"http": {"port": 8080}}, "template": template
            }
        }))
        .unwrap()
    }

    /// A template with one handler container.
    pub fn template() -> Value {
        json!({"spec": {"containers": [{"name": "handler", "image": "shop/handler:1"}]}})
    }

    #[test]
    fn what_cannot_be_deployed_is_refused_with_what_to_do() {
        let handler = |more: Value| {
            let mut container = json!({"name": "handler", "image": "i"});
            container
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            json!({"spec": {"containers": [container]}})
        };
        for (template, named) in [
            (json!({}), "spec.template.spec is missing"),
            (
                json!({"spec": {"containers": [{"name": 7}]}}),
                "not a pod template",
            ),
            (
                json!({"spec": {"containers": [{"name": "app"}]}}),
                "(found: app)",
            ),
            (
                json!({"spec": {"containers": [{"name": "handler"}, {"name": "executor"}]}}),
                "container \"executor\"",
            ),
            (
                handler(json!({"volumeMounts": [{"name": "keylane-rocketmq", "mountPath": "/x"}]})),
                "a mount of volume \"keylane-rocketmq\"",
            ),
            (
                handler(json!({"lifecycle": {"preStop": {"exec": {"command": ["true"]}}}})),
                "preStop",
            ),
        ] {
            let error = validate(&object(template)).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn what_keylane_sets_itself_is_refused_with_what_to_do() {
        for (field, value, named) in [
            (
                "terminationGracePeriodSeconds",
                json!(5),
                "spec.drain.timeout",
            ),
            ("restartPolicy", json!("Never"), "always restart"),
            ("automountServiceAccountToken", json!(true), "projected"),
            ("hostNetwork", json!(true), "on the node"),
            ("shareProcessNamespace", json!(true), "by /proc"),
            ("hostPID", json!(true), "by /proc"),
        ] {
            let mut template = template();
            template["spec"][field] = value;
            let error = validate(&object(template)).unwrap_err().to_string();
            assert!(error.contains(field) && error.contains(named), "{error}");
        }
        let mut object = object(template());
        let handler = |value: Value| serde_json::from_value(value).unwrap();
        for endpoint in ["http", "grpc"] {
            object.spec.consumer.handler = handler(json!({endpoint: {"port": ADMIN_PORT}}));
            let error = validate(&object).unwrap_err().to_string();
            assert!(error.contains("9403 is the executor's own"), "{error}");
            let socket = json!({endpoint: {"unixSocket": "/run/h/h.sock"}});
            object.spec.consumer.handler = handler(socket);
            let mount = json!([{"name": "own", "mountPath": "/run/h/"}]);
            object.spec.template["spec"]["containers"][0]["volumeMounts"] = mount;
            let error = validate(&object).unwrap_err().to_string();
            assert!(error.contains("mounts a volume at /run/h"), "{error}");
            object.spec.template = template();
            assert!(validate(&object).is_ok());
        }
    }

    #[test]
    fn marks_and_ports_of_keylane_are_refused() {
        let mut labelled = template();
        labelled["metadata"] = json!({"labels": {"app.kubernetes.io/managed-by": "me"}});
        let error = validate(&object(labelled)).unwrap_err().to_string();
        assert!(
            error.contains("labels[\"app.kubernetes.io/managed-by\"]"),
            "{error}"
        );
        let mut annotated = template();
        annotated["metadata"] = json!({"annotations": {"keylane.dev/config-hash": "1"}});
        let error = validate(&object(annotated)).unwrap_err().to_string();
        assert!(
            error.contains("annotations[\"keylane.dev/config-hash\"]"),
            "{error}"
        );
        let mut port = template();
        port["spec"]["containers"][0]["ports"] = json!([{"containerPort": 9402}]);
        let error = validate(&object(port)).unwrap_err().to_string();
        assert!(error.contains("containerPort 9402"), "{error}");
    }

    #[test]
    fn a_typing_error_is_named_by_its_path() {
        let mut wrong = template();
        wrong["spec"]["containers"][0]["imagePullPolcy"] = json!("Never");
        assert_eq!(
            validate(&object(wrong)).unwrap_err(),
            Invalid::UnknownField(".spec.containers[0].imagePullPolcy".into())
        );
        let mut right = template();
        right["metadata"] = json!({"annotations": {"any/thing": "1"}, "creationTimestamp": null});
        right["spec"]["containers"][0]["resources"] =
            json!({"limits": {"cpu": 2, "memory": "1Gi"}});
        right["spec"]["volumes"] = json!([{"name": "tmp", "emptyDir": {}}]);
        right["spec"]["tolerations"] = json!([]);
        validate(&object(right)).unwrap();
    }

    #[test]
    fn a_schedule_that_cannot_be_followed_is_named() {
        let with = |schedule: Value| {
            let mut object = object(template());
            object.spec.autoscaling.schedules = vec![serde_json::from_value(schedule).unwrap()];
            validate(&object)
        };
        let cron = json!({"cron": "0 25 * * *", "duration": "2h", "expectedPerSecond": 5});
        let error = with(cron).unwrap_err().to_string();
        assert!(
            error.contains("schedules[0]") && error.contains("25"),
            "{error}"
        );
        let once = json!({"start": "2026-11-11T00:00:00+08:00", "duration": "2h", "expectedPerSecond": 60000});
        assert_eq!(with(once).unwrap().schedules().len(), 1);
    }

    #[test]
    fn the_handler_is_taken_out_of_the_template() {
        let consumer = validate(&object(template())).unwrap();
        assert_eq!(consumer.handler().image.as_deref(), Some("shop/handler:1"));
        assert!(
            consumer
                .template()
                .spec
                .as_ref()
                .unwrap()
                .containers
                .is_empty()
        );
        assert_eq!(
            (consumer.name(), consumer.namespace(), consumer.uid()),
            ("order-status", "shop", "u1")
        );
    }
}
