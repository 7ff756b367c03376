//! What a simulated world is like.

use crate::lane::{Budget, Limits, OnExhausted, OnFailure, RetryPolicy, Settings};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// Where messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each key its lane, those without a key share one.
    Key,
    /// One lane a queue.
    Queue,
    /// No order; failed messages go back.
    Unordered,
}

/// What a simulated world is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seeds everything that happens.
    pub seed: u64,
    /// How messages are ordered.
    pub mode: Mode,
    /// Queues of the topic.
    pub queues: usize,
    /// Keys, on average evenly used.
    pub keys: u64,
    /// Messages of each queue.
    pub messages: usize,
    /// Processes that consume.
    pub pods: usize,
    /// Lanes of each.
    pub lanes: u32,
    /// Most messages of a call.
    pub batch: u32,
    /// Longest time of a call that goes well, in microseconds.
    pub service_us: u64,
    /// Share of calls that fail somehow.
    pub failures: f64,
    /// Share of messages that fail every time.
    pub poison: f64,
    /// Whether poison kills the handler.
    pub killers: bool,
    /// Share of pulls, replies and acknowledgements that go wrong.
    pub network: f64,
    /// Time between two faults of processes.
    pub fault_every: Duration,
    /// After that nothing fails any more, and everything has to be finished.
    pub faults_until: Duration,
    /// Limits of each process.
    pub limits: Limits,
    /// What becomes of exhausted messages.
    pub on_exhausted: OnExhausted,
    /// `handler.timeout`.
    pub timeout: Duration,
    /// `handler.cancelGrace`.
    pub cancel_grace: Duration,
    /// How long a queue may be dispatched from after its lock was renewed.
    pub lease: Duration,
}

impl Plan {
    /// Any world that can be.
    pub fn any(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let modes = [
            Mode::Key,
            Mode::Key,
            Mode::Key,
            Mode::Queue,
            Mode::Unordered,
        ];
        Self {
            seed,
            mode: modes[rng.random_range(0..modes.len())],
            queues: rng.random_range(1..5),
            keys: rng.random_range(1..12),
            messages: rng.random_range(1..60),
            pods: rng.random_range(1..4),
            lanes: rng.random_range(1..8),
            batch: if rng.random() {
                1
            } else {
                rng.random_range(2..6)
            },
            service_us: 10u64.pow(rng.random_range(0..6)),
            failures: rng.random_range(0.0..0.5),
            poison: if rng.random() {
                0.0
            } else {
                rng.random_range(0.0..0.1)
            },
            killers: rng.random(),
            network: rng.random_range(0.0..0.2),
            fault_every: Duration::from_millis(rng.random_range(50..1_500)),
            faults_until: Duration::from_secs(rng.random_range(0..8)),
            limits: Limits {
                messages: rng.random_range(4..60),
                bytes: rng.random_range(5_000..50_000),
                span: rng.random_range(5..80),
                pull: rng.random_range(1..40),
            },
            on_exhausted: if rng.random() {
                OnExhausted::Block
            } else {
                OnExhausted::DeadLetter
            },
            timeout: Duration::from_millis(rng.random_range(100..1_000)),
            cancel_grace: Duration::from_millis(rng.random_range(1..1_000)),
            lease: Duration::from_secs(3),
        }
    }

    /// The settings of its executors.
    pub fn settings(&self) -> Settings {
        Settings {
            retry: RetryPolicy {
                max_attempts: 4,
                budget: Some(Budget {
                    blocked: Duration::from_secs(3),
                    per: Duration::from_secs(30),
                }),
                on_exhausted: self.on_exhausted,
                ..RetryPolicy::default()
            },
            on_failure: match self.mode {
                Mode::Unordered => OnFailure::SendBack,
                Mode::Key | Mode::Queue => OnFailure::InPlace,
            },
            batch: self.batch,
            limits: self.limits,
            timeout: self.timeout,
            cancel_grace: self.cancel_grace,
            lanes: self.lanes,
        }
    }
}
