//! Brings the calls of this process to the judge, here or elsewhere.
//!
//! Reports follow each other every [`EVERY`]; one that does not arrive is sent again until it does, and
//! later ones wait for it. What a killed process had not reported is lost: its successes of the last
//! moments then look as if they never were.

use crate::api;
use crate::calls::Calls;
use crate::judge::Shared;
use anyhow::Context;
use keylane_tests::judge::Report;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const EVERY: Duration = Duration::from_millis(20);
const SEND_LIMIT: Duration = Duration::from_secs(5);
const SEND_AGAIN: Duration = Duration::from_millis(200);
/// How long a process that ends tries to get its last report through.
const LAST_LIMIT: Duration = Duration::from_secs(10);

/// Where reports go.
pub enum Destination {
    /// The judge in this process.
    Here(Shared),
    /// A judge elsewhere.
    There(Remote),
}

/// A judge elsewhere.
pub struct Remote {
    client: reqwest::Client,
    reports: reqwest::Url,
}

impl Remote {
    /// The judge with this base URL.
    pub fn new(judge: &str) -> anyhow::Result<Self> {
        let reports = reqwest::Url::parse(judge)
            .and_then(|base| base.join(api::REPORTS))
            .with_context(|| format!("--judge {judge:?} is not a URL such as http://judge:8080"))?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(SEND_LIMIT)
            .build()
            .context("the HTTP client cannot be set up")?;
        Ok(Self { client, reports })
    }

    async fn send(&self, report: &Report) -> Result<(), reqwest::Error> {
        let request = self.client.post(self.reports.clone()).json(report);
        request.send().await?.error_for_status()?;
        Ok(())
    }
}

impl Destination {
    async fn bring(&self, calls: &Calls) {
        let remote = match self {
            Self::Here(judge) => return judge.take_from(calls),
            Self::There(remote) => remote,
        };
        let Some(report) = calls.report() else {
            return;
        };
        let mut failing = false;
        while let Err(error) = remote.send(&report).await {
            if !std::mem::replace(&mut failing, true) {
                eprintln!("the judge does not take reports, trying on: {error}");
            }
            tokio::time::sleep(SEND_AGAIN).await;
        }
        if failing {
            eprintln!("the judge takes reports again");
        }
    }

    /// Reports calls until `stop` turns true, and then what is left.
    pub async fn report(&self, calls: Arc<Calls>, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow_and_update() {
            self.bring(&calls).await;
            // Ends early when told to stop.
            let _elapsed = tokio::time::timeout(EVERY, stop.changed()).await;
        }
        let last = tokio::time::timeout(LAST_LIMIT, self.bring(&calls));
        if last.await.is_err() {
            eprintln!("the last calls of this process were not reported within {LAST_LIMIT:?}");
        }
    }
}
