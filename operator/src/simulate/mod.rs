//! A consumer group made of arithmetic, to try the controller on any traffic before the night it comes.
//!
//! Deterministic: one tick is one second, the same trace gives the same run. Queues move by the consumers'
//! own allocation, and stand still while they move; pods take their time to start, have a CPU, and share
//! what is behind them.

mod autopilot;
pub mod picture;
mod plant;
#[cfg(test)]
mod tests;
mod trace;

pub use autopilot::{Autopilot, EPOCH, Setup};
pub use plant::{Plant, World};
pub use trace::{Poison, Scheduled, Span, Trace, TraceError};

use crate::scale::Decision;

/// What decides in a run. Asked once a second, it answers when its time has come.
pub trait Controller {
    /// What there should be now; none to leave it.
    fn decide(&mut self, plant: &Plant<'_>) -> Option<Sizes>;

    /// The last decision, if it can be explained.
    fn decision(&self) -> Option<&Decision> {
        None
    }
}

/// Lanes of each pod and pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Lanes of each pod, of the one with the most where they differ.
    pub lanes: u32,
    /// Pods.
    pub replicas: u32,
}

/// The figures of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Seconds with a message older than the objective.
    pub violation_seconds: u32,
    /// Pods, starting ones too, times seconds.
    pub pod_seconds: u64,
    /// The same for as few pods as could carry the load of each second.
    pub least_pod_seconds: u64,
    /// Changes of the number of pods.
    pub actions: u32,
    /// Changes in the other direction within 10 minutes.
    pub reversals: u32,
    /// Changes of the number of lanes.
    pub lane_actions: u32,
    /// Age of the oldest message at its worst, in seconds.
    pub worst_age: f64,
    /// Seconds in which the downstream took more than 1.5 times its usual time.
    pub inflated_seconds: u32,
    /// When a backlog was first gone, in seconds.
    pub drained_at: Option<u32>,
    /// Most pods there were.
    pub most_pods: u32,
}

/// One second of a run, for plots.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    /// Messages that arrive.
    pub arriving: f64,
    /// Messages that are finished.
    pub finished: f64,
    /// Messages that are not finished.
    pub backlog: f64,
    /// Age of the oldest message, in seconds.
    pub age: f64,
    /// Pods, starting ones too.
    pub pods: u32,
    /// Lanes of each pod.
    pub lanes: u32,
}

/// A run: its figures and its course.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// The figures.
    pub score: Score,
    /// Every second.
    pub course: Vec<Moment>,
}

/// Age that no message should have, in seconds.
pub const OBJECTIVE: f64 = 60.0;
/// A change in the other direction within so many seconds is a reversal.
const REVERSAL: u32 = 600;

/// Runs a trace. `watch` sees every second.
pub fn run(
    trace: &Trace,
    world: World,
    start: Sizes,
    controller: &mut dyn Controller,
    watch: &mut dyn FnMut(&Plant<'_>, Option<&Decision>),
) -> Run {
    let mut plant = Plant::new(trace, world, start);
    let mut run = Run::default();
    let score = &mut run.score;
    let mut last: Option<(u32, i8)> = None;
    let mut sizes = start;
    for second in 0..trace.seconds {
        plant.tick();
        let moment = plant.moment();
        score.violation_seconds += u32::from(moment.age > OBJECTIVE);
        score.pod_seconds += u64::from(moment.pods);
        score.least_pod_seconds += u64::from(plant.least_pods());
        score.worst_age = score.worst_age.max(moment.age);
        score.inflated_seconds += u32::from(plant.inflation() > 1.5);
        score.most_pods = score.most_pods.max(moment.pods);
        if score.drained_at.is_none() && moment.backlog < moment.arriving.max(1.0) * 2.0 {
            score.drained_at = Some(second);
        }
        run.course.push(moment);
        let wish = controller.decide(&plant);
        watch(&plant, controller.decision());
        let Some(wish) = wish else { continue };
        if wish.replicas != sizes.replicas {
            let direction = if wish.replicas > sizes.replicas {
                1
            } else {
                -1
            };
            score.actions += 1;
            if last.is_some_and(|(at, before)| before != direction && second - at <= REVERSAL) {
                score.reversals += 1;
            }
            last = Some((second, direction));
        }
        score.lane_actions += u32::from(wish.lanes != sizes.lanes);
        sizes = wish;
        plant.resize(wish);
        if let Some(decision) = controller.decision() {
            plant.set_lanes(|pod| decision.lanes_of(pod));
        }
    }
    run
}
