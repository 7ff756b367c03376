//! Messages as CloudEvents 1.0, in the binary or the batched content mode of the HTTP binding.
//!
//! A message that already is a CloudEvent stays the event it is (`passed`): its producer's attributes are
//! handed on as they are, and what Keylane has to say stands beside them, under names that begin with
//! `keylane`.
//!
//! Not by the cloudevents SDK: its event owns its data as a vector and each attribute as a string, so every
//! body would be copied and every attribute allocated before the first header is made. Here a body is copied
//! once, out of the broker's reply, so that a small message that waits does not keep a reply of 4 MiB in memory;
//! from there to the socket it is shared.
//!
//! Sources: CloudEvents 1.0 HTTP protocol binding, sections 3.1 to 3.3; JSON event format, sections 2 to 4.

mod passed;

use crate::handler::Delivery;
use crate::message::{Message, PROPERTY_TAGS};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use passed::Passed;
use serde_json::Value;
use std::fmt::Write;

/// `type` of every event that a message is made into.
pub const EVENT_TYPE: &str = "dev.keylane.rocketmq.message";
/// Content type of the batched mode.
pub const BATCH: HeaderValue =
    HeaderValue::from_static("application/cloudevents-batch+json; charset=utf-8");
const CONTENT: &str = "contentType";
const ANYTHING: &str = "application/octet-stream";
/// Properties that carry a trace on, by the names that tracing libraries look for (W3C Trace Context).
const TRACE: [&str; 2] = ["traceparent", "tracestate"];

/// An attribute of ours: its name in an event that is the message, beside the attributes of one that the
/// message already is, and the headers of both.
struct Name(&'static str, &'static str, &'static str, &'static str);

const ID: Name = Name("id", "keylaneid", "ce-id", "ce-keylaneid");
const SOURCE: Name = Name("source", "keylanesource", "ce-source", "ce-keylanesource");
const TIME: Name = Name("time", "keylanetime", "ce-time", "ce-keylanetime");
const KEY: Name = Name(
    "partitionkey",
    "keylanekey",
    "ce-partitionkey",
    "ce-keylanekey",
);
const SEQUENCE: Name = Name(
    "sequence",
    "keylaneoffset",
    "ce-sequence",
    "ce-keylaneoffset",
);
const ATTEMPT: Name = Name(
    "attempt",
    "keylaneattempt",
    "ce-attempt",
    "ce-keylaneattempt",
);
const DEADLINE: Name = Name(
    "deadline",
    "keylanedeadline",
    "ce-deadline",
    "ce-keylanedeadline",
);
const TAGS: Name = Name("tags", "keylanetags", "ce-tags", "ce-keylanetags");

impl Name {
    fn attribute(&self, beside: bool) -> &'static str {
        if beside { self.1 } else { self.0 }
    }

    fn header(&self, beside: bool) -> HeaderName {
        HeaderName::from_static(if beside { self.3 } else { self.2 })
    }
}

/// Calls `put` with each attribute of ours for `message`, the `index`-th of its call.
fn attributes(
    delivery: &Delivery,
    topic: &str,
    index: usize,
    message: &Message,
    mut put: impl FnMut(&Name, &str),
) {
    put(&ID, &message.id);
    let queue = &delivery.queue;
    put(
        &SOURCE,
        &format!("rocketmq://{}/{topic}/{}", queue.broker, queue.id),
    );
    if let Ok(time) = Timestamp::from_millisecond(message.stored_at_ms) {
        put(&TIME, &time.to_string());
    }
    if let Some(key) = &message.key {
        put(&KEY, key);
    }
    put(&SEQUENCE, &message.offset.to_string());
    // Failures are the first message's: those behind it have never been the first.
    let attempt = if index == 0 { delivery.attempt } else { 1 };
    put(&ATTEMPT, &attempt.to_string());
    if let Ok(deadline) = Timestamp::try_from(delivery.deadline) {
        put(&DEADLINE, &deadline.to_string());
    }
    if let Some(tags) = message.properties.get(PROPERTY_TAGS) {
        put(&TAGS, tags);
    }
}

/// The trace that the message is part of.
fn trace<'m>(
    message: &'m Message,
    passed: Option<&Passed<'m>>,
) -> impl Iterator<Item = (&'static str, &'m str)> {
    TRACE.into_iter().filter_map(move |name| {
        let own = message.properties.get(name);
        let value = own.or_else(|| passed?.get(name))?;
        Some((name, value))
    })
}

