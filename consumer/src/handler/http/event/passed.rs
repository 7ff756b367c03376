//! Messages that their producer sent as CloudEvents.
//!
//! Source: the RocketMQ binding as the CloudEvents SDK for Java has it. In binary mode each attribute is a
//! property `CE_<name>`, the type of the data is `CE_contenttype`, and the body is the data, or one zero
//! byte if there is none. In structured mode `CE_contenttype` is `application/cloudevents+json` and the body
//! the event. Others write `ce_` and `datacontenttype`, which is read too.

use crate::message::Message;
use bytes::Bytes;
use serde_json::{Map, Value};

const PREFIXES: [&str; 2] = ["CE_", "ce_"];
const STRUCTURED: &str = "application/cloudevents+json";
/// Names under which the type of the data is written.
const TYPES: [&str; 2] = ["datacontenttype", "contenttype"];
const NO_DATA: &[u8] = &[0];

/// A message that is a CloudEvent.
pub struct Passed<'m> {
    message: &'m Message,
    structured: bool,
}

impl<'m> Passed<'m> {
    /// None if it is none, or not a whole one.
    pub fn read(message: &'m Message) -> Option<Self> {
        let text = message.properties.text();
        // Nearly all messages are none: one look tells.
        if !PREFIXES.iter().any(|prefix| text.contains(prefix)) {
            return None;
        }
        let mut event = Self {
            message,
            structured: false,
        };
        event.structured = event
            .content_type()
            .is_some_and(|of| of.starts_with(STRUCTURED));
        let version = event.get("specversion").unwrap_or_default();
        let is_whole = version.starts_with("1.")
            && ["id", "source", "type"]
                .iter()
                .all(|name| event.get(name).is_some());
        (event.structured || is_whole).then_some(event)
    }

    /// Whether its body is the whole event.
    pub fn is_structured(&self) -> bool {
        self.structured
    }

    /// An attribute, by its name in CloudEvents.
    pub fn get(&self, name: &str) -> Option<&'m str> {
        PREFIXES
            .iter()
            .find_map(|prefix| self.message.properties.get(&format!("{prefix}{name}")))
    }

    /// The type of its data; of the event if that is its body.
    pub fn content_type(&self) -> Option<&'m str> {
        TYPES.iter().find_map(|name| self.get(name))
    }

    /// Its attributes but the type of its data and what is reserved for Keylane. Of a name given twice the
    /// last counts.
    pub fn attributes(&self) -> impl Iterator<Item = (&'m str, &'m str)> {
        let is_name = |name: &str| {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            !name.is_empty() && name.chars().all(allowed)
        };
        let properties = self.message.properties.iter();
        let attributes = properties.filter_map(|(property, value)| {
            let name = PREFIXES
                .iter()
                .find_map(|prefix| property.strip_prefix(prefix))?;
            Some((name, value))
        });
        attributes.filter(move |(name, _)| {
            is_name(name) && !TYPES.contains(name) && !name.starts_with("keylane")
        })
    }

    /// The body that is handed on.
    pub fn data(&self, message: &'m Message) -> &'m Bytes {
        static NOTHING: Bytes = Bytes::new();
        match &message.body[..] {
            NO_DATA if self.content_type().is_none() => &NOTHING,
            _ => &message.body,
        }
    }

    /// The whole event as JSON, if the body is one.
    pub fn structured(&self, message: &Message) -> Option<Map<String, Value>> {
        if !self.structured {
            return None;
        }
        serde_json::from_slice(&message.body).ok()
    }
}
