//! Finds the pods of an OrderedConsumer and asks them. They are known by the uids of their owners: a label
//! can be set by anybody.

use super::api::{ConsumerStats, PodStats};
use crate::controller::fetch::{self, Unreachable};
use crate::crd::OrderedConsumer;
use crate::names;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use std::sync::Arc;

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The API server refuses or does not answer.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The pods cannot be called.
    #[error(transparent)]
    Pods(#[from] Unreachable),
}

/// What the pods of an OrderedConsumer say; an error of code 404 if there is none of that name.
pub async fn ask(client: &Client, namespace: &str, name: &str) -> Result<ConsumerStats, LiveError> {
    let consumers: Api<OrderedConsumer> = Api::namespaced(client.clone(), namespace);
    let consumer = consumers.get(name).await?;
    let mut pods = pods(client, namespace, &consumer).await?;
    pods.sort_by_key(|pod| pod.name_any());
    let of = (namespace.to_owned(), name.to_owned());
    let addressed = pods
        .iter()
        .filter_map(|pod| Some((pod.name_any(), fetch::address(pod)?.to_owned())));
    let (names, addresses): (Vec<_>, Vec<_>) = addressed.unzip();
    let answers = match fetch::pod_client(client, &of).await? {
        Some(client) => client.stats(&addresses).await,
        None => Vec::new(),
    };
    let pods = names.into_iter().zip(answers).map(|(name, answer)| {
        let (stats, error) = match answer {
            Ok(stats) => (Some(stats), None),
            Err(error) => (None, Some(error.to_string())),
        };
        PodStats { name, stats, error }
    });
    Ok(ConsumerStats::new(namespace, name, pods.collect()))
}

async fn pods(
    client: &Client,
    namespace: &str,
    consumer: &OrderedConsumer,
) -> Result<Vec<Arc<Pod>>, kube::Error> {
    let name = consumer.name_any();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let found = deployments.get_opt(&names::child(&name)).await?;
    let ours = found.filter(|found| {
        let by = consumer.uid().into_iter().collect();
        fetch::is_controlled(&found.metadata.owner_references, &by)
    });
    let Some(deployment) = ours else {
        return Ok(Vec::new());
    };
    let labelled = ListParams::default().labels(&format!("{}={name}", names::NAME_LABEL));
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let (sets, pods) = futures::try_join!(sets.list(&labelled), pods.list(&labelled))?;
    let shared = pods.into_iter().map(Arc::new).collect();
    Ok(fetch::owned(
        shared,
        sets.iter().map(|set| &set.metadata),
        &deployment,
    ))
}
