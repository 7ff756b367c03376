//! The handler itself: takes events, works, answers.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use keylane_consumer::contract::duration::DurationText;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::forward::Forwarder;
use super::{Event, HandlerError, Judging, verdict_route};
use crate::judge::{Recorder, Verdict};

/// The longest body taken; RocketMQ's own limit is 4 MiB.
const LONGEST_BODY: usize = 16 * 1024 * 1024;
/// How long a stop waits for running calls before it hangs up on them.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What a handler does with a call; can be changed while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Behaviour {
    /// How long it works on each message.
    pub work: DurationText,
    /// A key whose messages it answers with 500.
    #[serde(default)]
    pub fail_key: Option<String>,
    /// A status that it answers to every message, at once.
    #[serde(default)]
    pub status: Option<u16>,
}

/// A change of some of it; what is absent stays, and `null` takes back.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Change {
    work: Option<DurationText>,
    #[serde(default, deserialize_with = "given")]
    fail_key: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    status: Option<Option<u16>>,
}

fn given<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// How to start a handler.
#[derive(Debug, Clone)]
pub struct HandlerOptions {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// The path of events.
    pub path: String,
    /// What it does at first.
    pub behaviour: Behaviour,
    /// The URL of a [`Collector`](super::Collector).
    pub judge: Option<String>,
}

impl Default for HandlerOptions {
    /// A free port of 127.0.0.1, `/events`, no work.
    fn default() -> Self {
        Self {
            address: ([127, 0, 0, 1], 0).into(),
            path: "/events".to_owned(),
            behaviour: Behaviour {
                work: DurationText::from_millis(0),
                fail_key: None,
                status: None,
            },
            judge: None,
        }
    }
}

/// The record of one handler.
pub type Received = Arc<Recorder>;

#[derive(Clone)]
struct Shared {
    recorder: Received,
    behaviour: Arc<RwLock<Behaviour>>,
}

impl Judging for Shared {
    fn verdict(&self, expected: Option<u64>) -> Verdict {
        self.recorder.verdict(expected)
    }
}

/// A running handler. It belongs to the runtime it was started in; dropped, it ends without order.
#[derive(Debug)]
pub struct Handler {
    address: SocketAddr,
    recorder: Received,
    behaviour: Arc<RwLock<Behaviour>>,
    stop: CancellationToken,
    server: JoinHandle<()>,
    forwarder: Option<Forwarder>,
}

impl Handler {
    /// Starts to listen; events are taken when this returns.
    pub async fn start(options: HandlerOptions) -> Result<Self, HandlerError> {
        let path = &options.path;
        if !path.starts_with('/') || ["/verdict", "/control"].contains(&path.as_str()) {
            return Err(HandlerError::Path(path.clone()));
        }
        let (listener, address) = listen(options.address).await?;
        let recorder = Received::default();
        let behaviour = Arc::new(RwLock::new(options.behaviour));
        let forwarder = match options.judge {
            Some(url) => Some(Forwarder::start(&url, Arc::clone(&recorder))?),
            None => None,
        };
        let shared = Shared {
            recorder: Arc::clone(&recorder),
            behaviour: Arc::clone(&behaviour),
        };
        let router = Router::new()
            .route(path, routing::post(take))
            .route("/control", routing::put(control).get(current))
            .merge(verdict_route())
            .with_state(shared);
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, router, stop.clone()));
        Ok(Self {
            address,
            recorder,
            behaviour,
            stop,
            server,
            forwarder,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The record of its calls.
    #[must_use]
    pub fn received(&self) -> &Received {
        &self.recorder
    }

    /// The verdict on its own calls.
    #[must_use]
    pub fn verdict(&self, expected: Option<u64>) -> Verdict {
        self.recorder.verdict(expected)
    }

    /// Changes what it does from the next call on.
    pub fn set(&self, behaviour: Behaviour) {
        *self
            .behaviour
            .write()
            .unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// Stops in good order: no new calls, running ones are answered, all records reach the collector.
    ///
    /// # Errors
    /// When the collector does not take the rest within 15 s.
    pub async fn stop(mut self) -> Result<(), HandlerError> {
        self.stop.cancel();
        let _ended = tokio::time::timeout(STOP_LIMIT, &mut self.server).await;
        match self.forwarder.take() {
            Some(forwarder) => forwarder.finish().await,
            None => Ok(()),
        }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(super) async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), HandlerError> {
    let failed = |source| HandlerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Serves until `stop`, and then what runs.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    use axum::serve::ListenerExt;
    let listener = listener.tap_io(|stream| {
        // A connection that cannot be set so works all the same, slower.
        let _slower = stream.set_nodelay(true);
    });
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the server ended");
    }
}

async fn take(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let event = match Event::from_headers(&parts.headers) {
        Ok(event) => event,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let behaviour = shared
        .behaviour
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let recorder = &shared.recorder;
    let call = Running {
        recorder,
        number: recorder.start(&event.queue, &event.key, event.offset),
    };
    let status = work(&behaviour, &event.key, body).await;
    call.end(status.is_success());
    let text = if status.is_success() {
        String::new()
    } else {
        format!("the sample handler was told to answer {status}")
    };
    (status, text).into_response()
}

async fn work(behaviour: &Behaviour, key: &str, body: Body) -> StatusCode {
    if axum::body::to_bytes(body, LONGEST_BODY).await.is_err() {
        return StatusCode::BAD_REQUEST;
    }
    if let Some(status) = behaviour.status {
        return StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let time = behaviour.work.get();
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
    if behaviour.fail_key.as_deref() == Some(key) {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    StatusCode::OK
}

/// A call under way. The connection's end drops it, and then the call ended without success.
struct Running<'a> {
    recorder: &'a Recorder,
    number: usize,
}

impl Running<'_> {
    fn end(self, ok: bool) {
        self.recorder.end(self.number, ok);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.recorder.end(self.number, false);
    }
}

async fn control(State(shared): State<Shared>, Json(change): Json<Change>) -> Response {
    if let Some(Some(status)) = change.status
        && !(200..=599).contains(&status)
    {
        let text = format!("status is {status}: expected 200 to 599, or null for none");
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let mut behaviour = shared
        .behaviour
        .write()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(work) = change.work {
        behaviour.work = work;
    }
    if let Some(fail_key) = change.fail_key {
        behaviour.fail_key = fail_key;
    }
    if let Some(status) = change.status {
        behaviour.status = status;
    }
    Json(behaviour.clone()).into_response()
}

async fn current(State(shared): State<Shared>) -> Json<Behaviour> {
    let behaviour = shared
        .behaviour
        .read()
        .unwrap_or_else(PoisonError::into_inner);
    Json(behaviour.clone())
}
