//! The numbers of the last decision, out of status and spec.

use crate::crd::{Mode, OrderedConsumer};
use crate::scale::{Brakes, History, Policy};
use std::time::Duration;

/// What the last decision was made of, as far as the status tells. Rates are messages a second.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facts {
    pub mode: Mode,
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
            reason: decision.reason.clone(),
            replicas: spec.replicas.unsigned_abs(),
            ready: status.ready_replicas.unwrap_or(0).unsigned_abs(),
            advised: decision.advised_replicas.unwrap_or(decision.replicas),
            min_replicas: autoscaling.min_replicas.unsigned_abs(),
            max_replicas: autoscaling.max_replicas.unsigned_abs(),
            queues: status.queues,
            lanes: decision.lanes,
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
        })
    }

    /// Most pods there may be: each has at least one queue.
    pub fn most(&self) -> u32 {
        let bound = self.max_replicas.max(self.min_replicas);
        self.queues
            .map_or(bound, |queues| bound.min(queues.max(self.min_replicas)))
    }
}
