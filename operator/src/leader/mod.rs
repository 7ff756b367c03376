//! One operator decides at a time: leader election over a Lease.
//!
//! Promises: a leader that cannot renew stops before another may start ([`election`]); what it does carries
//! its [`Tenure`], which says whether it still leads and in which term, and terms only grow. A leader that
//! stops in order gives the Lease back, so that the next one need not wait.
//!
//! A call that was sent just before the end of a tenure may still arrive after it. It harms nothing: writes of
//! status and size carry the version they were decided on, lane targets carry the term, and children are
//! applied again by the next leader when they change.

pub mod election;

pub use election::{InvalidTerms, Terms};

use crate::metrics::Metrics;
use election::{Election, Record, Step};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The right to decide, for a while.
#[derive(Clone, Debug)]
pub struct Tenure {
    term: u64,
    /// None: it never ends.
    until: Option<watch::Receiver<Instant>>,
}

impl Tenure {
    /// A right that nobody contests: there is one operator, and somebody else sees to that.
    pub fn unlimited() -> Self {
        let now = u64::try_from(Timestamp::now().as_millisecond());
        Self {
            term: now.unwrap_or_default(),
            until: None,
        }
    }

    /// Grows with every leader.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Whether it holds now; to be asked immediately before anything is changed.
    pub fn holds(&self) -> bool {
        let until = self.until.as_ref();
        until.is_none_or(|until| Instant::now() < *until.borrow())
    }
}

/// Where and for how long leaders are elected.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who this is: unique for each process.
    pub identity: String,
    /// Times.
    pub terms: Terms,
}

/// Leads whenever it can, until `shutdown`: `work` is started with each tenure and dropped at once when the
/// tenure is over. After `shutdown`, `work` is waited for, then the Lease is given back.
pub async fn lead<Work>(
    client: Client,
    options: Options,
    metrics: Metrics,
    shutdown: CancellationToken,
    mut work: impl FnMut(Tenure) -> Work,
) where
    Work: Future<Output = ()>,
{
    let mut candidate = Candidate {
        api: Api::namespaced(client, &options.namespace),
        election: Election::new(options.identity.clone(), options.terms),
        options,
        metrics,
    };
    while let Some(tenure) = candidate.acquire(&shutdown).await {
        let (sender, until) = watch::channel(tenure.1);
        let tenure = Tenure {
            term: tenure.0,
            until: Some(until),
        };
        info!(term = tenure.term, "leading");
        candidate.metrics.leading(true);
        tokio::select! {
            () = work(tenure) => {}
            () = candidate.keep(&sender) => {
                warn!("the lease could not be renewed in time: another operator may lead");
            }
        }
        candidate.metrics.leading(false);
    }
    candidate.release().await;
}

struct Candidate {
    api: Api<Lease>,
    election: Election,
    options: Options,
    metrics: Metrics,
}

impl Candidate {
    /// The next tenure, as its term and first end; none after `shutdown`.
    async fn acquire(&mut self, shutdown: &CancellationToken) -> Option<(u64, Instant)> {
        let mut known = None;
        loop {
            if shutdown.is_cancelled() {
                return None;
            }
            self.attempt().await;
            self.metrics.beat();
            if let Some(held) = self.election.held() {
                return Some(held);
            }
            let leader = self.election.leader().map(str::to_owned);
            if leader != known {
                info!("{} leads", leader.as_deref().unwrap_or("nobody"));
                known = leader;
            }
            tokio::select! {
                () = tokio::time::sleep(self.options.terms.retry()) => {}
                () = shutdown.cancelled() => return None,
            }
        }
    }

    /// Renews until that has not worked for too long.
    async fn keep(&mut self, until: &watch::Sender<Instant>) {
        while let Some((_, end)) = self.election.held() {
            until.send_replace(end);
            let now = Instant::now();
            if now >= end {
                break;
            }
            tokio::time::sleep(self.options.terms.retry().min(end - now)).await;
            // Not beyond the end, whatever the API server does.
            let ended = tokio::time::timeout_at(end.into(), self.attempt()).await;
            self.metrics.beat();
            if ended.is_err() {
                break;
            }
        }
        self.election.give_up();
        until.send_replace(Instant::now());
    }

    /// One try to take or renew. Failures are told and tried again by the caller.
    async fn attempt(&mut self) {
        let bound = self.options.terms.retry() * 2;
        let outcome = match tokio::time::timeout(bound, self.exchange()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the API server did not answer within {bound:?}"),
        };
        self.metrics.lease_failed();
        warn!(
            "lease {}/{}: {outcome}",
            self.options.namespace, self.options.name
        );
    }

    async fn exchange(&mut self) -> Result<(), kube::Error> {
        // A leader knows what it wrote; it looks only when that was contradicted.
        if self.election.held().is_none() {
            let found = self.api.get_opt(&self.options.name).await?;
            self.election.read(Instant::now(), found.map(read));
        }
        let wall = Timestamp::now().as_duration();
        let step = self
            .election
            .step(Instant::now(), wall.try_into().unwrap_or_default());
        let (version, term) = match step {
            Step::Wait => return Ok(()),
            Step::Create { term } => (None, term),
            Step::Take { version, term } | Step::Renew { version, term } => (Some(version), term),
        };
        let lease = self.lease(version.clone(), Some(term));
        let sent = Instant::now();
        let parameters = PostParams::default();
        let written = match version {
            Some(_) => {
                let write = self.api.replace(&self.options.name, &parameters, &lease);
                write.await
            }
            None => self.api.create(&parameters, &lease).await,
        };
        match written {
            Ok(written) => self.election.written(sent, read(written)),
            // Somebody else wrote, or an earlier write of ours whose answer was lost.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                let found = self.api.get_opt(&self.options.name).await?;
                self.election.read(Instant::now(), found.map(read));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Lets the next one lead at once.
    async fn release(&mut self) {
        let Step::Renew { version, term } = self.election.step(Instant::now(), Duration::ZERO)
        else {
            return;
        };
        let mut lease = self.lease(Some(version), Some(term));
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
        }
        let parameters = PostParams::default();
        let write = self.api.replace(&self.options.name, &parameters, &lease);
        match tokio::time::timeout(self.options.terms.retry(), write).await {
            Ok(Ok(_)) => info!("the lease is given back"),
            Ok(Err(error)) => warn!("the lease was not given back: {error}"),
            Err(_) => warn!("the lease was not given back: the API server did not answer"),
        }
        self.election.give_up();
    }

    fn lease(&self, version: Option<String>, term: Option<u64>) -> Lease {
        let options = &self.options;
        let term = term.and_then(|term| i64::try_from(term).ok());
        Lease {
            metadata: ObjectMeta {
                name: Some(options.name.clone()),
                namespace: Some(options.namespace.clone()),
                resource_version: version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(options.identity.clone()),
                lease_duration_seconds: i32::try_from(options.terms.lease().as_secs()).ok(),
                acquire_time: term
                    .and_then(|term| Timestamp::from_millisecond(term).ok())
                    .map(MicroTime),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// The term is the time of acquisition in milliseconds since the Unix epoch, made to grow.
fn read(lease: Lease) -> Record {
    let spec = lease.spec.unwrap_or_default();
    let term = spec.acquire_time.map_or(0, |time| time.0.as_millisecond());
    let lasts = spec.lease_duration_seconds.unwrap_or_default();
    Record {
        version: lease.metadata.resource_version.unwrap_or_default(),
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        term: u64::try_from(term).unwrap_or_default(),
        lease: Duration::from_secs(lasts.max(0).unsigned_abs().into()),
    }
}
