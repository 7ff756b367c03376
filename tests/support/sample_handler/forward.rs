//! Sends a handler's records to the collector, in the background and until they are taken.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::HandlerError;
use crate::judge::{Call, Recorder};

const INTERVAL: Duration = Duration::from_millis(50);
const LARGEST_BATCH: usize = 5_000;
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// How long a stopping handler tries to get rid of its records.
const FINISH_LIMIT: Duration = Duration::from_secs(15);

/// Records of one handler process: calls as they are now, each with its number there. Receiving one
/// again changes nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Records {
    /// The process, told apart from every other.
    pub(super) process: u64,
    /// Its calls.
    pub(super) calls: Vec<(usize, Call)>,
}

#[derive(Debug)]
pub(super) struct Forwarder {
    url: String,
    finish: CancellationToken,
    task: JoinHandle<Result<(), (usize, String)>>,
}

impl Forwarder {
    /// Starts to send what `recorder` gets to the collector at `url`.
    pub(super) fn start(url: &str, recorder: Arc<Recorder>) -> Result<Self, HandlerError> {
        let unusable = |reason: String| HandlerError::Judge {
            url: url.to_owned(),
            reason,
        };
        let base: reqwest::Url = url.parse().map_err(|error| unusable(format!("{error}")))?;
        let target = base
            .join("/records")
            .map_err(|error| unusable(error.to_string()))?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(REQUEST_LIMIT)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let finish = CancellationToken::new();
        let sender = Sender {
            client,
            target,
            recorder,
            process: rand::random(),
        };
        Ok(Self {
            url: url.to_owned(),
            finish: finish.clone(),
            task: tokio::spawn(sender.run(finish)),
        })
    }

    /// Sends the rest and ends.
    pub(super) async fn finish(self) -> Result<(), HandlerError> {
        self.finish.cancel();
        let (left, reason) = match self.task.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(left)) => left,
            Err(error) => (0, error.to_string()),
        };
        let url = self.url;
        Err(HandlerError::NotForwarded { left, url, reason })
    }
}

struct Sender {
    client: reqwest::Client,
    target: reqwest::Url,
    recorder: Arc<Recorder>,
    process: u64,
}

impl Sender {
    async fn run(self, finish: CancellationToken) -> Result<(), (usize, String)> {
        let mut give_up = None;
        loop {
            if finish.is_cancelled() {
                give_up.get_or_insert_with(|| Instant::now() + FINISH_LIMIT);
            } else {
                let _interval = tokio::time::timeout(INTERVAL, finish.cancelled()).await;
            }
            let calls = self.recorder.take_changed(LARGEST_BATCH);
            if calls.is_empty() {
                if give_up.is_some() {
                    return Ok(());
                }
                continue;
            }
            let Err((left, reason)) = self.send(calls).await else {
                continue;
            };
            if give_up.is_some_and(|end| Instant::now() >= end) {
                return Err((left, reason));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn send(&self, calls: Vec<(usize, Call)>) -> Result<(), (usize, String)> {
        let records = Records {
            process: self.process,
            calls,
        };
        let request = self.client.post(self.target.clone()).json(&records);
        let sent = match request.send().await {
            Ok(answer) => answer.error_for_status().map(|_| ()),
            Err(error) => Err(error),
        };
        sent.map_err(|error| {
            let left = records.calls.len();
            self.recorder
                .put_back(records.calls.into_iter().map(|(number, _)| number));
            (left, error.to_string())
        })
    }
}
