//! What is decided, and the sentence that says why. The sentence is made here and nowhere else: status,
//! events and logs show the same.

use super::observe::FULL_CPU;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is to be, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Lanes of each pod; of the pod with the most, where they differ.
    pub lanes: u32,
    /// Lanes of pods that are to have fewer, by incarnation: those with less to do, while all share a
    /// downstream that is the limit, and those that had less to do when lanes were left to somebody else.
    pub fewer_lanes: BTreeMap<String, u32>,
    /// Lanes the controller would give if it owned them.
    pub advised_lanes: u32,
    /// Pods. In modes that do not own them: those there are.
    pub replicas: u32,
    /// Pods the controller would have if it owned them.
    pub advised: u32,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, in a sentence with numbers.
    pub message: String,
    /// The numbers.
    pub inputs: Inputs,
    /// What limits the group, beside the reason.
    pub limits: Limits,
}

/// What limits a group; each is a condition in the status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// More pods were wanted than the bounds or the queues allow, where pods are the controller's: how many.
    pub scaling: Option<u32>,
    /// A queue that gets more than one pod can do: it cannot be shared.
    pub heavy_queue: Option<HeavyQueue>,
    /// Keys that need more than their one lane can give, the one that asks most first; at most ten.
    pub hot_keys: Vec<HotKey>,
    /// A key whose head does not move.
    pub stuck_key: Option<String>,
    /// Something behind the handler finishes at most so many messages a second.
    pub downstream: Option<f64>,
    /// Figures have been missing for long.
    pub stale: Option<Stale>,
}

/// A queue that gets more than one pod can do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeavyQueue {
    /// The queue, as broker name/queue id.
    pub queue: String,
    /// Messages of it that arrive, a second, and can be handled at once.
    pub per_second: f64,
}

/// For how many seconds figures have been missing, of each source for which that is long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stale {
    /// Of a broker.
    pub brokers: Option<f64>,
    /// Of a pod that should answer.
    pub pods: Option<f64>,
}

/// A key that needs more than its one lane can give.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HotKey {
    /// The key, as it may be shown.
    pub key: String,
    /// Its queue, as broker name/queue id.
    pub queue: String,
    /// Messages of it that arrive, a second.
    pub per_second: f64,
    /// Seconds its lane needs for what is waiting now.
    pub waiting_seconds: f64,
}

/// The numbers a decision was made of. Rates are messages a second over all pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inputs {
    /// Messages that arrive.
    pub arrival_rate: Option<f64>,
    /// Arrivals expected when a pod asked for now would be at work.
    pub expected_rate: Option<f64>,
    /// Messages that are finished.
    pub completion_rate: Option<f64>,
    /// Seconds a call takes, as measured.
    pub call_seconds: Option<f64>,
    /// Seconds a call takes when nothing is overloaded.
    pub service_seconds: Option<f64>,
    /// Busy lanes over all pods, on average.
    pub busy_lanes: Option<f64>,
    /// Messages that are not finished.
    pub unfinished: Option<u64>,
    /// Messages a second that one pod can finish.
    pub pod_capacity: Option<f64>,
    /// Seconds from asking for a pod to its first messages.
    pub start_seconds: Option<f64>,
    /// Used part of the CPU it may use, of the pod that has least left.
    pub cpu: Option<f64>,
}

/// Why a decision is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// What there is fits the load.
    Steady,
    /// Too little was seen yet to know how long a call takes.
    Learning,
    /// Lanes follow the load up.
    LanesUp,
    /// Lanes follow the load down.
    LanesDown,
    /// The load, or what is expected of it, needs more pods.
    ReplicasUp,
    /// Fewer pods have been enough for the hold.
    ReplicasDown,
    /// A load that was announced needs more pods.
    Scheduled,
    /// Pods that were asked for are not at work yet.
    PodsStarting,
    /// More would be needed than the bounds or the queues allow.
    AtMaximum,
    /// Few keys hold the backlog: more lanes or pods cannot help.
    KeyBound,
    /// More lanes did not finish more: something behind the handler is the limit.
    DownstreamBound,
    /// Calls are slow: fewer lanes for a moment tell why.
    Probing,
    /// The last pods brought nothing and go again.
    Ineffective,
    /// Figures are missing: nothing goes down.
    MetricsMissing,
    /// The mode is Hold, or somebody stopped the consumer.
    Held,
}

impl Decision {
    /// Lanes of the pod of this incarnation.
    pub fn lanes_of(&self, incarnation: &str) -> u32 {
        *self.fewer_lanes.get(incarnation).unwrap_or(&self.lanes)
    }
}

