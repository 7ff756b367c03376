//! What is measured where it happens rather than read from the core.

use crate::source::SourceError;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds, from half a millisecond to the default longest call and beyond.
const HANDLER_BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];
/// Seconds, from a millisecond to hours of backlog.
const END_TO_END_BUCKETS: [f64; 14] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 43_200.0,
];

/// Histograms and results of one executor; clones are the same measures.
#[derive(Clone, Debug)]
pub struct Measures {
    /// Seconds of handler calls.
    pub handler_seconds: Histogram,
    /// Seconds from the birth of a message, by its producer's clock, to its end.
    pub end_to_end_seconds: Histogram,
    /// Pulls by result.
    pub pulls: IntCounterVec,
    /// Commits by result.
    pub commits: IntCounterVec,
}

impl Measures {
    /// Measures that nothing was measured with yet, for a registry.
    pub fn new() -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
        };
        let by_result =
            |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["result"]);
        Ok(Self {
            handler_seconds: histogram(
                "keylane_handler_seconds",
                "Time of handler calls.",
                &HANDLER_BUCKETS,
            )?,
            end_to_end_seconds: histogram(
                "keylane_end_to_end_seconds",
                "Time from the birth of a message, by its producer's clock, until it was finished.",
                &END_TO_END_BUCKETS,
            )?,
            pulls: by_result("keylane_pulls_total", "Pulls by result.")?,
            commits: by_result("keylane_commits_total", "Commits by result.")?,
        })
    }

    pub(super) fn finished(&self, born_at_ms: i64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs_f64();
        // Clocks of producers may be ahead of ours.
        let age = (now - born_at_ms as f64 / 1e3).max(0.0);
        self.end_to_end_seconds.observe(age);
    }
}

/// A pull's or a commit's failure as a label.
pub fn label(error: &SourceError) -> &'static str {
    match error {
        SourceError::UnknownTopic { .. } => "unknown_topic",
        SourceError::Unreachable { .. } => "unreachable",
        SourceError::Untrusted { .. } => "untrusted",
        SourceError::Denied { .. } => "denied",
        SourceError::Access(_) => "access",
        SourceError::Refused { .. } => "refused",
        SourceError::Filter { .. } => "filter_refused",
        SourceError::BatchTopic { .. } => "batch_topic",
        SourceError::NoRetryQueues { .. } => "no_retry_queues",
        SourceError::Malformed { .. } => "malformed",
    }
}
