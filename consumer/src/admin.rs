//! The three listeners of an executor: probes, metrics, and the admin API.
//!
//! Probes tell nothing but yes or no. The admin API answers only requests with the bearer token; without
//! a token file it is not served at all.

use crate::contract::admin::{LaneTarget, MembersGone};
use crate::contract::offsets::ResetOffsets;
use crate::exec::{Control, ResetError};
use crate::metrics::Metrics;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// An event loop that does not answer within this time is not alive.
const ALIVE_WITHIN: Duration = Duration::from_secs(5);
const LARGEST_BODY: usize = 4096;

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}:{port} for {what}: {source}; free the port or choose another with --{what}-port"
)]
pub struct ListenError {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Which listener.
    pub what: &'static str,
    /// Why.
    pub source: std::io::Error,
}

/// Opens a listener.
pub async fn listen(
    address: IpAddr,
    port: u16,
    what: &'static str,
) -> Result<TcpListener, ListenError> {
    TcpListener::bind((address, port))
        .await
        .map_err(|source| ListenError {
            address,
            port,
            what,
            source,
        })
}

/// `/livez`: the event loop answers. `/readyz`: the handler answers and the brokers know us.
pub fn probes(control: Control) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(control)
}

/// `/metrics` in Prometheus' text format.
pub fn metrics(control: Control, metrics: Metrics) -> Router {
    Router::new()
        .route("/metrics", get(render))
        .with_state((control, Arc::new(metrics)))
}

/// The admin API of [`crate::contract::admin`] and [`crate::contract::offsets`].
pub fn admin(control: Control, token: String) -> Router {
    let authenticated = middleware::from_fn_with_state(Arc::<str>::from(token), authenticate);
    Router::new()
        .route("/v1/stats", get(stats))
        .route("/v1/lanes", get(lanes).put(set_lanes))
        .route("/v1/members/gone", post(members_gone))
        .route("/v1/drain", post(drain))
        .route("/v1/offsets/reset", post(reset_offsets))
        .layer(authenticated)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(control)
}

async fn livez(State(control): State<Control>) -> StatusCode {
    match tokio::time::timeout(ALIVE_WITHIN, control.is_ready()).await {
        Ok(Ok(_)) => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn readyz(State(control): State<Control>) -> StatusCode {
    match tokio::time::timeout(ALIVE_WITHIN, control.is_ready()).await {
        Ok(Ok(true)) => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn render(State((control, metrics)): State<(Control, Arc<Metrics>)>) -> Response {
    match control.stats().await {
        Ok(stats) => (
            [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)],
            metrics.render(&stats),
        )
            .into_response(),
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, gone.to_string()).into_response(),
    }
}

async fn authenticate(State(token): State<Arc<str>>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .map(|value| value.as_bytes());
    let given = given
        .and_then(|value| value.strip_prefix(b"Bearer "))
        .unwrap_or_default();
    if is_same(given, token.as_bytes()) {
        next.run(request).await
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

/// Compares in a time that does not tell how much agrees.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differs = given
        .iter()
        .zip(token)
        .fold(0, |differs, (left, right)| differs | (left ^ right));
    given.len() == token.len() && differs == 0
}

async fn stats(State(control): State<Control>) -> Response {
    match control.stats().await {
        Ok(stats) => Json(stats).into_response(),
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, gone.to_string()).into_response(),
    }
}

async fn lanes(State(control): State<Control>) -> Response {
    match control.lanes().await {
        Ok(lanes) => Json(lanes).into_response(),
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, gone.to_string()).into_response(),
    }
}

async fn set_lanes(State(control): State<Control>, Json(target): Json<LaneTarget>) -> Response {
    if target.lanes == 0 {
        let problem = "lanes is 0: at least 1; to stop consuming, scale the OrderedConsumer to 0";
        return (StatusCode::UNPROCESSABLE_ENTITY, problem).into_response();
    }
    match control.set_lanes(target).await {
        Ok(in_force) if in_force == target => Json(in_force).into_response(),
        Ok(in_force) => (StatusCode::CONFLICT, Json(in_force)).into_response(),
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, gone.to_string()).into_response(),
    }
}

async fn members_gone(
    State(control): State<Control>,
    Json(members): Json<MembersGone>,
) -> Response {
    match control.pods_gone(members.pods).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, gone.to_string()).into_response(),
    }
}

async fn drain(State(control): State<Control>) -> Response {
    match control.drain().await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, gone.to_string()).into_response(),
    }
}

async fn reset_offsets(
    State(control): State<Control>,
    Json(request): Json<ResetOffsets>,
) -> Response {
    let report = match control.reset_offsets(request).await {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => {
            let status = match error {
                ResetError::NotHeld(_) => StatusCode::NOT_FOUND,
                ResetError::Busy(_) => StatusCode::CONFLICT,
                ResetError::Draining => StatusCode::SERVICE_UNAVAILABLE,
                ResetError::Id(_)
                | ResetError::OffsetOfAll(_)
                | ResetError::Queue(_)
                | ResetError::Broadcasting => StatusCode::UNPROCESSABLE_ENTITY,
            };
            return (status, error.to_string()).into_response();
        }
        Err(gone) => return (StatusCode::SERVICE_UNAVAILABLE, gone.to_string()).into_response(),
    };
    let status = if report.refused().next().is_some() {
        StatusCode::CONFLICT
    } else if report.is_done() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    (status, Json(report)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        assert!(is_same(b"secret", b"secret"));
        for given in [&b""[..], b"s", b"secre", b"secrets", b"Secret"] {
            assert!(!is_same(given, b"secret"));
        }
    }
}
