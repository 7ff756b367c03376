//! What was measured, for people and for programs.

use crate::goals::{self, Medians};
use crate::idle::Idle;
use crate::line::line;
use crate::load::Load;
use crate::options::Handler;
use keylane_tests::goal::Goal;
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
    pub fn per_second(&self) -> f64 {
        f64::from(self.messages) / self.seconds
    }

    /// Messages a second of the keys that are not the hot one, if there is one.
    pub fn others_per_second(&self, load: &Load) -> Option<f64> {
        load.hot_percent()?;
        Some(f64::from(load.others()) / self.others_seconds?)
    }

    pub fn per_100k(&self, used: Used) -> f64 {
        used.cpu_seconds * 1e5 / f64::from(self.messages)
    }
}

#[cfg(test)]
impl Measured {
    /// What a run without a handler of its own might have shown.
    pub fn made_up(seconds: f64) -> Self {
        Self {
            messages: 200_000,
            seconds,
            consumer: Used {
                cpu_seconds: 0.5,
                rss_mib: 41.7,
            },
            handler: None,
            inversions: 0,
            overlaps: 0,
            latency: None,
            others_seconds: None,
            pulled_per_message: Some(1.0),
        }
    }
}

/// The runs of one system.
struct Runs {
    system: &'static str,
    load: Load,
    measured: Vec<Measured>,
}

impl Runs {
    fn medians(&self) -> Medians {
        let timed = self.measured.iter().all(|run| run.latency.is_some());
        let latency =
            |which: fn((f64, f64)) -> f64| median(self, |run| run.latency.map_or(f64::NAN, which));
        Medians {
            system: self.system,
            per_second: median(self, Measured::per_second),
            cpu_s_per_100k: median(self, |run| run.per_100k(run.consumer)),
            latency: timed.then(|| (latency(|of| of.0), latency(|of| of.1))),
        }
    }
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
        let text = text(system, load, &measured);
        if self.json {
            eprintln!("{text}");
            tell(&line(self.stock_broker, system, handler, load, &measured));
        } else {
            println!("{text}");
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

    /// Tells the medians, what Keylane has more or less than the others, and whether it reaches its goals.
    pub fn conclude(&self, handler: Handler) {
        let all: Vec<Medians> = self.systems.iter().map(Runs::medians).collect();
        let (Some(runs), Some((own, others))) = (self.systems.first(), all.split_first()) else {
            return;
        };
        let load = &runs.load;
        eprintln!("\nMedians of {} runs:", runs.measured.len());
        let mut goals = Vec::new();
        if let Some(alone) = others.iter().find(|of| of.system == WITHOUT_HOT_KEY) {
            let beside = median(runs, |run| run.others_per_second(load).unwrap_or(f64::NAN));
            let share = beside / alone.per_second;
            eprintln!(
                "  {:<17} {beside:9.0} messages/s of the other keys beside the hot one, {share:.3} of what they reach alone",
                own.system
            );
            goals.extend(goals::beside_hot_key(load, share));
        }
        for medians in &all {
            eprintln!(
                "  {:<17} {:9.0} messages/s, {:.2} CPU-s a 100,000: Keylane has {:.2} times the rate, \
                 {:.2} times the CPU a message",
                medians.system,
                medians.per_second,
                medians.cpu_s_per_100k,
                own.per_second / medians.per_second,
                own.cpu_s_per_100k / medians.cpu_s_per_100k,
            );
            if let Some((p50, p99)) = medians.latency {
                eprintln!(
                    "  {:<17} sent to handled: p50 {p50:.2} ms, p99 {p99:.2} ms",
                    ""
                );
            }
        }
        goals.extend(goals::goals(handler, load, own, others));
        tell_goals(&goals);
    }
}

/// Tells whether goals are reached, for people.
fn tell_goals(goals: &[Goal]) {
    for goal in goals {
        eprintln!("  {goal}");
    }
}

/// Writes one object of `--json`.
fn tell(line: &impl Serialize) {
    match serde_json::to_string(line) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("a line is no JSON: {error}"),
    }
}

/// Tells what Keylane's process spent its time with.
pub fn tell_costs(costs: &[String]) {
    eprintln!("  most of the processor time of Keylane's process went into:");
    for (place, cost) in (1..).zip(costs) {
        eprintln!("    {place}. {cost}");
    }
}

/// Tells what an idle consumer cost.
pub fn tell_idle(json: bool, idle: &Idle) {
    if json {
        return tell(idle);
    }
    println!(
        "  {:<17} {} queues: {:.2} % of a core and {:.0} MiB while idle for {} s; all queues held after {:.1} s",
        idle.system,
        idle.queues,
        idle.idle_cpu_percent,
        idle.rss_mib,
        idle.seconds,
        idle.settled_seconds
    );
}

/// Tells the medians, and whether they reach the goals.
pub fn conclude_idle(queues: u32, runs: &[Idle]) {
    let cpu_percent = median_of(runs.iter().map(|idle| idle.idle_cpu_percent));
    let rss_mib = median_of(runs.iter().map(|idle| idle.rss_mib));
    let count = runs.len();
    eprintln!("\nMedians of {count} runs: {cpu_percent:.2} % of a core, {rss_mib:.0} MiB");
    tell_goals(&goals::idle(queues, cpu_percent, rss_mib));
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
        "  {system:<17} {:9.0} messages/s, {:.2} CPU-s a 100,000{handler}, {:.0} MiB, {} inversions, {} overlaps{latency}{others}{pulled}",
        measured.per_second(),
        measured.per_100k(measured.consumer),
        measured.consumer.rss_mib,
        measured.inversions,
        measured.overlaps
    )
}

fn median(runs: &Runs, of: impl Fn(&Measured) -> f64) -> f64 {
    median_of(runs.measured.iter().map(of))
}

fn median_of(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::USUAL;

    #[test]
    fn medians_are_of_each_figure_and_not_of_a_run() {
        let run = |seconds, cpu_seconds, latency| Measured {
            latency,
            consumer: Used {
                cpu_seconds,
                rss_mib: 1.0,
            },
            ..Measured::made_up(seconds)
        };
        let mut runs = Runs {
            system: OWN,
            load: USUAL,
            measured: vec![
                run(1.0, 0.2, Some((1.0, 30.0))),
                run(4.0, 0.4, Some((3.0, 10.0))),
                run(2.0, 0.6, Some((2.0, 20.0))),
            ],
        };
        let medians = runs.medians();
        assert_eq!(medians.per_second, 100_000.0);
        assert_eq!(medians.cpu_s_per_100k, 0.2);
        assert_eq!(medians.latency, Some((2.0, 20.0)));
        runs.measured.push(Measured::made_up(1.0));
        assert_eq!(runs.medians().latency, None);
    }
}
