//! What the controller decides on, from what was read. Pure. A figure that was not read is absent: a queue
//! the broker did not tell of, a queue whose pod does not answer.

use super::validate::Consumer;
use crate::broker::{self, Reading};
use crate::crd::Mode;
use crate::scale::{self, KeyLoad, PodSample, Policy, QueueSample, Snapshot};
use keylane_consumer::contract::admin::{HotKey, LongKey, QueuePhase, Stats, StuckKey};
use keylane_consumer::contract::spec::Consumption;
use keylane_consumer::message::QueueId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Bounds, mode, objective and the loads that are announced around `now`, a time since the Unix epoch.
pub fn policy(consumer: &Consumer, now: Duration) -> Policy {
    let (lanes, autoscaling) = (&consumer.spec().lanes, consumer.autoscaling());
    let windows = consumer
        .schedules()
        .iter()
        .flat_map(|schedule| schedule.windows(now));
    let shared = consumer.spec().consumption == Consumption::Clustering;
    let mode = match autoscaling.mode {
        Mode::Auto if shared => scale::Mode::Auto,
        Mode::Auto | Mode::LanesOnly => scale::Mode::LanesOnly,
        Mode::Advise => scale::Mode::Advise,
        Mode::Hold => scale::Mode::Hold,
    };
    let (min_replicas, max_replicas) = if shared {
        let (least, most) = (autoscaling.min_replicas, autoscaling.max_replicas);
        (least.unsigned_abs(), most.unsigned_abs())
    } else {
        // Each pod gets all messages: other pods take none of them, whatever there is to do.
        let there = consumer.replicas().unsigned_abs();
        (there, there)
    };
    let fallback = autoscaling.fallback.as_ref();
    Policy {
        mode,
        min_lanes: lanes.min,
        max_lanes: lanes.max,
        min_replicas,
        max_replicas,
        fallback_replicas: fallback.map_or(min_replicas, |of| of.replicas.unsigned_abs()),
        max_message_age: autoscaling.objective.max_message_age.get(),
        drain_within: autoscaling.objective.drain_within.get(),
        hold: autoscaling.scale_down.stabilization_window.get(),
        schedules: windows.collect(),
    }
}

/// What is read in one round.
#[derive(Clone, Copy, Debug)]
pub struct Read<'r> {
    /// Time since the Unix epoch.
    pub now: Duration,
    /// Wanted pods.
    pub replicas: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// What the brokers said; none if they said nothing.
    pub brokers: Option<&'r Reading>,
    /// What pods said.
    pub pods: &'r [Stats],
    /// Used part of the CPU that pods may use, by incarnation.
    pub cpu: &'r BTreeMap<String, f64>,
    /// A pod that should have answered did not: what is unfinished in its queues is unknown.
    pub silent: bool,
}

/// The snapshot.
pub fn snapshot(read: Read<'_>) -> Snapshot {
    // A pod that drains runs nothing new; its lanes would look idle.
    let working: Vec<&Stats> = read.pods.iter().filter(|pod| !pod.draining).collect();
    let owners: BTreeMap<QueueId, usize> = working
        .iter()
        .enumerate()
        .flat_map(|(index, pod)| {
            let owned = pod
                .queues
                .iter()
                .filter(|queue| queue.phase == QueuePhase::Owned);
            owned.map(move |queue| (QueueId::new(queue.broker.as_str(), queue.id), index))
        })
        .collect();
    let reported = broker::reported(read.pods);
    let queues = read.brokers.into_iter().flat_map(|reading| &reading.queues);
    let queues = queues.map(|(id, known)| {
        let from = reported.get(id);
        QueueSample {
            id: id.clone(),
            max_offset: known.map(|known| known.max),
            unfinished: known
                .filter(|_| from.is_some() || !read.silent)
                .map(|known| broker::unfinished(&known, from)),
            owner: owners.get(id).copied(),
        }
    });
    Snapshot {
        now: read.now,
        replicas: read.replicas,
        ready: read.ready,
        queues: queues.collect(),
        pods: working.iter().map(|pod| sample(pod, read.cpu)).collect(),
        hot_keys: working.iter().copied().flat_map(hot).collect(),
        stuck_keys: read.pods.iter().flat_map(stuck).collect(),
    }
}

