//! From a valid consumer to the children it should have. Pure.

mod companions;
mod deployment;
mod network;

pub use companions::decisions;
pub use network::{Guests, network_policy};

use super::validate::Consumer;
use crate::names;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// The children of a consumer, in the order in which they must exist: what a pod mounts before the pod.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Identity of the pods; its token is not mounted.
    pub service_account: ServiceAccount,
    /// The executor's configuration.
    pub config_map: ConfigMap,
    /// What opens the admin API. Made once; of an existing one only the certificate is exchanged.
    pub secret: Secret,
    /// Names the pods.
    pub service: Service,
    /// At most one pod at a time is evicted.
    pub disruption_budget: PodDisruptionBudget,
    /// The pods.
    pub deployment: Deployment,
}

/// Why children cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configuration cannot be rendered.
    #[error("the executor's configuration cannot be rendered: {0}")]
    Render(#[from] serde_norway::Error),
    /// A child does not fit its Kubernetes type.
    #[error("a child does not fit its type: {0}")]
    Type(#[from] serde_json::Error),
}

/// Labels that select the pods of a consumer.
pub fn selector(consumer: &Consumer) -> BTreeMap<String, String> {
    BTreeMap::from([
        (names::NAME_LABEL.to_owned(), consumer.name().to_owned()),
        (names::MANAGED_BY.to_owned(), "keylane".to_owned()),
    ])
}

/// The same as a selector's text.
pub fn selector_text(consumer: &Consumer) -> String {
    let labels = selector(consumer).into_iter();
    let labels: Vec<_> = labels
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    labels.join(",")
}

/// A pod of a Deployment's template, to be tried and not to be kept.
pub fn pod(deployment: &Deployment) -> Option<Pod> {
    let template = &deployment.spec.as_ref()?.template;
    Some(Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", deployment.metadata.name.as_ref()?)),
            namespace: deployment.metadata.namespace.clone(),
            ..template.metadata.clone().unwrap_or_default()
        },
        spec: template.spec.clone(),
        ..Pod::default()
    })
}

