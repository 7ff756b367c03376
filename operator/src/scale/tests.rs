//! The controller against the simulated group, and against figures nobody would expect.

mod ahead;
mod downstream;
mod keys;
mod made;
mod modes;
mod schedules;

use super::*;
use crate::simulate::{Autopilot, Controller, Plant, Run, Setup, Sizes, Span, Trace, World, run};
use keylane_consumer::message::QueueId;
use proptest::prelude::*;
use std::time::Duration;

fn trace(rate: f64, backlog: f64) -> Trace {
    Trace {
        name: "test".to_owned(),
        seconds: 900,
        queues: 8,
        rate: vec![rate],
        backlog,
        ..Trace::default()
    }
}

fn play(trace: &Trace, replicas: u32, change: impl Fn(&mut Setup)) -> (Run, Vec<Decision>) {
    let mut setup = Setup::of(trace);
    change(&mut setup);
    let start = Sizes {
        lanes: setup.policy.min_lanes,
        replicas,
    };
    let mut controller = Autopilot::new(trace, setup);
    let mut decisions = Vec::new();
    let run = run(
        trace,
        World::default(),
        start,
        &mut controller,
        &mut |plant, decision| {
            if plant.now().is_multiple_of(5) {
                decisions.extend(decision.cloned());
            }
        },
    );
    (run, decisions)
}

/// A group whose sizes are what a test makes of the decisions.
struct By<F>(F);

impl<F: FnMut(&Plant<'_>) -> Option<Sizes>> Controller for By<F> {
    fn decide(&mut self, plant: &Plant<'_>) -> Option<Sizes> {
        (self.0)(plant)
    }
}

