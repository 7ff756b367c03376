//! The controller against a plant: pods that finish what their lanes can, and what comes of it.

use super::*;
use proptest::prelude::*;

const TICK: Duration = Duration::from_secs(5);
/// Time from asking for a pod to its first message, in ticks.
const START_TICKS: u32 = 4;

fn policy() -> Policy {
    Policy {
        mode: Mode::Auto,
        min_lanes: 4,
        max_lanes: 8,
        min_replicas: 1,
        max_replicas: 6,
        hold: Policy::HOLD,
    }
}

/// Pods that take messages of `service` seconds off a backlog, with at most `keys` keys at once.
struct Plant {
    service: f64,
    keys: u32,
    backlog: f64,
    arriving: f64,
    sent: f64,
    now: Duration,
    replicas: u32,
    /// Ticks until each pod is ready, and what it has done since.
    pods: Vec<(u32, PodSample)>,
    born: u32,
}

impl Plant {
    fn new(backlog: f64, service: f64, keys: u32) -> Self {
        let mut plant = Self {
            service,
            keys,
            backlog,
            arriving: 0.0,
            sent: backlog,
            now: Duration::ZERO,
            replicas: 1,
            pods: Vec::new(),
            born: 0,
        };
        plant.resize(0, 4);
        plant
    }

    fn resize(&mut self, delay: u32, lanes: u32) {
        self.pods.truncate(self.replicas as usize);
        while self.pods.len() < self.replicas as usize {
            self.born += 1;
            let sample = PodSample {
                incarnation: format!("pod-{}", self.born),
                lanes,
                busy_lanes: 0,
                waiting_lanes: 0,
                busy_lane_seconds: 0.0,
                completed: 0,
                uptime_seconds: 0.0,
                live_keys: 0,
            };
            self.pods.push((delay, sample));
        }
    }

    fn ready(&self) -> u32 {
        self.pods.iter().filter(|(wait, _)| *wait == 0).count() as u32
    }

    fn tick(&mut self, lanes: u32) {
        let seconds = TICK.as_secs_f64();
        self.now += TICK;
        self.backlog += self.arriving * seconds;
        self.sent += self.arriving * seconds;
        let ready = self.ready().max(1);
        let keys = self.keys.div_ceil(ready);
        for (wait, pod) in &mut self.pods {
            if *wait > 0 {
                *wait -= 1;
                continue;
            }
            pod.lanes = lanes;
            let can = f64::from(lanes.min(keys)) * seconds / self.service;
            let done = can.min(self.backlog).floor();
            self.backlog -= done;
            let busy = done * self.service;
            pod.busy_lane_seconds += busy;
            pod.completed += done as u64;
            pod.busy_lanes = (busy / seconds).round() as u32;
            let left = self.backlog >= 1.0;
            pod.live_keys = if left { u64::from(keys) } else { 0 };
            pod.waiting_lanes = if left { keys.saturating_sub(lanes) } else { 0 };
        }
    }

    fn snapshot(&self) -> Snapshot {
        let ready = self.pods.iter().filter(|(wait, _)| *wait == 0);
        Snapshot {
            now: self.now,
            replicas: self.replicas,
            ready: self.ready(),
            queues: Some(8),
            max_offsets: Some(self.sent as u64),
            unfinished: Some(self.backlog as u64),
            pods: ready.map(|(_, pod)| pod.clone()).collect(),
        }
    }

    /// Runs the loop; gives every size (lanes, replicas) it went through.
    fn run(&mut self, policy: &Policy, ticks: u32) -> Vec<(u32, u32)> {
        let mut history = History::default();
        let mut lanes = policy.min_lanes;
        let mut sizes = Vec::new();
        for _ in 0..ticks {
            self.tick(lanes);
            let (decision, next) = decide(&self.snapshot(), policy, &history);
            history = next;
            lanes = decision.lanes;
            self.replicas = decision.replicas;
            self.resize(START_TICKS, lanes);
            sizes.push((lanes, self.replicas));
        }
        sizes
    }
}

fn most_replicas(sizes: &[(u32, u32)]) -> u32 {
    sizes.iter().map(|size| size.1).max().unwrap_or(0)
}

#[test]
fn a_backlog_raises_lanes_then_pods_and_pods_fall_back_when_it_is_gone() {
    // 5 ms a message: a pod with all its 8 lanes finishes 1,600 messages a second.
    let mut plant = Plant::new(400_000.0, 0.005, 1000);
    let sizes = plant.run(&policy(), 120);
    let all_lanes = sizes.iter().position(|size| size.0 == 8).unwrap();
    let more_pods = sizes.iter().position(|size| size.1 > 1).unwrap();
    assert!(all_lanes <= more_pods, "{sizes:?}");
    assert!(more_pods <= 12, "no pod was added in a minute: {sizes:?}");
    assert!(plant.backlog < 1.0);
    assert_eq!(sizes.last().unwrap().1, 1, "{sizes:?}");
    assert_eq!(sizes.last().unwrap().0, 4, "{sizes:?}");
    let turns = sizes.windows(2).filter(|pair| pair[1].1 > pair[0].1);
    assert!(turns.count() <= 3, "pods went up and down: {sizes:?}");
}

#[test]
fn a_load_that_one_pod_carries_gets_no_other() {
    let mut plant = Plant::new(0.0, 0.005, 1000);
    plant.arriving = 1000.0;
    let sizes = plant.run(&policy(), 120);
    assert_eq!(most_replicas(&sizes), 1, "{sizes:?}");
    assert!(plant.backlog < 1000.0, "{}", plant.backlog);
}

