//! The admin API of an executor pod: `GET /v1/stats`, `GET /v1/lanes`, `PUT /v1/lanes`,
//! `POST /v1/members/gone`, `POST /v1/drain`, and [`POST /v1/offsets/reset`](super::offsets).
//!
//! `POST /v1/drain` has no body. It makes the executor give away all its queues as at SIGTERM: nothing new
//! is dispatched, running calls finish (at most `drain.timeout`), what is finished is committed, the journal
//! written, locks are released last. It then leaves the group and stays, without queues and not ready,
//! until SIGTERM; it cannot be undone. The answer, 202, says that this has begun;
//! [`Stats::drained`] when it is over.
//!
//! Every request carries `Authorization: Bearer <token>`; without a valid token the answer is 401 and
//! nothing else. More than 50 requests a second in the long run are answered with 429. In a pod it is TLS 1.3
//! by a certificate for `<name>-keylane.<namespace>.svc`, both in the Secret `<name>-keylane-admin`. Bodies are JSON. Counters only grow during the life of one incarnation; a new
//! incarnation starts them at zero, so a reader takes differences only within one incarnation.

use serde::{Deserialize, Serialize};

/// Body of `POST /v1/members/gone`: pods of the group of which the kubelet reported every container as
/// terminated before the pod object vanished, by a deletion that was not forced. Nothing else proves that
/// nothing of them runs any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MembersGone {
    /// Uids of the pods.
    pub pods: Vec<String>,
}

/// Answer of `GET /v1/stats`: what one executor knows of itself. Times are seconds, counts are messages.
/// With `redactKeys` every key in it is a hash: `sha256:` and the first 16 hexadecimal digits of SHA-256
/// over the consumer group, a zero byte and the key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    /// Identity of this process: pod uid (or host name) and a random part per process start.
    pub incarnation: String,
    /// Seconds since the process started.
    pub uptime_seconds: f64,
    /// True once it was told to drain or SIGTERM was received: nothing new is dispatched.
    pub draining: bool,
    /// True once that is over: no queue is held, and the group was left.
    pub drained: bool,
    /// Whether it knows of [resets](super::offsets): executors of older versions do not.
    pub resets_offsets: bool,
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
    /// Messages that brokers sent since the start, also those for which there was no room and that are pulled
    /// again.
    pub pulled_messages: u64,
    /// Handler calls since the start.
    pub dispatched: u64,
    /// Messages finished since the start, by the handler or by being sent back to the broker.
    pub completed: u64,
    /// Handler calls that failed and count as attempts since the start.
    pub failed: u64,
    /// Handler calls of messages that had failed before, since the start.
    pub retried: u64,
    /// Handler calls that the handler did not take, since the start: no attempts.
    pub refused: u64,
    /// Messages that used up their attempts or their key's budget, or were rejected for good, since the
    /// start.
    pub exhausted: u64,
    /// Messages that the broker copied to the dead letter queue, since the start.
    pub dead_lettered: u64,
    /// The last 64 of them, the latest at the end.
    pub dead_letters: Vec<DeadLetter>,
    /// Messages that the broker took back for the retry topic, since the start.
    pub sent_back: u64,
    /// Offsets whose messages the broker removed before they were handled, since the start.
    pub expired: u64,
    /// Offsets that were skipped by resets that were asked for, since the start.
    pub skipped: u64,
    /// Offsets that were finished and are consumed again because of such resets, since the start.
    pub replayed: u64,
    /// Messages in memory, dispatched ones included.
    pub buffered: u64,
    /// Bytes in memory, as spec.limits counts them.
    pub buffered_bytes: u64,
    /// What a call that succeeds usually takes (the median).
    pub usual_handler_seconds: f64,
    /// What is held back now; once it is said here, nothing of it is handed to the handler any more.
    pub suspended: Suspended,
    /// Keys with the most messages arriving, most first, at most 32.
    pub hot_keys: Vec<HotKey>,
    /// Keys with the most messages in memory, most first, at most 32.
    pub long_keys: Vec<LongKey>,
    /// Keys whose first message does not get done while others move, longest first, at most 32.
    pub stuck_keys: Vec<StuckKey>,
    /// Keys met in more than one queue, on a sample, at most 32: no consumer can keep their order, because
    /// producers select the queue by something else than the key.
    pub split_keys: Vec<SplitKey>,
    /// Whether the handler answers. `false` while calls are held back because several keys found it
    /// unreachable or overloaded.
    pub handler_available: bool,
    /// What the executor last found wrong with its brokers, in words for a person; none when all has been
    /// well for 10 s.
    pub broker_error: Option<String>,
    /// Client ids in the consumer group that are not Keylane's, at most 32: they get no queue of ours, and
    /// may take queues themselves.
    pub foreign_members: Vec<String>,
    /// Queues that the topic has no more, with messages that nobody consumes, at most 32. One executor of
    /// the group tells it of each broker.
    pub gone_queues: Vec<GoneQueue>,
    /// Keys that wait for a person because their head has used up all its attempts; at most 32 are listed.
    pub blocked: Vec<BlockedKey>,
    /// Number of blocked keys, listed or not.
    pub blocked_keys: u64,
    /// Every queue this executor holds or waits for.
    pub queues: Vec<QueueStats>,
}

