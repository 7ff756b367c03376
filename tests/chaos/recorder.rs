//! The recording process: the handlers of all consumer processes, one port each, and a record of every
//! call. It survives whatever happens to the consumers.
//!
//! A call goes on when its caller is gone, as real work would, unless its handler is said to have died. A
//! dead one begins nothing until it is said to live again, whatever lay in its sockets.

use crate::record::{Call, Count, Manner, Ports, now};
use crate::settings::TIMEOUT;
use anyhow::Result;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use std::collections::HashSet;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What calls take when all is well; now and then one takes longer.
const WORK: Duration = Duration::from_millis(5);
const LONGER: Duration = Duration::from_millis(700);
const LONGER_EVERY: u64 = 101;
/// Calls of a slow handler.
const SLOW: Duration = Duration::from_millis(1_500);
/// More than the timeout, less than the call bound.
const HANGS: Duration = Duration::from_millis(9_300);
const HANGS_EVERY: u64 = 5;

#[derive(Default)]
struct Record {
    calls: Vec<Call>,
    handled: HashSet<(String, u64)>,
    running: u64,
}

#[derive(Clone, Default)]
struct Handler {
    manner: Manner,
    running: u64,
    /// Cancelled when it dies.
    alive: CancellationToken,
}

#[derive(Clone)]
struct Shared {
    record: Arc<Mutex<Record>>,
    handlers: Arc<Vec<Mutex<Handler>>>,
}

impl Shared {
    fn new(members: usize) -> Self {
        Self {
            record: Arc::default(),
            handlers: Arc::new((0..members).map(|_| Mutex::default()).collect()),
        }
    }
}

#[derive(Clone)]
struct One {
    shared: Shared,
    member: usize,
}

impl One {
    fn handler(&self) -> MutexGuard<'_, Handler> {
        lock(&self.shared.handlers[self.member])
    }
}

/// A call that runs, until this is dropped.
struct Running {
    of: One,
    manner: Manner,
    alive: CancellationToken,
}

impl Running {
    /// None if the handler is dead.
    fn begin(of: One) -> Option<Self> {
        let (manner, alive) = {
            let mut handler = of.handler();
            if handler.alive.is_cancelled() {
                return None;
            }
            handler.running += 1;
            (handler.manner, handler.alive.clone())
        };
        Some(Self { of, manner, alive })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.of.handler().running -= 1;
    }
}

