//! Prometheus metrics of an executor. Names and labels are a closed set: queues are labels, and so are the
//! few keys that stand out (`keys`); messages never are.
//!
//! Everything but the [`Measures`] is read from the executor's [`Stats`] at each scrape. Counters of a
//! queue begin at zero when the queue is assigned to this process.

mod keys;

use crate::contract::admin::{QueuePhase, QueueStats, Stats};
use crate::exec::Measures;
use prometheus::core::Collector;
use prometheus::{Encoder, GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};

/// The metrics of one executor.
#[derive(Debug)]
pub struct Metrics(Measures);

impl Metrics {
    /// The metrics of the executor that has these measures.
    pub fn new(measures: Measures) -> Self {
        Self(measures)
    }

    /// The metrics as text.
    pub fn render(&self, stats: &Stats) -> String {
        self.try_render(stats)
            .unwrap_or_else(|error| format!("# metrics cannot be rendered: {error}\n"))
    }

    fn try_render(&self, stats: &Stats) -> Result<String, prometheus::Error> {
        let page = Page(Registry::new());
        page.add(&self.0.handler_seconds)?;
        page.add(&self.0.end_to_end_seconds)?;
        page.add(&self.0.pulls)?;
        page.add(&self.0.commits)?;
        pod(&page, stats)?;
        queues(&page, stats)?;
        keys::add(&page, stats)?;
        let mut text = Vec::new();
        TextEncoder::new().encode(&page.0.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// The metrics of one scrape.
struct Page(Registry);

/// Values of a metric by its labels.
type Values<'v> = Vec<(Vec<&'v str>, f64)>;

impl Page {
    fn add<C: Collector + Clone + 'static>(&self, collector: &C) -> Result<(), prometheus::Error> {
        self.0.register(Box::new(collector.clone()))
    }

    fn gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        values: Values<'_>,
    ) -> Result<(), prometheus::Error> {
        let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
        for (labels, value) in values {
            gauge.with_label_values(&labels).set(value);
        }
        self.add(&gauge)
    }

    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        values: Vec<(Vec<&str>, u64)>,
    ) -> Result<(), prometheus::Error> {
        let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
        for (labels, value) in values {
            counter.with_label_values(&labels).inc_by(value);
        }
        self.add(&counter)
    }
}

