//! What users see: conditions, figures, events. Pure.

use crate::broker::Lag;
use crate::crd::{
    self, DecisionInputs, LastDecision, OffsetsReset, OrderedConsumerStatus, Rates, ResetPhase,
};
use crate::scale::{Decision, HotKey, Inputs, Limits, Recorded};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

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

const LISTED_KEYS: usize = 10;
/// Characters of a message or of a listed key.
const LONGEST_MESSAGE: usize = 600;

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
    /// What autoscaling remembers, as JSON.
    pub history: Option<String>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
        lag: found.lag.map(|lag| crd::Lag {
            messages: lag.messages,
            unfinished: lag.unfinished,
        }),
        blocked_keys: found
            .blocked_keys
            .iter()
            .take(LISTED_KEYS)
            .cloned()
            .map(bounded)
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
        status.decision = Some(LastDecision {
            lanes: decision.lanes,
            replicas: decision.replicas,
            reason: decision.reason.as_str().to_owned(),
            message: decision.message.clone(),
            advised_replicas: Some(decision.advised)
                .filter(|advised| *advised != decision.replicas),
            inputs: inputs(&decision.inputs),
            history: found.history.clone(),
        });
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
            message: bounded(message),
            last_transition_time: since,
            observed_generation: found.generation,
        });
    }
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

