//! Which pods go first when there are to be fewer: a hint for the ReplicaSet, in the annotation
//! `controller.kubernetes.io/pod-deletion-cost`. Those with the fewest queues, and of these the ones with
//! the fewest running calls: the least has to move and to be waited for.
//!
//! Written only right before fewer pods are asked for, and taken away once they are gone: a cost that stays
//! is wrong soon. Never during a rollout: a ReplicaSet compares its own pods only, and which of two gets
//! smaller is the Deployment's business. A template that sets the annotation itself is left alone. Kubernetes
//! documents it as best effort, and so it is here: without it some other pod goes, and nothing else is
//! different.

use super::validate::Consumer;
use super::{Context, fetch};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use keylane_consumer::contract::admin::{QueuePhase, Stats};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::debug;

/// The annotation.
pub const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// A queue that moves weighs more than any number of calls.
const QUEUE: i32 = 100_000;
/// Costs stay so long at least: watches may lag behind what was written.
const KEPT: Duration = Duration::from_secs(30);

/// When costs were last written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hinted(Option<Instant>);

impl Hinted {
    fn long_ago(self, now: Instant) -> bool {
        self.0
            .is_none_or(|at| now.saturating_duration_since(at) >= KEPT)
    }
}

/// Whether the annotation is Keylane's to write.
fn is_ours(consumer: &Consumer) -> bool {
    let metadata = consumer.template().metadata.as_ref();
    let annotations = metadata.and_then(|metadata| metadata.annotations.as_ref());
    annotations.is_none_or(|annotations| !annotations.contains_key(COST))
}

/// Whether all pods are of one ReplicaSet: no rollout is on.
fn one_set(pods: &[Arc<Pod>]) -> bool {
    let owners = pods.iter().flat_map(|pod| pod.owner_references());
    let sets = owners.filter(|owner| owner.controller == Some(true));
    sets.map(|owner| &owner.uid).collect::<BTreeSet<_>>().len() <= 1
}

/// Whether nothing runs in a pod that is still told of, such as an evicted one: no ReplicaSet counts it.
fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|is| is.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Pods that stay and have a cost, though no more of them are to go.
fn marked(pods: &[Arc<Pod>], wanted: usize) -> Vec<&Pod> {
    let stay = pods.iter().filter(|pod| !fetch::is_ending(pod));
    let stay = stay.map(|pod| &**pod);
    let stay: Vec<_> = stay.filter(|pod| !has_ended(pod)).collect();
    if stay.len() > wanted {
        return Vec::new();
    }
    let marked = stay
        .into_iter()
        .filter(|pod| pod.annotations().contains_key(COST));
    marked.collect()
}

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

/// Writes the costs of pods, by name, before some of them go.
pub async fn hint(
    context: &Context,
    hinted: &mut Hinted,
    consumer: &Consumer,
    pods: &[Arc<Pod>],
    costs: &[(String, i32)],
) {
    if is_ours(consumer) && one_set(pods) {
        *hinted = Hinted(Some(Instant::now()));
        let named = pods.iter().map(|pod| (pod.name_any(), &**pod));
        let named: BTreeMap<_, _> = named.collect();
        let costs = costs.iter();
        let changes = costs.filter_map(|(name, cost)| change(named.get(name)?, Some(*cost)));
        let changes: Vec<_> = changes.collect();
        write(context, consumer, &changes).await;
    }
}

/// Takes costs away where as few pods are left as are wanted.
pub async fn clear(
    context: &Context,
    hinted: Hinted,
    consumer: &Consumer,
    pods: &[Arc<Pod>],
    wanted: u32,
) {
    if is_ours(consumer) && hinted.long_ago(Instant::now()) {
        let marked = marked(pods, wanted as usize).into_iter();
        let changes: Vec<_> = marked.filter_map(|pod| change(pod, None)).collect();
        write(context, consumer, &changes).await;
    }
}

/// What changes of a pod; no cost: the annotation goes. It carries the uid, so that another pod that has the
/// name by now is not touched.
fn change(pod: &Pod, cost: Option<i32>) -> Option<(String, Value)> {
    let cost = cost.map(|cost| cost.to_string());
    let patch = json!({"metadata": {"uid": pod.uid()?, "annotations": {COST: cost}}});
    Some((pod.name_any(), patch))
}

/// Writes changes of pods, by name.
async fn write(context: &Context, consumer: &Consumer, changes: &[(String, Value)]) {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), consumer.namespace());
    let writes = changes.iter().map(|(name, patch)| {
        let api = &api;
        async move {
            let written = api
                .patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch))
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
    use crate::controller::validate::{tests, validate};
    use keylane_consumer::contract::admin::QueueStats;

    fn object(set: &str, cost: bool, ending: bool) -> Arc<Pod> {
        let mut pod = json!({"metadata": {
            "name": format!("pod-{set}-{cost}-{ending}"), "uid": format!("uid-{set}"),
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": set, "controller": true
            }]
        }});
        if cost {
            pod["metadata"]["annotations"] = json!({COST: "7"});
        }
        if ending {
            pod["metadata"]["deletionTimestamp"] = json!("2026-11-11T00:00:00Z");
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn costs_are_written_for_pods_of_one_set_and_taken_from_those_that_stay() {
        let (old, new) = (object("a", true, false), object("b", false, false));
        assert!(one_set(&[]) && one_set(&[old.clone(), old.clone()]));
        assert!(!one_set(&[old.clone(), new]));
        let (bare, going) = (object("a", false, false), object("a", true, true));
        let mut evicted = Pod::clone(&object("a", true, false));
        evicted.status.get_or_insert_default().phase = Some("Failed".to_owned());
        let pods = [old.clone(), bare, going, Arc::new(evicted)];
        // Of two that stay one is to go yet.
        assert!(marked(&pods, 1).is_empty());
        assert_eq!(marked(&pods, 2), [&*old]);
        let now = Instant::now();
        assert!(Hinted::default().long_ago(now));
        assert!(!Hinted(Some(now)).long_ago(now + KEPT / 2));
        assert!(Hinted(Some(now)).long_ago(now + KEPT));
    }

    #[test]
    fn a_change_is_of_one_very_pod_and_of_its_cost_alone() {
        let mut pod = Pod::clone(&object("a", true, false));
        let written = json!({"metadata": {"uid": "uid-a", "annotations": {COST: "7"}}});
        assert_eq!(change(&pod, Some(7)), Some((pod.name_any(), written)));
        let taken = json!({"metadata": {"uid": "uid-a", "annotations": {COST: null}}});
        assert_eq!(change(&pod, None), Some((pod.name_any(), taken)));
        pod.metadata.uid = None;
        assert_eq!(change(&pod, Some(7)), None);
    }

    #[test]
    fn a_template_that_says_what_its_pods_cost_is_left_alone() {
        let of = |annotations: Value| {
            let mut template = tests::template();
            template["metadata"]["annotations"] = annotations;
            is_ours(&validate(&tests::object(template)).unwrap())
        };
        assert!(of(json!({"team": "shop"})));
        assert!(!of(json!({COST: "5"})));
    }

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
