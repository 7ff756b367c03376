//! The operator's own listeners: probes, which tell nothing, and metrics.
//!
//! Metrics are served in clear to whoever reaches the port, which a network policy is to decide, or over TLS to
//! those whom the cluster lets read them ([`readers`]).

#[cfg(test)]
mod listeners;
pub mod readers;

use crate::metrics::Metrics;
use crate::served::{self, KeptError, Place};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, body::Body};
use kube::Client;
use prometheus::{Encoder, Registry, TextEncoder};
use readers::{Answer, Readers};
use rustls::ServerConfig;
use rustls::crypto::ring;
use std::sync::Arc;
use tokio::net::TcpListener;
use tracing::debug;

/// `/livez`: the election loop turns. `/readyz`: it has turned, so that this process leads or could.
pub fn probes(metrics: Metrics) -> Router {
    let (live, ready) = (metrics.clone(), metrics);
    Router::new()
        .route("/livez", get(async move || code(live.is_alive())))
        .route("/readyz", get(async move || code(ready.is_ready())))
}

/// `/metrics` in Prometheus' text format.
pub fn metrics(registry: Registry) -> Router {
    Router::new().route("/metrics", get(move || render(registry.clone())))
}

/// Serves [`metrics`] until the process ends: over TLS, with a certificate for the Service at `place`, and to
/// those whom the cluster lets read them.
pub async fn serve_reviewed(
    client: Client,
    listener: TcpListener,
    registry: Registry,
    place: Place,
) -> std::io::Result<()> {
    let readers = Arc::new(Readers::new(client.clone()));
    let reviewed = middleware::from_fn_with_state(readers, review);
    let router = metrics(registry).layer(reviewed);
    let prepare = move || prepare(client.clone(), place.clone());
    served::serve("/metrics", listener, router, prepare).await
}

async fn prepare(client: Client, place: Place) -> Result<Arc<ServerConfig>, KeptError> {
    let secret = served::kept(&client, &place).await?;
    let (chain, key) = served::pair(&secret)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain, key));
    Ok(Arc::new(
        config.map_err(|error| served::unusable(&secret, &error))?,
    ))
}

async fn review(
    State(readers): State<Arc<Readers>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let given = request.headers().get(header::AUTHORIZATION);
    let token = given
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let Some(token) = token else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    match readers.ask(token).await {
        Ok(Answer::Allowed) => next.run(request).await,
        Ok(Answer::Unknown) => StatusCode::UNAUTHORIZED.into_response(),
        Ok(Answer::Refused) => StatusCode::FORBIDDEN.into_response(),
        Ok(Answer::Busy) => {
            let later = [(header::RETRY_AFTER, "1")];
            (StatusCode::TOO_MANY_REQUESTS, later).into_response()
        }
        Err(error) => {
            debug!("a reader of metrics cannot be reviewed: {error}");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

fn code(well: bool) -> StatusCode {
    if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn render(registry: Registry) -> impl IntoResponse {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
