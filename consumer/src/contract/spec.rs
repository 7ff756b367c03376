//! The part of `OrderedConsumer.spec` that the executor obeys. The operator's full spec flattens
//! [`ConsumerSpec`] and adds what concerns pods; the executor reads the same YAML with or without
//! Kubernetes. Field docs become the descriptions that `kubectl explain` shows.

mod filter;
mod flow;
mod handler;
mod order;
mod retry;
mod rocketmq;

pub use filter::{Consumption, Filter};
pub use flow::{Limits, Suspend};
pub use handler::{Batch, Grpc, Handler, Http, HttpVersion};
pub use order::{Key, KeyFrom, Mode, Ordering, Unkeyed};
pub use retry::{Backoff, Budget, OnExhausted, Retry};
pub use rocketmq::{Rocketmq, SecretRef, Tls};

use super::duration::DurationText;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Fields of the spec that a running executor takes over when they change; the others take effect at its
/// next start.
pub const LIVE_FIELDS: [&str; 4] = ["retry", "limits", "suspend", "redactKeys"];

/// What to consume, how to order it and whom to hand it to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerSpec {
    /// The RocketMQ cluster to consume from.
    pub rocketmq: Rocketmq,
    /// Topic to consume. It must exist. Topics of queue.type BatchCQ are not supported.
    #[schemars(
        length(min = 1, max = 127),
        regex(pattern = r"^[%|a-zA-Z0-9_-]+$"),
        extend("x-kubernetes-validations" = [{
            "rule": "self.matches('^[%|a-zA-Z0-9_-]+$')",
            "message": "write the topic's name as RocketMQ has it: letters, digits, _, -, % and | only"
        }])
    )]
    pub topic: String,
    /// Consumer group. It must not be used by other consumers, whether Keylane's or RocketMQ's own.
    #[schemars(
        length(min = 1, max = 119),
        regex(pattern = r"^[%|a-zA-Z0-9_-]+$"),
        extend("x-kubernetes-validations" = [{
            "rule": "self.matches('^[%|a-zA-Z0-9_-]+$')",
            "message": "choose a group of letters, digits, _, -, % and | only"
        }])
    )]
    pub consumer_group: String,
    /// Whether the pods share the messages (Clustering) or each gets all (Broadcasting). In Broadcasting
    /// nothing is committed: every process begins at startFrom. Default: Clustering.
    #[serde(default)]
    pub consumption: Consumption,
    /// Which messages of the topic are consumed. Default: all.
    #[serde(default)]
    pub filter: Filter,
    /// Where to begin when the group has never committed an offset. Default: First.
    #[serde(default)]
    pub start_from: StartFrom,
    /// What makes two messages keep their order.
    #[serde(default)]
    pub ordering: Ordering,
    /// Whom to hand messages to.
    pub handler: Handler,
    /// How many lanes (keys) one pod may run at once; tuned between the bounds.
    #[serde(default)]
    pub lanes: LaneBounds,
    /// What to do when the handler fails a message.
    #[serde(default)]
    pub retry: Retry,
    /// What a pod holds in memory at most.
    #[serde(default)]
    pub limits: Limits,
    /// How to stop.
    #[serde(default)]
    pub drain: Drain,
    /// What is not handed to the handler for now.
    #[serde(default)]
    pub suspend: Suspend,
    /// Show keys only as hashes in stats, metrics, logs and status, because they are personal data.
    /// Default: false.
    #[serde(default)]
    pub redact_keys: bool,
}

/// Where to begin when the group has no committed offset on any queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.timestamp) == (self.position == 'Timestamp')",
    "message": "startFrom.timestamp must be set exactly when startFrom.position is Timestamp"
}]))]
pub struct StartFrom {
    /// First: the oldest message kept. Last: only messages sent from now on. Timestamp: messages stored
    /// at startFrom.timestamp or later.
    #[serde(default)]
    pub position: Position,
    /// Point in time for position Timestamp, RFC 3339, such as 2026-11-11T00:00:00+08:00.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"), with = "Option<String>")]
    pub timestamp: Option<jiff::Timestamp>,
}

/// A starting position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Position {
    /// The oldest message kept.
    #[default]
    First,
    /// Only messages sent from now on.
    Last,
    /// Messages stored at a point in time or later.
    Timestamp,
}

/// Bounds between which the number of lanes of a pod is tuned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.min <= self.max",
    "message": "lanes.min must not be larger than lanes.max"
}]))]
pub struct LaneBounds {
    /// Fewest lanes a pod runs at once, and what it starts with. Default: 4.
    #[serde(default = "LaneBounds::default_min")]
    #[schemars(range(min = 1, max = 10000))]
    pub min: u32,
    /// Most lanes a pod runs at once. Default: 512.
    #[serde(default = "LaneBounds::default_max")]
    #[schemars(range(min = 1, max = 10000))]
    pub max: u32,
}

impl LaneBounds {
    fn default_min() -> u32 {
        4
    }

    fn default_max() -> u32 {
        512
    }
}

impl Default for LaneBounds {
    fn default() -> Self {
        Self {
            min: Self::default_min(),
            max: Self::default_max(),
        }
    }
}

/// How to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.timeout) >= duration('1s') && duration(self.timeout) <= duration('1h')",
    "message": "drain.timeout must be between 1s and 1h"
}]))]
pub struct Drain {
    /// Longest time running calls may take to finish when a pod stops or a queue is given away. Default: 60s.
    #[serde(default = "Drain::default_timeout")]
    pub timeout: DurationText,
}

impl Drain {
    fn default_timeout() -> DurationText {
        DurationText::from_secs(60)
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            timeout: Self::default_timeout(),
        }
    }
}
