//! The lane core: every key of every queue is a FIFO lane; decides what runs when, what is pulled, and
//! what is finished.
//!
//! Pure: no clock, no I/O, no randomness but from the seed. The shell calls [`LaneExecutor::handle`] with
//! the time and what happened, then takes outputs from [`LaneExecutor::poll_output`] until there are none,
//! and comes back at [`LaneExecutor::next_deadline`] at the latest. The same seed and inputs give the same
//! outputs. Outputs are decided when they are taken: nothing that was decided earlier outlives an input
//! that forbids it.
//!
//! Promises, for what is assigned to it:
//! - calls of one key of one queue never overlap and run in offset order, through retries (P1): the next
//!   call of a lane is dispatched only after the previous one is finished and can no longer run;
//! - the watermark of a queue never passes an unfinished message, and a message that is sent back is
//!   finished only by the broker's acknowledgement (P2);
//! - a lane that fails, waits or is blocked holds no slot, so it delays nobody else (P3);
//! - what is in memory is bounded, what the handler still holds included (P5); a lane is freed when it is
//!   empty, and its memory returned;
//! - nothing is dispatched from a queue past its lease, while it is given away or suspended, or after it
//!   was dropped; a queue is drained only when none of its calls can still run (P7).
//!
//! Where to read on: [`executor`] is the loop, [`calls`] what follows from the end of a call, [`queue`] one
//! queue with its lanes, [`store`] how lanes and messages lie in memory.

mod assignment;
mod availability;
mod budget;
mod calls;
mod executor;
mod finished;
mod head;
mod hot;
mod intake;
pub mod limits;
mod list;
mod queue;
mod report;
pub(crate) mod retry;
mod settings;
mod slab;
mod split;
mod store;
mod suspects;
mod timers;
mod view;

#[cfg(test)]
mod tests;

pub use executor::LaneExecutor;
pub use finished::Finished;
pub use limits::{InMemory, Limits};
pub use settings::{Backoff, Budget, OnExhausted, OnFailure, RetryPolicy, Settings};
pub use view::{
    Counters, HotKey, LaneState, LaneView, LongLane, Oldest, Progress, QueueSummary, SplitKey,
    StuckKey, Summary, TroubledKey,
};

use crate::message::{Message, QueueId, Text};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Time since the start of the process, on a clock that never runs backwards.
pub type Time = Duration;

/// One assignment of a queue to this executor. A queue that is lost and assigned again gets a new one,
/// so that late answers to the old assignment are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assignment(pub u64);

/// Names one handler call. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Names one message that is sent back to the broker. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SendBackId(pub u64);

/// Which lane a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The lane of its key.
    Key,
    /// The one lane that its queue has for messages without a key (or for all, in mode Queue).
    Shared,
    /// A lane of its own: it waits for nobody.
    Own,
}

/// A pulled message and where it belongs. One at [`Place::Key`] without a key goes to the shared lane.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Where it belongs.
    pub place: Place,
    /// The message.
    pub message: Arc<Message>,
}

/// The name of a lane within its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneKey {
    /// Of this key. Shares the memory of a message.
    Key(Text),
    /// The shared lane of its queue.
    Shared,
    /// Of one message alone, which has this offset.
    Own(u64),
}

impl LaneKey {
    /// The key, for people; empty if there is none.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Key(key) => key,
            Self::Shared | Self::Own(_) => "",
        }
    }

    /// Names the lane in the journal, the same in every process and version: FNV-1a (64 bits, Fowler,
    /// Noll and Vo) of the key's bytes, or of `\0shared` and `\0own`.
    pub fn fingerprint(&self) -> u64 {
        let bytes = match self {
            Self::Key(key) => str::as_bytes(key),
            Self::Shared => b"\0shared",
            Self::Own(_) => b"\0own",
        };
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

/// Lanes of a new assignment that must wait, because a call of a former owner may still run.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Which.
    pub keys: HeldKeys,
    /// Until when.
    pub until: Time,
}

/// A set of lanes.
#[derive(Clone, Debug)]
pub enum HeldKeys {
    /// Those with these [fingerprints](LaneKey::fingerprint), in ascending order.
    Some(Arc<[u64]>),
    /// All.
    All,
}

impl Default for HeldKeys {
    fn default() -> Self {
        Self::Some(Arc::default())
    }
}

/// What must not be dispatched, though it is assigned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspension {
    /// Everything.
    pub all: bool,
    /// These queues.
    pub queues: BTreeSet<QueueId>,
    /// These keys, in every queue. A key that a message carries suspends that message also where its
    /// lane is not named after the key.
    pub keys: BTreeSet<String>,
}

