//! What the cluster tells of the pods of a consumer, from when it is told.

use super::look::Look;
use crate::record::now;
use anyhow::Result;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use keylane_tests::judge::Micros;
use keylane_tests::stack::Stack;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// News of a run on a cluster.
pub enum News {
    /// A pod was told of, then.
    Pod(Micros, Look),
    /// A server that was away serves again; the event that took it away.
    Serves(usize),
}

/// Sends what is told of the pods of a consumer, until this is dropped.
pub async fn follow(
    stack: &Stack,
    consumer: &str,
    news: mpsc::UnboundedSender<News>,
) -> Result<AbortOnDropHandle<()>> {
    let client = stack.cluster().client().await?;
    let pods: Api<Pod> = Api::namespaced(client, stack.namespace());
    let only =
        watcher::Config::default().labels(&format!("keylane.dev/ordered-consumer={consumer}"));
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        let mut changes = std::pin::pin!(watch(pods, only).default_backoff());
        while let Some(change) = changes.next().await {
            let (pod, vanished) = match change {
                Ok(Event::Apply(pod) | Event::InitApply(pod)) => (pod, false),
                Ok(Event::Delete(pod)) => (pod, true),
                Ok(Event::Init | Event::InitDone) => continue,
                // It goes on by itself.
                Err(error) => {
                    eprintln!("the watch of pods broke off: {error}");
                    continue;
                }
            };
            if news
                .send(News::Pod(now(), Look::of(&pod, vanished)))
                .is_err()
            {
                return;
            }
        }
    })))
}