/// FNV-1a: the same in every version of the operator, or an upgrade would replace all pods.
pub fn hash(text: &str) -> String {
    let start = 0xcbf2_9ce4_8422_2325;
    let hash = text.bytes().fold(start, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Builds all children. `access` is for a Secret that does not exist yet.
pub fn build(
    consumer: &Consumer,
    executor_image: &str,
    access: BTreeMap<String, String>,
) -> Result<Resources, BuildError> {
    let config = companions::fixed_configuration(consumer)?;
    Ok(Resources {
        service_account: companions::service_account(consumer),
        secret: companions::secret(consumer, access),
        service: companions::service(consumer),
        disruption_budget: companions::disruption_budget(consumer),
        deployment: deployment::deployment(consumer, executor_image, &config)?,
        config_map: companions::config_map(consumer)?,
    })
}

fn metadata(consumer: &Consumer, name: String) -> ObjectMeta {
    let mut labels = selector(consumer);
    labels.insert(
        "app.kubernetes.io/name".to_owned(),
        "keylane-consumer".to_owned(),
    );
    ObjectMeta {
        name: Some(name),
        namespace: Some(consumer.namespace().to_owned()),
        labels: Some(labels),
        owner_references: Some(vec![consumer.owner().clone()]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::validate::{tests, validate};
    use keylane_consumer::config::Config;
    use serde_json::json;
    use std::path::Path;

    fn resources(template: serde_json::Value) -> Resources {
        build(
            &validate(&tests::object(template)).unwrap(),
            "keylane-consumer:1",
            BTreeMap::new(),
        )
        .unwrap()
    }

    #[test]
    fn the_executor_can_read_the_configuration_that_is_rendered() {
        let built = resources(tests::template());
        let text = &built.config_map.data.unwrap()[names::CONFIG_FILE];
        let config = Config::parse(text, Path::new("consumer.yaml")).unwrap();
        assert_eq!(config.name(), "order-status");
        assert_eq!(config.spec().topic, "T");
    }

    #[test]
    fn the_handler_is_a_native_sidecar_and_the_executor_the_last_container() {
        let built = resources(json!({
            "metadata": {"labels": {"team": "shop"}},
            "spec": {"containers": [{"name": "handler", "image": "h"}, {"name": "log", "image": "l"}],
                     "initContainers": [{"name": "first", "image": "f"}]}
        }));
        let template = built.deployment.spec.unwrap().template;
        assert_eq!(template.metadata.unwrap().labels.unwrap()["team"], "shop");
        let pod = template.spec.unwrap();
        let init = pod.init_containers.unwrap();
        let handler = init.last().unwrap();
        assert_eq!(
            (handler.name.as_str(), handler.restart_policy.as_deref()),
            ("handler", Some("Always"))
        );
        assert_eq!(pod.containers.last().unwrap().name, "executor");
        assert_eq!(pod.containers.len(), 2);
        assert_eq!(pod.termination_grace_period_seconds, Some(80));
        assert_eq!(pod.automount_service_account_token, Some(false));
    }

    #[test]
    fn a_new_pod_is_there_before_an_old_one_goes() {
        let built = resources(tests::template());
        let strategy = built.deployment.spec.unwrap().strategy.unwrap();
        let strategy = serde_json::to_value(strategy).unwrap();
        assert_eq!(
            strategy["rollingUpdate"],
            json!({"maxSurge": 1, "maxUnavailable": 0})
        );
    }

    #[test]
    fn handler_and_executor_share_the_directory_of_a_socket_and_nothing_else() {
        let mut object = tests::object(tests::template());
        let grpc = json!({"grpc": {"unixSocket": "/run/orders/handler.sock"}});
        object.spec.consumer.handler = serde_json::from_value(grpc).unwrap();
        let built = build(&validate(&object).unwrap(), "i", BTreeMap::new()).unwrap();
        let built = serde_json::to_value(built.deployment.spec.unwrap().template).unwrap();
        let pod = &built["spec"];
        let mount = json!({"name": "keylane-socket", "mountPath": "/run/orders"});
        assert_eq!(
            pod["initContainers"][0]["volumeMounts"],
            json!([mount.clone()])
        );
        let executor = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        assert_eq!(executor.last(), Some(&mount));
        let volumes = pod["volumes"].as_array().unwrap();
        let shared = json!({"name": "keylane-socket", "emptyDir": {}});
        assert_eq!(volumes.last(), Some(&shared));
        // Without one there is nothing to share.
        let plain = resources(tests::template()).deployment.spec.unwrap();
        let plain = serde_json::to_string(&plain.template).unwrap();
        assert!(!plain.contains("keylane-socket"));
    }

    #[test]
    fn what_lets_us_into_rocketmq_is_in_the_executor_alone_and_only_what_is_needed_of_it() {
        let mut object = tests::object(tests::template());
        let rocketmq = json!({
            "nameServers": ["ns:9876"], "credentialsSecretRef": {"name": "mq-acl"},
            "tls": {"caSecretRef": {"name": "mq-tls"}, "clientCertificateSecretRef": {"name": "mq-tls"}}
        });
        object.spec.consumer.rocketmq = serde_json::from_value(rocketmq).unwrap();
        let built = build(&validate(&object).unwrap(), "i", BTreeMap::new()).unwrap();
        let built = serde_json::to_value(built.deployment.spec.unwrap().template).unwrap();
        let pod = &built["spec"];
        let volumes = pod["volumes"].as_array().unwrap();
        let sources = &volumes.last().unwrap()["projected"]["sources"];
        let sources = sources.as_array().unwrap().iter();
        let keys = sources.map(|source| {
            let (secret, item) = (&source["secret"], &source["secret"]["items"][0]);
            format!(
                "{}/{}",
                secret["name"].as_str().unwrap(),
                item["key"].as_str().unwrap()
            )
        });
        assert_eq!(
            keys.collect::<Vec<_>>(),
            [
                "mq-acl/accessKey",
                "mq-acl/secretKey",
                "mq-tls/ca.crt",
                "mq-tls/tls.crt",
                "mq-tls/tls.key"
            ]
        );
        let executor = pod["containers"][0].to_string();
        assert!(
            executor.contains("--rocketmq-secrets=/etc/keylane-rocketmq"),
            "{executor}"
        );
        assert!(
            executor.contains(r#""name":"keylane-rocketmq""#),
            "{executor}"
        );
        assert!(
            !pod["initContainers"]
                .to_string()
                .contains("keylane-rocketmq")
        );
        let plain = resources(tests::template()).deployment.spec.unwrap();
        let plain = serde_json::to_string(&plain.template).unwrap();
        assert!(!plain.contains("rocketmq"), "{plain}");
    }

    #[test]
    fn meshes_leave_our_ports_alone_and_what_the_user_says_stays() {
        let [istio, linkerd] = names::MESH_EXCLUSIONS;
        let annotations = |template| {
            let template = resources(template).deployment.spec.unwrap().template;
            template.metadata.unwrap().annotations.unwrap()
        };
        let plain = annotations(tests::template());
        assert_eq!(plain[istio], "9401,9402,9403");
        assert_eq!(plain[linkerd], "9401,9402,9403");
        assert_eq!(plain[names::DEFAULT_CONTAINER], "handler");
        let mut own = tests::template();
        own["metadata"] =
            json!({"annotations": {istio: "7, 9402", names::DEFAULT_CONTAINER: "log", "a": "b"}});
        let merged = annotations(own);
        assert_eq!(merged[istio], "7, 9402,9401,9403");
        assert_eq!(
            (
                merged[names::DEFAULT_CONTAINER].as_str(),
                merged["a"].as_str()
            ),
            ("log", "b")
        );
    }

    #[test]
    fn everything_else_of_the_users_template_is_in_the_pods() {
        let mut template = tests::template();
        let spec = json!({
            "affinity": {"nodeAffinity": {}}, "tolerations": [{"operator": "Exists"}],
            "nodeSelector": {"disk": "ssd"}, "priorityClassName": "high", "hostAliases": [],
            "topologySpreadConstraints": [], "dnsPolicy": "Default", "runtimeClassName": "gvisor",
            "volumes": [{"name": "tmp", "emptyDir": {}}], "serviceAccountName": "cloud",
            "securityContext": {"fsGroup": 7}, "imagePullSecrets": [{"name": "pull"}]
        });
        for (field, value) in spec.as_object().unwrap() {
            template["spec"][field] = value.clone();
        }
        let container = json!({
            "name": "handler", "image": "h", "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
            "lifecycle": {"postStart": {"exec": {"command": ["true"]}}},
            "resources": {"limits": {"cpu": "1"}}, "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]
        });
        template["spec"]["containers"][0] = container.clone();
        let built = resources(template).deployment.spec.unwrap().template;
        let built = serde_json::to_value(built).unwrap();
        let pod = &built["spec"];
        for (field, value) in spec.as_object().unwrap() {
            let same = match (&pod[field], value) {
                (serde_json::Value::Array(built), serde_json::Value::Array(given)) => {
                    given.iter().all(|one| built.contains(one))
                }
                (built, given) => built == given,
            };
            assert!(same, "{field}: {}", pod[field]);
        }
        for (field, value) in container.as_object().unwrap() {
            assert_eq!(&pod["initContainers"][0][field], value, "{field}");
        }
    }

    #[test]
    fn replicas_and_lanes_do_not_replace_pods_but_the_configuration_does() {
        let pods = |change: &dyn Fn(&mut crate::crd::OrderedConsumer)| {
            let mut object = tests::object(tests::template());
            change(&mut object);
            let built = build(&validate(&object).unwrap(), "i", BTreeMap::new()).unwrap();
            built.deployment.spec.unwrap().template
        };
        let plain = pods(&|_| {});
        assert_eq!(plain, pods(&|object| object.spec.replicas = 7));
        assert_eq!(
            plain,
            pods(&|object| object.spec.autoscaling.max_replicas = 70)
        );
        assert_eq!(plain, pods(&|object| object.spec.consumer.lanes.min = 7));
        assert_eq!(plain, pods(&|object| object.spec.consumer.lanes.max = 7));
        assert_eq!(
            plain,
            pods(&|object| object.spec.consumer.suspend.all = true)
        );
        assert_eq!(plain, pods(&|object| object.spec.consumer.limits.span = 7));
        assert_eq!(
            plain,
            pods(&|object| object.spec.consumer.retry.max_attempts = 7)
        );
        assert_eq!(
            plain,
            pods(&|object| object.spec.consumer.redact_keys = true)
        );
        assert_ne!(
            plain,
            pods(&|object| object.spec.consumer.handler.batch.max_messages = 9)
        );
        assert_ne!(
            plain,
            pods(&|object| object.spec.consumer.handler.http.as_mut().unwrap().port = Some(9))
        );
    }
}
