//! What a handler reads out of a CloudEvent's headers.

use axum::http::HeaderMap;

/// The parts of an event that order depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `broker/topic/queue id`, out of `ce-source`.
    pub queue: String,
    /// `ce-partitionkey`, decoded; empty when the message has no key.
    pub key: String,
    /// `ce-sequence`, the queue offset.
    pub offset: i64,
}

/// Why a request is not an event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// An attribute is missing.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// An attribute cannot be read.
    #[error("header {name} is {value:?}: expected {expected}")]
    Invalid {
        /// The header.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should look like.
        expected: &'static str,
    },
}

const SOURCE: &str = "ce-source";
const KEY: &str = "ce-partitionkey";
const SEQUENCE: &str = "ce-sequence";

impl Event {
    /// Reads the attributes of an event in binary mode.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, EventError> {
        let source = required(headers, SOURCE)?;
        let sequence = required(headers, SEQUENCE)?;
        let invalid = |name, value: &str, expected| EventError::Invalid {
            name,
            value: value.to_owned(),
            expected,
        };
        let queue = source
            .strip_prefix("rocketmq://")
            .filter(|rest| rest.split('/').count() == 3)
            .ok_or_else(|| invalid(SOURCE, source, "rocketmq://BROKER/TOPIC/QUEUE"))?;
        let offset = sequence
            .parse()
            .map_err(|_| invalid(SEQUENCE, sequence, "a queue offset"))?;
        Ok(Self {
            queue: decode(queue),
            key: header(headers, KEY).map(decode).unwrap_or_default(),
            offset,
        })
    }
}

fn required<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, EventError> {
    header(headers, name).ok_or(EventError::Missing(name))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Undoes percent-encoding; what is not well-formed stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = (byte == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &tail[2..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|&(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn an_event_is_read_from_its_headers() {
        let event = Event::from_headers(&headers(&[
            (SOURCE, "rocketmq://broker-a/ORDERS/3"),
            (KEY, "Euro%20%E2%82%AC%25"),
            (SEQUENCE, "42"),
        ]));
        let expected = Event {
            queue: "broker-a/ORDERS/3".to_owned(),
            key: "Euro €%".to_owned(),
            offset: 42,
        };
        assert_eq!(event, Ok(expected));
    }

    #[test]
    fn a_request_that_is_no_event_says_what_is_wrong() {
        let error = |list: &[(&'static str, &'static str)]| {
            Event::from_headers(&headers(list)).unwrap_err().to_string()
        };
        assert_eq!(error(&[]), "header ce-source is missing");
        let source = (SOURCE, "rocketmq://b/T/0");
        assert_eq!(
            error(&[source, (SEQUENCE, "x")]),
            "header ce-sequence is \"x\": expected a queue offset"
        );
        assert!(error(&[(SOURCE, "/a"), (SEQUENCE, "1")]).contains("rocketmq://BROKER/TOPIC"));
    }
}
