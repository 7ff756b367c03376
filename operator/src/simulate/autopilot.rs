//! The real controller, fed with what a plant shows, as the operator would feed it.

use super::plant::Plant;
use super::trace::Trace;
use super::{Controller, Sizes};
use crate::scale::{
    Decision, History, KeyLoad, Mode, Model, PodSample, Policy, QueueSample, Snapshot, Window,
    decide,
};
use std::time::Duration;

/// Time between two looks.
const EVERY: u32 = 5;
/// The plant's first second, in seconds since the Unix epoch: controllers live in real time.
pub const EPOCH: u64 = 1_700_000_000;

/// What the controller starts with.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// What it knows at the start; none: nothing.
    pub model: Option<Model>,
    /// Bounds and mode; schedules are taken from the trace.
    pub policy: Policy,
    /// Whether somebody measures the CPU of pods.
    pub cpu: bool,
    /// Whether pods name hot and stuck keys.
    pub keys: bool,
    /// The operator is restarted every so many looks: the history is written as JSON and read back.
    pub restarts: Option<u32>,
}

impl Setup {
    /// Bounds of the suite: 4 to 32 lanes, as many pods as queues.
    pub fn of(trace: &Trace) -> Self {
        Self {
            model: None,
            policy: Policy {
                mode: Mode::Auto,
                min_lanes: 4,
                max_lanes: 32,
                min_replicas: 1,
                max_replicas: trace.queues,
                fallback_replicas: 1,
                max_message_age: Duration::from_secs(60),
                ..Policy::default()
            },
            cpu: false,
            keys: true,
            restarts: None,
        }
    }
}

/// The real controller in a run.
pub struct Autopilot {
    setup: Setup,
    history: History,
    last: Option<Decision>,
}

impl Autopilot {
    /// A controller for a run of this trace.
    pub fn new(trace: &Trace, mut setup: Setup) -> Self {
        let second = |second: u32| Duration::from_secs(EPOCH + u64::from(second));
        setup
            .policy
            .schedules
            .extend(trace.schedule.map(|schedule| Window {
                start: second(schedule.from),
                end: second(schedule.to),
                per_second: schedule.rate,
            }));
        Self {
            history: setup
                .model
                .clone()
                .map(History::with_model)
                .unwrap_or_default(),
            setup,
            last: None,
        }
    }

    /// What the controller remembers.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What the operator would see of a plant.
    pub fn snapshot(plant: &Plant<'_>, cpu: bool, keys: bool) -> Snapshot {
        let answers = plant.broker_answers();
        let queues = plant
            .ids()
            .iter()
            .enumerate()
            .map(|(index, id)| QueueSample {
                id: id.clone(),
                max_offset: answers.then(|| plant.max_offset(index) as u64),
                unfinished: answers.then(|| plant.unfinished(index).round() as u64),
                owner: plant.dispatches(index),
            });
        // A plant's pods have memory for everything.
        let buffered = |pod| {
            let queues = 0..plant.ids().len();
            let own = queues.filter(|queue| plant.dispatches(*queue) == Some(pod));
            own.map(|queue| plant.unfinished(queue)).sum::<f64>()
        };
        let pods = plant.ready().enumerate().map(|(index, pod)| PodSample {
            incarnation: pod.name.clone(),
            lanes: pod.lanes,
            busy_lanes: pod.busy.round() as u32,
            waiting_lanes: u32::from(pod.waiting),
            busy_lane_seconds: pod.busy_lane_seconds,
            completed: pod.completed as u64,
            buffered: buffered(index) as u64,
            uptime_seconds: plant.uptime(pod),
            cpu: cpu.then(|| plant.cpu(pod)),
        });
        let key = |name: &str, queue: usize, rate: f64, waiting: f64| KeyLoad {
            key: name.to_owned(),
            queue: plant.ids()[queue].clone(),
            per_second: rate,
            waiting: waiting as u64,
        };
        let hot = plant.hot_key().filter(|_| keys);
        let hot = hot.map(|(rate, queue)| key("hot", queue, rate, plant.hot_waiting()));
        let poison = plant.poison_key().filter(|_| keys);
        let poison = poison.map(|(rate, waiting, queue)| key("poison", queue, rate, waiting));
        // Once it moves again it is a key with much to do.
        let (stuck, moving) = if plant.poisoned() {
            (poison, None)
        } else {
            (None, poison)
        };
        Snapshot {
            now: Duration::from_secs(EPOCH + u64::from(plant.now())),
            replicas: plant.sizes().replicas,
            ready: plant.ready().count() as u32,
            queues: queues.collect(),
            pods: pods.collect(),
            hot_keys: hot.into_iter().chain(moving).collect(),
            stuck_keys: stuck.into_iter().collect(),
        }
    }
}

impl Controller for Autopilot {
    fn decide(&mut self, plant: &Plant<'_>) -> Option<Sizes> {
        if !plant.now().is_multiple_of(EVERY) {
            return None;
        }
        let snapshot = Self::snapshot(plant, self.setup.cpu, self.setup.keys);
        let looks = plant.now() / EVERY;
        if self
            .setup
            .restarts
            .is_some_and(|every| looks.is_multiple_of(every))
            && let Ok(text) = serde_json::to_string(&self.history)
        {
            self.history = serde_json::from_str(&text).unwrap_or_default();
        }
        let (decision, history) = decide(&snapshot, &self.setup.policy, &self.history);
        self.history = history;
        let sizes = Sizes {
            lanes: decision.lanes,
            replicas: decision.replicas,
        };
        self.last = Some(decision);
        Some(sizes)
    }

    fn decision(&self) -> Option<&Decision> {
        self.last.as_ref()
    }
}
