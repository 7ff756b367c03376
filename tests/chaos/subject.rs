//! What is consumed, and how: the same for members of all kinds.

use crate::settings::{DRAINS, TIMEOUT};
use crate::system::System;
use serde_json::{Value, json};
use std::path::PathBuf;

/// What is consumed, by what.
pub struct Subject {
    /// What consumes.
    pub system: System,
    /// Keylane's executor, or the directory of the peer's compiled classes.
    pub program: PathBuf,
    /// The topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Where processes write their logs.
    pub logs: PathBuf,
}

impl Subject {
    /// What an executor is told, with this name server and this HTTP endpoint of its handler.
    pub fn spec(&self, name_server: &str, http: Value) -> Value {
        json!({
            "rocketmq": {"nameServers": [name_server]},
            "topic": self.topic, "consumerGroup": self.group,
            "handler": {
                "http": http,
                "timeout": format!("{}s", TIMEOUT.as_secs()),
            },
            // No message is given up: each must be handled in the end.
            "retry": {
                "maxAttempts": 1000, "backoff": {"initial": "200ms", "max": "2s"},
                "budget": {"blocked": "24h", "per": "24h"},
            },
            "drain": {"timeout": format!("{}s", DRAINS.as_secs())},
        })
    }

    /// The OrderedConsumer of that; it is named as the group.
    pub fn resource(&self, spec: Value) -> Value {
        json!({
            "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer",
            "metadata": {"name": self.group},
            "spec": spec,
        })
    }
}
