//! What users see: conditions, figures, events. Pure.

mod figures;
#[cfg(test)]
mod tests;

use crate::broker::Lag;
use crate::crd::{OffsetsReset, OrderedConsumerStatus, Rates, ResetPhase};
use crate::scale::{Decision, HeavyQueue, History, HotKey, Limits, Recorded};
pub(super) use figures::bounded;
use figures::{LISTED_KEYS, LONGEST_LISTED, LONGEST_MESSAGE};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use keylane_consumer::contract::admin::StuckKey;

/// All pods are ready and everything they need is there.
pub const READY: &str = "Ready";
/// The name servers or brokers do not answer, or do not know the topic.
pub const BROKER_UNAVAILABLE: &str = "BrokerUnavailable";
/// A child's name is taken by a foreign object.
pub const NAME_CONFLICT: &str = "NameConflict";
/// The template cannot be deployed.
pub const TEMPLATE_INVALID: &str = "TemplateInvalid";
/// Pods find their handler not available.
pub const HANDLER_UNAVAILABLE: &str = "HandlerUnavailable";
/// The consumer group is used by somebody else too.
pub const GROUP_SHARED: &str = "GroupShared";
/// The topic has fewer queues than before, and messages are left in the others.
pub const QUEUE_GONE: &str = "QueueGone";
/// A key was met in more than one queue, so that nothing can keep its order.
pub const KEY_SPANS_QUEUES: &str = "KeySpansQueues";
/// A reset of offsets was asked for that cannot be made, or not yet.
pub const RESET_HELD: &str = "ResetHeld";
/// More pods are wanted than the bounds or the queues allow.
pub const SCALING_LIMITED: &str = "ScalingLimited";
/// A key needs more than its one lane can give.
pub const HOT_KEY_BOUND: &str = "HotKeyBound";
/// Something behind the handler is the limit.
pub const DOWNSTREAM_BOUND: &str = "DownstreamBound";
/// A key does not move.
pub const KEY_STUCK: &str = "KeyStuck";
/// Figures have been missing for long.
pub const METRICS_STALE: &str = "MetricsStale";

/// What a round of the reconcile loop found out.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// Wanted pods.
    pub replicas: i32,
    /// Pods there are; none if the Deployment is not there.
    pub current: Option<i32>,
    /// Pods that are ready.
    pub ready: Option<i32>,
    /// Label selector of the pods.
    pub selector: String,
    /// Queues of the topic, if known.
    pub queues: Option<u32>,
    /// The lag, if known.
    pub lag: Option<Lag>,
    /// The decision, if one was made.
    pub decision: Option<Decision>,
    /// The same with everything it was made of, if it changes something.
    pub recorded: Option<Recorded>,
    /// What autoscaling remembers once the decision is recorded.
    pub history: Option<History>,
    /// Keys that do not move, the longest first.
    pub stuck_keys: Vec<StuckKey>,
    /// Keys that wait for a person.
    pub blocked_keys: Vec<String>,
    /// Why the template cannot be deployed.
    pub template_invalid: Option<String>,
    /// Whose name is taken.
    pub name_conflict: Option<String>,
    /// What is wrong with the brokers.
    pub broker_unavailable: Option<String>,
    /// What is wrong with handlers.
    pub handler_unavailable: Option<String>,
    /// Which older OrderedConsumer keeps the group, so that no pods are run.
    pub group_shared: Option<String>,
    /// Who in the group is not Keylane's.
    pub foreign_members: Option<String>,
    /// Which queues the topic has no more, and how many messages are left in them.
    pub queue_gone: Option<String>,
    /// Which keys were met in more than one queue.
    pub key_spans_queues: Option<String>,
    /// The reset of offsets that was last asked for.
    pub offsets_reset: Option<OffsetsReset>,
    /// Why it is not made, or what is wrong with what was asked for.
    pub reset_held: Option<String>,
    /// Why children could not be applied.
    pub apply_failed: Option<String>,
}

impl Findings {
    /// Whether the round could not do its work, so that the next one may wait longer.
    pub fn is_failure(&self) -> bool {
        self.template_invalid.is_some()
            || self.name_conflict.is_some()
            || self.apply_failed.is_some()
    }
}

/// Something worth an Event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Happened {
    /// Whether a person should look.
    pub warning: bool,
    /// In one word.
    pub reason: String,
    /// In a sentence.
    pub note: String,
}

