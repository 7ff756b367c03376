//! The part of `OrderedConsumer.spec` that the executor obeys. The operator's full spec flattens
//! [`ConsumerSpec`] and adds what concerns pods; the executor reads the same YAML with or without
//! Kubernetes. Field docs become the descriptions that `kubectl explain` shows.

use super::duration::DurationText;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to consume, how to order it and whom to hand it to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerSpec {
    /// The RocketMQ cluster to consume from.
    pub rocketmq: Rocketmq,
    /// Topic to consume. It must exist.
    #[schemars(length(min = 1, max = 127), regex(pattern = r"^[%|a-zA-Z0-9_-]+$"))]
    pub topic: String,
    /// Consumer group. It must not be used by other consumers, whether Keylane's or RocketMQ's own.
    #[schemars(length(min = 1, max = 119), regex(pattern = r"^[%|a-zA-Z0-9_-]+$"))]
    pub consumer_group: String,
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
    /// How to stop.
    #[serde(default)]
    pub drain: Drain,
}

/// A RocketMQ cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rocketmq {
    /// Addresses of the name servers, as host:port.
    #[schemars(
        length(min = 1, max = 16),
        inner(
            length(min = 3, max = 260),
            regex(pattern = r"^[^:;,/\s]+:[0-9]{1,5}$")
        )
    )]
    pub name_servers: Vec<String>,
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

/// What makes two messages keep their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ordering {
    /// Where the key of a message is found. Messages of one queue with one key are handled in order.
    #[serde(default)]
    pub key: Key,
}

/// Where the key of a message is found. Messages without one share a single lane of their queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.property) == (self.from == 'Property')",
        "message": "ordering.key.property must be set exactly when ordering.key.from is Property"
    },
    {
        "rule": "has(self.pointer) == (self.from == 'JsonPointer')",
        "message": "ordering.key.pointer must be set exactly when ordering.key.from is JsonPointer"
    }
]))]
pub struct Key {
    /// ShardingKey: the key the producer selected the queue by, else the first of KEYS. Keys: the first
    /// of KEYS. Property: a user property. JsonPointer: a value inside a JSON body.
    #[serde(default)]
    pub from: KeyFrom,
    /// Name of the user property for from Property.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub property: Option<String>,
    /// RFC 6901 pointer for from JsonPointer, such as /order/id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = "^(/([^~]|~[01])*)+$"))]
    pub pointer: Option<String>,
}

/// Places a key can be found in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum KeyFrom {
    /// Property `__SHARDINGKEY`, else the first of `KEYS`.
    #[default]
    ShardingKey,
    /// The first of `KEYS`.
    Keys,
    /// A user property.
    Property,
    /// A value inside a JSON body.
    JsonPointer,
}

/// Whom to hand messages to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.timeout) >= duration('10ms') && duration(self.timeout) <= duration('1h')",
    "message": "handler.timeout must be between 10ms and 1h"
}]))]
pub struct Handler {
    /// Name of the container of the template that handles messages. Default: handler.
    #[serde(default = "Handler::default_container")]
    #[schemars(length(min = 1, max = 63))]
    pub container: String,
    /// The handler's HTTP endpoint; it receives CloudEvents 1.0 in binary mode.
    pub http: Http,
    /// Longest time one call may take. A call is cancelled then and counts as a failed attempt. Default: 30s.
    #[serde(default = "Handler::default_timeout")]
    pub timeout: DurationText,
}

impl Handler {
    fn default_container() -> String {
        "handler".into()
    }

    fn default_timeout() -> DurationText {
        DurationText::from_secs(30)
    }
}

/// An HTTP endpoint in the same pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Http {
    /// Port the handler listens on, on 127.0.0.1 or all addresses of the pod.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Path to POST to. Default: /.
    #[serde(default = "Http::default_path")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[^\s#]*$"))]
    pub path: String,
}

impl Http {
    fn default_path() -> String {
        "/".into()
    }
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

/// What to do when the handler fails a message. Its key waits in between; other keys do not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// Attempts before a message is exhausted. An exhausted message blocks its key, visibly, until the
    /// handler accepts it: it is then tried again once a minute. Default: 16.
    #[serde(default = "Retry::default_max_attempts")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_attempts: u32,
    /// Time between attempts.
    #[serde(default)]
    pub backoff: Backoff,
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
