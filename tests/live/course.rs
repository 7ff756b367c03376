//! The course of one OrderedConsumer: every change of it, with its time.

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use keylane_operator::crd::OrderedConsumer;
use keylane_tests::stack::Stack;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The resource since a moment.
#[derive(Clone, Debug)]
pub struct Moment {
    /// When it was told of.
    pub at: Instant,
    /// spec.replicas.
    pub wanted: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Lanes of a pod.
    pub lanes: u32,
    /// Whether the lag is known.
    pub lag_known: bool,
    /// Conditions that are true: kind and message.
    pub conditions: Vec<(String, String)>,
    /// Why the last decision is as it is.
    pub reason: String,
    /// Messages a second that one pod is believed to do.
    pub pod_capacity: Option<f64>,
}

impl Moment {
    fn of(object: &OrderedConsumer) -> Self {
        let status = object.status.clone().unwrap_or_default();
        let conditions = status.conditions.into_iter();
        let decision = status.decision;
        Self {
            at: Instant::now(),
            wanted: object.spec.replicas,
            ready: status.ready_replicas.unwrap_or(0),
            lanes: status.lanes.unwrap_or(0),
            lag_known: status.lag.is_some(),
            conditions: conditions
                .filter(|condition| condition.status == "True")
                .map(|condition| (condition.type_, condition.message))
                .collect(),
            pod_capacity: decision
                .as_ref()
                .and_then(|decision| decision.inputs.pod_capacity.as_ref()?.parse().ok()),
            reason: decision.map(|decision| decision.reason).unwrap_or_default(),
        }
    }

    /// Message of a condition that is true.
    pub fn condition(&self, kind: &str) -> Option<&str> {
        let mut conditions = self.conditions.iter();
        let (_, message) = conditions.find(|(is, _)| is == kind)?;
        Some(message)
    }

    fn size(&self) -> (i32, i32, u32) {
        (self.wanted, self.ready, self.lanes)
    }

    fn pods(&self) -> (i32, i32) {
        (self.wanted, self.ready)
    }
}

/// All moments so far, in order.
pub struct Course {
    seen: watch::Receiver<Vec<Moment>>,
    task: JoinHandle<()>,
}

impl Drop for Course {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Course {
    /// Watches a consumer from now on.
    pub async fn follow(stack: &Stack, scene: &'static str, name: &str) -> Result<Self> {
        let client = stack.cluster().client().await?;
        let consumers: Api<OrderedConsumer> = Api::namespaced(client, stack.namespace());
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let (sender, mut seen) = watch::channel(Vec::new());
        let began = Instant::now();
        let task = tokio::spawn(async move {
            let changes = watcher(consumers, only).default_backoff().applied_objects();
            let mut changes = std::pin::pin!(changes);
            while let Some(change) = changes.next().await {
                match change {
                    Ok(object) => sender.send_modify(|seen: &mut Vec<Moment>| {
                        let moment = Moment::of(&object);
                        if seen.last().map(Moment::size) != Some(moment.size()) {
                            say(scene, began, &moment);
                        }
                        seen.push(moment);
                    }),
                    // It goes on by itself.
                    Err(error) => eprintln!("{scene}: the watch broke off: {error}"),
                }
            }
        });
        let first = tokio::time::timeout(
            Duration::from_secs(30),
            seen.wait_for(|seen| !seen.is_empty()),
        );
        first.await.context("the consumer is not told of")??;
        Ok(Self { seen, task })
    }

    /// The last moment.
    pub fn last(&self) -> Result<Moment> {
        self.seen
            .borrow()
            .last()
            .cloned()
            .context("nothing was seen")
    }

    /// The first moment since then that was as wanted.
    pub fn first(&self, since: Instant, wanted: impl Fn(&Moment) -> bool) -> Option<Moment> {
        let seen = self.seen.borrow();
        let mut later = seen.iter().filter(|moment| moment.at >= since);
        later.find(|moment| wanted(moment)).cloned()
    }

    /// Waits until sizes have not changed for a while, and pods not for theirs, all pods are ready and the
    /// moment is as wanted.
    pub async fn settled(
        &self,
        quiet: Duration,
        pods: Duration,
        limit: Duration,
        wanted: impl Fn(&Moment) -> bool,
    ) -> Result<Moment> {
        let end = Instant::now() + limit;
        loop {
            let last = self.last()?;
            let calm = self.unchanged_since(&last, Moment::size).elapsed() >= quiet
                && self.unchanged_since(&last, Moment::pods).elapsed() >= pods;
            if calm && last.ready == last.wanted && wanted(&last) {
                return Ok(last);
            }
            if Instant::now() > end {
                bail!("it did not settle within {limit:?}: {last:?}");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn unchanged_since<S: PartialEq>(&self, last: &Moment, size: fn(&Moment) -> S) -> Instant {
        let seen = self.seen.borrow();
        let same = seen
            .iter()
            .rev()
            .take_while(|moment| size(moment) == size(last));
        same.last().map_or(last.at, |moment| moment.at)
    }

    /// How often the number of wanted pods has changed since then.
    pub fn pods_since(&self, since: Instant) -> Pods {
        let seen = self.seen.borrow();
        let before = seen.iter().rev().find(|moment| moment.at < since);
        let later = seen.iter().filter(|moment| moment.at >= since);
        Pods::of(before.into_iter().chain(later).map(|moment| moment.wanted))
    }

    /// When lanes or ready pods first became more after a moment.
    pub fn first_rise(&self, since: Instant) -> Option<Instant> {
        let seen = self.seen.borrow();
        let pairs = seen.windows(2);
        let mut rises = pairs.filter(|pair| {
            pair[1].at >= since && (pair[1].lanes > pair[0].lanes || pair[1].ready > pair[0].ready)
        });
        rises.next().map(|pair| pair[1].at)
    }
}

/// Numbers of pods over a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// How often the number changed.
    pub changes: u32,
    /// How often it became larger.
    pub rises: u32,
    /// How often it became smaller.
    pub falls: u32,
}

impl Pods {
    fn of(numbers: impl Iterator<Item = i32>) -> Self {
        let numbers: Vec<i32> = numbers.collect();
        let mut pods = Self::default();
        for pair in numbers.windows(2) {
            pods.changes += u32::from(pair[0] != pair[1]);
            pods.rises += u32::from(pair[0] < pair[1]);
            pods.falls += u32::from(pair[0] > pair[1]);
        }
        pods
    }
}

fn say(scene: &str, began: Instant, moment: &Moment) {
    eprintln!(
        "{scene:9} {:4} s: {} lanes, {} of {} pods ready, {}",
        began.elapsed().as_secs(),
        moment.lanes,
        moment.ready,
        moment.wanted,
        moment.reason
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_pods_are_counted_by_direction() {
        let pods = Pods::of([2, 2, 3, 3, 1, 2].into_iter());
        let expected = Pods {
            changes: 3,
            rises: 2,
            falls: 1,
        };
        assert_eq!(pods, expected);
        assert_eq!(Pods::of([4].into_iter()), Pods::default());
    }
}
