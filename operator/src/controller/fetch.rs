//! Reads what a decision needs from Kubernetes. Only performs I/O.

use super::build::selector;
use super::validate::Consumer;
use crate::names;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use std::collections::BTreeSet;

/// The pods of a consumer, and the token they know.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    /// Addresses of all pods that have one, those that are stopping too: they still finish messages.
    pub addresses: Vec<String>,
    /// Which of them should answer: they are ready and not about to go.
    pub ready: BTreeSet<String>,
    /// The admin token.
    pub token: String,
}

/// Lists pods that belong to the Deployment by the uids of owners: a label can be set by anybody.
pub async fn pods(
    client: &Client,
    consumer: &Consumer,
    deployment: &Deployment,
) -> Result<Pods, kube::Error> {
    let labels: Vec<_> = selector(consumer)
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let list = ListParams::default().labels(&labels.join(","));
    let namespace = consumer.namespace();
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), namespace);
    let ours = |owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference],
                uids: &BTreeSet<String>| {
        owners
            .iter()
            .any(|owner| owner.controller == Some(true) && uids.contains(&owner.uid))
    };
    let deployments: BTreeSet<String> = deployment.uid().into_iter().collect();
    let sets: BTreeSet<String> = sets
        .list(&list)
        .await?
        .into_iter()
        .filter(|set| ours(set.owner_references(), &deployments))
        .filter_map(|set| set.uid())
        .collect();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods: Vec<Pod> = pods
        .list(&list)
        .await?
        .into_iter()
        .filter(|pod| ours(pod.owner_references(), &sets))
        .collect();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = secrets
        .get_opt(&names::admin_secret(consumer.name()))
        .await?;
    let token = secret.and_then(|secret| secret.data?.remove(names::TOKEN_FILE));
    let address = |pod: &Pod| pod.status.as_ref()?.pod_ip.clone();
    Ok(Pods {
        addresses: pods.iter().filter_map(address).collect(),
        ready: pods
            .iter()
            .filter(|pod| is_ready(pod))
            .filter_map(address)
            .collect(),
        token: token
            .map(|token| String::from_utf8_lossy(&token.0).into_owned())
            .unwrap_or_default(),
    })
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}