/// The new status, and what changed since the last one.
pub fn status(
    now: Timestamp,
    last: &OrderedConsumerStatus,
    found: &Findings,
) -> (OrderedConsumerStatus, Vec<Happened>) {
    let mut status = OrderedConsumerStatus {
        observed_generation: found.generation,
        replicas: found.current,
        ready_replicas: found.ready,
        selector: Some(found.selector.clone()).filter(|selector| !selector.is_empty()),
        queues: found.queues,
        lag: found
            .lag
            .map(|known| figures::lag(&known, found.decision.as_ref())),
        hot_keys: found.decision.as_ref().map_or_else(Vec::new, figures::hot),
        stuck_keys: figures::stuck(&found.stuck_keys),
        blocked_keys: found
            .blocked_keys
            .iter()
            .take(LISTED_KEYS)
            .map(|key| bounded(key, LONGEST_LISTED))
            .collect(),
        // What was done is not forgotten because a round ended early.
        offsets_reset: found
            .offsets_reset
            .clone()
            .or_else(|| last.offsets_reset.clone()),
        ..OrderedConsumerStatus::default()
    };
    if let Some(decision) = &found.decision {
        let rate = |rate: Option<f64>| rate.map(|rate| format!("{rate:.1}"));
        status.lanes = Some(decision.lanes);
        status.rates = Some(Rates {
            arriving: rate(decision.inputs.arrival_rate),
            completed: rate(decision.inputs.completion_rate),
        });
        status.decision = Some(figures::decision(decision, found));
    }
    let mut happened = Vec::new();
    let before = last.offsets_reset.as_ref();
    happened.extend(reset(before, found.offsets_reset.as_ref()));
    for (kind, state, reason, message) in conditions(found) {
        let before = last
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind);
        let changed = before.is_none_or(|before| before.status != state);
        // A condition that says all is well is worth an event only if it was otherwise before.
        let quiet = before.is_none() && kind != READY && state == "False";
        if (changed && !quiet) || before.is_some_and(|before| before.reason != reason) {
            let warning = if kind == READY {
                state != "True"
            } else {
                state == "True"
            };
            let reason = if warning || kind == READY {
                reason.to_owned()
            } else {
                format!("{kind}Over")
            };
            happened.push(Happened {
                warning,
                reason,
                note: message.clone(),
            });
        }
        let since = before
            .filter(|_| !changed)
            .map_or(Time(now), |before| before.last_transition_time.clone());
        status.conditions.push(Condition {
            type_: kind.to_owned(),
            status: state.to_owned(),
            reason: reason.to_owned(),
            message: bounded(&message, LONGEST_MESSAGE),
            last_transition_time: since,
            observed_generation: found.generation,
        });
    }
    figures::fit(&mut status);
    (status, happened)
}

/// A reset of offsets that begins or is done.
fn reset(last: Option<&OffsetsReset>, now: Option<&OffsetsReset>) -> Option<Happened> {
    let now = now?;
    let before = last.filter(|last| last.id == now.id).map(|last| last.phase);
    if before == Some(now.phase) {
        return None;
    }
    let OffsetsReset { id, to, .. } = now;
    let (reason, note) = match now.phase {
        ResetPhase::Pending => (
            "ResettingOffsets",
            format!("the group's offsets are being reset to {to} ({id})"),
        ),
        ResetPhase::Done => (
            "OffsetsReset",
            format!(
                "the group's offsets were reset to {to} ({id}) in {} queues: {} offsets are skipped, {} are consumed again",
                now.queues_done, now.skipped, now.replayed
            ),
        ),
        ResetPhase::Withdrawn => (
            "ResetWithdrawn",
            format!(
                "the reset of the group's offsets to {to} ({id}) was withdrawn when {} queues were done",
                now.queues_done
            ),
        ),
    };
    Some(Happened {
        warning: false,
        reason: reason.to_owned(),
        note,
    })
}

