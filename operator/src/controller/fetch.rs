//! Reads what a decision needs from Kubernetes. Only performs I/O, or looks at what watches have told.

use super::index::Name;
use super::watch::Watched;
use crate::names;
use crate::pods::PodClient;
use crate::pods::access::{Access, AccessError};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Api, Client, ResourceExt};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Pods that belong to a Deployment, as watches have told of them.
pub fn pods(watched: &Watched, consumer: &Name, deployment: &Deployment) -> Vec<Arc<Pod>> {
    let sets = watched.sets(consumer);
    let sets = sets.iter().map(|set| &set.metadata);
    owned(watched.pods(consumer), sets, deployment)
}

/// Those of the pods that belong to a Deployment by the uids of owners, `sets` being ReplicaSets: a label can
/// be set by anybody.
pub fn owned<'s>(
    pods: Vec<Arc<Pod>>,
    sets: impl Iterator<Item = &'s ObjectMeta>,
    deployment: &Deployment,
) -> Vec<Arc<Pod>> {
    let deployments: BTreeSet<String> = deployment.uid().into_iter().collect();
    let sets: BTreeSet<String> = sets
        .filter(|set| is_controlled(&set.owner_references, &deployments))
        .filter_map(|set| set.uid.clone())
        .collect();
    pods.into_iter()
        .filter(|pod| is_controlled(&pod.metadata.owner_references, &sets))
        .collect()
}

/// Whether one of these uids controls an object.
pub fn is_controlled(owners: &Option<Vec<OwnerReference>>, by: &BTreeSet<String>) -> bool {
    let mut owners = owners.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && by.contains(&owner.uid))
}

/// The Deployment of a consumer as watches have told of it.
pub fn deployment(watched: &Watched, consumer: &Name, uid: &str) -> Option<Arc<Deployment>> {
    let (name, by) = (names::child(&consumer.1), BTreeSet::from([uid.to_owned()]));
    watched.deployments(consumer).into_iter().find(|found| {
        found.name_any() == name && is_controlled(&found.metadata.owner_references, &by)
    })
}

/// The address of a pod, once it has one.
pub fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref()
}

/// Whether a pod is about to go.
pub fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether a pod should answer: it is ready and not about to go.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && !is_ending(pod)
}

/// Why the pods of a consumer cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// The Secret cannot be read.
    #[error("the Secret of the admin API cannot be read: {0}")]
    Api(#[from] kube::Error),
    /// The Secret is of no use.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// A client of the pods of a consumer; none if they have no Secret yet.
pub async fn pod_client(
    client: &Client,
    consumer: &Name,
) -> Result<Option<PodClient>, Unreachable> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &consumer.0);
    let secret = secrets.get_opt(&names::admin_secret(&consumer.1)).await?;
    let Some(secret) = secret else {
        return Ok(None);
    };
    let access = Access::of(&secret, &names::admin_server(&consumer.0, &consumer.1))?;
    Ok(Some(PodClient::new(&access)?))
}
