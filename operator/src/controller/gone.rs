//! Pods that have ended for certain, and who has to be told: the members of a group may take over their
//! queues without waiting for calls that cannot run any more.
//!
//! Proof is the kubelet's report that every container terminated, on a pod that is not started again. A
//! vanished object, a forced deletion or a lost node proves nothing.

use super::fetch;
use super::index::Name;
use super::watch::Watched;
use crate::leader::Tenure;
use crate::metrics::Metrics;
use crate::names;
use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Time between tries for members that did not answer.
const AGAIN: Duration = Duration::from_secs(1);
/// After this time it does not help any more: the longest wait for calls is over or the pod is long replaced.
const WORTH_TELLING: Duration = Duration::from_secs(180);
/// Pods told of in one request.
const AT_ONCE: usize = 64;

/// Whether the kubelet has reported that nothing of this pod runs, nor will again.
pub fn has_ended(pod: &Pod) -> bool {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else {
        return false;
    };
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if !over && pod.metadata.deletion_timestamp.is_none() {
        return false;
    }
    let there = spec.containers.len()
        + spec.init_containers.iter().flatten().count()
        + spec.ephemeral_containers.iter().flatten().count();
    let statuses: Vec<_> = [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ]
    .into_iter()
    .flatten()
    .flatten()
    .collect();
    statuses.len() == there
        && statuses.iter().all(|one| {
            let ended = one
                .state
                .as_ref()
                .and_then(|state| state.terminated.as_ref());
            // The kubelet says so of containers it has lost sight of: they may run.
            ended.is_some_and(|ended| ended.reason.as_deref() != Some("ContainerStatusUnknown"))
        })
}

/// Who ended, and who knows.
#[derive(Debug, Default)]
pub struct Notices(BTreeMap<Name, Notice>);

#[derive(Debug, Default)]
struct Notice {
    /// Uids of pods that ended, with the time it was learnt.
    gone: BTreeMap<String, Instant>,
    /// What each member was told, by its process.
    told: BTreeMap<String, BTreeSet<String>>,
}

impl Notices {
    /// A pod has ended.
    pub fn learn(&mut self, now: Instant, consumer: Name, pod: String) {
        let notice = self.0.entry(consumer).or_default();
        notice.gone.entry(pod).or_insert(now);
    }

    /// What a member still has to be told.
    pub fn untold(&self, consumer: &Name, member: &str) -> Vec<String> {
        let Some(notice) = self.0.get(consumer) else {
            return Vec::new();
        };
        let told = notice.told.get(member);
        let known = |pod: &&String| told.is_some_and(|told| told.contains(*pod));
        let news = notice.gone.keys().filter(|pod| !known(pod));
        news.take(AT_ONCE).cloned().collect()
    }

    /// A member was told.
    pub fn told(&mut self, consumer: &Name, member: &str, pods: Vec<String>) {
        if let Some(notice) = self.0.get_mut(consumer) {
            notice
                .told
                .entry(member.to_owned())
                .or_default()
                .extend(pods);
        }
    }

    /// Forgets what is not worth telling any more.
    pub fn expire(&mut self, now: Instant) {
        self.0.retain(|_, notice| {
            let fresh = |since: &Instant| now.saturating_duration_since(*since) < WORTH_TELLING;
            notice.gone.retain(|_, since| fresh(since));
            !notice.gone.is_empty()
        });
    }

    fn consumers(&self) -> Vec<Name> {
        self.0.keys().cloned().collect()
    }
}

/// Tells members which pods have ended, as soon as it is known.
pub struct Teller {
    /// Reads Secrets.
    pub client: Client,
    /// Knows the pods.
    pub watched: Arc<Watched>,
    /// Counts.
    pub metrics: Metrics,
    /// Only a leader tells.
    pub tenure: Tenure,
}

impl Teller {
    /// Runs until no more events come.
    pub async fn run(self, mut events: UnboundedReceiver<Pod>) {
        let mut notices = Notices::default();
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let news = tokio::select! {
                event = events.next() => match event {
                    Some(pod) => learn(&mut notices, &pod),
                    None => return,
                },
                _ = again.tick() => {
                    notices.expire(Instant::now());
                    true
                }
            };
            if news && self.tenure.holds() {
                for consumer in notices.consumers() {
                    self.tell(&mut notices, &consumer).await;
                }
            }
        }
    }

    async fn tell(&self, notices: &mut Notices, consumer: &Name) {
        let members: Vec<_> = self
            .members(consumer)
            .into_iter()
            .filter_map(|pod| {
                let (member, address) = (process(&pod)?, fetch::address(&pod)?.to_owned());
                let news = notices.untold(consumer, &member);
                (!news.is_empty()).then_some((member, address, news))
            })
            .collect();
        if members.is_empty() {
            return;
        }
        let pods = match fetch::pod_client(&self.client, consumer).await {
            Ok(Some(pods)) => pods,
            Ok(None) => return,
            Err(error) => {
                self.metrics.failed("access");
                warn!("{}/{}: {error}", consumer.0, consumer.1);
                return;
            }
        };
        let calls = members.into_iter().map(|(member, address, news)| {
            let pods = &pods;
            async move {
                let told = pods.members_gone(&address, &news).await;
                (member, news, told)
            }
        });
        for (member, news, told) in join_all(calls).await {
            match told {
                Ok(()) => {
                    info!(
                        "{}/{}: pod {member} was told that {} ended",
                        consumer.0,
                        consumer.1,
                        news.join(", ")
                    );
                    self.metrics.told_gone();
                    notices.told(consumer, &member, news);
                }
                Err(error) => info!("{}/{}: {error}", consumer.0, consumer.1),
            }
        }
    }

    /// Pods of the consumer that may still run.
    fn members(&self, consumer: &Name) -> Vec<Arc<Pod>> {
        let child = names::child(&consumer.1);
        let deployments = self.watched.deployments(consumer).into_iter();
        let ours = deployments.filter(|one| one.name_any() == child);
        let pods = ours.flat_map(|one| fetch::pods(&self.watched, consumer, &one));
        pods.filter(|pod| !has_ended(pod)).collect()
    }
}

