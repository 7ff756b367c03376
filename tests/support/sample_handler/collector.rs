//! The judge of several handler processes: collects their records and gives one verdict.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{DefaultBodyLimit, State};
use axum::{Json, Router, routing};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::forward::Records;
use super::server::{listen, serve};
use super::{HandlerError, Judging, verdict_route};
use crate::judge::{Call, Verdict, judge};

const LARGEST_BATCH: usize = 64 * 1024 * 1024;

#[derive(Clone, Default)]
struct Shared {
    /// Calls by process, and by their number there.
    calls: Arc<Mutex<HashMap<u64, HashMap<usize, Call>>>>,
}

impl Shared {
    fn add(&self, records: Records) {
        let mut processes = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = processes.entry(records.process).or_default();
        for (number, call) in records.calls {
            // A batch sent twice may come late: an end once known stays.
            let known = calls.get(&number).is_some_and(|call| call.end.is_some());
            if !known {
                calls.insert(number, call);
            }
        }
    }
}

impl Judging for Shared {
    fn verdict(&self, expected: Option<u64>) -> Verdict {
        let processes = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let calls: Vec<Call> = processes
            .values()
            .flat_map(|calls| calls.values().cloned())
            .collect();
        drop(processes);
        let verdict = judge(&calls);
        match expected {
            Some(expected) => verdict.expecting(expected, &calls),
            None => verdict,
        }
    }
}

/// A running collector. It belongs to the runtime it was started in and ends when it is dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    shared: Shared,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Collector {
    /// Starts to listen; port 0 takes a free one.
    pub async fn start(address: SocketAddr) -> Result<Self, HandlerError> {
        let (listener, address) = listen(address).await?;
        let shared = Shared::default();
        let router = Router::new()
            .route("/records", routing::post(records))
            .layer(DefaultBodyLimit::max(LARGEST_BATCH))
            .merge(verdict_route())
            .with_state(shared.clone());
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, router, stop.clone()));
        Ok(Self {
            address,
            shared,
            stop,
            server,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, as handlers take it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The verdict on the records that have arrived.
    #[must_use]
    pub fn verdict(&self, expected: Option<u64>) -> Verdict {
        self.shared.verdict(expected)
    }

    /// Stops after the requests that run.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let _ended = (&mut self.server).await;
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn records(State(shared): State<Shared>, Json(records): Json<Records>) {
    shared.add(records);
}
