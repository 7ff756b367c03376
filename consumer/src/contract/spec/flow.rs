//! How much is in memory, and what is held back.

use crate::contract::quantity::ByteQuantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a pod holds in memory at most. A queue that reaches a limit is not pulled until it is below half
/// of it; other queues are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "type(self.bytes) == int ? self.bytes >= 1048576 : quantity(self.bytes).compareTo(quantity('1Mi')) >= 0",
    "message": "limits.bytes must be at least 1Mi"
}]))]
pub struct Limits {
    /// Messages of all queues of a pod together. Default: 20000.
    #[serde(default = "Limits::default_messages")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub messages: u64,
    /// Memory of these messages, as a quantity such as 256Mi. Each message counts with its body, its
    /// properties and what keeping it costs, so an empty one counts too. Default: 256Mi.
    #[serde(default = "Limits::default_bytes")]
    pub bytes: ByteQuantity,
    /// How far one queue may be pulled beyond its first unfinished message, in offsets: how much one
    /// stuck key can leave uncommitted. Default: 5000000.
    #[serde(default = "Limits::default_span")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub span: u64,
}

impl Limits {
    fn default_messages() -> u64 {
        20_000
    }

    fn default_bytes() -> ByteQuantity {
        ByteQuantity::new(256 << 20)
    }

    fn default_span() -> u64 {
        5_000_000
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            messages: Self::default_messages(),
            bytes: Self::default_bytes(),
            span: Self::default_span(),
        }
    }
}

/// What is not handed to the handler for now. Running calls finish; nothing is lost, and what is already
/// in memory stays there. Takes effect in running pods without a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Suspend {
    /// Everything. Default: false.
    #[serde(default)]
    pub all: bool,
    /// These queues, each as broker name/queue id, such as broker-a/3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 1024),
        inner(length(min = 3, max = 140), regex(pattern = r"^[^/\s]+/[0-9]{1,5}$")),
        extend("x-kubernetes-validations" = [{
            "rule": r"self.all(queue, queue.matches('^[^/\\s]+/[0-9]{1,5}$'))",
            "message": "write each queue as broker name/queue id, such as broker-a/3"
        }])
    )]
    pub queues: Vec<String>,
    /// Messages with these keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(min = 1, max = 255)))]
    pub keys: Vec<String>,
}