/// A message that was given up, and that its broker copied to the dead letter queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeadLetter {
    /// Id of the message.
    pub id: String,
    /// The key; empty for messages without a key.
    pub key: String,
    /// Its queue, as broker name/queue id.
    pub queue: String,
    /// Queue offset.
    pub offset: u64,
    /// Failed attempts.
    pub attempts: u32,
    /// The last failure, in words, at most 500 characters.
    pub last_error: String,
    /// When the broker had acknowledged the copy, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A queue that the topic has no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoneQueue {
    /// The queue, as broker name/queue id.
    pub queue: String,
    /// Its messages from the committed offset on.
    pub stranded: u64,
}

/// What is not handed to the handler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Suspended {
    /// Everything.
    pub all: bool,
    /// Queues, as broker name/queue id.
    pub queues: Vec<String>,
    /// Keys.
    pub keys: Vec<String>,
}

/// A key with many messages arriving.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HotKey {
    /// The key.
    pub key: String,
    /// The queue it was last met in, as broker name/queue id.
    pub queue: String,
    /// Messages a second, on average over about ten seconds.
    pub rate: f64,
    /// By how much the rate may be too high.
    pub error: f64,
}

/// A key with many messages in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LongKey {
    /// The key; empty for messages without a key.
    pub key: String,
    /// Its queue, as broker name/queue id.
    pub queue: String,
    /// Messages in memory.
    pub messages: u64,
}

/// A key whose first message does not get done while others move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StuckKey {
    /// The key; empty for messages without a key.
    pub key: String,
    /// Its queue, as broker name/queue id.
    pub queue: String,
    /// Queue offset of its first message.
    pub offset: u64,
    /// For how long that message has been in hand.
    pub seconds: f64,
    /// What its lane is doing.
    pub state: LaneState,
    /// Failed attempts.
    pub attempts: u32,
    /// Messages of it in memory.
    pub messages: u64,
    /// The last failure, in words; empty if there was none.
    pub last_error: String,
}

/// A key met in two queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SplitKey {
    /// The key.
    pub key: String,
    /// The two queues last met, as broker name/queue id.
    pub queues: [String; 2],
}

/// One queue as its executor sees it. Offsets are RocketMQ queue offsets; counts are since the queue was
/// assigned to this process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueStats {
    /// Whether it is a queue of the group's retry topic rather than of the topic.
    pub retry: bool,
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
    /// Bytes in memory, as spec.limits counts them.
    pub bytes: u64,
    /// Keys with messages in memory.
    pub live_keys: u64,
    /// Lanes that are ready to run.
    pub waiting_lanes: u64,
    /// Handler calls that run, or may still run.
    pub running_lanes: u32,
    /// Handler calls.
    pub dispatched: u64,
    /// Messages finished.
    pub finished: u64,
    /// Handler calls that failed and count as attempts.
    pub failed: u64,
    /// Handler calls of messages that had failed before.
    pub retried: u64,
    /// Messages that used up their attempts or their key's budget, or were rejected for good.
    pub exhausted: u64,
    /// Seconds since the broker stored the oldest unfinished message. None if there is none in memory.
    pub oldest_age_seconds: Option<f64>,
    /// Whether a limit keeps it from being pulled.
    pub stopped_by_limit: bool,
    /// Whether it is suspended as a whole, also for a moment because of a reset.
    pub suspended: bool,
    /// The last reset that was asked for, by whichever executor made it. None if there was none.
    pub reset: Option<LastReset>,
}

/// A reset of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastReset {
    /// Id of the request.
    pub id: String,
    /// First offset that was not finished before.
    pub from: u64,
    /// Offset it went on from.
    pub position: u64,
    /// Offsets that were not finished and are skipped.
    pub skipped: u64,
    /// Offsets that were finished and are consumed again.
    pub replayed: u64,
}

impl QueueStats {
    /// Offsets between the watermark and what was pulled.
    pub fn span(&self) -> Option<u64> {
        Some(self.pulled?.saturating_sub(self.watermark?))
    }

    /// Offsets that were pulled and are not finished.
    pub fn unfinished(&self) -> Option<u64> {
        Some(self.span()?.saturating_sub(self.finished_above_watermark))
    }
}

/// Phases of a queue in an executor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueuePhase {
    /// Allocated to this executor; the broker's queue lock is not held yet.
    #[default]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Its head is on its way back to the broker.
    SendingBack,
    /// Its head has used up its attempts; a person must act.
    Blocked,
    /// It is suspended.
    Suspended,
}
