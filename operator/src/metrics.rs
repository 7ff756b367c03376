//! Prometheus metrics of the operator.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// The operator's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciliations: IntCounter,
    failures: IntCounterVec,
}

impl Metrics {
    /// Registers all metrics.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reconciliations = IntCounter::new(
            "keylane_operator_rounds_total",
            "Looks at OrderedConsumers.",
        )?;
        let failures = Opts::new(
            "keylane_operator_failed_rounds_total",
            "Looks that failed, by what failed.",
        );
        let failures = IntCounterVec::new(failures, &["what"])?;
        registry.register(Box::new(reconciliations.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        Ok(Self {
            reconciliations,
            failures,
        })
    }

    /// A round began.
    pub fn reconciled(&self) {
        self.reconciliations.inc();
    }

    /// A round failed.
    pub fn failed(&self, what: &'static str) {
        self.failures.with_label_values(&[what]).inc();
    }
}
