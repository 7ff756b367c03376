//! Names of everything the operator makes.

/// Field manager of server-side apply.
pub const FIELD_MANAGER: &str = "keylane.dev/operator";
/// Reporter of Events.
pub const REPORTER: &str = "keylane-operator";
/// Container of the executor in a consumer pod.
pub const EXECUTOR_CONTAINER: &str = "executor";
/// Annotation of the pod template that changes exactly when pods must be replaced because of the
/// configuration.
pub const CONFIG_HASH: &str = "keylane.dev/config-hash";
/// Annotation of a pod with the container that kubectl means when none is named.
pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Annotations of a pod with ports that service meshes (Istio, Linkerd) leave alone, separated by commas.
pub const MESH_EXCLUSIONS: [&str; 2] = [
    "traffic.sidecar.istio.io/excludeInboundPorts",
    "config.linkerd.io/skip-inbound-ports",
];
/// Annotation of an OrderedConsumer that asks for a reset of its group's offsets.
pub const RESET_OFFSETS: &str = "keylane.dev/reset-offsets";
/// Prefix of labels and annotations that only Keylane sets on pods.
pub const PREFIX: &str = "keylane.dev/";
/// Label that says who made an object; ours carry `keylane`.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Annotation of the Deployment that tells which pod template it has.
pub const TEMPLATE_HASH: &str = "keylane.dev/template-hash";
/// Label that carries the name of the OrderedConsumer.
pub const NAME_LABEL: &str = "keylane.dev/ordered-consumer";
/// Key of the configuration in the ConfigMap.
pub const CONFIG_FILE: &str = "consumer.yaml";
/// Key of the number of lanes a pod starts with in the ConfigMap.
pub const START_LANES: &str = "lanes";
/// Environment variable of the executor with the uid of its pod.
pub const POD_UID_VARIABLE: &str = "POD_UID";
/// Environment variable of the executor with the number of lanes it starts with.
pub const START_LANES_VARIABLE: &str = "KEYLANE_START_LANES";
/// Environment variables that users must leave alone.
pub const RESERVED_VARIABLES: [&str; 2] = [POD_UID_VARIABLE, START_LANES_VARIABLE];
/// Where the configuration is mounted in the executor.
pub const CONFIG_DIR: &str = "/etc/keylane";
/// Where the Secret with what opens the admin API is mounted in the executor.
pub const ADMIN_DIR: &str = "/etc/keylane-admin";
/// Where what lets us into RocketMQ is mounted in the executor.
pub const ROCKETMQ_DIR: &str = "/etc/keylane-rocketmq";

/// Name of the Deployment, ConfigMap, ServiceAccount, Service and PodDisruptionBudget of a consumer.
pub fn child(consumer: &str) -> String {
    format!("{consumer}-keylane")
}

/// Name of the ConfigMap with the last decisions and what they were made of.
pub fn decisions(consumer: &str) -> String {
    format!("{consumer}-keylane-decisions")
}

/// The name that pods of a consumer are known by in their certificate: that of their Service.
pub fn admin_server(namespace: &str, consumer: &str) -> String {
    format!("{}.{namespace}.svc", child(consumer))
}

/// Name of the Secret with what opens the admin API.
pub fn admin_secret(consumer: &str) -> String {
    format!("{consumer}-keylane-admin")
}
