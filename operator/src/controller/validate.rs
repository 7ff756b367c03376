//! From the raw resource to one that the rest of the code may rely on. Pure: takes no client. Nothing
//! after this reads the raw spec again.

use crate::crd::OrderedConsumer;
use crate::names;
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keylane_consumer::contract::spec::ConsumerSpec;
use kube::{Resource, ResourceExt};

pub use crate::crd::{Autoscaling, Executor};

/// Why an OrderedConsumer cannot be deployed: a person must change it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The template is not a pod template.
    #[error("spec.template is not a pod template: {0}")]
    Template(String),
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
    /// A hook that would end the handler before the executor has drained.
    #[error(
        "spec.template: container {0:?} has a preStop hook, which Kubernetes runs as soon as the pod is to stop, while calls still run; handle SIGTERM instead, it comes after the executor has drained"
    )]
    PreStop(String),
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
    executor: Executor,
    template: PodTemplateSpec,
    handler: Container,
}

impl Consumer {
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
    let pod = template
        .spec
        .as_mut()
        .ok_or_else(|| Invalid::Template("spec.template.spec is missing".into()))?;
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
    let init = pod.init_containers.iter().flatten();
    for container in pod.containers.iter().chain(init).chain([&handler]) {
        if container.name == names::EXECUTOR_CONTAINER {
            return Err(Invalid::Reserved {
                what: "a container",
                name: container.name.clone(),
            });
        }
    }
    if let Some(volume) = pod
        .volumes
        .iter()
        .flatten()
        .find(|volume| volume.name.starts_with("keylane-"))
    {
        return Err(Invalid::Reserved {
            what: "a volume",
            name: volume.name.clone(),
        });
    }
    if handler
        .lifecycle
        .as_ref()
        .is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
    {
        return Err(Invalid::PreStop(handler.name));
    }
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
        executor: spec.executor.clone(),
        template,
        handler,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

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
                handler(json!({"lifecycle": {"preStop": {"exec": {"command": ["true"]}}}})),
                "preStop",
            ),
        ] {
            let error = validate(&object(template)).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
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
