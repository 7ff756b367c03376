//! What the operator remembers of a consumer between rounds. What autoscaling has learned is in the status
//! too, so that a new operator goes on from it; the rest is not needed to be right.

use super::validate::Consumer;
use crate::broker::{Broker, Reading};
use crate::crd::OrderedConsumerStatus;
use crate::scale::History;
use keylane_consumer::source::SourceError;
use std::time::{Duration, Instant};

/// How often children are applied even if nothing changed: somebody may have changed them.
const APPLY_EVERY: Duration = Duration::from_secs(30);
/// The status is written at most this often for figures alone; conditions and sizes are written at once.
const FIGURES_EVERY: Duration = Duration::from_secs(10);

/// Memory of one consumer.
#[derive(Default)]
pub struct State {
    /// What the last decisions left; none before the first.
    history: Option<History>,
    /// Number of lane targets pushed so far.
    pub sequence: u64,
    broker: Option<(String, Broker)>,
    applied: Option<(i64, Instant)>,
    written: Option<(OrderedConsumerStatus, Instant)>,
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

    /// What this decision left.
    pub fn decided(&mut self, history: History) {
        self.history = Some(history);
    }

    /// Whether children must be applied now.
    pub fn must_apply(&self, generation: i64) -> bool {
        self.applied
            .is_none_or(|(applied, at)| applied != generation || at.elapsed() >= APPLY_EVERY)
    }

    /// Children were applied.
    pub fn applied(&mut self, generation: i64) {
        self.applied = Some((generation, Instant::now()));
    }

    /// Children must be applied in the next round.
    pub fn forget_applied(&mut self) {
        self.applied = None;
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
    pub async fn offsets(&mut self, consumer: &Consumer) -> Result<Reading, SourceError> {
        let spec = consumer.spec();
        let target = format!(
            "{:?} {} {}",
            spec.rocketmq.name_servers, spec.topic, spec.consumer_group
        );
        if self
            .broker
            .as_ref()
            .is_none_or(|(connected, _)| *connected != target)
        {
            self.broker = Some((target, Broker::connect(spec).await?));
        }
        match &self.broker {
            Some((_, broker)) => broker.offsets().await,
            None => Ok(Reading::default()),
        }
    }
}