type ConditionOf = (&'static str, &'static str, &'static str, String);

fn conditions(found: &Findings) -> Vec<ConditionOf> {
    let problems = [
        (
            TEMPLATE_INVALID,
            found.template_invalid.as_ref(),
            "the template can be deployed",
        ),
        (
            NAME_CONFLICT,
            found.name_conflict.as_ref(),
            "no name is taken",
        ),
        (
            BROKER_UNAVAILABLE,
            found.broker_unavailable.as_ref(),
            "the brokers answer",
        ),
        (
            HANDLER_UNAVAILABLE,
            found.handler_unavailable.as_ref(),
            "handlers take calls",
        ),
        (
            GROUP_SHARED,
            found
                .group_shared
                .as_ref()
                .or(found.foreign_members.as_ref()),
            "nobody else is seen in the consumer group",
        ),
        (
            QUEUE_GONE,
            found.queue_gone.as_ref(),
            "no messages are left in queues that the topic has no more",
        ),
        (
            KEY_SPANS_QUEUES,
            found.key_spans_queues.as_ref(),
            "each key is in one queue, as far as seen",
        ),
        (
            RESET_HELD,
            found.reset_held.as_ref(),
            "no reset of offsets is held back",
        ),
    ];
    let mut conditions = vec![ready(found)];
    let mut say = |kind, problem: Option<String>, well: &str| {
        conditions.push(match problem {
            Some(message) => (kind, "True", kind, message),
            None => (kind, "False", "AsExpected", well.to_owned()),
        });
    };
    for (kind, problem, well) in problems {
        say(kind, problem.cloned(), well);
    }
    if let Some(decision) = &found.decision {
        for (kind, problem, well) in limits(&decision.limits, decision) {
            say(kind, problem, well);
        }
    }
    conditions
}

/// What limits the group. Figures that change every round are in the decision, not here: a condition that
/// changed each time would be written each time.
fn limits(
    limits: &Limits,
    decision: &Decision,
) -> [(&'static str, Option<String>, &'static str); 5] {
    let (replicas, lanes) = (decision.replicas, decision.lanes);
    [
        (
            SCALING_LIMITED,
            match (&limits.scaling, &limits.heavy_queue) {
                (_, Some(HeavyQueue { queue, .. })) => Some(format!(
                    "queue {queue} gets more than one pod can do, and a queue is in one pod: more queues, more lanes (lanes.max) or a faster handler help, more pods do not"
                )),
                (Some(_), None) => Some(format!(
                    "more than {replicas} pods are wanted; autoscaling.maxReplicas and the number of queues allow no more"
                )),
                (None, None) => None,
            },
            "the bounds allow what is wanted",
        ),
        (
            HOT_KEY_BOUND,
            limits.hot_keys.first().map(|HotKey { key, .. }| {
                format!("key {key:?} gets more messages than one lane can handle; more lanes or pods cannot help, spread its messages over more keys or make handling shorter")
            }),
            "no key needs more than its lane can give",
        ),
        (
            DOWNSTREAM_BOUND,
            limits.downstream.map(|_| {
                format!("more calls at once do not finish more: something behind the handler is the limit; {lanes} lanes on each of {replicas} pods keep it busy")
            }),
            "more lanes finish more",
        ),
        (
            KEY_STUCK,
            limits.stuck_key.as_ref().map(|key| {
                format!("the first message of key {key:?} is not finished while others are; look at the handler's log")
            }),
            "all keys move",
        ),
        (
            METRICS_STALE,
            limits.stale.map(|stale| {
                let source = match (stale.brokers, stale.pods) {
                    (Some(_), Some(_)) => "brokers and pods",
                    (_, None) => "brokers",
                    (None, Some(_)) => "pods that are ready",
                };
                format!("figures of {source} are missing for more than a minute; nothing is taken down")
            }),
            "figures are fresh",
        ),
    ]
}

fn ready(found: &Findings) -> ConditionOf {
    let not = |reason, message: String| (READY, "False", reason, message);
    if let Some(message) = &found.template_invalid {
        return not(TEMPLATE_INVALID, message.clone());
    }
    if let Some(message) = &found.name_conflict {
        return not(NAME_CONFLICT, message.clone());
    }
    if let Some(message) = &found.apply_failed {
        return not("ApplyFailed", message.clone());
    }
    if let Some(message) = &found.group_shared {
        return not(GROUP_SHARED, message.clone());
    }
    let ready = found.ready.unwrap_or(0);
    if found.replicas == 0 {
        return not(
            "ScaledToZero",
            "spec.replicas is 0: nothing is consumed".to_owned(),
        );
    }
    if ready < found.replicas {
        let message = format!("{ready} of {} pods are ready", found.replicas);
        return not("PodsNotReady", message);
    }
    (
        READY,
        "True",
        "AllPodsReady",
        format!("{ready} of {} pods are ready", found.replicas),
    )
}
