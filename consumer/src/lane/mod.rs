//! The lane core: every key of every queue is a FIFO lane; decides what runs when, what is pulled, and
//! what is finished.
//!
//! Pure: no clock, no I/O. The shell calls [`LaneExecutor::handle`] with the time and what happened,
//! then takes outputs from [`LaneExecutor::poll_output`] until there are none, and comes back at
//! [`LaneExecutor::next_deadline`] at the latest. The same seed and inputs give the same outputs.
//!
//! Promises, for what is assigned to it:
//! - calls of one key of one queue never overlap and run in offset order, through retries (P1): the next
//!   call of a lane is dispatched only after the previous one is finished, or can no longer run;
//! - the watermark of a queue never passes an unfinished message (P2);
//! - a lane that fails, waits or is blocked holds no slot, so it delays nobody else (P3);
//! - what is in memory is bounded (P5), and a lane is freed when it is empty;
//! - nothing is dispatched from a queue past its lease, while it is given away, or after it was dropped.

mod availability;
pub mod limits;
mod offsets;
mod queue;
mod retry;
mod scheduler;

#[cfg(test)]
mod tests;

pub use limits::{Held, Limits};
pub use scheduler::LaneExecutor;

use crate::contract::admin::{BlockedKey, LaneState};
use crate::contract::spec::Retry;
use crate::message::{Message, QueueId};
use std::sync::Arc;
use std::time::Duration;

/// Time since the start of the process, on a clock that never runs backwards.
pub type Time = Duration;

/// The key of a lane; none for messages that carry no key.
pub type LaneKey = Option<Arc<str>>;

/// One assignment of a queue to this executor. A queue that is lost and assigned again gets a new one,
/// so that late answers to the old assignment are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assignment(pub u64);

/// Names one handler call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What the core must know of the OrderedConsumer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When failed messages are tried again.
    pub retry: Retry,
    /// What may be in memory.
    pub limits: Limits,
    /// Longest time of one call.
    pub timeout: Duration,
    /// How long a cancelled call may still run.
    pub cancel_grace: Duration,
    /// Lanes that may run at once, to begin with.
    pub lanes: u32,
}

/// A message with its key, as pulled.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// The key.
    pub key: LaneKey,
    /// The message.
    pub message: Arc<Message>,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The queue is ours until `lease`; consumption begins at `start`. Answered by pulls.
    Assign {
        /// The queue.
        queue: QueueId,
        /// The new assignment, never used before.
        assignment: Assignment,
        /// First unfinished offset.
        start: u64,
        /// Nothing is dispatched at or after this time.
        lease: Time,
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
        messages: Vec<Keyed>,
    },
    /// A pull brought nothing and says nothing about what is finished.
    PullFailed {
        /// The assignment.
        assignment: Assignment,
        /// When to pull again.
        retry_at: Time,
    },
    /// A call ended.
    CallEnded {
        /// The call.
        id: CallId,
        /// How.
        result: CallResult,
    },
    /// How many lanes may run at once. Fewer than run now: running ones finish.
    SetLanes(u32),
    /// Only time has passed.
    Tick,
}

/// How a handler call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// The message is finished.
    Done,
    /// The handler failed the message: an attempt.
    Failed {
        /// Why, in words.
        error: String,
        /// When the handler wants it again.
        retry_after: Option<Duration>,
    },
    /// The handler says that it will never take this message.
    Permanent {
        /// Why, in words.
        error: String,
    },
    /// No answer in time; the call was cancelled and may run for the cancel grace: an attempt.
    TimedOut,
    /// The connection was lost after the request was sent; the call may run until the call bound: an
    /// attempt.
    Lost {
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
    /// A queue that is given away has no running call any more.
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
    /// Queue of the message.
    pub queue: QueueId,
    /// Key of the message.
    pub key: LaneKey,
    /// The message.
    pub message: Arc<Message>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The call must not be sent at or after this time.
    pub lease: Time,
}

/// How far a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// First unfinished offset.
    pub watermark: u64,
    /// Finished offsets above it.
    pub finished_above: u64,
    /// First offset that has not been pulled.
    pub pulled: u64,
    /// Messages in memory.
    pub buffered: u64,
}

/// One lane, for people to look at.
#[derive(Clone, Debug)]
pub struct LaneView {
    /// Its queue.
    pub queue: QueueId,
    /// Its key.
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

/// Counts over all queues. Counters start at zero with the executor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Calls running now.
    pub busy: u32,
    /// Time-integral of `busy`.
    pub busy_time: Duration,
    /// Lanes ready to run without a free slot.
    pub waiting: u32,
    /// Lanes with messages.
    pub live_keys: u64,
    /// Messages finished by the handler.
    pub completed: u64,
    /// Failed attempts.
    pub failed: u64,
    /// False while calls are held back because several keys found the handler not available.
    pub handler_available: bool,
    /// Keys whose head has used up its attempts.
    pub blocked: u64,
    /// The first of them.
    pub blocked_keys: Vec<BlockedKey>,
}