/// Names what runs in a pod: its uid and how often containers of it were started again. An executor that was
/// started again knows nothing of what the one before was told.
fn process(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
    let restarts: i32 = statuses.map(|one| one.restart_count).sum();
    Some(format!("{}/{restarts}", pod.uid()?))
}

fn learn(notices: &mut Notices, pod: &Pod) -> bool {
    if !has_ended(pod) {
        return false;
    }
    let name = pod.labels().get(names::NAME_LABEL).cloned();
    let (Some(name), Some(namespace), Some(uid)) = (name, pod.namespace(), pod.uid()) else {
        return false;
    };
    notices.learn(Instant::now(), (namespace, name), uid);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(deleted: bool, phase: &str, states: [Value; 2]) -> Pod {
        let [init, main] = states;
        let mut pod = json!({
            "metadata": {"uid": "u"},
            "spec": {"containers": [{"name": "executor"}], "initContainers": [{"name": "handler"}]},
            "status": {"phase": phase,
                "initContainerStatuses": [status("handler", init)],
                "containerStatuses": [status("executor", main)]}
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(pod).unwrap()
    }

    fn status(name: &str, state: Value) -> Value {
        json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
    }

    #[test]
    fn only_the_kubelets_word_for_every_container_proves_an_end() {
        let ended = || json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        let running = || json!({"running": {}});
        let lost = || json!({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}});
        assert!(has_ended(&pod(true, "Running", [ended(), ended()])));
        assert!(has_ended(&pod(false, "Failed", [ended(), ended()])));
        // It is started again.
        assert!(!has_ended(&pod(false, "Running", [ended(), ended()])));
        assert!(!has_ended(&pod(true, "Running", [running(), ended()])));
        assert!(!has_ended(&pod(true, "Failed", [ended(), running()])));
        assert!(!has_ended(&pod(true, "Failed", [ended(), lost()])));
        assert!(!has_ended(&pod(
            true,
            "Pending",
            [ended(), json!({"waiting": {}})]
        )));
        let mut one_missing = pod(true, "Running", [ended(), ended()]);
        if let Some(status) = &mut one_missing.status {
            status.init_container_statuses = None;
        }
        assert!(!has_ended(&one_missing));
    }

    #[test]
    fn an_executor_that_is_started_again_is_told_again() {
        let mut notices = Notices::default();
        let consumer: Name = ("shop".into(), "orders".into());
        notices.learn(Instant::now(), consumer.clone(), "dead".into());
        let running = || json!({"running": {}});
        let mut member = pod(false, "Running", [running(), running()]);
        let first = process(&member).unwrap();
        notices.told(&consumer, &first, vec!["dead".into()]);
        assert_eq!(process(&member).as_ref(), Some(&first));
        let status = member.status.as_mut().unwrap();
        status.container_statuses.as_mut().unwrap()[0].restart_count = 1;
        let second = process(&member).unwrap();
        assert!(notices.untold(&consumer, &first).is_empty());
        assert_eq!(notices.untold(&consumer, &second), ["dead"]);
    }

    #[test]
    fn each_member_is_told_once_and_later_ones_too_until_it_is_stale() {
        let (mut notices, start) = (Notices::default(), Instant::now());
        let shop = || ("shop".to_owned(), "orders".to_owned());
        notices.learn(start, shop(), "dead".into());
        assert_eq!(notices.untold(&shop(), "a"), ["dead"]);
        notices.told(&shop(), "a", vec!["dead".into()]);
        assert!(notices.untold(&shop(), "a").is_empty());
        assert_eq!(notices.untold(&shop(), "b"), ["dead"]);
        notices.learn(start + AGAIN, shop(), "dead too".into());
        assert_eq!(notices.untold(&shop(), "a"), ["dead too"]);
        notices.expire(start + WORTH_TELLING);
        assert_eq!(notices.untold(&shop(), "b"), ["dead too"]);
        notices.expire(start + WORTH_TELLING + AGAIN);
        assert!(notices.consumers().is_empty());
    }
}
