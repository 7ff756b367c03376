//! Prometheus metrics of an executor. Names and labels are a closed set; no key and no message ever
//! becomes a label.

use crate::contract::admin::{QueuePhase, Stats};
use prometheus::core::Collector;
use prometheus::{
    Counter, Encoder, Gauge, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::sync::Mutex;

/// The metrics of one executor, filled from its [`Stats`] at each scrape.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    messages: IntCounter,
    failures: IntCounter,
    busy_seconds: Counter,
    busy: IntGauge,
    target: IntGauge,
    waiting: IntGauge,
    live_keys: IntGauge,
    blocked_keys: IntGauge,
    buffered: IntGauge,
    queues: IntGaugeVec,
    handler_available: IntGauge,
    broker_available: IntGauge,
    uptime: Gauge,
    /// Scrapes at the same time must not add the same difference twice.
    scrape: Mutex<()>,
}

impl Metrics {
    /// Registers all metrics.
    pub fn new(registry: Registry) -> Result<Self, prometheus::Error> {
        fn add<C: Collector + Clone + 'static>(
            registry: &Registry,
            collector: Result<C, prometheus::Error>,
        ) -> Result<C, prometheus::Error> {
            let collector = collector?;
            registry.register(Box::new(collector.clone()))?;
            Ok(collector)
        }
        let gauge = |name, help| add(&registry, IntGauge::new(name, help));
        let counter = |name, help| add(&registry, IntCounter::new(name, help));
        Ok(Self {
            messages: counter(
                "keylane_messages_finished_total",
                "Messages the handler finished.",
            )?,
            failures: counter(
                "keylane_attempts_failed_total",
                "Handler calls that failed and count as attempts.",
            )?,
            busy_seconds: add(
                &registry,
                Counter::new(
                    "keylane_busy_lane_seconds_total",
                    "Time lanes spent in handler calls.",
                ),
            )?,
            busy: gauge("keylane_busy_lanes", "Handler calls running now.")?,
            target: gauge("keylane_lane_target", "Lanes that may run at once.")?,
            waiting: gauge(
                "keylane_waiting_lanes",
                "Lanes ready to run without a free slot.",
            )?,
            live_keys: gauge("keylane_live_keys", "Keys with messages in memory.")?,
            blocked_keys: gauge(
                "keylane_blocked_keys",
                "Keys whose head has used up its attempts.",
            )?,
            buffered: gauge("keylane_buffered_messages", "Messages in memory.")?,
            queues: add(
                &registry,
                IntGaugeVec::new(
                    Opts::new("keylane_queues", "Queues by phase of ownership."),
                    &["phase"],
                ),
            )?,
            handler_available: gauge("keylane_handler_available", "1 if the handler takes calls.")?,
            broker_available: gauge("keylane_broker_available", "1 if all brokers answer.")?,
            uptime: add(
                &registry,
                Gauge::new("keylane_uptime_seconds", "Time since the process started."),
            )?,
            registry,
            scrape: Mutex::new(()),
        })
    }

    /// The metrics as text.
    pub fn render(&self, stats: &Stats) -> String {
        let _one_at_a_time = self.scrape.lock();
        self.messages
            .inc_by(stats.completed.saturating_sub(self.messages.get()));
        self.failures
            .inc_by(stats.failed.saturating_sub(self.failures.get()));
        self.busy_seconds
            .inc_by((stats.busy_lane_seconds - self.busy_seconds.get()).max(0.0));
        self.busy.set(stats.busy_lanes.into());
        self.target.set(stats.lanes.lanes.into());
        self.waiting.set(stats.waiting_lanes.into());
        self.live_keys.set(stats.live_keys as i64);
        self.blocked_keys.set(stats.blocked_keys as i64);
        self.buffered
            .set(stats.queues.iter().map(|queue| queue.buffered as i64).sum());
        for (phase, label) in [
            (QueuePhase::Locking, "locking"),
            (QueuePhase::Waiting, "waiting"),
            (QueuePhase::Owned, "owned"),
            (QueuePhase::Releasing, "releasing"),
        ] {
            let count = stats
                .queues
                .iter()
                .filter(|queue| queue.phase == phase)
                .count();
            self.queues.with_label_values(&[label]).set(count as i64);
        }
        self.handler_available.set(stats.handler_available.into());
        self.broker_available
            .set(stats.broker_error.is_none().into());
        self.uptime.set(stats.uptime_seconds);
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("# metrics cannot be rendered: {error}\n"),
        }
    }
}
