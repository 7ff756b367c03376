//! Handlers behind HTTP: each message is a `POST` of a CloudEvents 1.0 event in binary content mode.
//!
//! | answer | meaning |
//! |---|---|
//! | 2xx | done |
//! | 422 | permanent: the handler will never take this message |
//! | 429, 503, connection refused | not taken: says nothing about the message, not an attempt |
//! | anything else, no answer in time, connection lost | a failed attempt |
//!
//! `Retry-After` in seconds sets the time to the next attempt.
//!
//! Attributes: `ce-id` message id, `ce-source` `rocketmq://<broker>/<topic>/<queue id>`, `ce-type`
//! `dev.keylane.rocketmq.message`, `ce-time` store time, `ce-partitionkey` the key, `ce-sequence` the queue
//! offset, `ce-attempt` 1 for the first, `ce-deadline` when the call will be given up, `ce-tags` the
//! message's tags. A `traceparent` property is passed on as the header of that name.
//! Source: CloudEvents 1.0 HTTP protocol binding, section 3.1.

mod pool;

use super::{Delivery, Handler, Outcome};
use crate::contract::spec::Http;
use crate::lane::CallResult;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Uri};
use http_body_util::Full;
use jiff::Timestamp;
use pool::{ExchangeError, Pool};
use std::fmt::Write;
use std::time::Duration;

/// `ce-type` of every event.
pub const EVENT_TYPE: &str = "dev.keylane.rocketmq.message";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest part of an answer's body that is kept as the reason of a failure.
const KEPT_REASON: usize = 256;

/// An HTTP handler in the same pod.
pub struct HttpHandler {
    pool: Pool,
    uri: Uri,
    host: HeaderValue,
    address: String,
    topic: String,
}

/// Why a handler cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum HttpHandlerError {
    /// The path cannot be asked for.
    #[error(
        "handler.http.path {path:?} is not a path of HTTP: {reason}; percent-encode what is not allowed"
    )]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl HttpHandler {
    /// The handler at this port and path of 127.0.0.1.
    pub fn new(http: &Http, topic: &str) -> Result<Self, HttpHandlerError> {
        let address = format!("127.0.0.1:{}", http.port);
        let invalid = |reason: String| HttpHandlerError::Path {
            path: http.path.clone(),
            reason,
        };
        let uri = http
            .path
            .parse()
            .map_err(|error: http::uri::InvalidUri| invalid(error.to_string()))?;
        let host = HeaderValue::from_str(&address).map_err(|error| invalid(error.to_string()))?;
        Ok(Self {
            pool: Pool::new(address.clone()),
            uri,
            host,
            address,
            topic: topic.to_owned(),
        })
    }

    fn headers(&self, delivery: &Delivery) -> HeaderMap {
        let message = &delivery.message;
        let mut headers = HeaderMap::with_capacity(16);
        headers.insert(HOST, self.host.clone());
        let mut put = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(&encode(value)) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        put("ce-specversion", "1.0");
        put("ce-id", &message.id);
        put(
            "ce-source",
            &format!(
                "rocketmq://{}/{}/{}",
                delivery.queue.broker, self.topic, delivery.queue.id
            ),
        );
        put("ce-type", EVENT_TYPE);
        if let Ok(time) = Timestamp::from_millisecond(message.stored_at_ms) {
            put("ce-time", &time.to_string());
        }
        if let Some(key) = &message.key {
            put("ce-partitionkey", key);
        }
        put("ce-sequence", &message.offset.to_string());
        put("ce-attempt", &delivery.attempt.to_string());
        if let Ok(deadline) = Timestamp::try_from(delivery.deadline) {
            put("ce-deadline", &deadline.to_string());
        }
        if let Some(tags) = message.properties.get("TAGS") {
            put("ce-tags", tags);
        }
        if let Some(parent) = message.properties.get("traceparent") {
            put("traceparent", parent);
        }
        let content = message
            .properties
            .get("contentType")
            .unwrap_or("application/octet-stream");
        let content = HeaderValue::from_str(content)
            .unwrap_or(HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_TYPE, content);
        headers
    }

    async fn post(&self, request: Request<Full<Bytes>>, may_send: impl Fn() -> bool) -> CallResult {
        let answer = match self.pool.exchange(request, may_send).await {
            Ok(answer) => answer,
            Err(ExchangeError::Withheld) => return CallResult::NotSent,
            Err(ExchangeError::NotSent(reason)) => {
                let error = format!("handler at {} cannot be reached: {reason}", self.address);
                return CallResult::NotTaken {
                    error,
                    retry_after: None,
                };
            }
            Err(ExchangeError::Lost(reason)) => {
                let error = format!("handler at {} did not answer: {reason}", self.address);
                return CallResult::Lost { error };
            }
        };
        let status = answer.head.status;
        if status.is_success() {
            return CallResult::Done;
        }
        let retry_after = retry_after(&answer.head.headers);
        let body = &answer.body;
        let reason = String::from_utf8_lossy(&body[..body.len().min(KEPT_REASON)]);
        let error = format!("handler answered {status}: {}", reason.trim());
        match status.as_u16() {
            422 => CallResult::Permanent { error },
            429 | 503 => CallResult::NotTaken { error, retry_after },
            _ => CallResult::Failed { error, retry_after },
        }
    }
}

impl Handler for HttpHandler {
    async fn call(&self, delivery: Delivery, may_send: impl Fn() -> bool + Send) -> Outcome {
        let mut request = Request::new(Full::new(delivery.message.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers(&delivery);
        let result = tokio::time::timeout(delivery.timeout, self.post(request, may_send))
            .await
            .unwrap_or(CallResult::TimedOut);
        match result {
            // One message a request: the others have not been sent.
            CallResult::Done if !delivery.rest.is_empty() => Outcome {
                acked: 1,
                ..CallResult::NotSent.into()
            },
            result => result.into(),
        }
    }

    async fn ready(&self) -> Result<(), String> {
        let connect = tokio::net::TcpStream::connect(&self.address);
        match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("nothing answers at {}: {error}", self.address)),
            Err(_) => Err(format!(
                "nothing answers at {} within {CONNECT_TIMEOUT:?}",
                self.address
            )),
        }
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Duration::from_secs)
}

/// An error with its causes; the client's own text names only the outermost.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
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

    #[test]
    fn header_values_are_encoded_as_the_binding_says() {
        assert_eq!(encode("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encode("a\"b%\r\n"), "a%22b%25%0D%0A");
        assert_eq!(encode("order-1/7?x=~"), "order-1/7?x=~");
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        headers.insert(RETRY_AFTER, HeaderValue::from_static("3"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(3)));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("soon"));
        assert_eq!(retry_after(&headers), None);
    }
}
