//! The recording process: the handlers of all consumer processes, one port each, and a record of every
//! call. It survives whatever happens to the consumers.
//!
//! A call goes on when its caller is gone, as real work would, unless its handler is said to have died.

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
    alive: CancellationToken,
}

#[derive(Clone)]
struct Shared {
    record: Arc<Mutex<Record>>,
    handlers: Arc<Vec<Mutex<Handler>>>,
}

#[derive(Clone)]
struct One {
    shared: Shared,
    member: usize,
}

/// Serves until the parent closes this process's input.
pub async fn run(members: usize) -> Result<()> {
    let shared = Shared {
        record: Arc::default(),
        handlers: Arc::new((0..members).map(|_| Mutex::default()).collect()),
    };
    let mut handlers = Vec::new();
    for member in 0..members {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        handlers.push(listener.local_addr()?.port());
        let one = One {
            shared: shared.clone(),
            member,
        };
        let router = Router::new().route("/events", post(called)).with_state(one);
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
        .route("/handlers/{member}", put(behave).delete(die))
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

/// Ends the calls of a handler, as its death would.
async fn die(State(shared): State<Shared>, Path(member): Path<usize>) -> StatusCode {
    let Some(handler) = shared.handlers.get(member) else {
        return StatusCode::NOT_FOUND;
    };
    let new = CancellationToken::new();
    std::mem::replace(&mut lock(handler).alive, new).cancel();
    StatusCode::NO_CONTENT
}

async fn called(State(one): State<One>, headers: HeaderMap) -> StatusCode {
    let Some(call) = read(&headers, one.member) else {
        return StatusCode::BAD_REQUEST;
    };
    // A call goes on when its caller is gone.
    let done = tokio::spawn(work(one, call)).await;
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

async fn work(one: One, call: Call) -> StatusCode {
    let (manner, alive) = {
        let handler = lock(&one.shared.handlers[one.member]);
        (handler.manner, handler.alive.clone())
    };
    let (offset, message) = (call.offset, (call.queue.clone(), call.offset));
    let index = {
        let mut record = lock(&one.shared.record);
        record.running += 1;
        record.calls.push(call);
        record.calls.len() - 1
    };
    let (takes, status) = match manner {
        Manner::Slow if offset.is_multiple_of(HANGS_EVERY) => (HANGS, StatusCode::NO_CONTENT),
        Manner::Slow => (SLOW, StatusCode::NO_CONTENT),
        Manner::Failing => (WORK, StatusCode::INTERNAL_SERVER_ERROR),
        Manner::Well if offset.is_multiple_of(LONGER_EVERY) => (LONGER, StatusCode::NO_CONTENT),
        Manner::Well => (WORK, StatusCode::NO_CONTENT),
    };
    let lived = tokio::select! {
        () = tokio::time::sleep(takes) => true,
        () = alive.cancelled() => false,
    };
    let ok = lived && status.is_success();
    let mut record = lock(&one.shared.record);
    record.running -= 1;
    let call = &mut record.calls[index];
    (call.end, call.ok) = (Some(now()), ok);
    if ok {
        record.handled.insert(message);
    }
    if lived {
        status
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}
