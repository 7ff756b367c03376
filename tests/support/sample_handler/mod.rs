//! A handler as a user would write one, which also keeps a record of its calls and judges them.
//!
//! It takes CloudEvents in HTTP binary mode, spends the time it is told, and answers. Several of
//! them send their records to one [`Collector`], whose verdict covers them all: a call's start within
//! about 100 ms, so that little is unknown when a process is killed; what it had not sent by then is
//! unknown to the collector. In good order ([`Handler::stop`]) nothing is lost.

mod collector;
mod event;
mod forward;
mod server;

pub use collector::Collector;
pub use event::{Event, EventError};
pub use server::{Behaviour, Handler, HandlerOptions, Received};

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::{Json, Router, routing};
use std::net::SocketAddr;

/// Why a handler or collector could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The address could not be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The path of events is not one.
    #[error("path is {0:?}: it has to start with / and must not be /verdict or /control")]
    Path(String),
    /// The collector's URL cannot be used.
    #[error("judge is {url:?}: {reason}; give http://HOST:PORT")]
    Judge {
        /// The URL.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// Records that the collector did not take.
    #[error("{left} records were not taken by {url}: {reason}")]
    NotForwarded {
        /// How many.
        left: usize,
        /// The collector.
        url: String,
        /// The last error.
        reason: String,
    },
}

/// Something that can be asked for a verdict.
trait Judging: Clone + Send + Sync + 'static {
    fn verdict(&self, expected: Option<u64>) -> crate::judge::Verdict;
}

/// `GET /verdict?expected=N`.
fn verdict_route<S: Judging>() -> Router<S> {
    let answer = |State(source): State<S>, RawQuery(query): RawQuery| async move {
        let expected = expected(query.as_deref())
            .map_err(|reason| (StatusCode::BAD_REQUEST, reason).into_response())?;
        // Judging many calls takes a while; events are taken meanwhile.
        tokio::task::spawn_blocking(move || source.verdict(expected))
            .await
            .map(Json)
            .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    };
    Router::new().route("/verdict", routing::get(answer))
}

fn expected(query: Option<&str>) -> Result<Option<u64>, String> {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return Ok(None);
    };
    query
        .strip_prefix("expected=")
        .and_then(|number| number.parse().ok())
        .map(Some)
        .ok_or_else(|| format!("query is {query:?}: give ?expected=NUMBER or nothing\n"))
}