fn sample(pod: &Stats, cpu: &BTreeMap<String, f64>) -> PodSample {
    PodSample {
        incarnation: pod.incarnation.clone(),
        lanes: pod.lanes.lanes,
        busy_lanes: pod.busy_lanes,
        waiting_lanes: pod.waiting_lanes,
        busy_lane_seconds: pod.busy_lane_seconds,
        completed: pod.completed,
        buffered: pod.buffered,
        uptime_seconds: pod.uptime_seconds,
        cpu: cpu.get(&pod.incarnation).copied(),
    }
}

/// A queue as pods name it: broker name/queue id.
fn queue_of(text: &str) -> Option<QueueId> {
    let (broker, id) = text.rsplit_once('/')?;
    Some(QueueId::new(broker, id.parse().ok()?))
}

/// Keys with the most arrivals, at the rate that is certain, and keys that arrived long ago and still have
/// much waiting.
fn hot(pod: &Stats) -> impl Iterator<Item = KeyLoad> + '_ {
    let same = |hot: &HotKey, long: &LongKey| hot.key == long.key && hot.queue == long.queue;
    let hot = pod.hot_keys.iter().filter_map(move |key| {
        let long = pod.long_keys.iter().find(|long| same(key, long));
        Some(KeyLoad {
            key: key.key.clone(),
            queue: queue_of(&key.queue)?,
            per_second: (key.rate - key.error).max(0.0),
            waiting: long.map_or(0, |long| long.messages),
        })
    });
    let long = pod.long_keys.iter().filter_map(move |key| {
        let listed = pod.hot_keys.iter().any(|hot| same(hot, key));
        Some(KeyLoad {
            key: key.key.clone(),
            queue: (!listed).then(|| queue_of(&key.queue)).flatten()?,
            per_second: 0.0,
            waiting: key.messages,
        })
    });
    hot.chain(long)
}