fn pod(page: &Page, stats: &Stats) -> Result<(), prometheus::Error> {
    for (name, help, value) in [
        (
            "keylane_messages_pulled_total",
            "Messages that brokers sent, also those for which there was no room and that are pulled again.",
            stats.pulled_messages,
        ),
        (
            "keylane_calls_dispatched_total",
            "Handler calls.",
            stats.dispatched,
        ),
        (
            "keylane_messages_finished_total",
            "Messages finished, by the handler or by being sent back to the broker.",
            stats.completed,
        ),
        (
            "keylane_attempts_failed_total",
            "Handler calls that failed and count as attempts.",
            stats.failed,
        ),
        (
            "keylane_calls_retried_total",
            "Handler calls of messages that had failed before.",
            stats.retried,
        ),
        (
            "keylane_calls_refused_total",
            "Handler calls that the handler did not take.",
            stats.refused,
        ),
        (
            "keylane_messages_exhausted_total",
            "Messages that used up their attempts or their key's budget, or were rejected for good.",
            stats.exhausted,
        ),
        (
            "keylane_messages_dead_lettered_total",
            "Messages copied to the dead letter queue.",
            stats.dead_lettered,
        ),
        (
            "keylane_messages_sent_back_total",
            "Messages that went to the retry topic.",
            stats.sent_back,
        ),
        (
            "keylane_offsets_expired_total",
            "Offsets that the broker removed before they were handled.",
            stats.expired,
        ),
        (
            "keylane_offsets_skipped_total",
            "Offsets that were skipped by resets that were asked for.",
            stats.skipped,
        ),
        (
            "keylane_offsets_replayed_total",
            "Offsets that were finished and are consumed again because of such resets.",
            stats.replayed,
        ),
    ] {
        page.counter(name, help, &[], vec![(vec![], value)])?;
    }
    let busy = prometheus::Counter::new(
        "keylane_busy_lane_seconds_total",
        "Time lanes spent in handler calls.",
    )?;
    busy.inc_by(stats.busy_lane_seconds.max(0.0));
    page.add(&busy)?;
    for (name, help, value) in [
        (
            "keylane_busy_lanes",
            "Handler calls running now.",
            f64::from(stats.busy_lanes),
        ),
        (
            "keylane_lane_target",
            "Lanes that may run at once.",
            f64::from(stats.lanes.lanes),
        ),
        (
            "keylane_waiting_lanes",
            "Lanes ready to run without a free slot.",
            f64::from(stats.waiting_lanes),
        ),
        (
            "keylane_live_keys",
            "Keys with messages in memory.",
            stats.live_keys as f64,
        ),
        (
            "keylane_blocked_keys",
            "Keys whose head has used up its attempts.",
            stats.blocked_keys as f64,
        ),
        (
            "keylane_stuck_keys",
            "Keys whose head does not get done while others move, at most 32.",
            stats.stuck_keys.len() as f64,
        ),
        (
            "keylane_split_keys",
            "Keys met in more than one queue, on a sample, at most 32.",
            stats.split_keys.len() as f64,
        ),
        (
            "keylane_hottest_key_messages_per_second",
            "Arrival rate of the key with the most messages.",
            stats.hot_keys.first().map_or(0.0, |hot| hot.rate),
        ),
        (
            "keylane_longest_key_messages",
            "Messages in memory of the key with the most.",
            stats
                .long_keys
                .first()
                .map_or(0.0, |long| long.messages as f64),
        ),
        (
            "keylane_buffered_messages",
            "Messages in memory.",
            stats.buffered as f64,
        ),
        (
            "keylane_buffered_bytes",
            "Memory of the messages in memory.",
            stats.buffered_bytes as f64,
        ),
        (
            "keylane_suspended",
            "1 if anything is suspended.",
            f64::from(u8::from(stats.suspended != Default::default())),
        ),
        (
            "keylane_handler_available",
            "1 if the handler takes calls.",
            f64::from(u8::from(stats.handler_available)),
        ),
        (
            "keylane_broker_available",
            "1 if all brokers answer, and nothing failed in the last 10 s.",
            f64::from(u8::from(stats.broker_error.is_none())),
        ),
        (
            "keylane_uptime_seconds",
            "Time since the process started.",
            stats.uptime_seconds,
        ),
    ] {
        page.gauge(name, help, &[], vec![(vec![], value)])?;
    }
    let phases = [
        (QueuePhase::Locking, "locking"),
        (QueuePhase::Waiting, "waiting"),
        (QueuePhase::Owned, "owned"),
        (QueuePhase::Releasing, "releasing"),
    ];
    let count = |phase| {
        let queues = stats.queues.iter();
        queues.filter(|queue| queue.phase == phase).count() as f64
    };
    let values = phases.map(|(phase, label)| (vec![label], count(phase)));
    page.gauge(
        "keylane_queues",
        "Queues by phase of ownership.",
        &["phase"],
        values.to_vec(),
    )
}

const QUEUE: [&str; 3] = ["topic", "broker", "queue"];

