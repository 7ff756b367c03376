//! Which pods go first when there are to be fewer: a hint for the ReplicaSet, in the annotation
//! `controller.kubernetes.io/pod-deletion-cost`. Those with the fewest queues, and of these the ones with
//! the fewest running calls: the least has to move and to be waited for.
//!
//! Written only right before fewer pods are asked for. Kubernetes documents it as best effort, and so it is
//! here: without it some other pod goes, and nothing else is different.

use super::Context;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use keylane_consumer::contract::admin::{QueuePhase, Stats};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tracing::debug;

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// A queue that moves weighs more than any number of calls.
const QUEUE: i32 = 100_000;

/// What the end of a pod would cost.
pub fn cost(pod: &Stats) -> i32 {
    let queues = pod.queues.iter();
    let owned = queues.filter(|queue| queue.phase == QueuePhase::Owned);
    let owned = i32::try_from(owned.count()).unwrap_or(i32::MAX);
    let calls = i32::try_from(pod.busy_lanes).unwrap_or(i32::MAX);
    owned
        .saturating_mul(QUEUE)
        .saturating_add(calls.min(QUEUE - 1))
}

/// Writes the costs of pods, by name.
pub async fn hint(context: &Context, namespace: &str, costs: &[(String, i32)]) {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let writes = costs.iter().map(|(name, cost)| {
        let patch = json!({"metadata": {"annotations": {COST: cost.to_string()}}});
        let api = &api;
        async move {
            let written = api
                .patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch))
                .await;
            if let Err(error) = written {
                debug!("{name}: its deletion cost is not written: {error}");
            }
        }
    });
    join_all(writes).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use keylane_consumer::contract::admin::QueueStats;

    fn pod(phases: &[QueuePhase], busy_lanes: u32) -> Stats {
        let queues = phases.iter().map(|phase| QueueStats {
            phase: *phase,
            ..QueueStats::default()
        });
        Stats {
            queues: queues.collect(),
            busy_lanes,
            ..Stats::default()
        }
    }

    #[test]
    fn queues_weigh_more_than_calls_and_only_owned_ones_do() {
        let (owned, waiting) = (QueuePhase::Owned, QueuePhase::Waiting);
        let costs = [
            cost(&pod(&[], 0)),
            cost(&pod(&[waiting], 7)),
            cost(&pod(&[owned], 0)),
            cost(&pod(&[owned], 512)),
            cost(&pod(&[owned, owned], 0)),
            cost(&pod(&[owned; 30_000], u32::MAX)),
        ];
        assert!(costs.is_sorted_by(|one, next| one < next), "{costs:?}");
    }
}
