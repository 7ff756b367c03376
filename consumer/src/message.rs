//! A message as the executor sees it, and where its key is found.

use crate::contract::spec::{Key, KeyFrom};
use bytes::Bytes;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// RocketMQ property that holds the key the producer selected the queue by.
pub const PROPERTY_SHARDING_KEY: &str = "__SHARDINGKEY";
/// RocketMQ property that holds the message keys, separated by spaces.
pub const PROPERTY_KEYS: &str = "KEYS";

/// One message queue of the topic: a broker and the queue's id there.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId {
    /// Broker name.
    pub broker: Arc<str>,
    /// Queue id on that broker.
    pub id: u32,
}

impl QueueId {
    /// Queue `id` of `broker`.
    pub fn new(broker: impl Into<Arc<str>>, id: u32) -> Self {
        Self {
            broker: broker.into(),
            id,
        }
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.broker, self.id)
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A message as it was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Queue offset.
    pub offset: u64,
    /// Message id as the producer saw it (`UNIQ_KEY`), else the broker's offset message id.
    pub id: String,
    /// Time the broker stored it, milliseconds since the Unix epoch.
    pub stored_at_ms: i64,
    /// Properties, system ones included.
    pub properties: HashMap<String, String>,
    /// Body, decompressed; may be empty.
    pub body: Bytes,
}

impl Message {
    /// The key that orders this message, or none if it carries none. An empty key is no key.
    pub fn key(&self, spec: &Key) -> Option<String> {
        let property = |name: &str| self.properties.get(name).filter(|value| !value.is_empty());
        let first_of_keys = || {
            property(PROPERTY_KEYS)
                .and_then(|keys| keys.split_whitespace().next())
                .map(str::to_owned)
        };
        match spec.from {
            KeyFrom::ShardingKey => property(PROPERTY_SHARDING_KEY)
                .cloned()
                .or_else(first_of_keys),
            KeyFrom::Keys => first_of_keys(),
            KeyFrom::Property => property(spec.property.as_deref()?).cloned(),
            KeyFrom::JsonPointer => {
                let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
                match body.pointer(spec.pointer.as_deref()?)? {
                    serde_json::Value::String(text) if !text.is_empty() => Some(text.clone()),
                    serde_json::Value::Number(number) => Some(number.to_string()),
                    _ => None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(properties: &[(&str, &str)], body: &'static str) -> Message {
        Message {
            offset: 0,
            id: "id".into(),
            stored_at_ms: 0,
            properties: properties
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn sharding_key_falls_back_to_the_first_of_keys() {
        let spec = Key::default();
        let both = message(&[(PROPERTY_SHARDING_KEY, "a"), (PROPERTY_KEYS, "b c")], "");
        assert_eq!(both.key(&spec).as_deref(), Some("a"));
        assert_eq!(
            message(&[(PROPERTY_KEYS, "b c")], "").key(&spec).as_deref(),
            Some("b")
        );
        assert_eq!(
            message(&[(PROPERTY_SHARDING_KEY, ""), (PROPERTY_KEYS, " ")], "").key(&spec),
            None
        );
    }

    #[test]
    fn a_key_is_found_in_a_property_or_in_the_body() {
        let property = Key {
            from: KeyFrom::Property,
            property: Some("order".into()),
            pointer: None,
        };
        assert_eq!(
            message(&[("order", "7")], "").key(&property).as_deref(),
            Some("7")
        );
        let pointer = Key {
            from: KeyFrom::JsonPointer,
            property: None,
            pointer: Some("/order/id".into()),
        };
        assert_eq!(
            message(&[], r#"{"order":{"id":42}}"#)
                .key(&pointer)
                .as_deref(),
            Some("42")
        );
        assert_eq!(
            message(&[], r#"{"order":{"id":"x"}}"#)
                .key(&pointer)
                .as_deref(),
            Some("x")
        );
        for body in [
            "",
            "not json",
            r#"{"order":{}}"#,
            r#"{"order":{"id":null}}"#,
        ] {
            assert_eq!(message(&[], body).key(&pointer), None, "{body}");
        }
    }
}