fn queues(page: &Page, stats: &Stats) -> Result<(), prometheus::Error> {
    let ids: Vec<String> = stats
        .queues
        .iter()
        .map(|queue| queue.id.to_string())
        .collect();
    let labelled = || {
        stats.queues.iter().zip(&ids).map(|(queue, id)| {
            let topic = if queue.retry { "retry" } else { "main" };
            (queue, vec![topic, queue.broker.as_str(), id.as_str()])
        })
    };
    type Count = fn(&QueueStats) -> u64;
    let counters: [(&str, &str, Count); 5] = [
        (
            "keylane_queue_calls_dispatched_total",
            "Handler calls of a queue.",
            |queue| queue.dispatched,
        ),
        (
            "keylane_queue_messages_finished_total",
            "Messages finished of a queue.",
            |queue| queue.finished,
        ),
        (
            "keylane_queue_attempts_failed_total",
            "Failed attempts of a queue.",
            |queue| queue.failed,
        ),
        (
            "keylane_queue_calls_retried_total",
            "Handler calls of a queue of messages that had failed before.",
            |queue| queue.retried,
        ),
        (
            "keylane_queue_messages_exhausted_total",
            "Exhausted messages of a queue.",
            |queue| queue.exhausted,
        ),
    ];
    for (name, help, count) in counters {
        let values = labelled().map(|(queue, labels)| (labels, count(queue)));
        page.counter(name, help, &QUEUE, values.collect())?;
    }
    // What is not known is absent, not 0.
    type Figure = fn(&QueueStats) -> Option<f64>;
    let gauges: [(&str, &str, Figure); 10] = [
        (
            "keylane_queue_unfinished_messages",
            "Offsets that were pulled and are not finished.",
            |queue| queue.unfinished().map(|count| count as f64),
        ),
        (
            "keylane_queue_span_offsets",
            "Offsets between the first unfinished one and what was pulled.",
            |queue| queue.span().map(|count| count as f64),
        ),
        (
            "keylane_queue_oldest_age_seconds",
            "Time since the broker stored the oldest unfinished message in memory.",
            |queue| queue.oldest_age_seconds,
        ),
        (
            "keylane_queue_watermark_offset",
            "First unfinished offset.",
            |queue| queue.watermark.map(|offset| offset as f64),
        ),
        (
            "keylane_queue_committed_offset",
            "Offset the broker acknowledged as committed.",
            |queue| queue.committed.map(|offset| offset as f64),
        ),
        (
            "keylane_queue_buffered_messages",
            "Messages in memory.",
            |queue| queue.watermark.map(|_| queue.buffered as f64),
        ),
        (
            "keylane_queue_buffered_bytes",
            "Memory of the messages in memory.",
            |queue| queue.watermark.map(|_| queue.bytes as f64),
        ),
        (
            "keylane_queue_waiting_lanes",
            "Lanes of a queue that are ready to run.",
            |queue| queue.watermark.map(|_| queue.waiting_lanes as f64),
        ),
        (
            "keylane_queue_running_lanes",
            "Handler calls of a queue that run, or may still run.",
            |queue| queue.watermark.map(|_| f64::from(queue.running_lanes)),
        ),
        (
            "keylane_queue_stopped",
            "1 if a limit keeps a queue from being pulled.",
            |queue| {
                queue
                    .watermark
                    .map(|_| f64::from(u8::from(queue.stopped_by_limit)))
            },
        ),
    ];
    for (name, help, figure) in gauges {
        let values = labelled().filter_map(|(queue, labels)| Some((labels, figure(queue)?)));
        page.gauge(name, help, &QUEUE, values.collect())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::admin::HotKey;

    #[test]
    fn every_figure_has_a_name_and_what_is_not_known_is_absent() {
        let stats = Stats {
            completed: 7,
            pulled_messages: 9,
            busy_lane_seconds: 1.5,
            hot_keys: vec![HotKey {
                key: "a-key".into(),
                queue: "b/0".into(),
                rate: 2.5,
                error: 0.0,
            }],
            queues: vec![
                QueueStats {
                    broker: "b".into(),
                    watermark: Some(3),
                    pulled: Some(9),
                    finished_above_watermark: 2,
                    finished: 5,
                    ..QueueStats::default()
                },
                QueueStats {
                    broker: "b".into(),
                    retry: true,
                    ..QueueStats::default()
                },
            ],
            ..Stats::default()
        };
        let measures = Measures::new().unwrap();
        measures.handler_seconds.observe(0.002);
        measures.pulls.with_label_values(&["found"]).inc();
        let metrics = Metrics::new(measures);
        let text = metrics.render(&stats);
        for line in [
            "keylane_messages_finished_total 7",
            "keylane_messages_pulled_total 9",
            "keylane_busy_lane_seconds_total 1.5",
            "keylane_hottest_key_messages_per_second 2.5",
            "keylane_handler_seconds_bucket{le=\"0.0025\"} 1",
            "keylane_end_to_end_seconds_count 0",
            "keylane_pulls_total{result=\"found\"} 1",
            "keylane_queues{phase=\"locking\"} 2",
            "keylane_queue_messages_finished_total{broker=\"b\",queue=\"0\",topic=\"main\"} 5",
            "keylane_queue_unfinished_messages{broker=\"b\",queue=\"0\",topic=\"main\"} 4",
            "keylane_queue_span_offsets{broker=\"b\",queue=\"0\",topic=\"main\"} 6",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(
            !text.contains("keylane_queue_span_offsets{broker=\"b\",queue=\"0\",topic=\"retry\"}")
        );
        // A second scrape tells the same, not twice as much.
        assert_eq!(text, metrics.render(&stats));
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        let text = Metrics::new(Measures::new().unwrap()).render(&Stats::default());
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        for (name, kind) in types.filter_map(|line| line.split_once(' ')) {
            assert!(name.starts_with("keylane_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} {kind}");
        }
    }
}
