//! The admin API of an executor pod: `GET /v1/stats`, `GET /v1/lanes`, `PUT /v1/lanes`.
//!
//! Every request carries `Authorization: Bearer <token>`; without a valid token the answer is 401 and
//! nothing else. Bodies are JSON. Counters only grow during the life of one incarnation; a new
//! incarnation starts them at zero, so a reader takes differences only within one incarnation.

use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/stats`: what one executor knows of itself. Times are seconds, counts are messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Identity of this process: pod uid (or host name) and a random part per process start.
    pub incarnation: String,
    /// Seconds since the process started.
    pub uptime_seconds: f64,
    /// True once SIGTERM was received: nothing new is dispatched.
    pub draining: bool,
    /// The lane target in force and where it came from.
    pub lanes: LaneTarget,
    /// Handler calls running now.
    pub busy_lanes: u32,
    /// Time-integral of `busyLanes` since the start, in lane-seconds. Busy lanes on average over an
    /// interval are the difference of two readings divided by the time between them.
    pub busy_lane_seconds: f64,
    /// Lanes that have a message ready to run but no free slot.
    pub waiting_lanes: u32,
    /// Keys with at least one message in memory.
    pub live_keys: u64,
    /// Messages finished since the start.
    pub completed: u64,
    /// Handler calls that failed and count as attempts since the start.
    pub failed: u64,
    /// Whether the handler answers. `false` while calls are held back because several keys found it
    /// unreachable or overloaded.
    pub handler_available: bool,
    /// What the executor last found wrong with its brokers, in words for a person; none when all is well.
    pub broker_error: Option<String>,
    /// Keys that wait for a person because their head has used up all its attempts; at most 32 are listed.
    pub blocked: Vec<BlockedKey>,
    /// Number of blocked keys, listed or not.
    pub blocked_keys: u64,
    /// Every queue this executor holds or waits for.
    pub queues: Vec<QueueStats>,
}

/// One queue as its executor sees it. Offsets are RocketMQ queue offsets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueStats {
    /// Broker name.
    pub broker: String,
    /// Queue id on that broker.
    pub id: u32,
    /// Where the queue is on its way from allocated to dispatching to given away.
    pub phase: QueuePhase,
    /// First unfinished offset: everything below it is finished. None until known.
    pub watermark: Option<u64>,
    /// Highest offset the broker acknowledged as committed. None until known.
    pub committed: Option<u64>,
    /// First offset that has not been pulled. None until known.
    pub pulled: Option<u64>,
    /// Messages in memory, dispatched ones included.
    pub buffered: u64,
    /// Messages finished above the watermark.
    pub finished_above_watermark: u64,
}

/// Phases of a queue in an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueuePhase {
    /// Allocated to this executor; the broker's queue lock is not held yet.
    Locking,
    /// Locked; waits until no call of a former owner can still run.
    Waiting,
    /// Messages are dispatched.
    Owned,
    /// Being given away: running calls finish, nothing new starts.
    Releasing,
}

/// A key whose head message has used up its attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockedKey {
    /// The key; empty for messages without a key.
    pub key: String,
    /// Broker name of its queue.
    pub broker: String,
    /// Queue id.
    pub queue_id: u32,
    /// Queue offset of the message that blocks.
    pub offset: u64,
    /// Attempts made.
    pub attempts: u32,
    /// The last failure, in words.
    pub last_error: String,
}

/// The number of lanes a pod may run at once, and who said so. Body of `PUT /v1/lanes`; its answer is
/// the target in force: 200 if it was taken, 409 if one with a newer (term, sequence) is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LaneTarget {
    /// Lanes that may run at once, at least 1.
    pub lanes: u32,
    /// Term of the leader that decided; 0 for the target the process started with.
    pub term: u64,
    /// Sequence number of the decision within the term.
    pub sequence: u64,
}

/// Answer of `GET /v1/lanes`: the lanes with messages, longest first, at most 1,000.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lanes {
    /// The target in force.
    pub target: LaneTarget,
    /// Keys with messages in memory, listed or not.
    pub live_keys: u64,
    /// The lanes.
    pub lanes: Vec<Lane>,
}

/// One lane: a key of one queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lane {
    /// The key; empty for messages without a key.
    pub key: String,
    /// Broker name of its queue.
    pub broker: String,
    /// Queue id.
    pub queue_id: u32,
    /// Offset of the head message.
    pub head_offset: u64,
    /// Messages in memory, the running one included.
    pub messages: u64,
    /// What the lane is doing.
    pub state: LaneState,
    /// Failed attempts of the head message.
    pub attempts: u32,
}

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaneState {
    /// Waits for a free slot.
    Ready,
    /// A handler call of its head is running.
    Running,
    /// Waits before its head is tried again.
    Backoff,
    /// Its head has used up its attempts; a person must act.
    Blocked,
}
