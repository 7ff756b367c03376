//! The three listeners of an executor: probes, metrics, and the admin API.
//!
//! Probes tell nothing but yes or no. The admin API answers only requests with the bearer token, so many a
//! second and not more; without a token file it is not served at all. In a pod it is served over TLS.

mod access;
mod limit;
#[cfg(test)]
mod listeners;

pub use access::{Access, AccessError, Files};
pub use limit::Limit;

use crate::contract::admin::{LaneTarget, MembersGone};
use crate::contract::offsets::ResetOffsets;
use crate::exec::{Control, ResetError};
use crate::metrics::Metrics;
use crate::program::tls::TlsListener;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// An event loop that does not answer within this time is not alive.
const ALIVE_WITHIN: Duration = Duration::from_secs(5);
const LARGEST_BODY: usize = 4096;
/// Requests with the token in the long run. The operator needs less than one; each is work of the loop that
/// handles messages.
const REQUESTS_PER_SECOND: u32 = 50;
/// Requests with the token at once.
const REQUESTS_AT_ONCE: u32 = 100;

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

/// Serves the admin API of [`crate::contract::admin`] and [`crate::contract::offsets`] until the process
/// ends, over TLS if there is a certificate.
pub async fn serve_admin(
    listener: TcpListener,
    control: Control,
    access: Arc<Access>,
) -> io::Result<()> {
    let router = admin(control, access.clone());
    if access.is_encrypted() {
        let config = access.server_config()?;
        let listener = TlsListener::new(listener, move || config.clone())?;
        axum::serve(listener, router).await
    } else {
        axum::serve(listener, router).await
    }
}

fn admin(control: Control, access: Arc<Access>) -> Router {
    let gate = Gate {
        access,
        limit: Mutex::new(Limit::new(REQUESTS_PER_SECOND, REQUESTS_AT_ONCE)),
    };
    let authenticated = middleware::from_fn_with_state(Arc::new(gate), authenticate);
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

/// Who is let in.
struct Gate {
    access: Arc<Access>,
    limit: Mutex<Limit>,
}

impl Gate {
    fn is_busy(&self) -> bool {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        !limit.allows(Instant::now())
    }
}

async fn authenticate(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .map(|value| value.as_bytes());
    let given = given
        .and_then(|value| value.strip_prefix(b"Bearer "))
        .unwrap_or_default();
    if !gate.access.is_token(given) {
        // Whoever has no token uses nothing up.
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if gate.is_busy() {
        let problem = format!("more than {REQUESTS_PER_SECOND} requests a second");
        let later = [(header::RETRY_AFTER, "1")];
        return (StatusCode::TOO_MANY_REQUESTS, later, problem).into_response();
    }
    next.run(request).await
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
pub(crate) mod tests {
    use super::*;
    use rustls::RootCertStore;
    use rustls::crypto::ring;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use std::path::Path;
    use tokio_rustls::TlsConnector;

    /// Files as they are mounted in a pod.
    pub struct Made {
        pub access: Arc<Access>,
        pub dir: tempfile::TempDir,
    }

    /// A token and a new certificate for a name.
    pub fn make(name: &str) -> Made {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(file("token"), "0123456789abcdef\n").unwrap();
        std::fs::write(file("tls.crt"), made.cert.pem()).unwrap();
        std::fs::write(file("tls.key"), made.signing_key.serialize_pem()).unwrap();
        let files = Files {
            token: file("token"),
            tls: Some((file("tls.crt"), file("tls.key"))),
        };
        let access = Access::read(files).unwrap();
        Made { access, dir }
    }

    /// A client that trusts the certificate in a file and no other.
    pub fn trusting(certificate: &Path) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(certificate).unwrap();
        roots.add(certificate).unwrap();
        let provider = Arc::new(ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }
}