impl Reason {
    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "Steady",
            Self::Learning => "Learning",
            Self::LanesUp => "LanesUp",
            Self::LanesDown => "LanesDown",
            Self::ReplicasUp => "ReplicasUp",
            Self::ReplicasDown => "ReplicasDown",
            Self::Scheduled => "Scheduled",
            Self::PodsStarting => "PodsStarting",
            Self::AtMaximum => "AtMaximum",
            Self::KeyBound => "KeyBound",
            Self::DownstreamBound => "DownstreamBound",
            Self::Probing => "Probing",
            Self::Ineffective => "Ineffective",
            Self::MetricsMissing => "MetricsMissing",
            Self::Held => "Held",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Steady => "it fits",
            Self::Learning => "learning how long a call takes",
            Self::LanesUp => "more lanes are needed",
            Self::LanesDown => "fewer lanes are enough",
            Self::ReplicasUp => "more pods are needed",
            Self::ReplicasDown => "fewer pods have been enough for a while",
            Self::Scheduled => "the load that was announced needs more pods",
            Self::PodsStarting => "waiting for pods that start",
            Self::AtMaximum => {
                "more is needed than the bounds and the queues allow, or than something all pods share lets through"
            }
            Self::KeyBound => "one key needs more than its lane can give, more pods cannot help",
            Self::DownstreamBound => "something behind the handler is the limit",
            Self::Probing => "calls are slow, fewer lanes for a moment show why",
            Self::Ineffective => "the last pods finished no more messages and go again",
            Self::MetricsMissing => "figures are missing, nothing is taken down",
            Self::Held => "nothing is changed",
        }
    }
}

/// Sizes before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub lanes: (u32, u32),
    pub replicas: (u32, u32),
}

/// The sentence.
pub(super) fn explain(reason: Reason, sizes: Sizes, inputs: &Inputs, limits: &Limits) -> String {
    let change = |(from, to): (u32, u32), what: &str| {
        let plural = if to == 1 { "" } else { "s" };
        if from == to {
            format!("{to} {what}{plural}")
        } else {
            format!("{from} -> {to} {what}{plural}")
        }
    };
    let known = |value: Option<f64>, unit: &str| {
        value.map_or_else(
            || format!("unknown {unit}"),
            |value| format!("{value:.0} {unit}"),
        )
    };
    let mut figures = vec![known(inputs.arrival_rate, "messages/s arrive")];
    if let (Some(expected), Some(now)) = (inputs.expected_rate, inputs.arrival_rate)
        && (expected - now).abs() > 0.1 * now + 1.0
    {
        figures.push(format!("{expected:.0} expected"));
    }
    figures.push(known(inputs.completion_rate, "messages/s finish"));
    figures.push(known(
        inputs.unfinished.map(|count| count as f64),
        "unfinished",
    ));
    if let Some(seconds) = inputs.call_seconds {
        let usual = inputs.service_seconds.filter(|usual| seconds > 1.2 * usual);
        let usual = usual.map_or_else(String::new, |usual| {
            format!(" (usually {:.1})", usual * 1e3)
        });
        figures.push(format!("{:.1} ms a call{usual}", seconds * 1e3));
    }
    if let Some(capacity) = inputs.pod_capacity {
        figures.push(format!("a pod can do {capacity:.0}/s"));
    }
    if let Some(cpu) = inputs.cpu.filter(|cpu| *cpu >= FULL_CPU) {
        figures.push(format!("a pod uses {:.0} % of its CPU", cpu * 100.0));
    }
    if let Some(most) = limits.downstream {
        figures.push(format!("at most {most:.0}/s get through"));
    }
    if let Some(heavy) = &limits.heavy_queue {
        figures.push(format!(
            "queue {} alone gets {:.0}/s",
            heavy.queue, heavy.per_second
        ));
    }
    if let Some(hot) = limits.hot_keys.first() {
        figures.push(format!(
            "key {:?} gets {:.0}/s and has {:.0} s of work waiting",
            hot.key, hot.per_second, hot.waiting_seconds
        ));
    }
    if let Some(key) = &limits.stuck_key {
        figures.push(format!("key {key:?} does not move"));
    }
    if let Some(wanted) = limits.scaling {
        figures.push(format!("{wanted} pods wanted"));
    }
    let stale = limits.stale.unwrap_or_default();
    for (source, seconds) in [("brokers", stale.brokers), ("pods", stale.pods)] {
        if let Some(seconds) = seconds {
            figures.push(format!("figures of {source} missing for {seconds:.0} s"));
        }
    }
    let sentence = match reason {
        // CPU that is used up is the pods' own.
        Reason::AtMaximum if inputs.cpu.is_some_and(|cpu| cpu >= FULL_CPU) => {
            "more is needed than the bounds and the queues allow"
        }
        reason => reason.sentence(),
    };
    format!(
        "{} a pod, {}: {sentence} ({})",
        change(sizes.lanes, "lane"),
        change(sizes.replicas, "pod"),
        figures.join(", ")
    )
}
