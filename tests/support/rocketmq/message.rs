//! Messages to send, and their form on the wire.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};

const SHARDING_KEY: &str = "__SHARDINGKEY";
const KEYS: &str = "KEYS";
const TAGS: &str = "TAGS";
const UNIQUE_KEY: &str = "UNIQ_KEY";
const WAIT: &str = "WAIT";
const NAME_VALUE_SEPARATOR: char = '\u{1}';
const PROPERTY_SEPARATOR: char = '\u{2}';

/// A message before it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    body: Bytes,
    properties: Vec<(String, String)>,
    system_flag: u32,
}

impl Message {
    /// A message with this key: as sharding key, which orders it, and as search key.
    pub fn keyed(key: &str, body: impl Into<Bytes>) -> Self {
        Self::unkeyed(body)
            .property(SHARDING_KEY, key)
            .property(KEYS, key)
    }

    /// A message without any key.
    pub fn unkeyed(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            properties: Vec::new(),
            system_flag: 0,
        }
    }

    /// The same, sent with this system flag, which says among other things how the body is compressed.
    /// Only messages that are sent one by one carry it.
    #[must_use]
    pub fn system_flag(mut self, flag: u32) -> Self {
        self.system_flag = flag;
        self
    }

    /// Its system flag.
    pub(super) fn flag(&self) -> u32 {
        self.system_flag
    }

    /// The same with this property set, in place of an earlier value.
    #[must_use]
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.properties.retain(|(have, _)| have != name);
        self.properties.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with this tag.
    #[must_use]
    pub fn tag(self, tag: &str) -> Self {
        self.property(TAGS, tag)
    }

    /// The key that orders it, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.get(SHARDING_KEY)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.properties
            .iter()
            .find(|(have, _)| have == name)
            .map(|(_, value)| value.as_str())
    }

    /// Its body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// About how many bytes it takes in a batch.
    pub(super) fn size(&self) -> usize {
        let properties: usize = self
            .properties
            .iter()
            .map(|(name, value)| name.len() + value.len() + 2)
            .sum();
        self.body.len() + properties + 96
    }

    /// Its properties as text, with a new unique id unless it has one.
    pub(super) fn encoded_properties(&self) -> String {
        let mut text = String::with_capacity(self.size() - self.body.len());
        let mut put = |name: &str, value: &str| {
            text.push_str(name);
            text.push(NAME_VALUE_SEPARATOR);
            text.push_str(value);
            text.push(PROPERTY_SEPARATOR);
        };
        for (name, value) in &self.properties {
            put(name, value);
        }
        if self.get(UNIQUE_KEY).is_none() {
            put(UNIQUE_KEY, &unique_id());
        }
        if self.get(WAIT).is_none() {
            put(WAIT, "true");
        }
        text
    }

    /// Appends it as one message of a batch: total size, magic, checksum (both filled in by the
    /// broker), flag, body and properties, each with its length. Source: `MessageDecoder` of Apache
    /// RocketMQ 5.3.3.
    pub(super) fn encode_into(&self, batch: &mut BytesMut) {
        let properties = self.encoded_properties();
        let size = 4 + 4 + 4 + 4 + 4 + self.body.len() + 2 + properties.len();
        batch.put_u32(u32::try_from(size).unwrap_or(u32::MAX));
        batch.put_u32(0);
        batch.put_u32(0);
        batch.put_u32(0);
        batch.put_u32(u32::try_from(self.body.len()).unwrap_or(u32::MAX));
        batch.put_slice(&self.body);
        batch.put_u16(u16::try_from(properties.len()).unwrap_or(u16::MAX));
        batch.put_slice(properties.as_bytes());
    }
}

/// 32 hexadecimal digits, unique among all processes.
fn unique_id() -> String {
    static PROCESS: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let process = PROCESS.get_or_init(rand::random);
    format!(
        "{process:016X}{:016X}",
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyed_message_carries_its_key_twice_and_an_id_of_its_own() {
        let message = Message::keyed("order-1", "body").tag("PAID");
        assert_eq!(message.key(), Some("order-1"));
        let first = message.encoded_properties();
        assert!(first.starts_with(
            "__SHARDINGKEY\u{1}order-1\u{2}KEYS\u{1}order-1\u{2}TAGS\u{1}PAID\u{2}UNIQ_KEY\u{1}"
        ));
        assert_ne!(first, message.encoded_properties());
    }

    #[test]
    fn a_property_set_twice_has_its_last_value() {
        let message = Message::keyed("a", "").property(SHARDING_KEY, "b");
        assert_eq!(message.key(), Some("b"));
        assert_eq!(message.properties.len(), 2);
    }

    #[test]
    fn sizes_of_a_batch_add_up() {
        let mut batch = BytesMut::new();
        Message::unkeyed("abc").encode_into(&mut batch);
        let total = u32::from_be_bytes(batch[..4].try_into().unwrap()) as usize;
        assert_eq!(total, batch.len());
    }
}
