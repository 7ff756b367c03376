//! A message as the executor sees it, and where its key is found.
//!
//! A million messages may be in memory, so a message is one buffer: body, properties, id and key are
//! slices of it, and a clone of any of them is a reference count. Properties stay in the form they came
//! in; few of them are ever asked for.

use crate::contract::spec::{Key, KeyFrom};
use bytes::Bytes;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Text that shares a message's buffer; a clone is a reference count.
pub type Text = bytestring::ByteString;

/// RocketMQ property that holds the key the producer selected the queue by.
pub const PROPERTY_SHARDING_KEY: &str = "__SHARDINGKEY";
/// RocketMQ property that holds the message keys, separated by spaces.
pub const PROPERTY_KEYS: &str = "KEYS";
/// RocketMQ property that holds the tag.
pub const PROPERTY_TAGS: &str = "TAGS";
/// RocketMQ property that holds the id the producer gave the message.
pub const PROPERTY_UNIQUE_KEY: &str = "UNIQ_KEY";

/// Which topic of the group a queue belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// The topic of the OrderedConsumer.
    Main,
    /// `%RETRY%<group>`, where the broker puts messages that were sent back.
    Retry,
}

/// One message queue: a topic, a broker and the queue's id there.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId {
    /// The topic.
    pub topic: Topic,
    /// Broker name.
    pub broker: Arc<str>,
    /// Queue id on that broker.
    pub id: u32,
}

impl QueueId {
    /// Queue `id` of the topic on `broker`.
    pub fn new(broker: impl Into<Arc<str>>, id: u32) -> Self {
        Self {
            topic: Topic::Main,
            broker: broker.into(),
            id,
        }
    }

    /// Queue `id` of the group's retry topic on `broker`.
    pub fn retry(broker: impl Into<Arc<str>>, id: u32) -> Self {
        Self {
            topic: Topic::Retry,
            ..Self::new(broker, id)
        }
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = match self.topic {
            Topic::Main => "",
            Topic::Retry => "retry/",
        };
        write!(f, "{topic}{}/{}", self.broker, self.id)
    }
}

/// A text that does not name a queue.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not broker name/queue id")]
pub struct NotAQueue(String);

/// Reads `<broker>/<id>`, a queue of the topic.
impl FromStr for QueueId {
    type Err = NotAQueue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let queue = text.split_once('/').and_then(|(broker, id)| {
            let id = id.parse().ok()?;
            (!broker.is_empty() && !broker.contains(char::is_whitespace))
                .then(|| Self::new(broker, id))
        });
        queue.ok_or_else(|| NotAQueue(text.to_owned()))
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A message as it was pulled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Queue offset.
    pub offset: u64,
    /// Offset in the broker's commit log.
    pub physical_offset: u64,
    /// Time the producer made it, by the producer's clock, milliseconds since the Unix epoch.
    pub born_at_ms: i64,
    /// Time the broker stored it, milliseconds since the Unix epoch.
    pub stored_at_ms: i64,
    /// How often it was sent back to the broker.
    pub reconsume_times: u32,
    /// Message id as the producer saw it (`UNIQ_KEY`), else the broker's offset message id.
    pub id: Text,
    /// Properties, system ones included.
    pub properties: Properties,
    /// Body, decompressed; may be empty.
    pub body: Bytes,
    /// The key that orders it; none if it carries none.
    pub key: Option<Text>,
    /// Why its body cannot be read (it says that it is compressed and is not); none if it can. The
    /// handler never sees such a message.
    pub defect: Option<Text>,
}

impl Message {
    /// Bytes it counts for against the limits: its content and what keeping it costs, so that a million
    /// empty messages are not free.
    pub fn cost(&self) -> u64 {
        // The message behind its reference count, the buffer's own header, a place in a lane.
        const KEPT: usize = size_of::<Message>() + 64;
        (KEPT + self.properties.text().len() + self.body.len()) as u64
    }

    /// The key that orders this message, or none if it carries none. An empty key is no key.
    pub fn find_key(&self, spec: &Key) -> Option<Text> {
        let shared = |text: &str| self.properties.0.slice_ref(text);
        let first_of_keys = || {
            let keys = self.properties.get(PROPERTY_KEYS)?;
            keys.split_whitespace().next().map(shared)
        };
        match spec.from {
            KeyFrom::ShardingKey => self
                .properties
                .get(PROPERTY_SHARDING_KEY)
                .map(shared)
                .or_else(first_of_keys),
            KeyFrom::Keys => first_of_keys(),
            KeyFrom::Property => self.properties.get(spec.property.as_deref()?).map(shared),
            KeyFrom::JsonPointer => {
                let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
                match body.pointer(spec.pointer.as_deref()?)? {
                    serde_json::Value::String(text) if !text.is_empty() => {
                        Some(text.as_str().into())
                    }
                    serde_json::Value::Number(number) => Some(number.to_string().into()),
                    _ => None,
                }
            }
        }
    }
}

