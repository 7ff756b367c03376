//! The numbers of the last decision, out of status and spec.

use crate::crd::{Mode, OrderedConsumer};
use crate::scale::{Brakes, History, Policy};
use keylane_consumer::contract::spec::Consumption;
use std::time::Duration;

/// What the last decision was made of, as far as the status tells. Rates are messages a second.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facts {
    pub mode: Mode,
    /// Whether the pods share the queues, rather than each getting all messages.
    pub shared: bool,
    /// Why, in one word.
    pub reason: String,
    /// Wanted pods, and pods at work.
    pub replicas: u32,
    pub ready: u32,
    pub advised: u32,
    pub min_replicas: u32,
    pub max_replicas: u32,
    pub queues: Option<u32>,
    pub lanes: u32,
    pub advised_lanes: u32,
    pub min_lanes: u32,
    pub max_lanes: u32,
    /// Lanes of a pod beyond which nothing is gained.
    pub useful_lanes: Option<u32>,
    pub arriving: Option<f64>,
    pub expected: Option<f64>,
    pub unfinished: Option<f64>,
    /// Seconds a call takes when nothing is overloaded.
    pub service: Option<f64>,
    /// What one pod can do.
    pub capacity: Option<f64>,
    /// The same, but no more than what has been seen.
    pub sure_capacity: Option<f64>,
    pub brakes: Brakes,
    /// Seconds a pod takes to start.
    pub start: Option<f64>,
    pub max_message_age: Duration,
    pub drain_within: Duration,
    pub hold: Duration,
    pub schedules: usize,
    /// Least pods once figures have been missing for a while.
    pub fallback: Option<u32>,
}

impl Facts {
    /// None if nothing was decided yet.
    pub fn of(consumer: &OrderedConsumer) -> Option<Self> {
        let (spec, status) = (&consumer.spec, consumer.status.as_ref()?);
        let (autoscaling, lanes) = (&spec.autoscaling, &spec.consumer.lanes);
        let decision = status.decision.as_ref()?;
        let inputs = &decision.inputs;
        let number = |text: &Option<String>| text.as_ref()?.parse::<f64>().ok();
        let rates = status.rates.as_ref();
        let history: Option<History> = decision
            .history
            .as_ref()
            .and_then(|text| serde_json::from_str(text).ok());
        let model = history.as_ref().map(History::model);
        let policy = Policy {
            max_lanes: lanes.max,
            ..Policy::default()
        };
        let capacity = number(&inputs.pod_capacity);
        Some(Self {
            mode: autoscaling.mode,
            shared: spec.consumer.consumption == Consumption::Clustering,
            reason: decision.reason.clone(),
            replicas: spec.replicas.unsigned_abs(),
            ready: status.ready_replicas.unwrap_or(0).unsigned_abs(),
            advised: decision.advised_replicas.unwrap_or(decision.replicas),
            min_replicas: autoscaling.min_replicas.unsigned_abs(),
            max_replicas: autoscaling.max_replicas.unsigned_abs(),
            queues: status.queues,
            lanes: decision.lanes,
            advised_lanes: decision.advised_lanes.unwrap_or(decision.lanes),
            min_lanes: lanes.min,
            max_lanes: lanes.max,
            useful_lanes: model.and_then(|model| model.useful_lanes()),
            arriving: rates.and_then(|rates| number(&rates.arriving)),
            expected: number(&inputs.expected_rate),
            unfinished: status.lag.map(|lag| lag.unfinished as f64),
            service: number(&inputs.service_milliseconds).map(|milliseconds| milliseconds / 1e3),
            capacity,
            sure_capacity: model
                .and_then(|model| model.sure_capacity(&policy))
                .or(capacity),
            brakes: history.as_ref().map(History::brakes).unwrap_or_default(),
            start: number(&inputs.start_seconds),
            max_message_age: autoscaling.objective.max_message_age.get(),
            drain_within: autoscaling.objective.drain_within.get(),
            hold: autoscaling.scale_down.stabilization_window.get(),
            schedules: autoscaling.schedules.len(),
            fallback: autoscaling
                .fallback
                .as_ref()
                .map(|fallback| fallback.replicas.unsigned_abs()),
        })
    }

    /// Whether the controller changes lanes.
    pub fn owns_lanes(&self) -> bool {
        matches!(self.mode, Mode::Auto | Mode::LanesOnly)
    }

    /// Whether it changes the number of pods.
    pub fn owns_pods(&self) -> bool {
        self.mode == Mode::Auto && self.shared
    }

    /// Most pods there may be: each has at least one queue.
    pub fn most(&self) -> u32 {
        let bound = self.max_replicas.max(self.min_replicas);
        self.queues
            .map_or(bound, |queues| bound.min(queues.max(self.min_replicas)))
    }
    /// What that bound is.
    pub fn most_by(&self) -> &'static str {
        let bound = self.max_replicas.max(self.min_replicas);
        match self.queues {
            Some(queues) if queues < bound => "the topic's queues",
            _ => "autoscaling.maxReplicas",
        }
    }
}
