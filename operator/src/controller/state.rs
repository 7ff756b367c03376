//! What the operator remembers of a consumer between rounds. What autoscaling has learned is in the status
//! too, so that a new operator goes on from it; the rest is not needed to be right.

use super::apply::Marks;
use super::replay::Kept;
use super::reset::Driven;
use super::retire::Hinted;
use super::validate::Consumer;
use crate::broker::{Broker, BrokerError, Lines, Reading};
use crate::crd::OrderedConsumerStatus;
use crate::pods::PodClient;
use crate::pods::access::{Access, AccessError};
use crate::scale::History;
use kube::Client;
use std::time::{Duration, Instant};

/// How often children are looked at even if no watch told of a change: ConfigMaps and Secrets are not
/// watched.
const APPLY_EVERY: Duration = Duration::from_secs(300);
/// Time to the next round after this many failures in a row.
const BACKOFF: [u64; 5] = [5, 10, 20, 40, 60];
/// The status is written at most this often for figures alone; conditions and sizes are written at once.
const FIGURES_EVERY: Duration = Duration::from_secs(30);

/// What children are made of: the generation of the spec, and the pods that are to run, which can be fewer
/// than it says.
pub type Wanted = (i64, i32);

/// Memory of one consumer.
#[derive(Default)]
pub struct State {
    /// What the last decisions left; none before the first.
    history: Option<History>,
    /// Number of lane targets pushed so far.
    pub sequence: u64,
    broker: Option<(String, Broker)>,
    applied: Option<(Wanted, Instant)>,
    /// How children were left.
    pub marks: Marks,
    /// Which decisions were kept.
    pub kept: Kept,
    /// When pods were last told what their end would cost.
    pub hinted: Hinted,
    /// How far a reset of offsets is.
    pub reset: Driven,
    /// What opens the admin API of the pods, once known, and the client it opens it for.
    pods: Option<(Access, PodClient)>,
    written: Option<(OrderedConsumerStatus, Instant)>,
    /// The version the watch told of when something was last written, and the version that made.
    versions: Option<(String, String)>,
    failures: usize,
}

impl State {
    /// What the last decisions left. Before the first decision of this operator: what its predecessor
    /// wrote into the status, if that can be read.
    pub fn history(&mut self, status: Option<&OrderedConsumerStatus>) -> &History {
        self.history.get_or_insert_with(|| {
            let written = status.and_then(|status| status.decision.as_ref()?.history.as_deref());
            written
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default()
        })
    }

    /// What a decision left that is recorded.
    pub fn decided(&mut self, history: History) {
        self.history = Some(history);
    }

    /// Replicas could not be written as decided.
    pub fn step_not_taken(&mut self) {
        if let Some(history) = &mut self.history {
            history.step_not_taken();
        }
    }

    /// Whether children must be looked at now.
    pub fn must_apply(&self, wanted: Wanted) -> bool {
        self.applied
            .is_none_or(|(applied, at)| applied != wanted || at.elapsed() >= APPLY_EVERY)
    }

    /// The version to write over: what the watch told of, or what was written since it told of that.
    pub fn version<'v>(&'v self, watched: &'v str) -> &'v str {
        match &self.versions {
            Some((then, made)) if then == watched => made,
            _ => watched,
        }
    }

    /// Something was written while the watch told of version `watched`; it made version `made`.
    pub fn made(&mut self, watched: &str, made: String) {
        self.versions = Some((watched.to_owned(), made));
    }

    /// Time to the next round after one more failure.
    pub fn failed(&mut self) -> Duration {
        let wait = BACKOFF[self.failures.min(BACKOFF.len() - 1)];
        self.failures += 1;
        Duration::from_secs(wait)
    }

    /// A round went well.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Children were applied.
    pub fn applied(&mut self, wanted: Wanted) {
        self.applied = Some((wanted, Instant::now()));
    }

    /// Children must be applied in the next round.
    pub fn forget_applied(&mut self) {
        self.applied = None;
    }

    /// This opens the admin API of the pods.
    pub fn reach(&mut self, access: Access) -> Result<(), AccessError> {
        if self.pods.as_ref().is_none_or(|(known, _)| *known != access) {
            let client = PodClient::new(&access)?;
            self.pods = Some((access, client));
        }
        Ok(())
    }

    /// The client of the pods, once they can be called.
    pub fn pods(&self) -> Option<&PodClient> {
        self.pods.as_ref().map(|(_, client)| client)
    }

    /// Whether this status is worth writing now.
    pub fn must_write(&self, status: &OrderedConsumerStatus) -> bool {
        let Some((written, at)) = &self.written else {
            return true;
        };
        let size =
            |status: &OrderedConsumerStatus| (status.replicas, status.ready_replicas, status.lanes);
        let decided = |status: &OrderedConsumerStatus| {
            status.decision.as_ref().map(|decision| decision.replicas)
        };
        written.conditions != status.conditions
            || size(written) != size(status)
            || decided(written) != decided(status)
            || written.offsets_reset != status.offsets_reset
            || (written != status && at.elapsed() >= FIGURES_EVERY)
    }

    /// The status that was last written.
    pub fn last_written(&self) -> Option<&OrderedConsumerStatus> {
        self.written.as_ref().map(|(status, _)| status)
    }

    /// This status was written.
    pub fn wrote(&mut self, status: OrderedConsumerStatus) {
        self.written = Some((status, Instant::now()));
    }

    /// Offsets of the consumer's queues, over a connection that is kept as long as the spec names the
    /// same brokers, topic and group.
    pub async fn offsets(
        &mut self,
        lines: &Lines,
        client: &Client,
        consumer: &Consumer,
    ) -> Result<Reading, BrokerError> {
        let (spec, namespace) = (consumer.spec(), consumer.namespace());
        let target = format!("{:?} {} {}", spec.rocketmq, spec.topic, spec.consumer_group);
        if self
            .broker
            .as_ref()
            .is_none_or(|(connected, _)| *connected != target)
        {
            let broker = Broker::connect(lines, client, namespace, spec).await?;
            self.broker = Some((target, broker));
        }
        match &self.broker {
            Some((_, broker)) => broker.offsets(client, namespace, spec).await,
            None => Ok(Reading::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_over_is_never_older_than_what_was_written() {
        let mut state = State::default();
        assert_eq!(state.version("5"), "5");
        state.made("5", "6".into());
        state.made("5", "7".into());
        // The watch lags behind.
        assert_eq!(state.version("5"), "7");
        // It has caught up, or somebody else wrote.
        assert_eq!(state.version("7"), "7");
        assert_eq!(state.version("8"), "8");
    }

    #[test]
    fn each_failure_waits_longer_up_to_a_minute_until_one_round_goes_well() {
        let mut state = State::default();
        let waits: Vec<_> = (0..7).map(|_| state.failed().as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 60, 60, 60]);
        state.succeeded();
        assert_eq!(state.failed().as_secs(), 5);
    }
}
