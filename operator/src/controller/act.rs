//! The last part of a round: keeps the decision that is in the status, and carries it out.

use super::Context;
use super::look::Pods;
use super::record::{consumers, publish};
use super::state::State;
use super::status::{Findings, Happened};
use super::validate::Consumer;
use super::{replay, retire};
use crate::crd::{Mode, OrderedConsumer};
use crate::names;
use crate::scale::Decision;
use keylane_consumer::contract::admin::LaneTarget;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::collections::BTreeMap;
use tracing::{info, warn};

/// Keeps what changes something, pushes lanes to pods, and writes replicas if they are ours to write.
pub async fn act(
    context: &Context,
    state: &mut State,
    object: &OrderedConsumer,
    consumer: &Consumer,
    found: &Findings,
    pods: &Pods,
) {
    let Some(decision) = &found.decision else {
        return;
    };
    if !context.tenure.holds() {
        return;
    }
    if let Some(recorded) = &found.recorded {
        replay::keep(context, state, consumer, recorded).await;
    }
    state.sequence += 1;
    let (term, sequence) = (context.tenure.term(), state.sequence);
    let targets = lanes(decision, &pods.addresses, &pods.incarnations);
    let targets = targets.map(|(address, lanes)| {
        let target = LaneTarget {
            lanes,
            term,
            sequence,
        };
        (address.to_owned(), target)
    });
    let targets: Vec<_> = targets.collect();
    let told = match state.pods() {
        Some(client) => client.set_lanes(&targets).await,
        None => Vec::new(),
    };
    for error in told {
        context.metrics.failed("lanes");
        info!("{}: {error}", object.name_any());
    }
    if !context.tenure.holds() {
        return;
    }
    if consumer.replicas().unsigned_abs() <= decision.replicas {
        let wanted = decision.replicas;
        retire::clear(context, state.hinted, consumer, &pods.objects, wanted).await;
    }
    if object.spec.autoscaling.mode == Mode::Auto {
        scale(context, state, object, consumer, decision, pods).await;
    }
}

/// Lanes of the pod at each address. Where pods differ nothing is said of one that did not answer: it may be one
/// that has fewer, and keeps them until it is known.
fn lanes<'p>(
    decision: &Decision,
    addresses: &'p [String],
    incarnations: &BTreeMap<String, String>,
) -> impl Iterator<Item = (&'p str, u32)> {
    addresses.iter().filter_map(move |address| {
        let lanes = match incarnations.get(address) {
            Some(incarnation) => decision.lanes_of(incarnation),
            None if decision.fewer_lanes.is_empty() => decision.lanes,
            None => return None,
        };
        Some((address.as_str(), lanes))
    })
}

/// Replicas are written only if nothing of the object has changed since the decision was recorded, so a
/// change by somebody else is never undone unseen; the next round decides with it.
async fn scale(
    context: &Context,
    state: &mut State,
    object: &OrderedConsumer,
    consumer: &Consumer,
    decision: &Decision,
    pods: &Pods,
) {
    let wanted = i32::try_from(decision.replicas).unwrap_or(i32::MAX);
    if wanted == object.spec.replicas {
        return;
    }
    if wanted < object.spec.replicas {
        let hinted = &mut state.hinted;
        retire::hint(context, hinted, consumer, &pods.objects, &pods.costs).await;
    }
    let watched = object.resource_version().unwrap_or_default();
    let patch = json!({
        "metadata": {"resourceVersion": state.version(&watched)},
        "spec": {"replicas": wanted},
    });
    let parameters = PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let api = consumers(context, object);
    let written = api
        .patch_scale(&object.name_any(), &parameters, &Patch::Merge(&patch))
        .await;
    match written {
        Ok(written) => {
            let made = written.metadata.resource_version.unwrap_or_default();
            state.made(&watched, made);
            let happened = scaled(decision, object.spec.replicas, wanted);
            info!("{}: {}", object.name_any(), happened.note);
            publish(context, state, object, happened).await;
        }
        Err(error) => {
            state.step_not_taken();
            context.metrics.failed("scale");
            warn!("{}: replicas cannot be written: {error}", object.name_any());
        }
    }
}

/// What is said of a change of pods: what the decision says of itself.
fn scaled(decision: &Decision, before: i32, wanted: i32) -> Happened {
    let reason = if wanted > before {
        "ScaledUp"
    } else {
        "ScaledDown"
    };
    Happened {
        warning: false,
        reason: reason.to_owned(),
        note: decision.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::status;
    use crate::crd::OrderedConsumerStatus;
    use crate::scale::{History, Policy, Record, Recorded, Snapshot, decide};
    use k8s_openapi::jiff::Timestamp;

    /// Of a decision for 16 lanes, and 5 for pod "few" if pods differ: lanes of pods that answered as these, and of
    /// one that did not.
    fn told(pods_differ: bool, answered: &[&str]) -> Vec<(String, u32)> {
        let (mut decision, _) = decide(
            &Snapshot::default(),
            &Policy::default(),
            &History::default(),
        );
        decision.lanes = 16;
        if pods_differ {
            decision.fewer_lanes.insert("few".to_owned(), 5);
        }
        let answered = answered
            .iter()
            .map(|pod| (format!("at {pod}"), (*pod).to_owned()));
        let incarnations: BTreeMap<_, _> = answered.collect();
        let mut addresses: Vec<_> = incarnations.keys().cloned().collect();
        addresses.push("silent".to_owned());
        let told = lanes(&decision, &addresses, &incarnations);
        told.map(|(address, lanes)| (address.to_owned(), lanes))
            .collect()
    }

    #[test]
    fn the_status_the_event_and_what_is_kept_of_a_change_of_pods_say_the_same() {
        let snapshot = Snapshot {
            replicas: 1,
            ready: 1,
            ..Snapshot::default()
        };
        let policy = Policy {
            min_replicas: 3,
            ..Policy::default()
        };
        let history = History::default();
        let (decision, _) = decide(&snapshot, &policy, &history);
        assert!(
            decision.message.contains("1 -> 3 pods"),
            "{}",
            decision.message
        );
        let event = scaled(&decision, 1, 3);
        assert_eq!((event.warning, event.reason.as_str()), (false, "ScaledUp"));
        assert_eq!(scaled(&decision, 4, 3).reason, "ScaledDown");
        let record = Record::new(&snapshot, &policy, &history);
        let recorded = Recorded::new(&decision, record);
        let found = Findings {
            decision: Some(decision),
            recorded: Some(recorded.clone()),
            ..Findings::default()
        };
        let last = OrderedConsumerStatus::default();
        let (status, _) = status::status(Timestamp::UNIX_EPOCH, &last, &found);
        assert_eq!(event.note, recorded.message);
        assert_eq!(event.note, status.decision.unwrap().message);
    }

    #[test]
    fn each_pod_is_told_its_own_lanes_and_one_that_is_new_the_most() {
        let of = |pod: &str, lanes| (pod.to_owned(), lanes);
        assert_eq!(
            told(true, &["few", "new"]),
            [of("at few", 5), of("at new", 16)]
        );
        assert_eq!(told(false, &["few"]), [of("at few", 16), of("silent", 16)]);
    }
}
