//! What to do with messages the handler fails.

use crate::contract::duration::DurationText;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to do when the handler fails a message. Its key waits in between; other keys do not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// Attempts before a message is exhausted. Default: 16.
    #[serde(default = "Retry::default_max_attempts")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_attempts: u32,
    /// Time between attempts. In ordering.mode None RocketMQ's delay levels take its place.
    #[serde(default)]
    pub backoff: Backoff,
    /// How long the messages of one key may keep it waiting.
    #[serde(default)]
    pub budget: Budget,
    /// What becomes of an exhausted message. DeadLetter: the broker copies it to %DLQ%<group>; it is
    /// finished once the broker has acknowledged that (if that answer is lost the copy may be there
    /// twice). Block: its key waits, visibly, until the handler takes the message: it is tried again once
    /// a minute. Default: DeadLetter.
    #[serde(default)]
    pub on_exhausted: OnExhausted,
}

/// What becomes of a message that has used up its attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum OnExhausted {
    /// It goes to the dead letter queue of the group.
    #[default]
    DeadLetter,
    /// Its key waits for a person.
    Block,
}

/// How long failing messages may keep their key waiting: beyond that each message of the key is exhausted
/// at its first failure, until one succeeds. Otherwise a key whose every message fails would hold up its
/// queue for hours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.blocked) >= duration('1s') && duration(self.blocked) <= duration(self.per) && duration(self.per) <= duration('24h')",
    "message": "retry.budget.blocked must be at least 1s and not longer than retry.budget.per, and that not longer than 24h"
}]))]
pub struct Budget {
    /// So long. Default: 60s.
    #[serde(default = "Budget::default_blocked")]
    pub blocked: DurationText,
    /// In so long. Default: 10m.
    #[serde(default = "Budget::default_per")]
    pub per: DurationText,
}

impl Budget {
    fn default_blocked() -> DurationText {
        DurationText::from_secs(60)
    }

    fn default_per() -> DurationText {
        DurationText::from_secs(600)
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            blocked: Self::default_blocked(),
            per: Self::default_per(),
        }
    }
}

impl Retry {
    fn default_max_attempts() -> u32 {
        16
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: Self::default_max_attempts(),
            backoff: Backoff::default(),
            budget: Budget::default(),
            on_exhausted: OnExhausted::default(),
        }
    }
}

/// Time between attempts: `initial * factor^n`, at most `max`, plus or minus `jitterPercent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.initial) >= duration('1ms') && duration(self.initial) <= duration(self.max)",
    "message": "retry.backoff.initial must be at least 1ms and not longer than retry.backoff.max"
}]))]
pub struct Backoff {
    /// Time before the second attempt. Default: 200ms.
    #[serde(default = "Backoff::default_initial")]
    pub initial: DurationText,
    /// Growth per attempt. Default: 2.
    #[serde(default = "Backoff::default_factor")]
    #[schemars(range(min = 1, max = 10))]
    pub factor: u32,
    /// Longest time between attempts. Default: 10s.
    #[serde(default = "Backoff::default_max")]
    pub max: DurationText,
    /// Random share of the time, so that failures do not come back in step. Default: 20.
    #[serde(default = "Backoff::default_jitter_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub jitter_percent: u32,
}

impl Backoff {
    fn default_initial() -> DurationText {
        DurationText::from_millis(200)
    }

    fn default_factor() -> u32 {
        2
    }

    fn default_max() -> DurationText {
        DurationText::from_secs(10)
    }

    fn default_jitter_percent() -> u32 {
        20
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Self::default_initial(),
            factor: Self::default_factor(),
            max: Self::default_max(),
            jitter_percent: Self::default_jitter_percent(),
        }
    }
}