#[test]
fn a_single_key_gets_no_more_pods_whatever_its_backlog() {
    let mut plant = Plant::new(1e6, 0.005, 1);
    let sizes = plant.run(&policy(), 120);
    assert_eq!(most_replicas(&sizes), 1, "{sizes:?}");
}

#[test]
fn there_are_never_more_pods_than_queues() {
    let wide = Policy {
        max_replicas: 50,
        ..policy()
    };
    let mut plant = Plant::new(1e8, 0.005, 10_000);
    let sizes = plant.run(&wide, 120);
    assert_eq!(most_replicas(&sizes), 8, "{sizes:?}");
}

#[test]
fn lanes_stay_while_one_pod_has_none_free_though_the_average_would_do_with_fewer() {
    let pod = |name: &str, busy: u32, seconds: f64, completed: u64| PodSample {
        incarnation: name.to_owned(),
        lanes: 8,
        busy_lanes: busy,
        waiting_lanes: busy,
        busy_lane_seconds: seconds,
        completed,
        uptime_seconds: seconds,
        live_keys: 100,
    };
    let snapshot = |round: u32, busy: u32| Snapshot {
        now: TICK * round,
        replicas: 2,
        ready: 2,
        queues: Some(8),
        max_offsets: Some(100_000),
        unfinished: Some(1_000),
        pods: vec![
            pod("a", busy, f64::from(round) * 40.0, u64::from(round) * 8_000),
            pod("b", 0, 0.0, 0),
        ],
    };
    let lanes = |busy: u32| {
        let mut history = History::default();
        let mut decision = None;
        for round in 1..6 {
            let (made, next) = decide(&snapshot(round, busy), &policy(), &history);
            (decision, history) = (Some(made), next);
        }
        decision.map(|decision| decision.lanes)
    };
    assert_eq!(lanes(8), Some(8));
    assert_eq!(lanes(3), Some(4));
}

#[test]
fn a_stopped_consumer_stays_stopped() {
    let mut plant = Plant::new(1e6, 0.005, 1000);
    plant.replicas = 0;
    plant.resize(0, 4);
    let sizes = plant.run(&policy(), 20);
    assert_eq!(most_replicas(&sizes), 0, "{sizes:?}");
}

#[test]
fn replicas_of_another_owner_are_left_alone() {
    let theirs = Policy {
        mode: Mode::LanesOnly,
        ..policy()
    };
    let mut plant = Plant::new(1e6, 0.005, 1000);
    plant.replicas = 3;
    plant.resize(0, 4);
    let sizes = plant.run(&theirs, 60);
    assert!(sizes.iter().all(|size| size.1 == 3), "{sizes:?}");
    assert!(sizes.iter().any(|size| size.0 == 8), "{sizes:?}");
}

/// A round of anything, possible or not: figures come from brokers and pods.
fn snapshots() -> impl Strategy<Value = Vec<Snapshot>> {
    let pod = (
        0..3u8,
        1..64u32,
        0..80u32,
        0..80u32,
        0..1_000_000u64,
        0..2000u64,
    );
    let pods = prop::collection::vec(pod, 0..4);
    let offsets = prop::option::of(0..10_000_000u64);
    let queues = prop::option::of(1..32u32);
    let round = (1..12u64, 1..8u32, offsets.clone(), offsets, queues, pods);
    prop::collection::vec(round, 1..40).prop_map(|rounds| {
        let mut now = Duration::ZERO;
        let rounds = rounds.into_iter();
        rounds
            .map(|(step, replicas, max_offsets, unfinished, queues, pods)| {
                now += Duration::from_secs(step);
                let pods = pods.into_iter();
                Snapshot {
                    now,
                    replicas,
                    ready: pods.len() as u32,
                    queues,
                    max_offsets,
                    unfinished,
                    pods: pods
                        .map(|(name, lanes, busy, waiting, completed, keys)| PodSample {
                            incarnation: name.to_string(),
                            lanes,
                            busy_lanes: busy,
                            waiting_lanes: waiting,
                            busy_lane_seconds: completed as f64 * 0.01,
                            completed,
                            uptime_seconds: now.as_secs_f64(),
                            live_keys: keys,
                        })
                        .collect(),
                }
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn bounds_hold_and_nothing_goes_down_on_missing_figures(rounds in snapshots()) {
        let policy = policy();
        let mut history = History::default();
        for snapshot in rounds {
            let (decision, next) = decide(&snapshot, &policy, &history);
            prop_assert_eq!(&decide(&snapshot, &policy, &history).0, &decision);
            prop_assert!((policy.min_lanes..=policy.max_lanes).contains(&decision.lanes));
            prop_assert!((policy.min_replicas..=policy.max_replicas).contains(&decision.replicas));
            let bounded = snapshot.replicas.min(policy.max_replicas);
            if snapshot.unfinished.is_none() || snapshot.pods.is_empty() {
                prop_assert!(decision.replicas >= bounded, "{:?}", decision);
            }
            if decision.replicas > bounded {
                let queues = snapshot.queues.unwrap_or(u32::MAX);
                prop_assert!(decision.replicas <= queues.max(policy.min_replicas), "{:?}", decision);
            }
            history = next;
        }
    }
}
