//! What makes two messages keep their order.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What makes two messages keep their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ordering {
    /// Key: messages of one queue with one key are handled one after the other, in order; different keys
    /// at once. Queue: all messages of a queue one after the other, as RocketMQ's own ordered mode. None:
    /// all at once; a failed message goes to the broker's retry topic and comes back after RocketMQ's
    /// delay levels. No other mode consumes that topic, so None cannot be changed to one. Default: Key.
    #[serde(default)]
    pub mode: Mode,
    /// Where the key of a message is found. It orders in mode Key only; the handler is told it always.
    #[serde(default)]
    pub key: Key,
    /// Messages without a key in mode Key. OneLane: one after the other, per queue. Parallel: none of
    /// them waits for another. Default: OneLane.
    #[serde(default)]
    pub unkeyed: Unkeyed,
}

/// What keeps its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Mode {
    /// The messages of one key.
    #[default]
    Key,
    /// The messages of one queue.
    Queue,
    /// Nothing.
    None,
}

/// What becomes of messages without a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Unkeyed {
    /// They keep their order, per queue.
    #[default]
    OneLane,
    /// Each is handled when it comes.
    Parallel,
}

/// Where the key of a message is found.
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
    #[schemars(
        length(min = 1, max = 255),
        regex(pattern = "^(/([^~]|~[01])*)+$"),
        extend("x-kubernetes-validations" = [{
            "rule": "self.matches('^(/([^~]|~[01])*)+$')",
            "message": "write a JSON pointer (RFC 6901): each part begins with /, such as /order/id"
        }])
    )]
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
