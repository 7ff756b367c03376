//! The calls of handlers: how long they take, and what is recorded of them.

use crate::record::{Call, Count, Manner, now};
use crate::settings::TIMEOUT;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What calls take when all is well; now and then one takes longer.
const WORK: Duration = Duration::from_millis(5);
const LONGER: Duration = Duration::from_millis(700);
pub(super) const LONGER_EVERY: u64 = 101;
/// Calls of a slow handler.
const SLOW: Duration = Duration::from_millis(1_500);
/// More than the timeout, less than the call bound.
const HANGS: Duration = Duration::from_millis(9_300);
const HANGS_EVERY: u64 = 5;

pub(super) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every call so far.
#[derive(Default)]
pub(super) struct Record {
    calls: Vec<Call>,
    handled: HashSet<(String, u64)>,
    running: u64,
}

impl Record {
    /// Every call from this number on, in the order they arrived.
    pub(super) fn since(&self, from: usize) -> Vec<Call> {
        self.calls.get(from..).unwrap_or_default().to_vec()
    }

    pub(super) fn count(&self) -> Count {
        Count {
            calls: self.calls.len() as u64,
            handled: self.handled.len() as u64,
            running: self.running,
        }
    }
}

/// A call in the record. It ends when this is dropped, and has handled its message only if it is said so.
struct Recorded {
    record: Arc<Mutex<Record>>,
    index: usize,
    ok: bool,
}

impl Recorded {
    fn begin(record: Arc<Mutex<Record>>, call: Call) -> Self {
        let index = {
            let mut record = lock(&record);
            record.running += 1;
            record.calls.push(call);
            record.calls.len() - 1
        };
        Self {
            record,
            index,
            ok: false,
        }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let mut record = lock(&self.record);
        record.running -= 1;
        let call = &mut record.calls[self.index];
        (call.end, call.ok) = (Some(now()), self.ok);
        let message = (call.queue.clone(), call.offset);
        if self.ok {
            record.handled.insert(message);
        }
    }
}

/// The handler of one member.
#[derive(Clone, Default)]
pub(super) struct Handler {
    pub(super) manner: Manner,
    running: u64,
    /// Cancelled when it dies.
    pub(super) alive: CancellationToken,
}

/// The handler of one member, with the record.
#[derive(Clone)]
pub(super) struct One {
    pub(super) record: Arc<Mutex<Record>>,
    pub(super) member: usize,
    pub(super) handler: Arc<Mutex<Handler>>,
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
            let mut handler = lock(&of.handler);
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
        lock(&self.of.handler).running -= 1;
    }
}

/// What a consumer process sees of its handler.
pub(super) fn of_process(one: One) -> Router {
    Router::new()
        .route("/events", post(called))
        .route("/idle", get(idle))
        .with_state(one)
}

/// 200 when nothing runs of what was sent before.
async fn idle(State(one): State<One>) -> StatusCode {
    match lock(&one.handler).running {
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

/// A call that the handler of a pod hands on; it ends when that handler does.
pub(super) async fn handed_on(one: One, headers: HeaderMap) -> StatusCode {
    let Some(call) = read(&headers, one.member) else {
        return StatusCode::BAD_REQUEST;
    };
    match Running::begin(one) {
        Some(running) => work(running, call).await,
        None => StatusCode::INTERNAL_SERVER_ERROR,
    }
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
    let offset = call.offset;
    let mut recorded = Recorded::begin(running.of.record.clone(), call);
    let (takes, status) = match running.manner {
        Manner::Slow if offset.is_multiple_of(HANGS_EVERY) => (HANGS, StatusCode::NO_CONTENT),
        Manner::Slow => (SLOW, StatusCode::NO_CONTENT),
        Manner::Failing => (WORK, StatusCode::INTERNAL_SERVER_ERROR),
        Manner::Well if offset.is_multiple_of(LONGER_EVERY) => (LONGER, StatusCode::NO_CONTENT),
        Manner::Well => (WORK, StatusCode::NO_CONTENT),
    };
    tokio::select! {
        () = tokio::time::sleep(takes) => {
            recorded.ok = status.is_success();
            status
        }
        () = running.alive.cancelled() => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