/// Serves until the parent closes this process's input.
pub async fn run(members: usize) -> Result<()> {
    let shared = Shared::new(members);
    let mut handlers = Vec::new();
    for member in 0..members {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        handlers.push(listener.local_addr()?.port());
        let router = handler(One {
            shared: shared.clone(),
            member,
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let ports = Ports {
        control: listener.local_addr()?.port(),
        handlers,
    };
    let router = Router::new()
        .route("/calls/{from}", get(calls))
        .route("/count", get(count))
        .route("/handlers/{member}", put(behave).post(live).delete(die))
        .with_state(shared);
    println!("{}", serde_json::to_string(&ports)?);
    std::io::stdout().flush()?;
    let parent_gone =
        tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    tokio::select! {
        served = axum::serve(listener, router) => served?,
        _ = parent_gone => {}
    }
    Ok(())
}

/// What the consumer process of a pod sees of its handler.
fn handler(one: One) -> Router {
    Router::new()
        .route("/events", post(called))
        .route("/idle", get(idle))
        .with_state(one)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every call from this number on, in the order they arrived.
async fn calls(State(shared): State<Shared>, Path(from): Path<usize>) -> Json<Vec<Call>> {
    let record = lock(&shared.record);
    Json(record.calls.get(from..).unwrap_or_default().to_vec())
}

async fn count(State(shared): State<Shared>) -> Json<Count> {
    let record = lock(&shared.record);
    Json(Count {
        calls: record.calls.len() as u64,
        handled: record.handled.len() as u64,
        running: record.running,
    })
}

/// Changes the manner of a handler.
async fn behave(
    State(shared): State<Shared>,
    Path(member): Path<usize>,
    Json(manner): Json<Manner>,
) -> StatusCode {
    let Some(handler) = shared.handlers.get(member) else {
        return StatusCode::NOT_FOUND;
    };
    lock(handler).manner = manner;
    StatusCode::NO_CONTENT
}

/// Ends the calls of a handler, as its death would; it begins no other.
async fn die(State(shared): State<Shared>, Path(member): Path<usize>) -> StatusCode {
    let Some(handler) = shared.handlers.get(member) else {
        return StatusCode::NOT_FOUND;
    };
    lock(handler).alive.cancel();
    StatusCode::NO_CONTENT
}

/// A dead handler is started again.
async fn live(State(shared): State<Shared>, Path(member): Path<usize>) -> StatusCode {
    let Some(handler) = shared.handlers.get(member) else {
        return StatusCode::NOT_FOUND;
    };
    let mut handler = lock(handler);
    if handler.alive.is_cancelled() {
        handler.alive = CancellationToken::new();
    }
    StatusCode::NO_CONTENT
}

/// 200 when nothing runs of what was sent before.
async fn idle(State(one): State<One>) -> StatusCode {
    match one.handler().running {
        0 => StatusCode::OK,
        _ => StatusCode::CONFLICT,
    }
}

async fn called(State(one): State<One>, headers: HeaderMap) -> StatusCode {
    // Before anything else, so that the handler is never called idle with a call it has read.
    let Some(running) = Running::begin(one.clone()) else {
        return StatusCode::INTERNAL_SERVER_ERROR;
    };
    let Some(call) = read(&headers, one.member) else {
        return StatusCode::BAD_REQUEST;
    };
    // A call goes on when its caller is gone.
    let done = tokio::spawn(work(running, call)).await;
    done.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn read(headers: &HeaderMap, member: usize) -> Option<Call> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let source = text("ce-source")?.strip_prefix("rocketmq://")?;
    let (broker, rest) = source.split_once('/')?;
    let (_, queue) = rest.rsplit_once('/')?;
    let deadline: jiff::Timestamp = text("ce-deadline")?.parse().ok()?;
    let deadline = u64::try_from(deadline.as_microsecond()).ok()?;
    Some(Call {
        queue: format!("{broker}/{queue}"),
        key: text("ce-partitionkey")?.to_owned(),
        offset: text("ce-sequence")?.parse().ok()?,
        member,
        decided: deadline.saturating_sub(TIMEOUT.as_micros() as u64),
        start: now(),
        end: None,
        ok: false,
    })
}

async fn work(running: Running, call: Call) -> StatusCode {
    let shared = &running.of.shared;
    let (offset, message) = (call.offset, (call.queue.clone(), call.offset));
    let index = {
        let mut record = lock(&shared.record);
        record.running += 1;
        record.calls.push(call);
        record.calls.len() - 1
    };
    let (takes, status) = match running.manner {
        Manner::Slow if offset.is_multiple_of(HANGS_EVERY) => (HANGS, StatusCode::NO_CONTENT),
        Manner::Slow => (SLOW, StatusCode::NO_CONTENT),
        Manner::Failing => (WORK, StatusCode::INTERNAL_SERVER_ERROR),
        Manner::Well if offset.is_multiple_of(LONGER_EVERY) => (LONGER, StatusCode::NO_CONTENT),
        Manner::Well => (WORK, StatusCode::NO_CONTENT),
    };
    let lived = tokio::select! {
        () = tokio::time::sleep(takes) => true,
        () = running.alive.cancelled() => false,
    };
    let ok = lived && status.is_success();
    let mut record = lock(&shared.record);
    record.running -= 1;
    let call = &mut record.calls[index];
    (call.end, call.ok) = (Some(now()), ok);
    if ok {
        record.handled.insert(message);
    }
    drop(record);
    if lived {
        status
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    async fn serve(one: One) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, handler(one)).await });
        address
    }

    fn client() -> reqwest::Client {
        reqwest::Client::builder().no_proxy().build().unwrap()
    }

    async fn is_idle(at: SocketAddr) -> bool {
        let answer = client().get(format!("http://{at}/idle")).send().await;
        answer.unwrap().status().is_success()
    }

    /// A call of this offset; the offset says how long it takes.
    fn call(at: SocketAddr, offset: u64) -> reqwest::RequestBuilder {
        client()
            .post(format!("http://{at}/events"))
            .header("ce-source", "rocketmq://b/T/0")
            .header("ce-partitionkey", "k")
            .header("ce-sequence", offset.to_string())
            .header("ce-deadline", "2026-01-01T00:00:00Z")
    }

    async fn until_running(shared: &Shared, running: u64) {
        while lock(&shared.record).running != running {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_handler_is_idle_only_when_the_call_is_over_whose_caller_is_gone() {
        let shared = Shared::new(2);
        let one = |member| One {
            shared: shared.clone(),
            member,
        };
        let (at, other) = (serve(one(0)).await, serve(one(1)).await);
        assert!(is_idle(at).await);
        let caller = tokio::spawn(call(at, LONGER_EVERY).send());
        until_running(&shared, 1).await;
        caller.abort();
        assert!(!is_idle(at).await && is_idle(other).await);
        until_running(&shared, 0).await;
        while !is_idle(at).await {
            tokio::task::yield_now().await;
        }
        assert!(lock(&shared.record).calls[0].handled().is_some());
    }

    #[tokio::test]
    async fn a_dead_handler_ends_its_calls_and_begins_none_until_it_lives_again() {
        let shared = Shared::new(1);
        let at = serve(One {
            shared: shared.clone(),
            member: 0,
        })
        .await;
        let caller = tokio::spawn(call(at, LONGER_EVERY).send());
        until_running(&shared, 1).await;
        die(State(shared.clone()), Path(0)).await;
        let answer = caller.await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!call(at, 1).send().await.unwrap().status().is_success());
        assert_eq!(lock(&shared.record).calls.len(), 1);
        assert_eq!(lock(&shared.record).calls[0].handled(), None);
        live(State(shared.clone()), Path(0)).await;
        assert!(call(at, 1).send().await.unwrap().status().is_success());
    }
}
