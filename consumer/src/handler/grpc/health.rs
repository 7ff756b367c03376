//! What a handler says of its health, by the standard protocol: `grpc.health.v1.Health`.
//!
//! It is asked before a stream is opened, and watched while one is open. Watching takes a thread of some
//! servers, so it begins only when the stream, which must have one, is there.

use super::SERVICE;
use crate::handler::CONNECT_TIMEOUT;
use tonic::Code;
use tonic::codec::Streaming;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Names to ask for: the first that the server knows counts.
const NAMES: [&str; 2] = [SERVICE, ""];

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It takes calls. The name that said so; none if the server says nothing of its health.
    Serving(Option<&'static str>),
    /// It does not, in this word of the protocol.
    NotServing(&'static str),
}

/// Asks once; an error if there is no answer.
pub async fn check(channel: &Channel) -> Result<Health, String> {
    let mut client = HealthClient::new(channel.clone());
    for name in NAMES {
        let request = HealthCheckRequest {
            service: name.to_owned(),
        };
        let answer = tokio::time::timeout(CONNECT_TIMEOUT, client.check(request)).await;
        let answer = answer
            .map_err(|_| format!("it did not answer a health check within {CONNECT_TIMEOUT:?}"))?;
        match answer {
            Ok(answer) => {
                return Ok(match is_not(&answer.into_inner()) {
                    None => Health::Serving(Some(name)),
                    Some(word) => Health::NotServing(word),
                });
            }
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) if status.code() == Code::Unimplemented => {
                return Ok(Health::Serving(None));
            }
            Err(status) => {
                let (code, message) = (status.code(), status.message());
                return Err(format!("its health check failed: {message} ({code:?})"));
            }
        }
    }
    // It has the health service, and was told of no service's health.
    Ok(Health::Serving(None))
}

/// What it says of a name from now on.
pub struct Watched(Option<Streaming<HealthCheckResponse>>);

impl Watched {
    /// Begins with what it says now.
    pub async fn of(channel: Channel, name: &'static str) -> Self {
        let mut client = HealthClient::new(channel);
        let request = HealthCheckRequest {
            service: name.to_owned(),
        };
        let watched = client.watch(request).await;
        Self(watched.ok().map(tonic::Response::into_inner))
    }

    /// What it says next: nothing against it, or the protocol's word. None once it says no more.
    pub async fn next(&mut self) -> Option<Result<(), &'static str>> {
        let said = self.0.as_mut()?.message().await.ok().flatten();
        Some(is_not(&said?).map_or(Ok(()), Err))
    }
}

/// The protocol's word for a handler that does not take calls.
fn is_not(said: &HealthCheckResponse) -> Option<&'static str> {
    match said.status() {
        ServingStatus::Serving => None,
        other => Some(other.as_str_name()),
    }
}