/// Runs a trace from these sizes; `decide` is asked every second.
fn by(trace: &Trace, start: Sizes, decide: impl FnMut(&Plant<'_>) -> Option<Sizes>) -> Run {
    run(
        trace,
        World::default(),
        start,
        &mut By(decide),
        &mut |_, _| {},
    )
}

fn pods(run: &Run) -> Vec<u32> {
    run.course.iter().map(|moment| moment.pods).collect()
}

#[test]
fn a_backlog_raises_lanes_then_pods_and_pods_fall_back_when_it_is_gone() {
    let peak = Trace {
        seconds: 2400,
        ..trace(50.0, 100_000.0)
    };
    let (run, decisions) = play(&peak, 1, |_| {});
    let all_lanes = decisions
        .iter()
        .position(|decision| decision.lanes >= 16)
        .unwrap();
    let more_pods = decisions
        .iter()
        .position(|decision| decision.replicas > 1)
        .unwrap();
    assert!(
        all_lanes <= more_pods + 1 && more_pods <= 4,
        "{all_lanes} {more_pods}"
    );
    assert!(
        run.score.drained_at.is_some_and(|at| at < 180),
        "{:?}",
        run.score
    );
    assert!(pods(&run).last() <= Some(&2), "{:?}", run.score);
    assert_eq!(decisions.last().unwrap().lanes, 4);
    assert_eq!(run.score.reversals, 0, "{:?}", run.score);
}

#[test]
fn a_load_that_one_pod_carries_gets_no_other() {
    let (run, _) = play(&trace(200.0, 0.0), 1, |_| {});
    assert_eq!(run.score.most_pods, 1);
    assert_eq!(run.score.violation_seconds, 0);
}

#[test]
fn there_are_never_more_pods_than_queues() {
    let (run, decisions) = play(&trace(5000.0, 0.0), 1, |setup| {
        setup.policy.max_replicas = 50
    });
    assert_eq!(run.score.most_pods, 8);
    let limited = decisions
        .iter()
        .any(|decision| decision.limits.scaling.is_some());
    assert!(limited);
}

#[test]
fn a_queue_that_is_more_than_one_pod_can_do_is_named_whoever_owns_the_pods() {
    for mode in [Mode::Auto, Mode::LanesOnly] {
        let heavy = |weight: f64| {
            let uneven = Trace {
                queue_weights: [vec![weight], vec![1.0; 7]].concat(),
                ..trace(1000.0, 0.0)
            };
            let (_, decisions) = play(&uneven, 6, |setup| setup.policy.mode = mode);
            let heavy = |decision: &Decision| decision.limits.heavy_queue.clone();
            decisions.iter().filter_map(heavy).next_back()
        };
        // Two thirds of the load, where a pod does 320 a second.
        let named = heavy(14.0).unwrap();
        assert_eq!(named.queue, "broker-a/0");
        assert!((550.0..750.0).contains(&named.per_second), "{named:?}");
        assert_eq!(heavy(1.0), None);
    }
}

#[test]
fn a_stopped_consumer_stays_stopped() {
    let (run, decisions) = play(&trace(100.0, 1e6), 0, |_| {});
    assert_eq!(run.score.most_pods, 0);
    assert!(
        decisions
            .iter()
            .all(|decision| decision.reason == Reason::Held)
    );
}

#[test]
fn pods_that_share_a_downstream_get_lanes_by_what_their_queues_ask() {
    let capped = Trace {
        downstream_cap: Some(
            (0..900)
                .map(|second| if second < 300 { 5e3 } else { 400.0 })
                .collect(),
        ),
        ..trace(600.0, 0.0)
    };
    // 8 queues on 3 pods: 3, 3 and 2.
    let (run, decisions) = play(&capped, 3, |_| {});
    let bound = |decision: &&Decision| decision.reason == Reason::DownstreamBound;
    let shared: Vec<_> = decisions.iter().filter(bound).collect();
    assert!(shared.len() > 100, "{} decisions", shared.len());
    let last = shared.last().unwrap();
    assert_eq!(last.fewer_lanes.len(), 1, "{last:?}");
    let (fewer, lanes) = (*last.fewer_lanes.values().next().unwrap(), last.lanes);
    let part = f64::from(fewer) / f64::from(lanes);
    assert!((0.5..0.85).contains(&part), "{fewer} of {lanes}");
    // Enough to keep it busy, and not so many that calls take half as long again.
    assert!(run.score.inflated_seconds < 90, "{:?}", run.score);
    let total = f64::from(2 * lanes + fewer);
    assert!(
        (20.0..30.0).contains(&total),
        "{total} lanes for 400/s of 50 ms"
    );
}

#[test]
fn what_a_pod_can_do_is_not_learned_from_an_interval_in_which_queues_moved() {
    let ramp = Trace {
        rate: (0..900)
            .map(|second| 200.0 + 2.0 * f64::from(second))
            .collect(),
        ..trace(0.0, 0.0)
    };
    let (_, decisions) = play(&ramp, 1, |_| {});
    let capacities = decisions
        .iter()
        .filter_map(|decision| decision.inputs.pod_capacity);
    let least = capacities.fold(f64::INFINITY, f64::min);
    assert!(least > 0.9 * World::default().pod_cap, "{least}");
}

/// Decides, and keeps what each change of replicas was made from, as text.
struct Recorder {
    policy: Policy,
    history: History,
    kept: Vec<(String, Decision)>,
}

impl Controller for Recorder {
    fn decide(&mut self, plant: &Plant<'_>) -> Option<Sizes> {
        if !plant.now().is_multiple_of(5) {
            return None;
        }
        let snapshot = Autopilot::snapshot(plant, true, true);
        let record = Record::new(&snapshot, &self.policy, &self.history);
        let (decision, next) = decide(&snapshot, &self.policy, &self.history);
        self.history = next;
        let (lanes, replicas) = (decision.lanes, decision.replicas);
        self.kept
            .push((serde_json::to_string(&record).unwrap(), decision));
        Some(Sizes { lanes, replicas })
    }
}

#[test]
fn a_decision_made_again_from_its_record_is_the_same() {
    let rough = Trace {
        rate: (0..1800)
            .map(|second| 300.0 + 700.0 * f64::from(second / 300 % 2) + f64::from(second % 7))
            .collect(),
        downstream_cap: Some(
            (0..1800)
                .map(|second| if second < 900 { 5e3 } else { 600.0 })
                .collect(),
        ),
        metrics_outage: Some(Span { from: 700, to: 800 }),
        seconds: 1800,
        ..trace(0.0, 20_000.0)
    };
    let mut recorder = Recorder {
        policy: Setup::of(&rough).policy,
        history: History::default(),
        kept: Vec::new(),
    };
    let start = Sizes {
        lanes: 4,
        replicas: 1,
    };
    run(
        &rough,
        World::default(),
        start,
        &mut recorder,
        &mut |_, _| {},
    );
    let mut reasons: Vec<_> = recorder
        .kept
        .iter()
        .map(|(_, decision)| decision.reason.as_str())
        .collect();
    for (text, decision) in &recorder.kept {
        let record: Record = serde_json::from_str(text).unwrap();
        // A number may come back from JSON with another last digit; the sentence has what can be seen.
        let same = |decision: Decision| Decision {
            inputs: Inputs::default(),
            ..decision
        };
        assert_eq!(same(record.replay()), same(decision.clone()));
    }
    reasons.sort_unstable();
    reasons.dedup();
    assert!(reasons.len() >= 5, "{reasons:?}");
}

#[test]
fn an_operator_that_is_restarted_goes_on_as_its_predecessor_would() {
    for mut plant in [
        trace(1300.0, 0.0),
        trace(300.0, 40_000.0),
        trace(100.0, 0.0),
    ] {
        plant.rate = (0..900)
            .map(|second| plant.rate[0] * (1.0 + f64::from(second) / 900.0))
            .collect();
        let (kept, _) = play(&plant, 2, |_| {});
        let (restarted, _) = play(&plant, 2, |setup| setup.restarts = Some(4));
        assert_eq!(
            restarted.score.violation_seconds,
            kept.score.violation_seconds
        );
        assert!(
            restarted.score.actions <= kept.score.actions + 1,
            "{:?} {:?}",
            kept.score,
            restarted.score
        );
        assert!(restarted.score.reversals <= kept.score.reversals);
    }
}

#[test]
fn what_is_remembered_survives_being_written_and_is_small() {
    let plant = Trace {
        queues: 64,
        ..trace(3000.0, 50_000.0)
    };
    let mut controller = Autopilot::new(&plant, Setup::of(&plant));
    let start = Sizes {
        lanes: 4,
        replicas: 3,
    };
    run(
        &plant,
        World::default(),
        start,
        &mut controller,
        &mut |_, _| {},
    );
    let text = serde_json::to_string(controller.history()).unwrap();
    let read: History = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    assert!(text.len() < 6000, "{} bytes: {text}", text.len());
    assert_eq!(read.model(), controller.history().model());
}

#[test]
fn nothing_goes_down_while_figures_are_missing_and_that_is_said() {
    let mut outage = trace(1200.0, 0.0);
    outage.rate = (0..900)
        .map(|second| if second < 300 { 1200.0 } else { 200.0 })
        .collect();
    outage.metrics_outage = Some(Span { from: 320, to: 800 });
    let (run, decisions) = play(&outage, 5, |_| {});
    let blind = &pods(&run)[320..800];
    assert!(blind.windows(2).all(|pair| pair[1] >= pair[0]));
    let said = decisions
        .iter()
        .filter(|decision| decision.limits.stale.is_some());
    assert!(said.count() > 60);
}

#[test]
fn each_source_is_stale_by_itself() {
    let mut history = History::default();
    let mut at = |seconds: u32, pods: bool, brokers: bool| {
        let snapshot = Snapshot {
            now: Duration::from_secs(seconds.into()),
            replicas: 1,
            ready: 1,
            queues: vec![QueueSample {
                id: QueueId::new("b", 0),
                max_offset: brokers.then_some(5),
                unfinished: brokers.then_some(0),
                owner: None,
            }],
            pods: pods.then(PodSample::default).into_iter().collect(),
            ..Snapshot::default()
        };
        let (decision, next) = decide(&snapshot, &Policy::default(), &history);
        history = next;
        decision
    };
    // One is away when the other comes back: neither was for a minute.
    for seconds in (0..55).step_by(5) {
        assert_eq!(at(seconds, true, false).limits.stale, None);
    }
    for seconds in (55..115).step_by(5) {
        assert_eq!(at(seconds, false, true).limits.stale, None);
    }
    let decision = at(115, false, true);
    let stale = Stale {
        brokers: None,
        pods: Some(60.0),
    };
    assert_eq!(decision.limits.stale, Some(stale));
    let said = "figures of pods missing for 60 s";
    assert!(decision.message.contains(said), "{}", decision.message);
}

#[test]
fn the_sentence_has_the_sizes_the_reason_and_the_figures() {
    let (_, decisions) = play(&trace(1500.0, 0.0), 1, |_| {});
    let up = decisions
        .iter()
        .find(|decision| decision.reason == Reason::ReplicasUp)
        .unwrap();
    for part in [
        "1 -> ",
        "pods: more pods are needed (",
        "messages/s arrive",
        "ms a call",
        "a pod can do",
    ] {
        assert!(
            up.message.contains(part),
            "{part:?} is not in {}",
            up.message
        );
    }
}

/// One look at a group of two pods of which one has all lanes busy or not.
fn lanes_of(busy: u32) -> u32 {
    let pod = |name: &str, busy: u32, seconds: f64, completed: u64| PodSample {
        incarnation: name.to_owned(),
        lanes: 8,
        busy_lanes: busy,
        waiting_lanes: busy / 8,
        busy_lane_seconds: seconds,
        completed,
        buffered: 50,
        uptime_seconds: seconds,
        cpu: None,
    };
    let policy = Policy {
        min_lanes: 4,
        max_lanes: 8,
        ..Policy::default()
    };
    let (mut history, mut lanes) = (History::default(), 0);
    for round in 1..6 {
        let snapshot = Snapshot {
            now: Duration::from_secs(round * 5),
            replicas: 2,
            ready: 2,
            queues: vec![QueueSample {
                id: QueueId::new("b", 0),
                max_offset: Some(round * 100),
                unfinished: Some(100),
                owner: Some(0),
            }],
            pods: vec![
                pod("a", busy, round as f64 * 40.0, round * 8000),
                pod("b", 0, 0.0, 0),
            ],
            ..Snapshot::default()
        };
        let (decision, next) = decide(&snapshot, &policy, &history);
        (lanes, history) = (decision.lanes, next);
    }
    lanes
}

#[test]
fn lanes_stay_while_one_pod_has_none_free_though_the_figures_would_do_with_fewer() {
    assert_eq!(lanes_of(8), 8);
    assert_eq!(lanes_of(3), 4);
}

/// A round of anything, possible or not: figures come from brokers and pods.
fn snapshots() -> impl Strategy<Value = Vec<Snapshot>> {
    let pod = (0..3u8, 1..64u32, 0..80u32, 0..80u32, 0..1_000_000u64);
    let pods = prop::collection::vec(pod, 0..4);
    let queue = (
        prop::option::of(0..10_000_000u64),
        prop::option::of(0..10_000_000u64),
        prop::option::of(0..5usize),
    );
    let queues = prop::collection::vec(queue, 0..12);
    let key = (0..12u32, 0.0..1e6f64, 0..1_000_000u64);
    let keys = prop::collection::vec(key, 0..3);
    let round = (1..40u64, 0..8u32, queues, pods, keys);
    prop::collection::vec(round, 1..40).prop_map(|rounds| {
        let mut now = Duration::from_secs(1_700_000_000);
        let rounds = rounds.into_iter();
        rounds
            .map(|(step, replicas, queues, pods, keys)| {
                now += Duration::from_secs(step);
                let keys: Vec<_> = keys
                    .into_iter()
                    .map(|(queue, rate, waiting)| KeyLoad {
                        key: queue.to_string(),
                        queue: QueueId::new("b", queue),
                        per_second: rate,
                        waiting,
                    })
                    .collect();
                Snapshot {
                    now,
                    replicas,
                    ready: pods.len() as u32,
                    queues: (0..)
                        .zip(queues)
                        .map(|(id, (max_offset, unfinished, owner))| QueueSample {
                            id: QueueId::new("b", id),
                            max_offset,
                            unfinished,
                            owner,
                        })
                        .collect(),
                    pods: pods
                        .into_iter()
                        .map(|(name, lanes, busy, waiting, completed)| PodSample {
                            incarnation: name.to_string(),
                            lanes,
                            busy_lanes: busy,
                            waiting_lanes: waiting,
                            busy_lane_seconds: completed as f64 * 0.01,
                            completed,
                            buffered: completed / 2,
                            uptime_seconds: 100.0 - f64::from(name),
                            cpu: None,
                        })
                        .collect(),
                    stuck_keys: keys.iter().take(1).cloned().collect(),
                    hot_keys: keys,
                }
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn bounds_hold_and_nothing_goes_down_on_missing_figures(rounds in snapshots()) {
        let policy = Policy { max_lanes: 64, max_replicas: 6, ..Policy::default() };
        let mut history = History::default();
        for snapshot in rounds {
            let (decision, next) = decide(&snapshot, &policy, &history);
            prop_assert_eq!(&decide(&snapshot, &policy, &history).0, &decision);
            prop_assert!((policy.min_lanes..=policy.max_lanes).contains(&decision.lanes));
            let bounded = snapshot.replicas.min(policy.max_replicas);
            if snapshot.replicas > 0 {
                prop_assert!((policy.min_replicas..=policy.max_replicas).contains(&decision.replicas));
            } else {
                prop_assert_eq!(decision.replicas, 0);
            }
            let unknown = |queue: &QueueSample| queue.max_offset.is_none() || queue.unfinished.is_none();
            if snapshot.queues.iter().any(unknown) || snapshot.pods.is_empty() {
                prop_assert!(decision.replicas >= bounded, "{:?}", decision);
            }
            if decision.replicas > bounded && !snapshot.queues.is_empty() {
                let queues = snapshot.queues.len() as u32;
                prop_assert!(decision.replicas <= queues.max(policy.min_replicas), "{:?}", decision);
            }
            // It is written and read like any other.
            let text = serde_json::to_string(&next).unwrap();
            prop_assert!(serde_json::from_str::<History>(&text).is_ok(), "{}", text);
            history = next;
        }
    }
}
