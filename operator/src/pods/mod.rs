//! Talks to consumer pods over their admin endpoint. A pod that does not answer in time is unknown, not
//! idle; an answer longer than it can be is not read.

pub mod usage;

use futures::future::join_all;
use keylane_consumer::contract::ADMIN_PORT;
use keylane_consumer::contract::admin::{LaneTarget, MembersGone, Stats};
use keylane_consumer::contract::offsets::{ResetOffsets, ResetReport};
use reqwest::{Client, RequestBuilder, Response};
use std::net::IpAddr;
use std::time::Duration;

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

/// A client of consumer pods.
#[derive(Clone, Debug)]
pub struct PodClient(Client);

impl PodClient {
    /// A client with a time-out for each call.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        client.build().map(Self)
    }

    /// What each pod knows of itself, all asked at once.
    pub async fn stats(&self, addresses: &[String], token: &str) -> Vec<Result<Stats, PodError>> {
        join_all(
            addresses
                .iter()
                .map(|address| self.stats_of(address, token)),
        )
        .await
    }

    /// Sets the lane target of each pod, all at once. A pod that has a newer one keeps it.
    pub async fn set_lanes(&self, targets: &[(String, LaneTarget)], token: &str) -> Vec<PodError> {
        let calls = targets.iter().map(|(address, target)| async move {
            let request = self
                .0
                .put(url(address, "lanes")?)
                .bearer_auth(token)
                .json(target);
            answered(address, "lane target", request).await.map(drop)
        });
        join_all(calls)
            .await
            .into_iter()
            .filter_map(Result::err)
            .collect()
    }

    /// Tells a pod which others have ended for certain.
    pub async fn members_gone(
        &self,
        address: &str,
        token: &str,
        pods: &[String],
    ) -> Result<(), PodError> {
        let gone = MembersGone {
            pods: pods.to_vec(),
        };
        let request = self
            .0
            .post(url(address, "members/gone")?)
            .bearer_auth(token)
            .json(&gone);
        answered(address, "members gone", request).await.map(drop)
    }

    /// Asks pods to go on from other offsets; what each says has become of it. All are asked at once.
    pub async fn reset_offsets(
        &self,
        addresses: &[String],
        token: &str,
        request: &ResetOffsets,
    ) -> Vec<Result<ResetReport, PodError>> {
        let calls = addresses.iter().map(|address| async move {
            let asked = self
                .0
                .post(url(address, "offsets/reset")?)
                .bearer_auth(token)
                .json(request);
            let response = asked
                .send()
                .await
                .map_err(|error| unknown(address, causes(&error)))?;
            let status = response.status();
            let body = bounded(response)
                .await
                .map_err(|reason| unknown(address, reason))?;
            // A report comes with refusals, too; everything else is a sentence.
            serde_json::from_slice(&body).map_err(|_| {
                let text = String::from_utf8_lossy(&body);
                let text: String = text.chars().take(300).collect();
                unknown(
                    address,
                    format!("reset of offsets refused: {status}: {text}"),
                )
            })
        });
        join_all(calls).await
    }

    async fn stats_of(&self, address: &str, token: &str) -> Result<Stats, PodError> {
        let request = self.0.get(url(address, "stats")?).bearer_auth(token);
        let response = answered(address, "stats", request).await?;
        let body = bounded(response)
            .await
            .map_err(|reason| unknown(address, reason))?;
        serde_json::from_slice(&body)
            .map_err(|error| unknown(address, format!("stats cannot be read: {error}")))
    }
}

/// The answer of a pod that does as it is asked.
async fn answered(
    address: &str,
    what: &str,
    request: RequestBuilder,
) -> Result<Response, PodError> {
    let response = request
        .send()
        .await
        .map_err(|error| unknown(address, causes(&error)))?;
    let status = response.status();
    if status.is_success() {
        Ok(response)
    } else {
        Err(unknown(address, format!("{what} refused: {status}")))
    }
}

fn url(address: &str, what: &str) -> Result<String, PodError> {
    match address.parse() {
        Ok(IpAddr::V4(address)) => Ok(format!("http://{address}:{ADMIN_PORT}/v1/{what}")),
        Ok(IpAddr::V6(address)) => Ok(format!("http://[{address}]:{ADMIN_PORT}/v1/{what}")),
        Err(_) => Err(unknown(address, "not an address".to_owned())),
    }
}

fn unknown(address: &str, reason: String) -> PodError {
    PodError::Unknown {
        address: address.to_owned(),
        reason,
    }
}

async fn bounded(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| causes(&error))? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(format!("the answer is longer than {LARGEST_ANSWER} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
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
