//! Runs of controllers over traces, on all cores, with the same outcome whatever the order.

use crate::peers::{Setting, settings};
use keylane_operator::scale::Model;
use keylane_operator::simulate::{Autopilot, Run, Score, Setup, Sizes, Trace, World, run};
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The cluster and what our controller knows at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Conditions {
    /// The cluster.
    pub world: World,
    /// Our controller starts with a pod's capacity wrong by this; none: with nothing.
    pub capacity_error: Option<f64>,
}

/// One controller with one setting, over all traces.
pub struct Row {
    /// The controller.
    pub controller: &'static str,
    /// Its setting.
    pub setting: String,
    /// A score a trace.
    pub scores: Vec<Score>,
}

impl Row {
    /// Sum over all traces.
    pub fn sum(&self, of: impl Fn(&Score) -> f64) -> f64 {
        self.scores.iter().map(of).sum()
    }

    /// Seconds of violation over all traces.
    pub fn violations(&self) -> f64 {
        self.sum(|score| f64::from(score.violation_seconds))
    }

    /// Pod-seconds over all traces, as a multiple of the least.
    pub fn pods(&self) -> f64 {
        self.sum(|score| score.pod_seconds as f64)
            / self.sum(|score| score.least_pod_seconds as f64)
    }
}

/// Sizes a group has settled at before a trace begins; the same for all controllers of so many lanes.
fn settled(trace: &Trace, world: &World, lanes: u32) -> Sizes {
    let rate = Trace::at(&trace.rate, 0).unwrap_or(0.0);
    let pod = (f64::from(lanes) / world.service).min(world.pod_cap);
    let replicas = ((rate / (0.8 * pod)).ceil() as u32).clamp(1, trace.queues);
    Sizes { lanes, replicas }
}

/// Our controller on a trace. `watch` sees every decision.
pub fn ours(
    trace: &Trace,
    conditions: Conditions,
    watch: &mut dyn FnMut(u32, &keylane_operator::scale::Decision),
) -> Run {
    let world = conditions.world;
    let mut setup = Setup::of(trace);
    setup.model = conditions.capacity_error.map(|error| {
        let start = f64::from(world.start_delay + world.handoff) + 5.0;
        Model::given(world.service, world.pod_cap * error, start)
    });
    let lanes = setup.policy.min_lanes;
    // A cluster that ran before has the lanes it needs; ours begins with the fewest.
    let start = Sizes {
        lanes,
        ..settled(trace, &world, 16)
    };
    let mut controller = Autopilot::new(trace, setup);
    run(
        trace,
        world,
        start,
        &mut controller,
        &mut |plant, decision| {
            if let Some(decision) = decision
                && plant.now().is_multiple_of(5)
            {
                watch(plant.now(), decision);
            }
        },
    )
}

/// A peer's setting on a trace.
pub fn peer(setting: &Setting, trace: &Trace, world: World) -> Run {
    let mut controller = setting.make(trace.queues);
    let start = settled(trace, &world, setting.lanes);
    run(trace, world, start, controller.as_mut(), &mut |_, _| {})
}

/// As many pods with as many lanes as there may be, all the time: the floor of violations.
pub fn pinned(trace: &Trace, world: World) -> Run {
    struct Pinned(Sizes);
    impl keylane_operator::simulate::Controller for Pinned {
        fn decide(&mut self, _: &keylane_operator::simulate::Plant<'_>) -> Option<Sizes> {
            Some(self.0)
        }
    }
    let sizes = Sizes {
        lanes: 16,
        replicas: trace.queues,
    };
    run(trace, world, sizes, &mut Pinned(sizes), &mut |_, _| {})
}

/// Every setting of every wanted controller over every trace, ours first.
pub fn rows(
    traces: &[Trace],
    conditions: Conditions,
    wanted: &(dyn Fn(&str) -> bool + Sync),
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Vec<Row> {
    let peers = settings(wanted);
    let own = usize::from(wanted("keylane"));
    let count = own + peers.len();
    let results: Vec<Mutex<Vec<Score>>> = (0..count).map(|_| Mutex::new(Vec::new())).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(result) = results.get(index) else {
                        break;
                    };
                    let scores = traces.iter().map(|trace| match index.checked_sub(own) {
                        Some(index) => peer(&peers[index], trace, conditions.world).score,
                        None => ours(trace, conditions, &mut |_, _| {}).score,
                    });
                    let scores = scores.collect();
                    if let Ok(mut result) = result.lock() {
                        *result = scores;
                    }
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1, count);
                }
            });
        }
    });
    let mut scores = results
        .into_iter()
        .map(|result| result.into_inner().unwrap_or_default());
    let mut rows = Vec::with_capacity(count);
    if own == 1 {
        rows.push(Row {
            controller: "keylane",
            setting: "cold".to_owned(),
            scores: scores.next().unwrap_or_default(),
        });
    }
    rows.extend(peers.iter().zip(scores).map(|(setting, scores)| Row {
        controller: setting.controller,
        setting: setting.name.clone(),
        scores,
    }));
    rows
}

/// A score as one line of JSON.
pub fn line(trace: &str, controller: &str, setting: &str, score: &Score) -> Value {
    json!({
        "trace": trace, "controller": controller, "setting": setting,
        "violation_s": score.violation_seconds, "pod_s": score.pod_seconds,
        "min_pod_s": score.least_pod_seconds, "actions": score.actions,
        "reversals": score.reversals, "lane_actions": score.lane_actions,
        "worst_age_s": score.worst_age.round(), "inflated_s": score.inflated_seconds,
    })
}