/// The headers of a call with one message, and its body: in binary mode, or in structured mode if the
/// message is a CloudEvent that was sent in it.
pub fn single(delivery: &Delivery, topic: &str) -> (HeaderMap, Bytes) {
    let message = &delivery.message;
    let passed = Passed::read(message);
    let mut headers = HeaderMap::with_capacity(16);
    let value = |value: &str| HeaderValue::from_str(&encode(value)).ok();
    match &passed {
        Some(event) => {
            for (name, attribute) in event.attributes() {
                let name = HeaderName::from_bytes(format!("ce-{name}").as_bytes());
                if let (Ok(name), Some(attribute)) = (name, value(attribute)) {
                    headers.insert(name, attribute);
                }
            }
        }
        None => {
            headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
            headers.insert("ce-type", HeaderValue::from_static(EVENT_TYPE));
        }
    }
    attributes(delivery, topic, 0, message, |name, attribute| {
        if let Some(attribute) = value(attribute) {
            headers.insert(name.header(passed.is_some()), attribute);
        }
    });
    for (name, attribute) in trace(message, passed.as_ref()) {
        if let Some(attribute) = value(attribute) {
            headers.insert(name, attribute);
        }
    }
    let content = content_type(message, passed.as_ref());
    let content = HeaderValue::from_str(content).unwrap_or(HeaderValue::from_static(ANYTHING));
    headers.insert(CONTENT_TYPE, content);
    let body = passed.map_or(&message.body, |event| event.data(message));
    (headers, body.clone())
}

fn content_type<'m>(message: &'m Message, passed: Option<&Passed<'m>>) -> &'m str {
    let of_event = passed.and_then(Passed::content_type);
    of_event
        .or_else(|| message.properties.get(CONTENT))
        .unwrap_or(ANYTHING)
}

/// The body of a call in batched mode: a JSON array of all its messages, whatever their number.
pub fn batch(delivery: &Delivery, topic: &str) -> Bytes {
    let events = delivery.messages().enumerate().map(|(index, message)| {
        let passed = Passed::read(message);
        // A structured event is JSON already; one that is not, whatever it says, is a message like any.
        let structured = passed.as_ref().and_then(|event| event.structured(message));
        let passed = passed.filter(|event| structured.is_some() || !event.is_structured());
        let is_whole = structured.is_some();
        let mut event = structured.unwrap_or_default();
        match &passed {
            Some(passed) => event.extend(
                passed
                    .attributes()
                    .map(|(name, value)| (name.into(), value.into())),
            ),
            None => {
                event.insert("specversion".into(), "1.0".into());
                event.insert("type".into(), EVENT_TYPE.into());
            }
        }
        attributes(delivery, topic, index, message, |name, value| {
            // The binary mode has numbers as text; here an integer is one.
            let value = match name.0 {
                "attempt" => value.parse::<u32>().map_or(Value::Null, Value::from),
                _ => Value::from(value),
            };
            event.insert(name.attribute(passed.is_some()).into(), value);
        });
        for (name, value) in trace(message, passed.as_ref()) {
            event.insert(name.into(), value.into());
        }
        if !is_whole {
            let content = content_type(message, passed.as_ref());
            event.insert("datacontenttype".into(), content.into());
            let body = passed
                .as_ref()
                .map_or(&message.body, |event| event.data(message));
            event.insert("data_base64".into(), STANDARD.encode(body).into());
        }
        Value::Object(event)
    });
    Value::Array(events.collect()).to_string().into()
}

