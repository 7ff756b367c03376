//! What the core tells about itself.

use super::limits::InMemory;
use super::{LaneKey, Time};
use crate::message::QueueId;
use std::ops::AddAssign;
use std::time::Duration;

/// How far a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// First unfinished offset.
    pub watermark: u64,
    /// Finished offsets above it.
    pub finished_above: u64,
    /// First offset that has not been pulled.
    pub pulled: u64,
    /// Messages in memory, dispatched ones included.
    pub buffered: u64,
    /// Bytes in memory, likewise.
    pub bytes: u64,
    /// Calls that run, or may still run.
    pub running: u32,
}

/// The unfinished message with the lowest offset of a queue. Times are milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oldest {
    /// Its offset.
    pub offset: u64,
    /// When it was born, on its producer's clock.
    pub born_at_ms: i64,
    /// When the broker stored it.
    pub stored_at_ms: i64,
}

/// What has been done. Counts only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that replies to pulls had, also those for which there was no room and that are pulled again.
    pub pulled: u64,
    /// Calls.
    pub dispatched: u64,
    /// Messages finished, by the handler or by the broker's acknowledgement that they were sent back.
    pub finished: u64,
    /// Attempts that failed through a message's fault.
    pub failed: u64,
    /// Calls of a message that had failed before.
    pub retried: u64,
    /// Calls that the handler did not take.
    pub refused: u64,
    /// Messages that used up their attempts or their key's budget, or were rejected for good.
    pub exhausted: u64,
    /// Messages in the dead letter queue.
    pub dead_lettered: u64,
    /// Messages in the retry topic.
    pub sent_back: u64,
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.pulled += other.pulled;
        self.dispatched += other.dispatched;
        self.finished += other.finished;
        self.failed += other.failed;
        self.retried += other.retried;
        self.refused += other.refused;
        self.exhausted += other.exhausted;
        self.dead_lettered += other.dead_lettered;
        self.sent_back += other.sent_back;
    }
}

/// One queue, for metrics.
#[derive(Clone, Debug)]
pub struct QueueSummary {
    /// The queue.
    pub queue: QueueId,
    /// How far it is.
    pub progress: Progress,
    /// Counts since it was assigned.
    pub counters: Counters,
    /// Lanes with messages.
    pub live_keys: u64,
    /// Lanes that are ready to run.
    pub waiting: u64,
    /// Its oldest unfinished message, if one is in memory.
    pub oldest: Option<Oldest>,
    /// Whether a limit keeps it from being pulled.
    pub stopped: bool,
    /// Whether it is suspended as a whole.
    pub suspended: bool,
}

/// Counts over all queues. Counters start at zero with the executor.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The lane target in force.
    pub lanes: u32,
    /// Calls running now.
    pub busy: u32,
    /// Time-integral of `busy`.
    pub busy_time: Duration,
    /// Lanes ready to run without a free slot.
    pub waiting: u64,
    /// Lanes with messages.
    pub live_keys: u64,
    /// Messages and bytes in memory, including what calls of dropped queues still hold.
    pub in_memory: InMemory,
    /// Counts of all queues, dropped ones included.
    pub counters: Counters,
    /// False while calls are held back because several keys found the handler not available.
    pub handler_available: bool,
    /// Whether anything is suspended.
    pub suspended: bool,
    /// Keys whose head is exhausted and waits for a person.
    pub blocked: u64,
    /// The first of them, at most [`LISTED`].
    pub blocked_keys: Vec<TroubledKey>,
    /// Keys with the most messages arriving, most first, at most [`LISTED`].
    pub hot_keys: Vec<HotKey>,
    /// Lanes with the most messages waiting, longest first, at most [`LISTED`].
    pub longest: Vec<LongLane>,
    /// Keys whose head is in hand for much longer than usual while others move, longest first, at most
    /// [`LISTED`].
    pub stuck_keys: Vec<StuckKey>,
    /// Keys met in more than one queue, at most [`LISTED`].
    pub split_keys: Vec<SplitKey>,
    /// What a call that succeeds usually takes (its median).
    pub usual_service: Duration,
}

/// Most keys in each list of a [`Summary`].
pub const LISTED: usize = 32;

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// Waits for a slot.
    Ready,
    /// A call of its head is running, or may still run.
    Running,
    /// Waits before its head is tried again.
    Backoff,
    /// Its head is on its way back to the broker.
    SendingBack,
    /// Its head is exhausted; a person must act.
    Blocked,
    /// It is suspended.
    Suspended,
}

/// One lane, for people to look at.
#[derive(Clone, Debug)]
pub struct LaneView {
    /// Its queue.
    pub queue: QueueId,
    /// Its name.
    pub key: LaneKey,
    /// Offset of its head.
    pub head: u64,
    /// Messages in memory.
    pub messages: u64,
    /// What it is doing.
    pub state: LaneState,
    /// Failed attempts of its head.
    pub attempts: u32,
}

/// A key whose head failed.
#[derive(Clone, Debug)]
pub struct TroubledKey {
    /// Its queue.
    pub queue: QueueId,
    /// Its name.
    pub key: LaneKey,
    /// Offset of its head.
    pub offset: u64,
    /// Failed attempts of its head.
    pub attempts: u32,
    /// The last failure, in words.
    pub error: String,
}

/// A key whose head does not get done while others move.
#[derive(Clone, Debug)]
pub struct StuckKey {
    /// The key and its head.
    pub key: TroubledKey,
    /// Since when its head is in hand.
    pub since: Time,
    /// What its lane is doing.
    pub state: LaneState,
    /// Messages in memory.
    pub messages: u64,
}

/// A key with many messages arriving.
#[derive(Clone, Debug, PartialEq)]
pub struct HotKey {
    /// The queue it was last met in.
    pub queue: QueueId,
    /// The key, cut at 255 bytes.
    pub key: String,
    /// Messages per second, on average over about ten seconds; never less than the truth by more than
    /// sampling explains.
    pub rate: f64,
    /// By how much the rate may be too high.
    pub error: f64,
}

/// A lane with many messages waiting.
#[derive(Clone, Debug)]
pub struct LongLane {
    /// Its queue.
    pub queue: QueueId,
    /// Its name.
    pub key: LaneKey,
    /// Messages in memory.
    pub messages: u64,
}

/// A key that was met in two queues: the producers' queue selection disagrees with the key, so that no
/// consumer can keep its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitKey {
    /// The key, cut at 255 bytes.
    pub key: String,
    /// The two queues last met.
    pub queues: [QueueId; 2],
}
