//! A decision's whole inputs: what was known, the bounds, and what was remembered. Made again from them,
//! the decision is the same, wherever and whenever that is.

use super::history::{History, PodMemory, QueueMemory, Queues};
use super::{Decision, Policy, Reason, Snapshot, decide};
use keylane_consumer::message::QueueId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Everything that `decide` was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    snapshot: Snapshot,
    policy: Policy,
    history: History,
    // What a history leaves out when it is written, because it is old when it is read.
    pods: BTreeMap<String, PodMemory>,
    queues: Vec<Reading>,
    // In the history too by now; a program that is older reads it here.
    fewer_lanes: BTreeMap<String, u32>,
    /// What was decided before: between two looks it is said again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Decision>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reading {
    #[serde(with = "queue_id")]
    id: QueueId,
    #[serde(flatten)]
    memory: QueueMemory,
}

impl Record {
    /// A record of these inputs.
    pub fn new(snapshot: &Snapshot, policy: &Policy, history: &History) -> Self {
        let queues = history.queues.0.iter().map(|(id, memory)| Reading {
            id: id.clone(),
            memory: memory.clone(),
        });
        Self {
            snapshot: snapshot.clone(),
            policy: policy.clone(),
            pods: history.pods.clone(),
            queues: queues.collect(),
            fewer_lanes: history.fewer_lanes.clone(),
            last: history.last.clone(),
            history: history.clone(),
        }
    }

    /// Wanted pods when it was made.
    pub fn replicas(&self) -> u32 {
        self.snapshot.replicas
    }

    /// Time since the Unix epoch when it was made.
    pub fn now(&self) -> Duration {
        self.snapshot.now
    }

    /// Decides again.
    pub fn replay(&self) -> Decision {
        let queues = self.queues.iter();
        let history = History {
            pods: self.pods.clone(),
            queues: Queues(
                queues
                    .map(|reading| (reading.id.clone(), reading.memory.clone()))
                    .collect(),
            ),
            fewer_lanes: self.fewer_lanes.clone(),
            last: self.last.clone(),
            ..self.history.clone()
        };
        decide(&self.snapshot, &self.policy, &history).0
    }
}

/// What was decided, with everything it was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// Lanes of each pod.
    pub lanes: u32,
    /// Lanes of pods that were to have fewer, by incarnation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fewer_lanes: BTreeMap<String, u32>,
    /// Pods.
    pub replicas: u32,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, in a sentence.
    pub message: String,
    /// What it was made of.
    pub inputs: Record,
}

impl Recorded {
    /// A decision and its inputs.
    pub fn new(decision: &Decision, inputs: Record) -> Self {
        Self {
            lanes: decision.lanes,
            fewer_lanes: decision.fewer_lanes.clone(),
            replicas: decision.replicas,
            reason: decision.reason,
            message: decision.message.clone(),
            inputs,
        }
    }

    /// Whether it changed the number of pods.
    pub fn moves_pods(&self) -> bool {
        self.replicas != self.inputs.replicas()
    }

    /// Decides again; the same if this program decides as the one that recorded it did.
    pub fn replay(&self) -> Self {
        Self::new(&self.inputs.replay(), self.inputs.clone())
    }
}

#[cfg(test)]
impl Recorded {
    /// From one pod to three, at so many seconds after the Unix epoch.
    pub(crate) fn example(seconds: u64, queues: u32) -> Self {
        let queue = |id| super::QueueSample {
            id: QueueId::new("broker-a", id),
            max_offset: Some(1_000_000),
            unfinished: Some(10_000),
            owner: Some(0),
        };
        let snapshot = Snapshot {
            now: Duration::from_secs(seconds),
            replicas: 1,
            ready: 1,
            queues: (0..queues).map(queue).collect(),
            pods: vec![super::PodSample {
                incarnation: "pod".to_owned(),
                lanes: 4,
                busy_lanes: 4,
                ..super::PodSample::default()
            }],
            ..Snapshot::default()
        };
        let policy = Policy {
            min_replicas: 3,
            ..Policy::default()
        };
        let (decision, _) = decide(&snapshot, &policy, &History::default());
        let record = Record::new(&snapshot, &policy, &History::default());
        Self::new(&decision, record)
    }
}

/// A queue as text: `<broker>/<id>`, with `retry/` before it for a queue of the retry topic.
pub(super) mod queue_id {
    use keylane_consumer::message::QueueId;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(id: &QueueId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<QueueId, D::Error> {
        let text = String::deserialize(deserializer)?;
        let retry = text.strip_prefix("retry/").and_then(|rest| {
            let queue: QueueId = rest.parse().ok()?;
            Some(QueueId::retry(queue.broker, queue.id))
        });
        match retry {
            Some(queue) => Ok(queue),
            None => text.parse().map_err(D::Error::custom),
        }
    }
}