/// Percent-encodes what the CloudEvents binding does not allow in a header value.
fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for character in value.chars() {
        if matches!(character, '!'..='~') && !matches!(character, '"' | '%') {
            encoded.push(character);
        } else {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::LaneKey;
    use crate::message::QueueId;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    fn message(offset: u64, body: &'static [u8]) -> Arc<Message> {
        Arc::new(Message {
            offset,
            key: Some("Euro €".into()),
            body: Bytes::from_static(body),
            ..Message::default()
        })
    }

    fn delivery() -> Delivery {
        Delivery {
            queue: QueueId::new("b", 3),
            key: LaneKey::Key("Euro €".into()),
            message: message(7, b"\xff"),
            rest: vec![message(9, b"")],
            attempt: 4,
            timeout: Duration::from_secs(1),
            deadline: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn header_values_are_encoded_as_the_binding_says() {
        assert_eq!(encode("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encode("a\"b%\r\n"), "a%22b%25%0D%0A");
        assert_eq!(encode("order-1/7?x=~"), "order-1/7?x=~");
    }

    #[test]
    fn binary_mode_has_the_attributes_as_headers() {
        let (headers, body) = single(&delivery(), "ORDERS");
        assert_eq!(body, &b"\xff"[..]);
        let expected = [
            ("ce-source", "rocketmq://b/ORDERS/3"),
            ("ce-sequence", "7"),
            ("ce-attempt", "4"),
            ("ce-partitionkey", "Euro%20%E2%82%AC"),
            ("ce-deadline", "1970-01-01T00:00:00Z"),
            ("content-type", "application/octet-stream"),
        ];
        for (name, value) in expected {
            assert_eq!(
                headers.get(name).map(HeaderValue::as_bytes),
                Some(value.as_bytes()),
                "{name}"
            );
        }
    }

    /// A delivery of one message, as the Java SDK of CloudEvents sends events to RocketMQ.
    fn sent_as_event(properties: &[(&str, &str)], body: &'static str) -> Delivery {
        let event = Message {
            properties: properties.iter().copied().collect(),
            ..(*message(7, body.as_bytes())).clone()
        };
        Delivery {
            message: Arc::new(event),
            rest: Vec::new(),
            ..delivery()
        }
    }

    fn text(headers: &HeaderMap, name: &str) -> Option<String> {
        let value = headers.get(name)?.to_str().unwrap();
        Some(value.to_owned())
    }

    const OWN: [(&str, &str); 8] = [
        ("CE_specversion", "1.0"),
        ("CE_id", "order 7"),
        ("CE_source", "/shop"),
        ("CE_type", "shop.paid"),
        ("CE_contenttype", "application/json"),
        ("CE_partitionkey", "their key"),
        ("CE_traceparent", "00-1-2-03"),
        ("amount", "3"),
    ];

    #[test]
    fn an_event_is_passed_on_as_it_is_with_ours_beside_it() {
        let delivery = sent_as_event(&OWN, "{}");
        let (headers, body) = single(&delivery, "ORDERS");
        for (name, value) in [
            ("ce-id", "order%207"),
            ("ce-source", "/shop"),
            ("ce-type", "shop.paid"),
            ("ce-specversion", "1.0"),
            ("ce-partitionkey", "their%20key"),
            ("content-type", "application/json"),
            ("traceparent", "00-1-2-03"),
            ("ce-keylanesource", "rocketmq://b/ORDERS/3"),
            ("ce-keylaneoffset", "7"),
            ("ce-keylaneattempt", "4"),
            ("ce-keylanekey", "Euro%20%E2%82%AC"),
        ] {
            assert_eq!(text(&headers, name).as_deref(), Some(value), "{name}");
        }
        for absent in ["ce-sequence", "ce-contenttype", "ce-amount", "ce-deadline"] {
            assert_eq!(headers.get(absent), None);
        }
        // Not copied.
        assert_eq!(body.as_ptr(), delivery.message.body.as_ptr());

        let batch: Value = serde_json::from_slice(&batch(&delivery, "ORDERS")).unwrap();
        let event = &batch[0];
        assert_eq!(
            (&event["id"], &event["keylaneattempt"]),
            (&"order 7".into(), &4.into())
        );
        assert_eq!(event["datacontenttype"], "application/json");
        assert_eq!(event["data_base64"], "e30=");
    }

    #[test]
    fn a_structured_event_is_passed_on_whole() {
        let sent = [(
            "ce_contenttype",
            "application/cloudevents+json; charset=utf-8",
        )];
        let delivery = sent_as_event(&sent, r#"{"specversion":"1.0","id":"9","data":{"a":1}}"#);
        let (headers, body) = single(&delivery, "ORDERS");
        assert_eq!(text(&headers, "content-type").as_deref(), Some(sent[0].1));
        assert_eq!(text(&headers, "ce-keylaneoffset").as_deref(), Some("7"));
        assert_eq!(headers.get("ce-id"), None);
        assert_eq!(body, delivery.message.body);
        let batch: Value = serde_json::from_slice(&batch(&delivery, "ORDERS")).unwrap();
        assert_eq!(
            (&batch[0]["id"], &batch[0]["data"]["a"]),
            (&"9".into(), &1.into())
        );
        assert_eq!(batch[0]["keylaneoffset"], "7");
        assert_eq!(batch[0].get("data_base64"), None);
    }

    #[test]
    fn what_only_looks_like_an_event_is_a_message_like_any() {
        // Without an id, and of a version that nobody knows.
        let nameless = [
            ("CE_specversion", "1.0"),
            ("CE_source", "/s"),
            ("CE_type", "t"),
        ];
        let unknown = [
            ("CE_specversion", "9.0"),
            ("CE_id", "1"),
            ("CE_source", "/s"),
            ("CE_type", "t"),
        ];
        for properties in [&nameless[..], &unknown[..]] {
            let (headers, _) = single(&sent_as_event(properties, ""), "ORDERS");
            assert_eq!(text(&headers, "ce-type").as_deref(), Some(EVENT_TYPE));
            assert_eq!(text(&headers, "ce-sequence").as_deref(), Some("7"));
        }
        let not_json = [("CE_contenttype", "application/cloudevents+json")];
        let batch = batch(&sent_as_event(&not_json, "{"), "ORDERS");
        let batch: Value = serde_json::from_slice(&batch).unwrap();
        assert_eq!(batch[0]["type"], EVENT_TYPE);
    }

    #[test]
    fn an_event_without_data_has_none() {
        let without: Vec<_> = OWN
            .into_iter()
            .filter(|(name, _)| *name != "CE_contenttype")
            .collect();
        // As the Java SDK writes it, since RocketMQ's client refuses an empty body.
        let (_, body) = single(&sent_as_event(&without, "\0"), "ORDERS");
        assert!(body.is_empty());
    }

    #[test]
    fn a_batch_has_every_message_with_its_exact_body() {
        let batch: Value = serde_json::from_slice(&batch(&delivery(), "ORDERS")).unwrap();
        let expected = [(7, 4, "/w=="), (9, 1, "")];
        let events = batch.as_array().unwrap();
        assert_eq!(events.len(), expected.len());
        for (event, (offset, attempt, body)) in events.iter().zip(expected) {
            assert_eq!(event["sequence"], offset.to_string());
            assert_eq!(event["attempt"], attempt);
            assert_eq!(event["data_base64"], body);
            assert_eq!(event["partitionkey"], "Euro €");
        }
    }
}
