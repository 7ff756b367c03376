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
//! A call that a handler reads later than its deadline must not be begun: its key may be with another owner by
//! then. Nobody waits for the answer. Nor must one of which only a part came.
//!
//! Attributes: `ce-id` message id, `ce-source` `rocketmq://<broker>/<topic>/<queue id>`, `ce-type`
//! `dev.keylane.rocketmq.message`, `ce-time` store time, `ce-partitionkey` the key, `ce-sequence` the queue
//! offset, `ce-attempt` 1 for the first, `ce-deadline` when the call will be given up, `ce-tags` the
//! message's tags. Properties `traceparent` and `tracestate` are passed on as the headers of these names.
//! Batched events have the same attributes without the prefix, and their body in `data_base64`.
//!
//! A message that its producer sent as a CloudEvent (properties `CE_…` or `ce_…`) is passed on with its own
//! id, source, type and extensions; what is said above stands beside them as `ce-keylaneid`,
//! `ce-keylanesource`, `ce-keylanetime`, `ce-keylanekey`, `ce-keylaneoffset`, `ce-keylaneattempt`,
//! `ce-keylanedeadline` and `ce-keylanetags`.
//!
//! Where `idlePath` is set, a `GET` of it asks whether anything runs: 200 says that nothing does, any other
//! answer, and none within [`IDLE_WITHIN`], that something may.

mod event;
mod pool;
mod streams;

use super::{Address, CONNECT_TIMEOUT, Delivery, Handler, Outcome};
use crate::contract::spec::{ConsumerSpec, Http, HttpVersion};
use crate::lane::CallResult;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use pool::{Answer, ExchangeError, Pool};
use std::time::Duration;
use streams::Streams;

pub use event::EVENT_TYPE;

/// How many messages of a batch are done, in the header of an answer.
const ACKED: &str = "keylane-acked";
/// A handler that takes longer to say that it is idle is not.
const IDLE_WITHIN: Duration = Duration::from_secs(1);
/// Longest part of an answer's body that is kept as the reason of a failure.
const KEPT_REASON: usize = 256;

/// An HTTP handler in the same pod.
pub struct HttpHandler {
    connections: Connections,
    uri: Uri,
    idle: Option<Uri>,
    host: HeaderValue,
    address: Address,
    topic: String,
    batched: bool,
}

#[derive(Debug)]
enum Connections {
    Http1(Pool),
    Http2(Streams),
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
    /// Nothing is said of where it listens.
    #[error("handler.http has neither port nor unixSocket: say where the handler listens")]
    Nowhere,
}

impl HttpHandler {
    /// The handler of this consumer, at its port of 127.0.0.1 or its socket.
    pub fn new(spec: &ConsumerSpec, http: &Http) -> Result<Self, HttpHandlerError> {
        let address = Address::new(http.port, http.unix_socket.as_ref());
        let address = address.ok_or(HttpHandlerError::Nowhere)?;
        let host = match &address {
            Address::Port(port) => format!("127.0.0.1:{port}"),
            // As clients of Unix sockets usually say.
            Address::Socket(_) => "localhost".into(),
        };
        let host = HeaderValue::from_str(&host).expect("an address and a port");
        let idle = http.idle_path.as_ref();
        Ok(Self {
            uri: uri("path", &http.path, http.version, &host)?,
            idle: idle
                .map(|path| uri("idlePath", path, http.version, &host))
                .transpose()?,
            connections: match http.version {
                HttpVersion::Http1 => Connections::Http1(Pool::new(address.clone())),
                HttpVersion::Http2 => Connections::Http2(Streams::new(address.clone())),
            },
            host,
            address,
            topic: spec.topic.clone(),
            batched: spec.handler.batch.max_messages > 1,
        })
    }

    /// A handler that does not speak HTTP/2 would fail every message: whatever one answers to a question
    /// that changes nothing shows that it does.
    async fn speaks_http2(&self, streams: &Streams) -> Result<(), String> {
        let mut question = Request::new(Full::default());
        *question.method_mut() = Method::OPTIONS;
        *question.uri_mut() = self.uri.clone();
        let answer = streams.exchange(question, || true);
        let reason = match tokio::time::timeout(CONNECT_TIMEOUT, answer).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(ExchangeError::NotSent(reason) | ExchangeError::Lost(reason))) => reason,
            Ok(Err(ExchangeError::Withheld)) | Err(_) => {
                format!("no answer within {CONNECT_TIMEOUT:?}")
            }
        };
        let address = &self.address;
        Err(format!(
            "the handler at {address} does not answer in HTTP/2 without TLS: {reason}; leave handler.http.version out if it does not speak it"
        ))
    }

    fn request(&self, delivery: &Delivery) -> Request<Full<Bytes>> {
        let (mut headers, body) = if self.batched {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, event::BATCH)]);
            (headers, event::batch(delivery, &self.topic))
        } else {
            event::single(delivery, &self.topic)
        };
        if let Connections::Http1(_) = self.connections {
            headers.insert(HOST, self.host.clone());
        }
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
        let answer = match self.connections.exchange(request, may_send).await {
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

/// HTTP/1.1 has the host in a header, HTTP/2 takes it from the address.
fn uri(
    field: &'static str,
    path: &str,
    version: HttpVersion,
    host: &HeaderValue,
) -> Result<Uri, HttpHandlerError> {
    let uri = match version {
        HttpVersion::Http1 => Uri::builder(),
        HttpVersion::Http2 => Uri::builder().scheme("http").authority(host.as_bytes()),
    };
    let uri = uri.path_and_query(path).build();
    uri.map_err(|error| HttpHandlerError::Path {
        field,
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

impl Connections {
    /// Sends a request and reads the answer to its end. `may_send` is asked immediately before.
    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        may_send: impl Fn() -> bool,
    ) -> Result<Answer, ExchangeError> {
        match self {
            Self::Http1(pool) => pool.exchange(request, may_send).await,
            Self::Http2(streams) => streams.exchange(request, may_send).await,
        }
    }
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
        let connected = self.address.connect().await.map(drop);
        connected.map_err(|reason| format!("nothing answers at {}: {reason}", self.address))?;
        match &self.connections {
            Connections::Http1(_) => Ok(()),
            Connections::Http2(streams) => self.speaks_http2(streams).await,
        }
    }

    async fn idle(&self) -> Option<bool> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = self.idle.clone()?;
        if let Connections::Http1(_) = self.connections {
            request.headers_mut().insert(HOST, self.host.clone());
        }
        let asked = self.connections.exchange(request, || true);
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

    fn handler(http: &str) -> HttpHandler {
        let spec = serde_json::json!({
            "rocketmq": {"nameServers": ["n:1"]}, "topic": "T", "consumerGroup": "G",
            "handler": {"http": serde_json::from_str::<serde_json::Value>(http).unwrap()},
        });
        let spec: ConsumerSpec = serde_json::from_value(spec).unwrap();
        HttpHandler::new(&spec, spec.handler.http.as_ref().unwrap()).unwrap()
    }

    /// It would fail every message.
    #[tokio::test]
    async fn a_handler_that_does_not_speak_the_version_it_is_said_to_is_not_ready() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await;
                let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
                let _ = stream.write_all(answer).await;
            }
        });
        let plain = handler(&format!(r#"{{"port": {port}}}"#));
        assert_eq!(plain.ready().await, Ok(()));
        let newer = handler(&format!(r#"{{"port": {port}, "version": "HTTP2"}}"#));
        let reason = newer.ready().await.unwrap_err();
        assert!(reason.contains("handler.http.version"), "{reason}");
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
