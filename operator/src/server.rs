//! Probes and metrics of the operator.

use crate::metrics::Metrics;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};

/// `/livez`: the election loop turns. `/readyz`: it has turned, so that this process leads or could.
/// `/metrics`.
pub fn router(registry: Registry, metrics: Metrics) -> Router {
    let (live, ready) = (metrics.clone(), metrics);
    Router::new()
        .route("/livez", get(async move || code(live.is_alive())))
        .route("/readyz", get(async move || code(ready.is_ready())))
        .route("/metrics", get(move || render(registry.clone())))
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
