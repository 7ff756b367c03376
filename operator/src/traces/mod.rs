//! Traces of the operator's rounds, sent to a collector by OTLP over HTTP, in JSON.
//!
//! Some of the rounds are traced, chosen at their begin, with all that they do: requests to the API server, to
//! brokers and to pods. A collector that is slow or away costs traces and nothing else: what does not fit into a
//! bounded queue is dropped, and counted.
//!
//! Written here because it is little: spans and their fields come from `tracing`, which the code uses anyway. Layout
//! of the messages: OpenTelemetry's protocol 1.x, `opentelemetry/proto/trace/v1/trace.proto` in its JSON mapping.

mod layer;
mod otlp;

use crate::metrics::Metrics;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use keylane_consumer::program::Also;
use layer::Traces;
use otlp::Span;
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, channel};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing::warn;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;

/// Time between two looks at what is to be sent.
const EVERY: Duration = Duration::from_secs(2);
/// Longest time a collector may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Spans of one request.
const AT_ONCE: usize = 512;
/// Spans that wait to be sent.
const WAITING: usize = 8_192;

/// Where a collector takes traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Uri);

/// An address that is none of a collector.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no collector: write http://host:port (OTLP over HTTP, mostly port 4318); for https let a collector of the cluster pass it on"
)]
pub struct InvalidEndpoint(String);

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidEndpoint(text.to_owned());
        let base: Uri = text.parse().map_err(|_| invalid())?;
        let is_base = base.scheme_str() == Some("http")
            && base.authority().is_some()
            && base.query().is_none()
            && matches!(base.path(), "" | "/");
        if !is_base {
            return Err(invalid());
        }
        let traces = format!("{}/v1/traces", text.trim_end_matches('/'));
        Ok(Self(traces.parse().map_err(|_| invalid())?))
    }
}

/// Who the operator is, to those who look at traces.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Name of its pod.
    pub pod: String,
    /// Namespace of its pod.
    pub namespace: String,
}

/// What becomes of spans that have ended.
pub struct Exporter {
    ended: Receiver<Span>,
    client: Client<HttpConnector, Full<Bytes>>,
    endpoint: Endpoint,
    identity: Identity,
    metrics: Metrics,
    /// The last request failed, and that was said.
    fails: bool,
}

/// A receiver of spans for the log, and what sends on so many percent of the rounds.
pub fn to(
    endpoint: Endpoint,
    percent: u8,
    identity: Identity,
    metrics: Metrics,
) -> (Also, Exporter) {
    let (sender, ended) = channel(WAITING);
    // What the client of Kubernetes says of its requests is at this level.
    let told = Targets::new()
        .with_target(layer::ROOTS, LevelFilter::DEBUG)
        .with_target("kube_client", LevelFilter::DEBUG);
    let traces = Traces::new(sender, percent, metrics.clone());
    let exporter = Exporter {
        ended,
        client: Client::builder(TokioExecutor::new()).build_http(),
        endpoint,
        identity,
        metrics,
        fails: false,
    };
    (traces.with_filter(told).boxed(), exporter)
}

impl Exporter {
    /// Sends what has ended, every few seconds, until `stop`; then once more.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut turn = tokio::time::interval(EVERY);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let stopping = tokio::select! {
                _ = turn.tick() => false,
                () = stop.cancelled() => true,
            };
            let mut spans = Vec::new();
            while let Ok(span) = self.ended.try_recv() {
                spans.push(span);
            }
            for some in spans.chunks(AT_ONCE) {
                self.send(some).await;
            }
            if stopping {
                return;
            }
        }
    }

    async fn send(&mut self, spans: &[Span]) {
        let count = spans.len() as u64;
        match self.post(otlp::request(&self.identity, spans)).await {
            Ok(()) => {
                self.fails = false;
                self.metrics.sent_spans(count);
            }
            Err(reason) => {
                self.metrics.lost_spans(count);
                if !self.fails {
                    warn!("traces are lost: {}: {reason}", self.endpoint.0);
                }
                self.fails = true;
            }
        }
    }

    async fn post(&self, body: String) -> Result<(), String> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.endpoint.0.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let asked = async {
            let answer = self.client.request(request).await;
            let answer = answer.map_err(|error| error.to_string())?;
            let status = answer.status();
            // Read to its end, so that the connection can be used again.
            let read = http_body_util::Limited::new(answer.into_body(), 64 * 1024);
            let _what_it_says = read.collect().await;
            match status.is_success() {
                true => Ok(()),
                false => Err(format!("the collector answers {status}")),
            }
        };
        let late = |_| format!("no answer within {TIMEOUT:?}");
        tokio::time::timeout(TIMEOUT, asked).await.map_err(late)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_the_base_of_a_collector() {
        for right in ["http://collector:4318", "http://10.0.0.1:4318/"] {
            let endpoint: Endpoint = right.parse().unwrap();
            assert!(endpoint.0.to_string().ends_with(":4318/v1/traces"));
        }
        for wrong in [
            "collector:4318",
            "https://collector:4318",
            "http://collector:4318/v1/traces",
            "http://",
            "",
        ] {
            let error = wrong.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("http://host:port"), "{error}");
        }
    }
}
