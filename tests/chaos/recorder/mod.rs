//! The recording process: the handlers of all members, and a record of every call. It survives whatever
//! happens to the members.
//!
//! To a member that is a process it is the handler, at a port of its own. A call goes on when its caller is
//! gone, as real work would, unless its handler is said to have died. A dead one begins nothing until it is
//! said to live again, whatever lay in its sockets.
//!
//! A pod has a handler of its own, which hands its calls on to here. They end with that handler: a call
//! whose connection breaks off has died.

mod calls;
#[cfg(test)]
mod tests;

use crate::record::{Call, Count, Manner, Ports};
use anyhow::Result;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use calls::{Handler, One, Record, lock};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Default)]
struct Shared {
    record: Arc<Mutex<Record>>,
    handlers: Arc<Mutex<Handlers>>,
}

#[derive(Default)]
struct Handlers {
    all: Vec<Arc<Mutex<Handler>>>,
    /// The member that each pod is.
    pods: BTreeMap<String, usize>,
}

impl Handlers {
    fn add(&mut self) -> usize {
        self.all.push(Arc::default());
        self.all.len() - 1
    }
}

impl Shared {
    fn new(members: usize) -> Self {
        let shared = Self::default();
        for _ in 0..members {
            lock(&shared.handlers).add();
        }
        shared
    }

    /// The member that a pod is: one more, if nobody has asked for it before.
    fn pod(&self, pod: String) -> usize {
        let mut handlers = lock(&self.handlers);
        match handlers.pods.get(&pod) {
            Some(known) => *known,
            None => {
                let member = handlers.add();
                handlers.pods.insert(pod, member);
                member
            }
        }
    }

    fn handler(&self, member: usize) -> Option<Arc<Mutex<Handler>>> {
        lock(&self.handlers).all.get(member).cloned()
    }

    fn one(&self, member: usize) -> Option<One> {
        Some(One {
            record: self.record.clone(),
            member,
            handler: self.handler(member)?,
        })
    }
}

/// Serves until the parent closes this process's input.
pub async fn run(members: usize, pods_at: Option<IpAddr>) -> Result<()> {
    let shared = Shared::new(members);
    let mut handlers = Vec::new();
    for one in (0..members).filter_map(|member| shared.one(member)) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        handlers.push(listener.local_addr()?.port());
        tokio::spawn(async move { axum::serve(listener, calls::of_process(one)).await });
    }
    let pods = match pods_at {
        Some(address) => {
            let listener = TcpListener::bind((address, 0)).await?;
            let port = listener.local_addr()?.port();
            let router = of_pods(shared.clone());
            tokio::spawn(async move { axum::serve(listener, router).await });
            Some(port)
        }
        None => None,
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let ports = Ports {
        control: listener.local_addr()?.port(),
        handlers,
        pods,
    };
    let router = Router::new()
        .route("/calls/{from}", get(calls))
        .route("/count", get(count))
        .route("/pods/{pod}", get(member))
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

/// What the handlers of all pods see.
fn of_pods(shared: Shared) -> Router {
    let called = async |State(shared): State<Shared>, Path(pod): Path<String>, headers| {
        let member = shared.pod(pod);
        match shared.one(member) {
            Some(one) => calls::handed_on(one, headers).await,
            None => StatusCode::NOT_FOUND,
        }
    };
    Router::new()
        .route("/pods/{pod}/events", axum::routing::post(called))
        .with_state(shared)
}

/// Every call from this number on, in the order they arrived.
async fn calls(State(shared): State<Shared>, Path(from): Path<usize>) -> Json<Vec<Call>> {
    Json(lock(&shared.record).since(from))
}

async fn count(State(shared): State<Shared>) -> Json<Count> {
    Json(lock(&shared.record).count())
}

/// The member that a pod is.
async fn member(State(shared): State<Shared>, Path(pod): Path<String>) -> Json<usize> {
    Json(shared.pod(pod))
}

/// Changes the manner of a handler.
async fn behave(
    State(shared): State<Shared>,
    Path(member): Path<usize>,
    Json(manner): Json<Manner>,
) -> StatusCode {
    let Some(handler) = shared.handler(member) else {
        return StatusCode::NOT_FOUND;
    };
    lock(&handler).manner = manner;
    StatusCode::NO_CONTENT
}

/// Ends the calls of a handler, as its death would; it begins no other.
async fn die(State(shared): State<Shared>, Path(member): Path<usize>) -> StatusCode {
    let Some(handler) = shared.handler(member) else {
        return StatusCode::NOT_FOUND;
    };
    lock(&handler).alive.cancel();
    StatusCode::NO_CONTENT
}

/// A dead handler is started again.
async fn live(State(shared): State<Shared>, Path(member): Path<usize>) -> StatusCode {
    let Some(handler) = shared.handler(member) else {
        return StatusCode::NOT_FOUND;
    };
    let mut handler = lock(&handler);
    if handler.alive.is_cancelled() {
        handler.alive = CancellationToken::new();
    }
    StatusCode::NO_CONTENT
}
