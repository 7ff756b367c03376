//! Talks to consumer pods over their admin endpoint, by TLS with a certificate of their own. A pod that does
//! not answer in time is unknown, not idle; an answer longer than it can be is not read.

pub mod access;
#[cfg(test)]
mod tests;
pub mod usage;

use access::{Access, AccessError};
use futures::future::join_all;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use keylane_consumer::contract::ADMIN_PORT;
use keylane_consumer::contract::admin::{LaneTarget, MembersGone, Stats};
use keylane_consumer::contract::offsets::{ResetOffsets, ResetReport};
use rustls::crypto::ring;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tracing::instrument;

const TIMEOUT: Duration = Duration::from_secs(1);
const LARGEST_ANSWER: usize = 4 << 20;

/// Why a pod is unknown.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// No answer, or not the one expected.
    #[error("pod at {address}: {reason}")]
    Unknown {
        /// Its address.
        address: String,
        /// Why.
        reason: String,
    },
}

/// A client of the pods of one consumer.
#[derive(Clone)]
pub struct PodClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    bearer: String,
    port: u16,
}

impl PodClient {
    /// A client that trusts the consumer's certificates and no other. It keeps connections.
    pub fn new(access: &Access) -> Result<Self, AccessError> {
        let failed = |error: rustls::Error| AccessError::Tls(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in &access.trusted {
            roots.add(certificate.clone()).map_err(failed)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(failed)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        // Pods are called by their addresses.
        let names = FixedServerNameResolver::new(access.server_name.clone());
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .with_server_name_resolver(names)
            .enable_http1()
            .wrap_connector(connector);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            bearer: format!("Bearer {}", access.token),
            port: ADMIN_PORT,
        })
    }

    /// What each pod knows of itself, all asked at once.
    #[instrument(name = "stats of pods", level = "debug", skip_all, fields(pods = addresses.len(), otel.kind = "client"))]
    pub async fn stats(&self, addresses: &[String]) -> Vec<Result<Stats, PodError>> {
        join_all(addresses.iter().map(|address| self.stats_of(address))).await
    }

    /// Sets the lane target of each pod, all at once. A pod that has a newer one keeps it.
    #[instrument(name = "lanes of pods", level = "debug", skip_all, fields(pods = targets.len(), otel.kind = "client"))]
    pub async fn set_lanes(&self, targets: &[(String, LaneTarget)]) -> Vec<PodError> {
        let calls = targets.iter().map(|(address, target)| async move {
            let body = json(address, target)?;
            self.call(address, Method::PUT, "lanes", body)
                .await
                .map(drop)
        });
        join_all(calls)
            .await
            .into_iter()
            .filter_map(Result::err)
            .collect()
    }

    /// Tells a pod which others have ended for certain.
    pub async fn members_gone(&self, address: &str, pods: &[String]) -> Result<(), PodError> {
        let gone = MembersGone {
            pods: pods.to_vec(),
        };
        let body = json(address, &gone)?;
        let told = self.call(address, Method::POST, "members/gone", body);
        told.await.map(drop)
    }

    /// Asks pods to go on from other offsets; what each says has become of it. All are asked at once.
    pub async fn reset_offsets(
        &self,
        addresses: &[String],
        request: &ResetOffsets,
    ) -> Vec<Result<ResetReport, PodError>> {
        let calls = addresses.iter().map(|address| async move {
            let body = json(address, request)?;
            let asked = self.answer(address, Method::POST, "offsets/reset", body);
            let (status, body) = asked.await?;
            // A report comes with refusals, too; everything else is a sentence.
            serde_json::from_slice(&body).map_err(|_| {
                let text = String::from_utf8_lossy(&body);
                let text: String = text.chars().take(300).collect();
                let reason = format!("reset of offsets refused: {status}: {text}");
                unknown(address, reason)
            })
        });
        join_all(calls).await
    }

    async fn stats_of(&self, address: &str) -> Result<Stats, PodError> {
        let body = self
            .call(address, Method::GET, "stats", Bytes::new())
            .await?;
        serde_json::from_slice(&body)
            .map_err(|error| unknown(address, format!("stats cannot be read: {error}")))
    }

    /// The answer of a pod that does as it is asked.
    async fn call(
        &self,
        address: &str,
        method: Method,
        what: &str,
        body: Bytes,
    ) -> Result<Bytes, PodError> {
        let (status, body) = self.answer(address, method, what, body).await?;
        if !status.is_success() {
            return Err(unknown(address, format!("{what} refused: {status}")));
        }
        Ok(body)
    }

    /// What a pod says, whatever it is.
    async fn answer(
        &self,
        address: &str,
        method: Method,
        what: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), PodError> {
        let asked = async {
            let request = Request::builder()
                .method(method)
                .uri(url(address, self.port, what)?)
                .header(AUTHORIZATION, &self.bearer)
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(body))
                .map_err(|error| unknown(address, error.to_string()))?;
            let response = self.client.request(request).await;
            let response = response.map_err(|error| unknown(address, causes(&error)))?;
            let status = response.status();
            let read = Limited::new(response.into_body(), LARGEST_ANSWER).collect();
            let read = read.await.map_err(|error| {
                let reason = format!("an answer of at most {LARGEST_ANSWER} bytes: {error}");
                unknown(address, reason)
            })?;
            Ok((status, read.to_bytes()))
        };
        let late = |_| unknown(address, format!("{what} not answered within {TIMEOUT:?}"));
        timeout(TIMEOUT, asked).await.map_err(late)?
    }
}

fn json(address: &str, body: &impl Serialize) -> Result<Bytes, PodError> {
    let text = serde_json::to_vec(body);
    text.map(Bytes::from)
        .map_err(|error| unknown(address, error.to_string()))
}

fn url(address: &str, port: u16, what: &str) -> Result<String, PodError> {
    match address.parse() {
        Ok(IpAddr::V4(address)) => Ok(format!("https://{address}:{port}/v1/{what}")),
        Ok(IpAddr::V6(address)) => Ok(format!("https://[{address}]:{port}/v1/{what}")),
        Err(_) => Err(unknown(address, "not an address".to_owned())),
    }
}

fn unknown(address: &str, reason: String) -> PodError {
    PodError::Unknown {
        address: address.to_owned(),
        reason,
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
