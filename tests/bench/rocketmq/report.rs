//! What was measured, for people and for programs.

use crate::idle::Idle;
use crate::load::Load;
use serde::Serialize;

/// Keylane's name in figures.
pub const OWN: &str = "keylane";
/// Keylane with the messages of the other keys alone.
pub const WITHOUT_HOT_KEY: &str = "keylane-without-hot-key";

/// What a process used.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    pub cpu_seconds: f64,
    pub rss_mib: f64,
}

/// What a consumer did.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub messages: u32,
    pub seconds: f64,
    pub consumer: Used,
    /// The handler, where it is a process of its own.
    pub handler: Option<Used>,
    pub inversions: u64,
    pub overlaps: u64,
    /// Milliseconds from sending to handling: median and 99th percentile.
    pub latency: Option<(f64, f64)>,
    /// Until all messages but those of the hot key were handled.
    pub others_seconds: Option<f64>,
    /// Messages that the broker sent for each that was handled, where that is known: the rest is pulled twice.
    pub pulled_per_message: Option<f64>,
}

impl Measured {
    fn per_second(&self) -> f64 {
        f64::from(self.messages) / self.seconds
    }

    /// Messages a second of the keys that are not the hot one, if there is one.
    pub fn others_per_second(&self, load: &Load) -> Option<f64> {
        load.hot_percent()?;
        Some(f64::from(load.others()) / self.others_seconds?)
    }

    fn per_100k(&self, used: Used) -> f64 {
        used.cpu_seconds * 1e5 / f64::from(self.messages)
    }
}

/// One object of `--json`.
#[derive(Debug, Serialize)]
struct Line {
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
    pulled_per_message: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
}

/// The runs of one system.
struct Runs {
    system: &'static str,
    load: Load,
    measured: Vec<Measured>,
}

/// Tells each run, and the medians at the end.
pub struct Report {
    json: bool,
    stock_broker: bool,
    systems: Vec<Runs>,
}

impl Report {
    pub fn new(json: bool, stock_broker: bool) -> Self {
        Self {
            json,
            stock_broker,
            systems: Vec::new(),
        }
    }

    /// Tells a run.
    pub fn add(
        &mut self,
        system: &'static str,
        handler: &'static str,
        load: &Load,
        measured: Measured,
    ) {
        if self.json {
            tell(&Line {
                stock_broker: self.stock_broker,
                ..line(system, handler, load, &measured)
            });
        } else {
            println!("{}", text(system, load, &measured));
        }
        match self.systems.iter_mut().find(|runs| runs.system == system) {
            Some(runs) => runs.measured.push(measured),
            None => self.systems.push(Runs {
                system,
                load: *load,
                measured: vec![measured],
            }),
        }
    }

    /// Tells the medians, and what Keylane has more or less than the others.
    pub fn conclude(&self) {
        let Some(own) = self.systems.first() else {
            return;
        };
        let rate = |runs: &Runs| median(runs, Measured::per_second);
        let cost = |runs: &Runs| median(runs, |run| run.per_100k(run.consumer));
        eprintln!("\nMedians of {} runs:", own.measured.len());
        let alone = self
            .systems
            .iter()
            .find(|runs| runs.system == WITHOUT_HOT_KEY);
        if let Some(alone) = alone {
            let beside = median(own, |run| {
                run.others_per_second(&own.load).unwrap_or(f64::NAN)
            });
            eprintln!(
                "  {:<16} {beside:9.0} messages/s of the other keys beside the hot one, {:.3} of what they reach alone",
                own.system,
                beside / rate(alone)
            );
        }
        for runs in &self.systems {
            let (rate_here, cost_here) = (rate(runs), cost(runs));
            eprintln!(
                "  {:<16} {rate_here:9.0} messages/s, {cost_here:.2} CPU-s a 100,000: Keylane has {:.2} times the rate, \
                 {:.2} times the CPU a message",
                runs.system,
                rate(own) / rate_here,
                cost(own) / cost_here,
            );
            if runs.measured.iter().all(|run| run.latency.is_some()) {
                let of = |which: fn((f64, f64)) -> f64| {
                    median(runs, |run| run.latency.map_or(f64::NAN, which))
                };
                eprintln!(
                    "  {:<16} sent to handled: p50 {:.2} ms, p99 {:.2} ms",
                    "",
                    of(|latency| latency.0),
                    of(|latency| latency.1)
                );
            }
        }
    }
}

/// Writes one object of `--json`.
fn tell(line: &impl Serialize) {
    match serde_json::to_string(line) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("a line is no JSON: {error}"),
    }
}

/// Tells what a process spent its time with.
pub fn tell_costs(costs: &[String]) {
    eprintln!("  its processor time, by object and function:");
    for cost in costs {
        eprintln!("    {cost}");
    }
}

/// Tells what an idle consumer cost.
pub fn tell_idle(json: bool, idle: &Idle) {
    if json {
        return tell(idle);
    }
    println!(
        "  {:<16} {} queues: {:.2} % of a core and {:.0} MiB while idle for {} s; all queues held after {:.1} s",
        idle.system,
        idle.queues,
        idle.idle_cpu_percent,
        idle.rss_mib,
        idle.seconds,
        idle.settled_seconds
    );
}

/// Tells the medians.
pub fn conclude_idle(runs: &[Idle]) {
    if runs.len() > 1 {
        eprintln!(
            "\nMedians of {} runs: {:.2} % of a core, {:.0} MiB",
            runs.len(),
            median_of(runs.iter().map(|idle| idle.idle_cpu_percent)),
            median_of(runs.iter().map(|idle| idle.rss_mib)),
        );
    }
}

fn line(system: &'static str, handler: &'static str, load: &Load, measured: &Measured) -> Line {
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
        stock_broker: false,
        hot_percent: load.hot_percent(),
        others_per_second: measured.others_per_second(load).map(f64::round),
        handler_cpu_s_per_100k: measured
            .handler
            .map(|used| rounded(measured.per_100k(used))),
        pulled_per_message: measured.pulled_per_message.map(rounded),
        rate: load.rate,
        p50_ms: measured.latency.map(|latency| rounded(latency.0)),
        p99_ms: measured.latency.map(|latency| rounded(latency.1)),
    }
}

fn text(system: &str, load: &Load, measured: &Measured) -> String {
    let handler = measured.handler.map_or_else(String::new, |used| {
        format!(" + {:.2} in the handler", measured.per_100k(used))
    });
    let latency = measured.latency.map_or_else(String::new, |(p50, p99)| {
        format!(", sent to handled p50 {p50:.2} ms, p99 {p99:.2} ms")
    });
    let others = measured
        .others_per_second(load)
        .map_or_else(String::new, |rate| {
            format!(", {rate:.0}/s of the keys that are not hot")
        });
    let pulled = measured
        .pulled_per_message
        .map_or_else(String::new, |each| {
            format!(", {each:.2} pulled for each handled")
        });
    format!(
        "  {system:<16} {:9.0} messages/s, {:.2} CPU-s a 100,000{handler}, {:.0} MiB, {} inversions, {} overlaps{latency}{others}{pulled}",
        measured.per_second(),
        measured.per_100k(measured.consumer),
        measured.consumer.rss_mib,
        measured.inversions,
        measured.overlaps
    )
}

/// To a hundredth.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn median(runs: &Runs, of: impl Fn(&Measured) -> f64) -> f64 {
    median_of(runs.measured.iter().map(of))
}

fn median_of(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
