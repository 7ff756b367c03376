//! What a decision is made of: bounds and mode, and what is known at a moment.

use super::record::queue_id;
use keylane_consumer::message::QueueId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Bounds, mode and objective, from the OrderedConsumer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// What may be changed.
    pub mode: Mode,
    /// Fewest lanes of a pod.
    pub min_lanes: u32,
    /// Most lanes of a pod.
    pub max_lanes: u32,
    /// Fewest pods.
    pub min_replicas: u32,
    /// Most pods.
    pub max_replicas: u32,
    /// At least so many pods while figures are missing for long.
    pub fallback_replicas: u32,
    /// A message is to be finished within this time.
    pub max_message_age: Duration,
    /// A backlog is to be gone within this time.
    pub drain_within: Duration,
    /// How long fewer pods must have been enough before there are fewer.
    pub hold: Duration,
    /// Loads that were announced.
    pub schedules: Vec<Window>,
}

impl Policy {
    /// The usual hold: longer than the ten minutes in which a turn counts as a reversal. A shorter one saves
    /// few pods, because the load that came once often comes again.
    pub const HOLD: Duration = Duration::from_secs(660);
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            min_lanes: 4,
            max_lanes: 512,
            min_replicas: 1,
            max_replicas: 10,
            fallback_replicas: 1,
            max_message_age: Duration::from_secs(30),
            drain_within: Duration::from_secs(300),
            hold: Self::HOLD,
            schedules: Vec::new(),
        }
    }
}

/// What the controller may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Lanes and replicas.
    Auto,
    /// Lanes; somebody else owns the replicas.
    LanesOnly,
    /// Nothing; it says what it would do.
    Advise,
    /// Nothing.
    Hold,
}

impl Mode {
    /// Whether lanes are the controller's.
    pub(super) fn owns_lanes(self) -> bool {
        match self {
            Self::Auto | Self::LanesOnly => true,
            Self::Advise | Self::Hold => false,
        }
    }
}

/// A load that was announced: between two moments so many messages a second arrive. Moments are times
/// since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// First moment.
    pub start: Duration,
    /// End, exclusive.
    pub end: Duration,
    /// Messages a second.
    pub per_second: f64,
}

/// What is known at a moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Time since the Unix epoch.
    pub now: Duration,
    /// Wanted pods.
    pub replicas: u32,
    /// Ready pods.
    pub ready: u32,
    /// The queues of the topic, in order of their ids; empty if they are not known.
    pub queues: Vec<QueueSample>,
    /// The pods that answered and do not drain.
    pub pods: Vec<PodSample>,
    /// Keys with much traffic, any number, in any order.
    pub hot_keys: Vec<KeyLoad>,
    /// Keys whose head does not move while others do.
    pub stuck_keys: Vec<KeyLoad>,
}

/// One queue, as broker and pods know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueSample {
    /// The queue.
    #[serde(with = "queue_id")]
    pub id: QueueId,
    /// Offset of the next message; none if the broker did not say.
    pub max_offset: Option<u64>,
    /// Messages that are not finished; none if a figure is missing.
    pub unfinished: Option<u64>,
    /// Index of the pod that dispatches from it.
    pub owner: Option<usize>,
}

/// What one pod knows of itself. Counters belong to one incarnation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSample {
    /// Identity of the process, and as a member of the consumer group.
    pub incarnation: String,
    /// Lane target in force.
    pub lanes: u32,
    /// Calls running now.
    pub busy_lanes: u32,
    /// Lanes ready to run without a slot.
    pub waiting_lanes: u32,
    /// Time-integral of busy lanes, in seconds.
    pub busy_lane_seconds: f64,
    /// Messages finished.
    pub completed: u64,
    /// Messages in memory, those that run included.
    #[serde(default)]
    pub buffered: u64,
    /// Age of the process in seconds.
    pub uptime_seconds: f64,
    /// Used part of the CPU it may use, 0 to 1, if somebody measures it.
    pub cpu: Option<f64>,
}

/// The load of one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyLoad {
    /// The key, as it may be shown.
    pub key: String,
    /// Its queue.
    #[serde(with = "queue_id")]
    pub queue: QueueId,
    /// Messages of it that arrive, a second.
    pub per_second: f64,
    /// Messages of it that are not finished.
    pub waiting: u64,
}
