//! Prometheus metrics of the operator. Labels are closed sets.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The election loop turns at least every few seconds; past this it hangs.
const ALIVE_WITHIN: Duration = Duration::from_secs(60);
const SECONDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

const SENT: &str = "sent";
const LOST: &str = "lost";

/// The operator's metrics, and what its probes tell.
#[derive(Clone, Debug)]
pub struct Metrics {
    rounds: IntCounter,
    failures: IntCounterVec,
    decision: Histogram,
    broker: HistogramVec,
    requests: IntCounter,
    applied: IntCounterVec,
    leader: IntGauge,
    lease_failures: IntCounter,
    consumers: IntGauge,
    gone_told: IntCounter,
    spans: IntCounterVec,
    pulse: Arc<Pulse>,
}

/// What can fail, as far as it is known beforehand.
const FAILURES: [&str; 13] = [
    "access",
    "apply",
    "build",
    "changed",
    "decisions",
    "event",
    "json",
    "lanes",
    "name_conflict",
    "scale",
    "status",
    "template",
    "watch",
];

#[derive(Debug)]
struct Pulse {
    start: Instant,
    /// Milliseconds after the start of the last turn of the election loop, plus 1; 0 before the first.
    beat: AtomicU64,
}

impl Metrics {
    /// Registers all metrics.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            rounds: IntCounter::new(
                "keylane_operator_rounds_total",
                "Looks at OrderedConsumers.",
            )?,
            failures: IntCounterVec::new(
                Opts::new(
                    "keylane_operator_failed_rounds_total",
                    "Looks that failed, by what failed.",
                ),
                &["what"],
            )?,
            decision: Histogram::with_opts(
                HistogramOpts::new(
                    "keylane_operator_decision_seconds",
                    "Time from the start of a look to its decision carried out.",
                )
                .buckets(SECONDS.to_vec()),
            )?,
            broker: HistogramVec::new(
                HistogramOpts::new(
                    "keylane_operator_broker_seconds",
                    "Time brokers took for the offsets of one consumer, by outcome.",
                )
                .buckets(SECONDS.to_vec()),
                &["outcome"],
            )?,
            requests: IntCounter::new(
                "keylane_operator_broker_requests_total",
                "Requests to name servers and brokers for offsets.",
            )?,
            applied: IntCounterVec::new(
                Opts::new(
                    "keylane_operator_child_writes_total",
                    "Children created or changed, by kind.",
                ),
                &["kind"],
            )?,
            leader: IntGauge::new(
                "keylane_operator_leader",
                "1 while this process decides, else 0.",
            )?,
            lease_failures: IntCounter::new(
                "keylane_operator_lease_failures_total",
                "Tries to take or renew the Lease that failed.",
            )?,
            consumers: IntGauge::new(
                "keylane_operator_consumers",
                "OrderedConsumers this process looks after.",
            )?,
            gone_told: IntCounter::new(
                "keylane_operator_gone_pods_told_total",
                "Times a pod was told of others that ended for certain.",
            )?,
            spans: IntCounterVec::new(
                Opts::new(
                    "keylane_operator_spans_total",
                    "Parts of traces, by what became of them.",
                ),
                &["outcome"],
            )?,
            pulse: Arc::new(Pulse {
                start: Instant::now(),
                beat: AtomicU64::new(0),
            }),
        };
        // A rate misses the first failure of a kind if its count was not 0 before.
        for what in FAILURES {
            metrics.failures.with_label_values(&[what]);
        }
        for outcome in [SENT, LOST] {
            metrics.spans.with_label_values(&[outcome]);
        }
        registry.register(Box::new(metrics.rounds.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.decision.clone()))?;
        registry.register(Box::new(metrics.broker.clone()))?;
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.applied.clone()))?;
        registry.register(Box::new(metrics.leader.clone()))?;
        registry.register(Box::new(metrics.lease_failures.clone()))?;
        registry.register(Box::new(metrics.consumers.clone()))?;
        registry.register(Box::new(metrics.gone_told.clone()))?;
        registry.register(Box::new(metrics.spans.clone()))?;
        Ok(metrics)
    }

    /// A round began.
    pub fn reconciled(&self) {
        self.rounds.inc();
    }

    /// A round failed, or a part of it.
    pub fn failed(&self, what: &'static str) {
        self.failures.with_label_values(&[what]).inc();
    }

    /// A decision was carried out, so long after its round began.
    pub fn decided(&self, after: Duration) {
        self.decision.observe(after.as_secs_f64());
    }

    /// Brokers were asked for the offsets of a consumer.
    pub fn asked_brokers(&self, took: Duration, answered: bool) {
        let outcome = if answered { "answered" } else { "failed" };
        self.broker
            .with_label_values(&[outcome])
            .observe(took.as_secs_f64());
    }

    /// So many requests were made to name servers and brokers.
    pub fn requested(&self, number: u64) {
        self.requests.inc_by(number);
    }

    /// A child was created or changed.
    pub fn wrote_child(&self, kind: &str) {
        self.applied.with_label_values(&[kind]).inc();
    }

    /// Whether this process decides.
    pub fn leading(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// The Lease could not be taken or renewed.
    pub fn lease_failed(&self) {
        self.lease_failures.inc();
    }

    /// Consumers looked after.
    pub fn consumers(&self, number: usize) {
        self.consumers
            .set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// A pod was told which others ended for certain.
    pub fn told_gone(&self) {
        self.gone_told.inc();
    }

    /// Parts of traces were taken by the collector.
    pub fn sent_spans(&self, count: u64) {
        self.spans.with_label_values(&[SENT]).inc_by(count);
    }

    /// Parts of traces were dropped, or not taken by the collector.
    pub fn lost_spans(&self, count: u64) {
        self.spans.with_label_values(&[LOST]).inc_by(count);
    }

    /// Parts of traces that were sent, and that were lost.
    pub fn spans_so_far(&self) -> (u64, u64) {
        let of = |outcome| self.spans.with_label_values(&[outcome]).get();
        (of(SENT), of(LOST))
    }

    /// The election loop turned.
    pub fn beat(&self) {
        let pulse = &self.pulse;
        let since = u64::try_from(pulse.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        pulse.beat.store(since.saturating_add(1), Ordering::Relaxed);
    }

    /// Whether the election loop has turned at all: this process could take over.
    pub fn is_ready(&self) -> bool {
        self.pulse.beat.load(Ordering::Relaxed) > 0
    }

    /// Whether it still turns.
    pub fn is_alive(&self) -> bool {
        let last = Duration::from_millis(self.pulse.beat.load(Ordering::Relaxed));
        self.pulse.start.elapsed() < last + ALIVE_WITHIN
    }
}
