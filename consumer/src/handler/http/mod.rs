//! Handlers behind HTTP: each call is a `POST` of a CloudEvents 1.0 event in binary content mode, or of
//! all its events in batched mode where `handler.batch.maxMessages` is more than 1.
//!
//! | answer | meaning |
//! |---|---|
//! | 2xx | done |
//! | 422 | permanent: the handler will never take this message |
//! | 429, 503, connection refused | not taken: says nothing about the message, not an attempt |
//! | anything else, no answer in time, connection lost | a failed attempt |
//!
//! `Retry-After` in seconds sets the time to the next attempt. In batched mode the header
//! `Keylane-Acked: N` says that the first N messages are done, and the answer is about the one after them
//! (a 2xx that acknowledges only some is a failed attempt of the next); without it a 2xx is about all, and
//! anything else about the first.
//!
//! Attributes: `ce-id` message id, `ce-source` `rocketmq://<broker>/<topic>/<queue id>`, `ce-type`
//! `dev.keylane.rocketmq.message`, `ce-time` store time, `ce-partitionkey` the key, `ce-sequence` the queue
//! offset, `ce-attempt` 1 for the first, `ce-deadline` when the call will be given up, `ce-tags` the
//! message's tags. A `traceparent` property is passed on as the header of that name. Batched events have
//! the same attributes without the prefix, and their body in `data_base64`.
//!
//! Where `idlePath` is set, a `GET` of it asks whether anything runs: 200 says that nothing does, any other
//! answer, and none within [`IDLE_WITHIN`], that something may.

mod event;
mod pool;

use super::{Delivery, Handler, Outcome};
use crate::contract::spec::{ConsumerSpec, Http};
use crate::lane::CallResult;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use pool::{Answer, ExchangeError, Pool};
use std::fmt::Write;
use std::time::Duration;

pub use event::EVENT_TYPE;

/// How many messages of a batch are done, in the header of an answer.
const ACKED: &str = "keylane-acked";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A handler that takes longer to say that it is idle is not.
const IDLE_WITHIN: Duration = Duration::from_secs(1);
/// Longest part of an answer's body that is kept as the reason of a failure.
const KEPT_REASON: usize = 256;

/// An HTTP handler in the same pod.
pub struct HttpHandler {
    pool: Pool,
    uri: Uri,
    idle: Option<Uri>,
    host: HeaderValue,
    address: String,
    topic: String,
    batched: bool,
}

/// Why a handler cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum HttpHandlerError {
    /// The path cannot be asked for.
    #[error(
        "handler.http.{field} {path:?} is not a path of HTTP: {reason}; percent-encode what is not allowed"
    )]
    Path {
        /// Which field of the spec.
        field: &'static str,
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl HttpHandler {
    /// The handler of this consumer, at its port and path of 127.0.0.1.
    pub fn new(spec: &ConsumerSpec, http: &Http) -> Result<Self, HttpHandlerError> {
        let address = format!("127.0.0.1:{}", http.port);
        let host = HeaderValue::from_str(&address).expect("an address and a port");
        Ok(Self {
            pool: Pool::new(address.clone()),
            uri: uri("path", &http.path)?,
            idle: (http.idle_path.as_ref())
                .map(|path| uri("idlePath", path))
                .transpose()?,
            host,
            address,
            topic: spec.topic.clone(),
            batched: spec.handler.batch.max_messages > 1,
        })
    }

    fn request(&self, delivery: &Delivery) -> Request<Full<Bytes>> {
        let (mut headers, body) = if self.batched {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, event::BATCH)]);
            (headers, event::batch(delivery, &self.topic))
        } else {
            let headers = event::headers(delivery, &self.topic);
            (headers, delivery.message.body.clone())
        };
        headers.insert(HOST, self.host.clone());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        request
    }

    async fn post(
        &self,
        request: Request<Full<Bytes>>,
        messages: u32,
        may_send: impl Fn() -> bool,
    ) -> Outcome {
        let answer = match self.pool.exchange(request, may_send).await {
            Ok(answer) => answer,
            Err(ExchangeError::Withheld) => return CallResult::NotSent.into(),
            Err(ExchangeError::NotSent(reason)) => {
                let error = format!("handler at {} cannot be reached: {reason}", self.address);
                return CallResult::NotTaken {
                    error,
                    retry_after: None,
                }
                .into();
            }
            Err(ExchangeError::Lost(reason)) => {
                let error = format!("handler at {} did not answer: {reason}", self.address);
                return CallResult::Lost { error }.into();
            }
        };
        outcome(&answer, messages)
    }
}

