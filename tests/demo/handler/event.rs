//! The CloudEvent of a message: its place and its key.

use axum::http::HeaderMap;

/// What the judge needs of an event.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// Broker, topic and queue.
    pub queue: String,
    /// The key, if the message has one.
    pub key: Option<String>,
    /// Queue offset.
    pub offset: u64,
}

impl Event {
    /// Reads the headers of CloudEvents' binary mode; the error says what is wrong.
    pub fn read(headers: &HeaderMap) -> Result<Self, String> {
        let text = |name: &str| {
            headers
                .get(name)
                .ok_or_else(|| format!("header {name} is missing"))
                .and_then(|value| {
                    decode(value.as_bytes()).ok_or_else(|| bad(name, value.as_bytes()))
                })
        };
        let sequence = text("ce-sequence")?;
        let key = match headers.contains_key("ce-partitionkey") {
            true => Some(text("ce-partitionkey")?),
            false => None,
        };
        Ok(Self {
            queue: text("ce-source")?,
            key,
            offset: sequence
                .parse()
                .map_err(|_| bad("ce-sequence", sequence.as_bytes()))?,
        })
    }
}

fn bad(name: &str, value: &[u8]) -> String {
    format!("header {name} is {:?}", String::from_utf8_lossy(value))
}

/// Undoes the percent-encoding of header values (CloudEvents 1.0 HTTP binding, 3.1.3.2).
fn decode(value: &[u8]) -> Option<String> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else {
            return None;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        decoded.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = after;
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn keys_are_decoded() {
        let event = Event::read(&headers(&[
            ("ce-source", "rocketmq://a/orders/3"),
            ("ce-sequence", "42"),
            ("ce-partitionkey", "Euro%20%E2%82%AC"),
        ]));
        let expected = Event {
            queue: "rocketmq://a/orders/3".into(),
            key: Some("Euro €".into()),
            offset: 42,
        };
        assert_eq!(event, Ok(expected));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let source = ("ce-source", "s");
        for (pairs, named) in [
            (vec![source], "ce-sequence"),
            (vec![("ce-sequence", "1")], "ce-source"),
            (vec![source, ("ce-sequence", "one")], "\"one\""),
            (
                vec![source, ("ce-sequence", "1"), ("ce-partitionkey", "%4")],
                "\"%4\"",
            ),
            (
                vec![source, ("ce-sequence", "1"), ("ce-partitionkey", "%FF")],
                "\"%FF\"",
            ),
        ] {
            let error = Event::read(&headers(&pairs)).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