impl Suspension {
    /// Whether nothing is suspended.
    pub fn is_empty(&self) -> bool {
        !self.all && self.queues.is_empty() && self.keys.is_empty()
    }
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The queue is ours until `lease`. Answered by pulls.
    Assign {
        /// The queue.
        queue: QueueId,
        /// The new assignment, never used before.
        assignment: Assignment,
        /// Everything below is finished.
        start: u64,
        /// Nothing is dispatched at or after this time.
        lease: Time,
        /// What is finished above `start`; it is not dispatched again.
        finished: Finished,
        /// What has to wait for calls of a former owner.
        held: Held,
    },
    /// Failed attempts of messages that may have killed their handler, as former owners wrote them down:
    /// offset and attempts. Follows the assignment at once.
    Suspects {
        /// The assignment.
        assignment: Assignment,
        /// Which.
        suspects: Vec<(u64, u32)>,
    },
    /// Failed attempts of such messages are in the journal, in answer to [`Output::Record`].
    Recorded {
        /// The assignment.
        assignment: Assignment,
        /// What [`LaneExecutor::suspects`] said when the record was made.
        suspects: Vec<(u64, u32)>,
    },
    /// The lease was renewed. Ignored unless it is later than the one known.
    Renew {
        /// The assignment.
        assignment: Assignment,
        /// The new end of the lease.
        lease: Time,
    },
    /// Give the queue away: nothing new starts, running calls finish. Answered by [`Output::Drained`].
    Release {
        /// The assignment.
        assignment: Assignment,
    },
    /// The queue is not ours any more: everything about it is forgotten, late results are ignored.
    Drop {
        /// The assignment.
        assignment: Assignment,
    },
    /// Everything in `[from, next)` that is not among the messages is finished.
    Pulled {
        /// The assignment.
        assignment: Assignment,
        /// Offset that was asked for.
        from: u64,
        /// Where the next pull begins.
        next: u64,
        /// Messages, each in `[from, next)`.
        messages: Vec<Incoming>,
    },
    /// A pull brought nothing and says nothing about what is finished.
    PullFailed {
        /// The assignment.
        assignment: Assignment,
        /// When to pull again.
        retry_at: Time,
    },
    /// A call ended. The first `acked` of its messages are finished; the result is about the next one,
    /// or, if it is [`CallResult::Done`], all are finished.
    CallEnded {
        /// The call.
        id: CallId,
        /// How many of its messages are finished, from the first on.
        acked: u32,
        /// How it ended.
        result: CallResult,
    },
    /// A call that had no answer (timed out, lost) has really ended: its key need not wait for the time
    /// after which it must have ended.
    CallOver {
        /// The call.
        id: CallId,
    },
    /// What became of an [`Output::SendBack`].
    SentBack {
        /// Which.
        id: SendBackId,
        /// Acknowledged by the broker, or why not.
        result: Result<(), String>,
    },
    /// How many lanes may run at once. Fewer than run now: running ones finish.
    SetLanes(u32),
    /// New limits.
    SetLimits(Limits),
    /// A new retry policy; it counts from the next failure on.
    SetRetry(RetryPolicy),
    /// What must not be dispatched, in place of what was said before. From the return of
    /// [`LaneExecutor::handle`] on nothing of it is.
    Suspend(Suspension),
    /// Only time has passed.
    Tick,
}

/// How a handler call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// All its messages are finished.
    Done,
    /// The handler failed the message: an attempt.
    Failed {
        /// Why, in words.
        error: String,
        /// When the handler wants it again.
        retry_after: Option<Duration>,
    },
    /// The handler says that it will never take this message: it is exhausted.
    Permanent {
        /// Why, in words.
        error: String,
    },
    /// No answer in time; the call was cancelled and may run for the cancel grace: an attempt. The key
    /// waits for [`Input::CallOver`], at most that long.
    TimedOut,
    /// The connection was lost after the request was sent: an attempt. The call may run until the call
    /// bound; the key waits for [`Input::CallOver`], at most that long. Its message is now a suspect (it
    /// may be what killed the handler): suspects run again one at a time, each once its attempts are in the
    /// journal.
    Lost {
        /// Why, in words.
        error: String,
    },
    /// A handler in this process panicked: an attempt, and the call is over.
    Panicked {
        /// Why, in words.
        error: String,
    },
    /// The handler did not take the call, which says nothing about the message (refused before it was
    /// sent, 429, 503): not an attempt.
    NotTaken {
        /// Why, in words.
        error: String,
        /// When the handler wants it again.
        retry_after: Option<Duration>,
    },
    /// The lease was over before the call was sent; the handler has not seen it.
    NotSent,
}

/// What to do.
#[derive(Debug)]
pub enum Output {
    /// Call the handler and report with [`Input::CallEnded`].
    Dispatch(Call),
    /// Send a message back to the broker and report with [`Input::SentBack`].
    SendBack(SendBack),
    /// Pull, and report with [`Input::Pulled`] or [`Input::PullFailed`].
    Pull {
        /// The assignment.
        assignment: Assignment,
        /// The queue.
        queue: QueueId,
        /// Where to begin.
        offset: u64,
        /// Most messages to ask for.
        max_messages: u32,
    },
    /// Write [`LaneExecutor::suspects`] to the journal, and report with [`Input::Recorded`]. A suspect waits
    /// for that; as long as one does, [`LaneExecutor::is_unrecorded`].
    Record {
        /// The assignment.
        assignment: Assignment,
    },
    /// A queue that is given away has no call any more that could run.
    Drained {
        /// The assignment.
        assignment: Assignment,
    },
}

/// A handler call to make.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its name.
    pub id: CallId,
    /// Queue of its messages.
    pub queue: QueueId,
    /// Its lane.
    pub key: LaneKey,
    /// The first message.
    pub message: Arc<Message>,
    /// The messages of the lane that follow it, in order; none unless batches are allowed.
    pub rest: Vec<Arc<Message>>,
    /// 1 for the first attempt of the first message.
    pub attempt: u32,
    /// The call must not be sent at or after this time.
    pub lease: Time,
}

/// A message to send back to the broker (`CONSUMER_SEND_MSG_BACK`).
#[derive(Clone, Debug)]
pub struct SendBack {
    /// Its name.
    pub id: SendBackId,
    /// Assignment of its queue.
    pub assignment: Assignment,
    /// Queue of the message.
    pub queue: QueueId,
    /// Its lane.
    pub key: LaneKey,
    /// The message.
    pub message: Arc<Message>,
    /// RocketMQ's delay level: -1 for the dead letter queue, else the retry topic.
    pub delay_level: i32,
    /// Failed attempts.
    pub attempts: u32,
    /// Why, in words.
    pub reason: String,
}
