//! How an OrderedConsumer does: what its status and its pods say, put together. Pure.

mod pods;
#[cfg(test)]
mod tests;
mod text;

pub(super) use text::text;

use crate::controller::status::READY;
use crate::crd::{
    HotKey, Lag, LastDecision, Mode, OffsetsReset, OrderedConsumer, OrderedConsumerStatus, Rates,
    StuckKey,
};
use crate::live::ConsumerStats;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use keylane_consumer::contract::spec::{self, Consumption, Suspend};
use kube::ResourceExt;
use pods::PodLine;
use serde::Serialize;

/// What there is to tell of an OrderedConsumer. What is not known is absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    namespace: String,
    name: String,
    /// In one word.
    phase: String,
    /// In a sentence.
    message: String,
    /// The spec was changed, and the rest is of the one before.
    outdated: bool,
    topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    queues: Option<u32>,
    consumer_group: String,
    ordering: spec::Mode,
    consumption: Consumption,
    suspended: Suspend,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<Lag>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<Rates>,
    size: Size,
    /// None: the user may not see pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<Vec<PodLine>>,
    /// Keys that need more than their lane can give.
    hot_keys: Vec<HotKey>,
    /// Keys that do not move.
    stuck_keys: Vec<StuckKey>,
    /// Keys that wait for a person.
    blocked_keys: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offsets_reset: Option<OffsetsReset>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<LastDecision>,
    conditions: Vec<Condition>,
    #[serde(skip)]
    now: Timestamp,
}

/// Pods and lanes: those there are, those wanted, and the bounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Size {
    mode: Mode,
    wanted: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<i32>,
    min_replicas: i32,
    max_replicas: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    lanes: Option<u32>,
    min_lanes: u32,
    max_lanes: u32,
}

/// Puts together what there is to tell.
pub(super) fn report(
    consumer: &OrderedConsumer,
    pods: Option<&[Pod]>,
    live: Option<&ConsumerStats>,
    now: Timestamp,
) -> Report {
    let spec = &consumer.spec;
    let unseen = OrderedConsumerStatus::default();
    let status = consumer.status.as_ref().unwrap_or(&unseen);
    let (phase, message) = phase(consumer, status);
    Report {
        namespace: consumer.namespace().unwrap_or_default(),
        name: consumer.name_any(),
        phase,
        message,
        outdated: status.observed_generation.is_some()
            && status.observed_generation < consumer.metadata.generation,
        topic: spec.consumer.topic.clone(),
        queues: status.queues,
        consumer_group: spec.consumer.consumer_group.clone(),
        ordering: spec.consumer.ordering.mode,
        consumption: spec.consumer.consumption,
        suspended: spec.consumer.suspend.clone(),
        lag: status.lag,
        rates: status.rates.clone(),
        size: Size {
            mode: spec.autoscaling.mode,
            wanted: spec.replicas,
            current: status.replicas,
            ready: status.ready_replicas,
            min_replicas: spec.autoscaling.min_replicas,
            max_replicas: spec.autoscaling.max_replicas,
            lanes: status.lanes,
            min_lanes: spec.consumer.lanes.min,
            max_lanes: spec.consumer.lanes.max,
        },
        pods: pods.map(|pods| pods::lines(pods, live, now)),
        hot_keys: status.hot_keys.clone(),
        stuck_keys: status.stuck_keys.clone(),
        blocked_keys: status.blocked_keys.clone(),
        offsets_reset: status.offsets_reset.clone(),
        // The controller's memory is for the controller.
        decision: status.decision.clone().map(|decision| LastDecision {
            history: None,
            ..decision
        }),
        conditions: status.conditions.clone(),
        now,
    }
}

fn phase(consumer: &OrderedConsumer, status: &OrderedConsumerStatus) -> (String, String) {
    let ready = status.conditions.iter().find(|one| one.type_ == READY);
    let Some(ready) = ready else {
        let message =
            "no operator has looked at it yet; kubectl keylane check says whether one runs";
        return ("Unseen".to_owned(), message.to_owned());
    };
    match ready.status.as_str() {
        "True" if consumer.spec.consumer.suspend.all => {
            let message = format!("nothing is handed to handlers; {}", ready.message);
            ("Suspended".to_owned(), message)
        }
        "True" => ("Ready".to_owned(), ready.message.clone()),
        _ => (ready.reason.clone(), ready.message.clone()),
    }
}
