//! What the operator remembers of a consumer between rounds. What autoscaling has learned is in the status
//! too, so that a new operator goes on from it; the rest is not needed to be right.

use super::apply::Marks;
use super::record::Told;
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
    /// What Events said lately.
    pub told: Told,
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

    /// Whether this status is worth writing now. `next` is what its decision leaves, and a part of the status: lanes
    /// of pods that have fewer are in there only.
    pub fn must_write(&self, status: &OrderedConsumerStatus, next: Option<&History>) -> bool {
        let Some((written, at)) = &self.written else {
            return true;
        };
        let size =
            |status: &OrderedConsumerStatus| (status.replicas, status.ready_replicas, status.lanes);
        let decided = |status: &OrderedConsumerStatus| {
            status.decision.as_ref().map(|decision| decision.replicas)
        };
        let fewer = self.history.as_ref().map(History::fewer_lanes);
        written.conditions != status.conditions
            || next.is_some_and(|next| fewer != Some(next.fewer_lanes()))
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

    /// Requests to name servers and brokers since this was last asked, of all consumers on the same connection.
    pub fn take_requests(&self) -> u64 {
        let broker = self.broker.as_ref();
        broker.map_or(0, |(_, broker)| broker.take_requests())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{DecisionInputs, LastDecision, OffsetsReset, ResetPhase};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
    use k8s_openapi::jiff::Timestamp;

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

    fn decision(replicas: u32) -> LastDecision {
        LastDecision {
            lanes: 4,
            replicas,
            reason: "Steady".into(),
            message: "4 lanes a pod, 1 pod: it fits".into(),
            advised_replicas: None,
            advised_lanes: None,
            inputs: DecisionInputs::default(),
            history: None,
        }
    }

    /// With a status that was written so long ago.
    fn wrote(status: &OrderedConsumerStatus, ago: Duration) -> State {
        State {
            written: Some((status.clone(), Instant::now().checked_sub(ago).unwrap())),
            history: Some(History::default()),
            ..State::default()
        }
    }

    #[test]
    fn figures_alone_are_written_every_half_minute_and_what_changes_something_at_once() {
        let status = || OrderedConsumerStatus {
            replicas: Some(1),
            ready_replicas: Some(1),
            lanes: Some(4),
            queues: Some(8),
            decision: Some(decision(1)),
            ..OrderedConsumerStatus::default()
        };
        let same = History::default();
        assert!(State::default().must_write(&status(), Some(&same)));
        let almost = FIGURES_EVERY - Duration::from_secs(5);
        for (ago, due) in [
            (Duration::ZERO, false),
            (almost, false),
            (FIGURES_EVERY, true),
        ] {
            let state = wrote(&status(), ago);
            let mut figures = status();
            figures.queues = Some(9);
            assert_eq!(state.must_write(&figures, Some(&same)), due, "{ago:?}");
            // What is the same is never written again.
            assert!(!state.must_write(&status(), Some(&same)), "{ago:?}");
            assert!(!state.must_write(&status(), None), "{ago:?}");
        }
        let state = wrote(&status(), Duration::ZERO);
        let changes: [fn(&mut OrderedConsumerStatus); 6] = [
            |status| status.replicas = Some(2),
            |status| status.ready_replicas = Some(0),
            |status| status.lanes = Some(5),
            |status| status.decision = Some(decision(2)),
            |status| {
                status.offsets_reset = Some(OffsetsReset {
                    id: "a".into(),
                    to: "earliest".into(),
                    phase: ResetPhase::Pending,
                    queues_done: 0,
                    skipped: 0,
                    replayed: 0,
                    completed_at: None,
                });
            },
            |status| {
                status.conditions.push(Condition {
                    type_: "Ready".into(),
                    status: "True".into(),
                    reason: "AllPodsReady".into(),
                    message: "1 of 1 pods are ready".into(),
                    last_transition_time: Time(Timestamp::UNIX_EPOCH),
                    observed_generation: Some(1),
                });
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = status();
            change(&mut changed);
            assert!(state.must_write(&changed, Some(&same)), "{number}");
        }
    }

    #[test]
    fn lanes_of_a_pod_that_has_fewer_are_recorded_before_it_is_told() {
        let status = OrderedConsumerStatus {
            decision: Some(decision(1)),
            ..OrderedConsumerStatus::default()
        };
        let fewer = |lanes: u32| -> History {
            serde_json::from_str(&format!(r#"{{"fewerLanes":{{"pod":{lanes}}}}}"#)).unwrap()
        };
        let mut state = wrote(&status, Duration::ZERO);
        assert!(state.must_write(&status, Some(&fewer(5))));
        // What is recorded is in what the status says is remembered.
        let text = fewer(5).written(8 << 10).unwrap();
        assert!(text.contains(r#""fewerLanes":{"pod":5}"#), "{text}");
        state.decided(fewer(5));
        assert!(!state.must_write(&status, Some(&fewer(5))));
        assert!(state.must_write(&status, Some(&fewer(6))));
        assert!(state.must_write(&status, Some(&History::default())));
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
