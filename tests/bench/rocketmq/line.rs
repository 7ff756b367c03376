//! The form of `--json`: one object a system and run.

use crate::load::Load;
use crate::report::Measured;
use serde::Serialize;

/// One object of `--json`. What not every run has comes behind what every run has.
#[derive(Debug, Serialize)]
pub struct Line {
    system: &'static str,
    handler: &'static str,
    work_ms: u32,
    keys: u64,
    queues: u32,
    messages: u32,
    per_second: f64,
    cpu_s_per_100k: f64,
    rss_mib: f64,
    inversions: u64,
    overlaps: u64,
    /// Replies of the broker are as RocketMQ comes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stock_broker: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    hot_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    others_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handler_cpu_s_per_100k: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
}

/// What was measured in a run, as that.
pub fn line(
    stock_broker: bool,
    system: &'static str,
    handler: &'static str,
    load: &Load,
    measured: &Measured,
) -> Line {
    Line {
        system,
        handler,
        work_ms: load.work_ms,
        keys: load.keys,
        queues: load.queues,
        messages: measured.messages,
        per_second: measured.per_second().round(),
        cpu_s_per_100k: rounded(measured.per_100k(measured.consumer)),
        rss_mib: measured.consumer.rss_mib.round(),
        inversions: measured.inversions,
        overlaps: measured.overlaps,
        stock_broker,
        hot_percent: load.hot_percent(),
        others_per_second: measured.others_per_second(load).map(f64::round),
        handler_cpu_s_per_100k: measured
            .handler
            .map(|used| rounded(measured.per_100k(used))),
        rate: load.rate,
        p50_ms: measured.latency.map(|latency| rounded(latency.0)),
        p99_ms: measured.latency.map(|latency| rounded(latency.1)),
    }
}

/// To a hundredth.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::USUAL;
    use crate::report::OWN;

    /// The form is promised: programs read it.
    #[test]
    fn a_line_has_the_fields_of_every_run_in_their_order_and_no_others() {
        let line = line(false, OWN, "noop", &USUAL, &Measured::made_up(2.0));
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"system":"keylane","handler":"noop","work_ms":0,"keys":1000,"queues":8,"messages":200000,"per_second":100000.0,"cpu_s_per_100k":0.25,"rss_mib":42.0,"inversions":0,"overlaps":0}"#
        );
    }
}