/// Keeps a status within its size, whatever an API server, a broker or a handler said.
fn bounded(text: String) -> String {
    match text.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
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
            limits.scaling.map(|_| {
                format!("more than {replicas} pods are wanted; autoscaling.maxReplicas and the number of queues allow no more")
            }),
            "the bounds allow what is wanted",
        ),
        (
            HOT_KEY_BOUND,
            limits.hot_key.as_ref().map(|HotKey { key, .. }| {
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

fn inputs(inputs: &Inputs) -> DecisionInputs {
    let text = |value: Option<f64>| value.map(|value| format!("{value:.1}"));
    let milliseconds = |value: Option<f64>| text(value.map(|seconds| seconds * 1e3));
    DecisionInputs {
        expected_rate: text(inputs.expected_rate),
        call_milliseconds: milliseconds(inputs.call_seconds),
        service_milliseconds: milliseconds(inputs.service_seconds),
        busy_lanes: text(inputs.busy_lanes),
        pod_capacity: text(inputs.pod_capacity),
        start_seconds: text(inputs.start_seconds),
        cpu_percent: text(inputs.cpu.map(|part| part * 100.0)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::Stale;

    fn condition<'s>(status: &'s OrderedConsumerStatus, kind: &str) -> &'s Condition {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind)
            .unwrap()
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let found = Findings {
            replicas: 1,
            ..Findings::default()
        };
        let (status, _) = status(
            Timestamp::UNIX_EPOCH,
            &OrderedConsumerStatus::default(),
            &found,
        );
        let json = serde_json::to_value(&status).unwrap();
        for field in ["lag", "lanes", "rates", "queues", "decision", "replicas"] {
            assert!(json.get(field).is_none(), "{field}");
        }
    }

    #[test]
    fn each_limit_is_a_condition_whose_text_does_not_change_with_every_figure() {
        let snapshot = crate::scale::Snapshot::default();
        let (mut decision, history) = crate::scale::decide(
            &snapshot,
            &crate::scale::Policy::default(),
            &crate::scale::History::default(),
        );
        let hot = |per_second, waiting_seconds| HotKey {
            key: "order-7".into(),
            per_second,
            waiting_seconds,
        };
        let stale = |seconds| Stale {
            brokers: None,
            pods: Some(seconds),
        };
        decision.limits = Limits {
            scaling: Some(40),
            hot_key: Some(hot(71.3, 10.0)),
            stuck_key: Some("order-8".into()),
            downstream: Some(1000.0),
            stale: Some(stale(61.0)),
        };
        let mut found = Findings {
            history: serde_json::to_string(&history).ok(),
            decision: Some(decision),
            ..Findings::default()
        };
        let last = OrderedConsumerStatus::default();
        let (limited, events) = status(Timestamp::UNIX_EPOCH, &last, &found);
        for (kind, part) in [
            (SCALING_LIMITED, "maxReplicas"),
            (HOT_KEY_BOUND, "order-7"),
            (DOWNSTREAM_BOUND, "behind the handler"),
            (KEY_STUCK, "order-8"),
            (METRICS_STALE, "pods that are ready"),
        ] {
            let condition = condition(&limited, kind);
            assert_eq!(condition.status, "True", "{kind}");
            assert!(condition.message.contains(part), "{}", condition.message);
            assert!(
                events
                    .iter()
                    .any(|event| event.reason == kind && event.warning)
            );
        }
        assert!(limited.decision.as_ref().unwrap().history.is_some());
        if let Some(decision) = &mut found.decision {
            decision.limits.hot_key = Some(hot(80.1, 15.0));
            decision.limits.downstream = Some(990.0);
            decision.limits.stale = Some(stale(66.0));
        }
        let (again, events) = status(Timestamp::UNIX_EPOCH, &limited, &found);
        assert_eq!(again.conditions, limited.conditions);
        assert!(events.is_empty());
    }

    #[test]
    fn a_reset_is_told_when_it_begins_and_when_it_is_done() {
        let of = |phase, queues_done| OffsetsReset {
            id: "a".into(),
            to: "earliest".into(),
            phase,
            queues_done,
            skipped: 0,
            replayed: 7,
            completed_at: None,
        };
        let mut found = Findings::default();
        let mut last = OrderedConsumerStatus::default();
        let mut next = |reset: OffsetsReset| {
            found.offsets_reset = Some(reset);
            let (status, happened) = status(Timestamp::UNIX_EPOCH, &last, &found);
            last = status;
            let of_it = happened
                .into_iter()
                .filter(|of| of.reason != "ScaledToZero");
            of_it.map(|of| (of.reason, of.note)).collect::<Vec<_>>()
        };
        let begun = next(of(ResetPhase::Pending, 0));
        assert_eq!(begun[0].0, "ResettingOffsets");
        assert_eq!(next(of(ResetPhase::Pending, 1)), []);
        let done = next(of(ResetPhase::Done, 2));
        assert_eq!(done[0].0, "OffsetsReset");
        assert!(
            done[0].1.contains("2 queues: 0 offsets are skipped, 7 are"),
            "{done:?}"
        );
        assert_eq!(next(of(ResetPhase::Done, 2)), []);
        let again = OffsetsReset {
            id: "b".into(),
            ..of(ResetPhase::Pending, 0)
        };
        assert_eq!(next(again).len(), 1);
    }

    #[test]
    fn a_condition_keeps_its_time_and_makes_one_event_until_it_changes() {
        let first = Timestamp::UNIX_EPOCH;
        let later = first + std::time::Duration::from_secs(60);
        let mut found = Findings {
            replicas: 1,
            ready: Some(1),
            ..Findings::default()
        };
        let (before, events) = status(first, &OrderedConsumerStatus::default(), &found);
        assert_eq!(events.len(), 1);
        assert_eq!(condition(&before, READY).status, "True");
        let (same, events) = status(later, &before, &found);
        assert!(events.is_empty());
        assert_eq!(condition(&same, READY).last_transition_time, Time(first));
        found.broker_unavailable = Some("no answer".into());
        let (bad, events) = status(later, &same, &found);
        assert_eq!(
            (events.len(), events[0].warning, events[0].reason.as_str()),
            (1, true, BROKER_UNAVAILABLE)
        );
        assert_eq!(
            condition(&bad, BROKER_UNAVAILABLE).last_transition_time,
            Time(later)
        );
        found.broker_unavailable = None;
        let (_, events) = status(later, &bad, &found);
        assert_eq!((events.len(), events[0].warning), (1, false));
    }
}