const NAME_VALUE_SEPARATOR: char = '\u{1}';
const PROPERTY_SEPARATOR: char = '\u{2}';

/// The properties of a message in RocketMQ's own form: name, 0x01, value, 0x02, and so on. Of a name
/// given twice the last value counts, and an empty value is none.
/// Source: `MessageDecoder.string2messageProperties` of Apache RocketMQ 5.3.3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(Text);

impl Properties {
    /// Properties in RocketMQ's own form.
    pub fn new(text: Text) -> Self {
        Self(text)
    }

    /// RocketMQ's own form.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The value of a property.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .rsplit(PROPERTY_SEPARATOR)
            .filter_map(pair)
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    /// All properties as they came, names given twice included.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.split(PROPERTY_SEPARATOR).filter_map(pair)
    }
}

impl<'p> FromIterator<(&'p str, &'p str)> for Properties {
    fn from_iter<I: IntoIterator<Item = (&'p str, &'p str)>>(pairs: I) -> Self {
        let mut text = String::new();
        for (name, value) in pairs {
            text.push_str(name);
            text.push(NAME_VALUE_SEPARATOR);
            text.push_str(value);
            text.push(PROPERTY_SEPARATOR);
        }
        Self(text.into())
    }
}

fn pair(property: &str) -> Option<(&str, &str)> {
    property
        .split_once(NAME_VALUE_SEPARATOR)
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(properties: &[(&str, &str)], body: &'static str) -> Message {
        Message {
            properties: properties.iter().copied().collect(),
            body: Bytes::from_static(body.as_bytes()),
            ..Message::default()
        }
    }

    #[test]
    fn sharding_key_falls_back_to_the_first_of_keys() {
        let spec = Key::default();
        let both = message(&[(PROPERTY_SHARDING_KEY, "a"), (PROPERTY_KEYS, "b c")], "");
        assert_eq!(both.find_key(&spec).as_deref(), Some("a"));
        assert_eq!(
            message(&[(PROPERTY_KEYS, "b c")], "")
                .find_key(&spec)
                .as_deref(),
            Some("b")
        );
        assert_eq!(
            message(&[(PROPERTY_SHARDING_KEY, ""), (PROPERTY_KEYS, " ")], "").find_key(&spec),
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
            message(&[("order", "7")], "")
                .find_key(&property)
                .as_deref(),
            Some("7")
        );
        let pointer = Key {
            from: KeyFrom::JsonPointer,
            property: None,
            pointer: Some("/order/id".into()),
        };
        for (body, key) in [
            (r#"{"order":{"id":42}}"#, Some("42")),
            (r#"{"order":{"id":"x"}}"#, Some("x")),
            ("", None),
            ("not json", None),
            (r#"{"order":{}}"#, None),
            (r#"{"order":{"id":null}}"#, None),
            (r#"{"order":{"id":""}}"#, None),
        ] {
            assert_eq!(
                message(&[], body).find_key(&pointer).as_deref(),
                key,
                "{body}"
            );
        }
    }

    #[test]
    fn properties_are_read_as_rocketmq_reads_them() {
        let text =
            "a\u{1}1\u{2}\u{1}nameless\u{2}empty\u{1}\u{2}a\u{1}2\u{1}x\u{2}bare\u{2}last\u{1}3";
        let properties = Properties::new(text.into());
        assert_eq!(properties.get("a"), Some("2\u{1}x"), "the last one counts");
        assert_eq!(
            properties.get("last"),
            Some("3"),
            "without a separator after it"
        );
        for none in ["", "empty", "bare", "b"] {
            assert_eq!(properties.get(none), None, "{none:?}");
        }
        assert_eq!(properties.iter().count(), 3);
    }

    #[test]
    fn a_key_shares_the_buffer_of_its_message() {
        let message = message(&[("x", "y"), (PROPERTY_SHARDING_KEY, "shared")], "");
        let key = message.find_key(&Key::default()).unwrap();
        let buffer = message.properties.text().as_bytes().as_ptr_range();
        assert!(buffer.contains(&key.as_ptr()));
    }

    #[test]
    fn a_queue_is_written_as_broker_and_id() {
        assert_eq!("b-1/7".parse(), Ok(QueueId::new("b-1", 7)));
        assert_eq!(QueueId::new("b-1", 7).to_string(), "b-1/7");
        for wrong in ["", "7", "/7", "b", "b/", "b/x", "b/-1", "a/b/1", "a b/1"] {
            assert!(wrong.parse::<QueueId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_empty_message_counts_too() {
        assert!(Message::default().cost() > 100);
        assert_eq!(message(&[], "12345").cost(), Message::default().cost() + 5);
    }
}
