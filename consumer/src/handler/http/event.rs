//! Messages as CloudEvents 1.0, in the binary or the batched content mode of the HTTP binding.
//!
//! Sources: CloudEvents 1.0 HTTP protocol binding, sections 3.1 and 3.3; JSON event format, sections 2 to 4.

use crate::handler::Delivery;
use crate::message::{Message, PROPERTY_TAGS};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::fmt::Write;

/// `type` of every event.
pub const EVENT_TYPE: &str = "dev.keylane.rocketmq.message";
/// Content type of the batched mode.
pub const BATCH: HeaderValue =
    HeaderValue::from_static("application/cloudevents-batch+json; charset=utf-8");
const CONTENT: &str = "contentType";
const ANYTHING: &str = "application/octet-stream";

/// Calls `put` with each attribute of the event of `message`, the `index`-th of its call.
fn attributes(
    delivery: &Delivery,
    topic: &str,
    index: usize,
    message: &Message,
    mut put: impl FnMut(&'static str, &str),
) {
    put("specversion", "1.0");
    put("id", &message.id);
    let queue = &delivery.queue;
    put(
        "source",
        &format!("rocketmq://{}/{topic}/{}", queue.broker, queue.id),
    );
    put("type", EVENT_TYPE);
    if let Ok(time) = Timestamp::from_millisecond(message.stored_at_ms) {
        put("time", &time.to_string());
    }
    if let Some(key) = &message.key {
        put("partitionkey", key);
    }
    put("sequence", &message.offset.to_string());
    // Failures are the first message's: those behind it have never been the first.
    let attempt = if index == 0 { delivery.attempt } else { 1 };
    put("attempt", &attempt.to_string());
    if let Ok(deadline) = Timestamp::try_from(delivery.deadline) {
        put("deadline", &deadline.to_string());
    }
    if let Some(tags) = message.properties.get(PROPERTY_TAGS) {
        put("tags", tags);
    }
    if let Some(parent) = message.properties.get("traceparent") {
        put("traceparent", parent);
    }
}

/// The headers of a call with one message in binary mode; its body is the message's.
pub fn headers(delivery: &Delivery, topic: &str) -> HeaderMap {
    let message = &delivery.message;
    let mut headers = HeaderMap::with_capacity(16);
    attributes(delivery, topic, 0, message, |name, value| {
        let Ok(value) = HeaderValue::from_str(&encode(value)) else {
            return;
        };
        headers.insert(HeaderName::from_static(header_name(name)), value);
    });
    let content = message.properties.get(CONTENT).unwrap_or(ANYTHING);
    let content = HeaderValue::from_str(content).unwrap_or(HeaderValue::from_static(ANYTHING));
    headers.insert(CONTENT_TYPE, content);
    headers
}

/// The body of a call in batched mode: a JSON array of all its messages, whatever their number.
pub fn batch(delivery: &Delivery, topic: &str) -> Bytes {
    let events = delivery.messages().enumerate().map(|(index, message)| {
        let mut event = Map::new();
        attributes(delivery, topic, index, message, |name, value| {
            // The binary mode has numbers as text; here an integer is one.
            let value = match name {
                "attempt" => value.parse::<u32>().map_or(Value::Null, Value::from),
                _ => Value::from(value),
            };
            event.insert(name.into(), value);
        });
        let content = message.properties.get(CONTENT).unwrap_or(ANYTHING);
        event.insert("datacontenttype".into(), content.into());
        event.insert("data_base64".into(), STANDARD.encode(&message.body).into());
        Value::Object(event)
    });
    Value::Array(events.collect()).to_string().into()
}

/// The header of an attribute; `traceparent` keeps the name that tracing libraries look for.
fn header_name(attribute: &'static str) -> &'static str {
    match attribute {
        "specversion" => "ce-specversion",
        "id" => "ce-id",
        "source" => "ce-source",
        "type" => "ce-type",
        "time" => "ce-time",
        "partitionkey" => "ce-partitionkey",
        "sequence" => "ce-sequence",
        "attempt" => "ce-attempt",
        "deadline" => "ce-deadline",
        "tags" => "ce-tags",
        other => other,
    }
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
        let headers = headers(&delivery(), "ORDERS");
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