fn uri(field: &'static str, path: &str) -> Result<Uri, HttpHandlerError> {
    path.parse()
        .map_err(|error: http::uri::InvalidUri| HttpHandlerError::Path {
            field,
            path: path.to_owned(),
            reason: error.to_string(),
        })
}

/// What an answer says of a call with so many messages.
fn outcome(answer: &Answer, messages: u32) -> Outcome {
    let (status, headers) = (answer.head.status, &answer.head.headers);
    let acked: Option<u32> = headers
        .get(ACKED)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .filter(|acked| *acked < messages);
    if status.is_success() && acked.is_none() {
        return CallResult::Done.into();
    }
    let retry_after = retry_after(headers);
    let body = &answer.body;
    let reason = String::from_utf8_lossy(&body[..body.len().min(KEPT_REASON)]);
    let error = format!("handler answered {status}: {}", reason.trim());
    let result = match status.as_u16() {
        422 => CallResult::Permanent { error },
        429 | 503 => CallResult::NotTaken { error, retry_after },
        _ => CallResult::Failed { error, retry_after },
    };
    Outcome {
        acked: acked.unwrap_or(0),
        ..result.into()
    }
}

impl Handler for HttpHandler {
    async fn call(&self, delivery: Delivery, may_send: impl Fn() -> bool + Send) -> Outcome {
        let request = self.request(&delivery);
        let messages = 1 + delivery.rest.len() as u32;
        tokio::time::timeout(delivery.timeout, self.post(request, messages, may_send))
            .await
            .unwrap_or(CallResult::TimedOut.into())
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

    async fn idle(&self) -> Option<bool> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = self.idle.clone()?;
        request.headers_mut().insert(HOST, self.host.clone());
        let asked = self.pool.exchange(request, || true);
        let answer = tokio::time::timeout(IDLE_WITHIN, asked).await;
        Some(matches!(answer, Ok(Ok(answer)) if answer.head.status == StatusCode::OK))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)]) -> Answer {
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let (head, ()) = response.body(()).unwrap().into_parts();
        let body = Bytes::from_static(b"why");
        Answer { head, body }
    }

    #[test]
    fn an_answer_is_about_the_first_message_it_does_not_acknowledge() {
        let failed = |acked| Outcome {
            acked,
            ..CallResult::Failed {
                error: "handler answered 500 Internal Server Error: why".into(),
                retry_after: None,
            }
            .into()
        };
        assert_eq!(outcome(&answer(204, &[]), 3), CallResult::Done.into());
        assert_eq!(outcome(&answer(500, &[]), 3), failed(0));
        assert_eq!(outcome(&answer(500, &[(ACKED, "2")]), 3), failed(2));
        // As many as there are, or nonsense: the header says nothing.
        assert_eq!(outcome(&answer(500, &[(ACKED, "3")]), 3), failed(0));
        assert_eq!(outcome(&answer(500, &[(ACKED, "-1")]), 3), failed(0));
        assert_eq!(
            outcome(&answer(200, &[(ACKED, "3")]), 3),
            CallResult::Done.into()
        );
        let some = outcome(&answer(200, &[(ACKED, "1")]), 3);
        assert!(matches!(
            some,
            Outcome {
                acked: 1,
                result: CallResult::Failed { .. },
                ..
            }
        ));
    }

    #[test]
    fn refusals_and_poison_are_told_apart_from_failures() {
        let result = |status| outcome(&answer(status, &[("retry-after", "3")]), 1).result;
        let wanted = Some(Duration::from_secs(3));
        for status in [429, 503] {
            assert!(
                matches!(result(status), CallResult::NotTaken { retry_after, .. } if retry_after == wanted)
            );
        }
        assert!(matches!(result(422), CallResult::Permanent { .. }));
        assert!(
            matches!(result(404), CallResult::Failed { retry_after, .. } if retry_after == wanted)
        );
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
