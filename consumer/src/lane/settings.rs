//! What the core must know of the OrderedConsumer.

use super::limits::Limits;
use std::time::Duration;

/// What the core must know of the OrderedConsumer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When failed messages are tried again, and when no more.
    pub retry: RetryPolicy,
    /// Where failed messages wait.
    pub on_failure: OnFailure,
    /// Most messages of one call, at least 1. They are consecutive messages of one lane.
    pub batch: u32,
    /// What may be in memory.
    pub limits: Limits,
    /// Longest time of one call.
    pub timeout: Duration,
    /// How long a cancelled call may still run.
    pub cancel_grace: Duration,
    /// Lanes that may run at once, to begin with.
    pub lanes: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            on_failure: OnFailure::InPlace,
            batch: 1,
            limits: Limits::default(),
            timeout: Duration::from_secs(30),
            cancel_grace: Duration::from_secs(5),
            lanes: 4,
        }
    }
}

/// Where a failed message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// At the head of its lane, which waits with it.
    InPlace,
    /// In the broker's retry topic, as in RocketMQ's concurrent mode: it goes back at its first failure.
    SendBack,
}

/// What becomes of a message that has used up its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExhausted {
    /// It goes to the dead letter queue of the group.
    DeadLetter,
    /// Its lane waits for a person; it is tried again once a minute.
    Block,
}

/// When failed messages are tried again, and when no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts before a message is exhausted, at least 1.
    pub max_attempts: u32,
    /// Time between attempts.
    pub backoff: Backoff,
    /// How long the messages of one key may keep it waiting; none for as long as they like.
    pub budget: Option<Budget>,
    /// What becomes of an exhausted message.
    pub on_exhausted: OnExhausted,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 16,
            backoff: Backoff::default(),
            budget: Some(Budget::default()),
            on_exhausted: OnExhausted::DeadLetter,
        }
    }
}

/// Time between attempts: `initial * factor^n`, at most `max`, plus or minus `jitter_percent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second attempt.
    pub initial: Duration,
    /// Growth per attempt.
    pub factor: u32,
    /// The longest.
    pub max: Duration,
    /// Random share of it.
    pub jitter_percent: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(200),
            factor: 2,
            max: Duration::from_secs(10),
            jitter_percent: 20,
        }
    }
}

/// How long failing messages may keep their key waiting, from the first failure of a message to its end:
/// beyond it each is exhausted at its first failure, until one succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// So long ...
    pub blocked: Duration,
    /// ... in so long.
    pub per: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            blocked: Duration::from_secs(60),
            per: Duration::from_secs(600),
        }
    }
}
