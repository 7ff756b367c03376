//! What a pod says of itself, in a line.

use crate::live::ConsumerStats;
use crate::plugin::time;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use keylane_consumer::contract::admin::QueuePhase;
use kube::ResourceExt;
use serde::Serialize;

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodLine {
    pub name: String,
    /// Pending, Running, Stopping, …
    pub phase: String,
    /// Containers that are ready, sidecars among them.
    pub ready: usize,
    /// Containers that run all the time.
    pub containers: usize,
    pub restarts: i32,
    /// How long it has been there.
    pub age: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What keeps it from being ready, or ended it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What it does; absent if it does not say, or is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
}

/// What a pod does at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Work {
    /// Queues it dispatches from.
    pub queues: u32,
    pub lanes: u32,
    pub busy_lanes: u32,
}

/// The pods in order of their names.
pub(super) fn lines(pods: &[Pod], live: Option<&ConsumerStats>, now: Timestamp) -> Vec<PodLine> {
    let lines = pods.iter().map(|pod| PodLine {
        work: live.and_then(|live| work(live, &pod.name_any())),
        ..line(pod, now)
    });
    let mut lines: Vec<_> = lines.collect();
    lines.sort_by(|left, right| left.name.cmp(&right.name));
    lines
}

fn work(live: &ConsumerStats, pod: &str) -> Option<Work> {
    let pod = live.pods.iter().find(|said| said.name == pod)?;
    let stats = pod.stats.as_ref()?;
    let queues = stats.queues.iter();
    let owned = queues.filter(|queue| queue.phase == QueuePhase::Owned && !queue.retry);
    Some(Work {
        queues: owned.count() as u32,
        lanes: stats.lanes.lanes,
        busy_lanes: stats.busy_lanes,
    })
}

fn line(pod: &Pod, now: Timestamp) -> PodLine {
    let status = pod.status.clone().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let sidecars: Vec<&str> = spec
        .and_then(|spec| spec.init_containers.as_ref())
        .into_iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    let all = status.init_container_statuses.iter().flatten();
    let kept: Vec<&ContainerStatus> = all
        .filter(|container| sidecars.contains(&container.name.as_str()))
        .chain(status.container_statuses.iter().flatten())
        .collect();
    let phase = match &pod.metadata.deletion_timestamp {
        Some(_) => "Stopping".to_owned(),
        None => status.phase.clone().unwrap_or_else(|| "Unknown".to_owned()),
    };
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    PodLine {
        name: pod.name_any(),
        phase,
        ready: kept.iter().filter(|container| container.ready).count(),
        containers: sidecars.len() + spec.map_or(0, |spec| spec.containers.len()),
        restarts: kept.iter().map(|container| container.restart_count).sum(),
        age: pod
            .creation_timestamp()
            .map_or_else(|| "0s".to_owned(), |created| time::since(created.0, now)),
        node: spec.and_then(|spec| spec.node_name.clone()),
        problem: kept
            .iter()
            .find_map(|container| waits(container))
            .or_else(|| unscheduled.and_then(|condition| condition.message.clone()))
            .or_else(|| kept.iter().find_map(|container| ended(container))),
        work: None,
    }
}

/// Why a container does not start.
fn waits(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    // What every pod goes through.
    if matches!(reason, "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let message = waiting.message.as_deref().unwrap_or_default();
    Some(
        format!("{}: {reason} {message}", container.name)
            .trim_end()
            .to_owned(),
    )
}

/// How a container ended last, if that was not in order.
fn ended(container: &ContainerStatus) -> Option<String> {
    let ended = container.last_state.as_ref()?.terminated.as_ref()?;
    let reason = ended.reason.as_deref().unwrap_or("ended");
    (ended.exit_code != 0).then(|| {
        format!(
            "{} ended last with {reason}, exit code {}",
            container.name, ended.exit_code
        )
    })
}