/// Keys that do not move, whatever the number of lanes: their head does not get done, or waits for a person.
fn stuck(pod: &Stats) -> impl Iterator<Item = KeyLoad> + '_ {
    let stuck = pod.stuck_keys.iter().filter_map(|key| {
        Some(KeyLoad {
            key: key.key.clone(),
            queue: queue_of(&key.queue)?,
            per_second: 0.0,
            waiting: key.messages,
        })
    });
    let blocked = pod.blocked.iter().filter(|blocked| {
        let listed = |key: &&StuckKey| key.key == blocked.key && key.offset == blocked.offset;
        !pod.stuck_keys.iter().any(|key| listed(&key))
    });
    stuck.chain(blocked.map(|key| KeyLoad {
        key: key.key.clone(),
        queue: QueueId::new(key.broker.as_str(), key.queue_id),
        per_second: 0.0,
        waiting: 1,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::QueueOffsets;
    use crate::controller::validate::{tests, validate};
    use keylane_consumer::contract::admin::{BlockedKey, HotKey, LaneState, LongKey, QueueStats};

    fn pod(id: u32, draining: bool) -> Stats {
        Stats {
            incarnation: format!("pod-{id}"),
            draining,
            queues: vec![QueueStats {
                broker: "b".to_owned(),
                id,
                phase: QueuePhase::Owned,
                watermark: Some(90),
                committed: Some(80),
                finished_above_watermark: 4,
                ..QueueStats::default()
            }],
            ..Stats::default()
        }
    }

    fn reading() -> Reading {
        let offsets = QueueOffsets {
            min: 0,
            max: 100,
            committed: Some(80),
        };
        let queue = |id| QueueId::new("b", id);
        Reading {
            secret: None,
            queues: BTreeMap::from([
                (queue(0), Some(offsets)),
                (queue(1), Some(offsets)),
                (queue(2), None),
            ]),
            error: None,
        }
    }

    #[test]
    fn pods_that_each_get_all_messages_are_nobodys_to_scale_and_the_fallback_is_the_least_else() {
        let policy = |change: fn(&mut serde_json::Value)| {
            let object = tests::object(tests::template());
            let mut object = serde_json::to_value(object).unwrap();
            object["spec"]["replicas"] = 3.into();
            object["spec"]["autoscaling"]["minReplicas"] = 2.into();
            change(&mut object["spec"]);
            let object = serde_json::from_value(object).unwrap();
            policy(&validate(&object).unwrap(), Duration::ZERO)
        };
        let usual = policy(|_| {});
        assert_eq!(usual.mode, scale::Mode::Auto);
        assert_eq!((usual.min_replicas, usual.fallback_replicas), (2, 2));
        let fallback = policy(|spec| {
            spec["autoscaling"]["fallback"] = serde_json::json!({"replicas": 5});
        });
        assert_eq!((fallback.min_replicas, fallback.fallback_replicas), (2, 5));
        let all = policy(|spec| spec["consumption"] = "Broadcasting".into());
        assert_eq!(all.mode, scale::Mode::LanesOnly);
        assert_eq!((all.min_replicas, all.max_replicas), (3, 3));
    }

    #[test]
    fn what_a_broker_or_pod_did_not_say_is_absent() {
        let (reading, pods) = (reading(), [pod(0, false)]);
        let cpu = BTreeMap::new();
        let read = Read {
            now: Duration::from_secs(1),
            replicas: 2,
            ready: 2,
            brokers: Some(&reading),
            pods: &pods,
            cpu: &cpu,
            silent: true,
        };
        let known = |snapshot: &Snapshot| -> Vec<_> {
            let queues = snapshot.queues.iter();
            queues
                .map(|queue| (queue.max_offset, queue.unfinished, queue.owner))
                .collect()
        };
        // The pod of queue 1 should answer and does not; the broker of queue 2 does not.
        assert_eq!(
            known(&snapshot(read)),
            [
                (Some(100), Some(6), Some(0)),
                (Some(100), None, None),
                (None, None, None)
            ]
        );
        // Without such a pod the committed offset is all there is to know.
        let all_answer = Read {
            silent: false,
            ..read
        };
        assert_eq!(known(&snapshot(all_answer))[1], (Some(100), Some(20), None));
        let nothing = Read {
            brokers: None,
            ..read
        };
        assert!(snapshot(nothing).queues.is_empty());
        assert_eq!(snapshot(read).pods[0].cpu, None);
    }

    #[test]
    fn a_pod_that_drains_has_no_lanes_to_count_but_what_it_finished_counts() {
        let (reading, pods) = (reading(), [pod(0, true), pod(1, false)]);
        let cpu = BTreeMap::from([("pod-0".to_owned(), 1.0), ("pod-1".to_owned(), 0.5)]);
        let made = snapshot(Read {
            now: Duration::ZERO,
            replicas: 1,
            ready: 1,
            brokers: Some(&reading),
            pods: &pods,
            cpu: &cpu,
            silent: false,
        });
        assert_eq!(made.pods.len(), 1);
        assert_eq!(made.pods[0].cpu, Some(0.5));
        assert_eq!(made.queues[0].unfinished, Some(6));
        assert_eq!(
            (made.queues[0].owner, made.queues[1].owner),
            (None, Some(0))
        );
    }

    #[test]
    fn hot_keys_count_at_their_certain_rate_and_a_stuck_key_once() {
        let stuck = |key: &str, offset, messages| StuckKey {
            key: key.to_owned(),
            queue: "b/0".to_owned(),
            offset,
            seconds: 60.0,
            state: LaneState::Blocked,
            attempts: 16,
            messages,
            last_error: String::new(),
        };
        let blocked = |key: &str, offset| BlockedKey {
            key: key.to_owned(),
            broker: "b".to_owned(),
            queue_id: 0,
            offset,
            attempts: 16,
            last_error: String::new(),
        };
        let mut pod = pod(0, false);
        pod.hot_keys = vec![HotKey {
            key: "hot".to_owned(),
            queue: "b/0".to_owned(),
            rate: 50.0,
            error: 10.0,
        }];
        let long = |key: &str, messages| LongKey {
            key: key.to_owned(),
            queue: "b/0".to_owned(),
            messages,
        };
        pod.long_keys = vec![long("old", 800), long("hot", 700)];
        pod.stuck_keys = vec![stuck("both", 7, 30)];
        pod.blocked = vec![blocked("both", 7), blocked("blocked only", 9)];
        let hot: Vec<_> = hot(&pod)
            .map(|key| (key.key, key.per_second, key.waiting, key.queue))
            .collect();
        let queue = QueueId::new("b", 0);
        assert_eq!(
            hot,
            [
                ("hot".to_owned(), 40.0, 700, queue.clone()),
                ("old".to_owned(), 0.0, 800, queue)
            ]
        );
        let stuck: Vec<_> = super::stuck(&pod)
            .map(|key| (key.key, key.waiting))
            .collect();
        assert_eq!(
            stuck,
            [("both".to_owned(), 30), ("blocked only".to_owned(), 1)]
        );
    }
}
