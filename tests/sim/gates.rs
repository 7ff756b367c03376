//! The gates A to H: what the controller has to reach beside the best settings of others.

use crate::suite::{self, Conditions, Row};
use crate::traces;
use anyhow::{Context, Result};
use keylane_operator::scale::Reason;
use keylane_operator::simulate::{Autopilot, Run, Score, Setup, Sizes, Trace, World, run};
use serde_json::{Value, json};
use std::fmt;

/// Seconds in which a group settles before it must be calm.
const SETTLED: usize = 600;

/// One gate: what was measured and what it must be.
pub struct Gate {
    /// Letter, conditions, and the error of what is believed of a pod: `B/20 x0.7`, `H/90/2`.
    pub name: String,
    what: String,
    figure: f64,
    /// What the figure must be: at most the limit, or at least.
    sign: char,
    limit: f64,
    /// Whether it holds.
    pub pass: bool,
}

impl Gate {
    /// The figure must not be more than the limit.
    pub fn most(name: impl Into<String>, what: impl Into<String>, figure: f64, limit: f64) -> Self {
        let (name, what) = (name.into(), what.into());
        Self {
            name,
            what,
            figure,
            sign: '≤',
            limit,
            pass: figure <= limit,
        }
    }

    fn least(name: impl Into<String>, what: impl Into<String>, figure: f64, limit: f64) -> Self {
        Self {
            sign: '≥',
            pass: figure >= limit,
            ..Self::most(name, what, figure, limit)
        }
    }

    /// What was measured, without what it is compared with.
    pub fn measured(&self) -> &str {
        self.what.split(',').next().unwrap_or_default()
    }

    /// The figure, as it is shown.
    pub fn figure(&self) -> f64 {
        round(self.figure)
    }

    /// The figure beside its limit, and what it is.
    pub fn short(&self) -> String {
        let (figure, limit) = (self.figure(), round(self.limit));
        format!("{figure} {} {limit} {}", self.sign, self.measured())
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "gate": self.name, "what": self.what, "figure": round(self.figure),
            "limit": round(self.limit), "pass": self.pass,
        })
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.pass { "pass" } else { "FAIL" };
        let (figure, limit) = (self.figure(), round(self.limit));
        write!(
            f,
            "{:13} {verdict}  {figure:>9} (limit {limit})  {}",
            self.name, self.what
        )
    }
}

/// Runs everything the gates need and judges it.
pub fn all(progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Vec<Gate>> {
    let mut gates = Vec::new();
    let tuning = traces::tuning();
    for handoff in [2, 20] {
        eprintln!("The suite, hand-over {handoff} s");
        let learned = conditions(30, handoff, None);
        let field = Field::run(&tuning, learned, progress);
        field.judge(learned, &handoff.to_string(), &mut gates)?;
        // And where what it believes of a pod is wrong.
        for error in [0.7, 1.5] {
            let wrong = conditions(30, handoff, Some(error));
            let field = Field {
                own: own(&tuning, wrong),
                ..field.clone()
            };
            field.judge(wrong, &format!("{handoff} x{error}"), &mut gates)?;
        }
    }
    let held_out = traces::held_out();
    for (start, handoff) in [(30, 2), (30, 20), (90, 2), (90, 20)] {
        eprintln!("Traces it was not tuned with, start {start} s, hand-over {handoff} s");
        let conditions = conditions(start, handoff, None);
        let field = Field::run(&held_out, conditions, progress);
        let name = format!("H/{start}/{handoff}");
        field.pareto(&name, &mut gates)?;
        field.calm(&name, &mut gates)?;
        let level = held_out.iter().find(|trace| trace.name.starts_with("h5 "));
        constant(
            &name,
            level.context("no constant load")?,
            conditions,
            &mut gates,
        );
    }
    Ok(gates)
}

/// The cluster, and by what our controller's belief of a pod is wrong at the start.
pub fn conditions(start_delay: u32, handoff: u32, capacity_error: Option<f64>) -> Conditions {
    let world = World {
        start_delay,
        handoff,
        ..World::default()
    };
    Conditions {
        world,
        capacity_error,
    }
}

fn own(traces: &[Trace], conditions: Conditions) -> Vec<Score> {
    traces
        .iter()
        .map(|trace| suite::ours(trace, conditions, &mut |_, _| {}).score)
        .collect()
}

/// Our scores and everybody else's on the same traces.
#[derive(Clone)]
struct Field {
    names: Vec<String>,
    own: Vec<Score>,
    peers: std::sync::Arc<Vec<Row>>,
    /// Violations nobody can avoid.
    floor: f64,
}

impl Field {
    fn run(
        traces: &[Trace],
        conditions: Conditions,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Self {
        let capped = traces.iter().filter(|trace| trace.downstream_cap.is_some());
        let floor = capped.map(|trace| {
            f64::from(
                suite::pinned(trace, conditions.world)
                    .score
                    .violation_seconds,
            )
        });
        Self {
            names: traces.iter().map(|trace| trace.name.clone()).collect(),
            own: own(traces, conditions),
            peers: suite::rows(traces, conditions, &|name| name != "keylane", progress).into(),
            floor: floor.sum(),
        }
    }

    /// Gates A to G.
    fn judge(&self, conditions: Conditions, name: &str, gates: &mut Vec<Gate>) -> Result<()> {
        self.pareto(&format!("A/{name}"), gates)?;
        if conditions.world.handoff == 20 {
            self.margins(&format!("A/{name}"), gates)?;
        }
        self.calm(&format!("B/{name}"), gates)?;
        self.downstream(&format!("C/{name}"), gates)?;
        self.announced_and_cold(&format!("D/{name}"), gates)?;
        keys_and_outages(conditions, name, gates);
        as_many_as_queues(conditions, name, gates);
        Ok(())
    }

    fn violations(&self) -> f64 {
        self.own
            .iter()
            .map(|score| f64::from(score.violation_seconds))
            .sum::<f64>()
            - self.floor
    }

    fn pods(&self) -> f64 {
        let sum = |of: fn(&Score) -> u64| self.own.iter().map(of).sum::<u64>() as f64;
        sum(|score| score.pod_seconds) / sum(|score| score.least_pod_seconds)
    }

    fn reversals(&self) -> f64 {
        self.own
            .iter()
            .map(|score| f64::from(score.reversals))
            .sum()
    }

    /// The settings of a peer that use no more than so many times the least pods, best first.
    fn best(&self, controller: &str, pods: f64) -> Result<&Row> {
        let rows = self
            .peers
            .iter()
            .filter(|row| row.controller == controller && row.pods() <= pods);
        rows.min_by(|left, right| left.violations().total_cmp(&right.violations()))
            .with_context(|| {
                format!("{controller} has no setting at {pods:.2} times the least pods")
            })
    }

    fn own_of(&self, name: &str) -> Result<(usize, &Score)> {
        let index = self.names.iter().position(|known| known.starts_with(name));
        let index = index.with_context(|| format!("there is no trace {name}"))?;
        Ok((index, &self.own[index]))
    }

    fn pareto(&self, name: &str, gates: &mut Vec<Gate>) -> Result<()> {
        let (violations, pods) = (self.violations(), self.pods());
        let better = self
            .peers
            .iter()
            .filter(|row| row.violations() - self.floor < violations && row.pods() < pods);
        let better: Vec<_> = better
            .map(|row| format!("{} {}", row.controller, row.setting))
            .collect();
        let example = better
            .first()
            .map_or_else(String::new, |row| format!(", such as {row}"));
        let what = format!(
            "peer settings with fewer violations and fewer pods than our {violations:.0} s at {pods:.2} x the least{example}"
        );
        gates.push(Gate::most(name, what, better.len() as f64, 0.0));
        Ok(())
    }

    fn margins(&self, name: &str, gates: &mut Vec<Gate>) -> Result<()> {
        let (violations, pods) = (self.violations(), self.pods());
        let flink = self.best("flink", f64::INFINITY)?;
        let text = |row: &Row| {
            format!(
                "{} ({:.0} s at {:.2} x)",
                row.setting,
                row.violations() - self.floor,
                row.pods()
            )
        };
        let part = |row: &Row| violations / (row.violations() - self.floor).max(1.0);
        gates.push(Gate::most(
            name,
            format!("of the violations of Flink's best, {}", text(flink)),
            part(flink),
            0.4,
        ));
        let keda = self.best("keda", pods)?;
        gates.push(Gate::most(
            name,
            format!(
                "of the violations of KEDA's best with as many pods, {}",
                text(keda)
            ),
            part(keda),
            0.25,
        ));
        let least = self.best("keda", f64::INFINITY)?;
        gates.push(Gate::most(
            name,
            format!(
                "of the pods of KEDA's with the fewest violations, {}",
                text(least)
            ),
            pods / least.pods(),
            0.55,
        ));
        Ok(())
    }

    fn calm(&self, name: &str, gates: &mut Vec<Gate>) -> Result<()> {
        let keda = self.best("keda", 4.0)?;
        let theirs = keda.sum(|score| f64::from(score.reversals));
        let what = format!(
            "reversals, a fifth of KEDA's {theirs:.0} at {}",
            keda.setting
        );
        gates.push(Gate::most(name, what, self.reversals(), theirs / 5.0));
        let most = self
            .names
            .iter()
            .zip(&self.own)
            .filter(|(name, _)| !name.starts_with("11 "));
        let worst = most
            .max_by_key(|(_, score)| score.reversals)
            .context("no traces")?;
        let what = format!("reversals in one run, {}", worst.0);
        gates.push(Gate::most(name, what, f64::from(worst.1.reversals), 2.0));
        if let Ok((_, score)) = self.own_of("11 ") {
            gates.push(Gate::most(
                name,
                "reversals in trace 11",
                f64::from(score.reversals),
                5.0,
            ));
        }
        Ok(())
    }

    fn downstream(&self, name: &str, gates: &mut Vec<Gate>) -> Result<()> {
        let (index, score) = self.own_of("6 ")?;
        let mut least = f64::INFINITY;
        let mut whose = String::new();
        for peer in ["keda", "flink", "numaflow", "hpa"] {
            let row = self.best(peer, f64::INFINITY)?;
            let seconds = f64::from(row.scores[index].inflated_seconds);
            if seconds < least {
                (least, whose) = (seconds, format!("{peer} {}", row.setting));
            }
        }
        let what = format!(
            "seconds of inflated latency in trace 6, a quarter of the {least:.0} of {whose}"
        );
        gates.push(Gate::most(
            name,
            what,
            f64::from(score.inflated_seconds),
            least / 4.0,
        ));
        Ok(())
    }

    fn announced_and_cold(&self, name: &str, gates: &mut Vec<Gate>) -> Result<()> {
        for (trace, what) in [
            ("3s", "violations of the scheduled flash sale"),
            ("12 ", "violations of trace 12"),
        ] {
            let (_, score) = self.own_of(trace)?;
            gates.push(Gate::most(
                name,
                what,
                f64::from(score.violation_seconds),
                0.0,
            ));
        }
        let (index, score) = self.own_of("10 ")?;
        let mut best = (f64::INFINITY, String::new());
        for peer in ["keda", "flink", "numaflow", "hpa"] {
            let row = self.best(peer, f64::INFINITY)?;
            let drained = drained(&row.scores[index]);
            if drained < best.0 {
                best = (drained, format!("{peer} {}", row.setting));
            }
        }
        let what = format!(
            "seconds until trace 10 is drained, 85 % of the {:.0} of {}",
            best.0, best.1
        );
        gates.push(Gate::most(name, what, drained(score), 0.85 * best.0));
        Ok(())
    }
}

/// Seconds until the backlog of a run was gone.
pub fn drained(score: &Score) -> f64 {
    score.drained_at.map_or(f64::INFINITY, f64::from)
}

fn named(name: &str) -> Option<Trace> {
    traces::suite()
        .into_iter()
        .find(|trace| trace.name.starts_with(name))
}

/// Gates E and F, 6b of C, and the constant load of B: they ask for the course of a run.
fn keys_and_outages(conditions: Conditions, name: &str, gates: &mut Vec<Gate>) {
    let gate = |letter: char| format!("{letter}/{name}");
    for (trace, key) in [("5 ", "hot"), ("7 ", "poison")] {
        let Some(trace) = named(trace) else { continue };
        let run = suite::ours(&trace, conditions, &mut |_, _| {});
        let start = run.course.first().map_or(0, |moment| moment.pods);
        let added = |run: &Run| f64::from(run.score.most_pods.saturating_sub(start));
        let what = format!("pods added for a {key} key");
        gates.push(Gate::most(gate('E'), what, added(&run), 0.0));
        let untold = added(&untold(&trace, conditions.world, start));
        let what = format!("and for comparison: pods added where the {key} key is not named");
        gates.push(Gate::least(gate('E'), what, untold, 1.0));
    }
    for trace in ["8 ", "9 "] {
        let Some(trace) = named(trace) else { continue };
        let run = suite::ours(&trace, conditions, &mut |_, _| {});
        let Some(outage) = trace.metrics_outage.or(trace.broker_outage) else {
            continue;
        };
        let blind =
            &run.course[outage.from as usize..(outage.to as usize + 5).min(run.course.len())];
        let downs = blind
            .windows(2)
            .filter(|pair| pair[1].pods < pair[0].pods)
            .count();
        let what = format!("steps down on missing data in trace {}", trace.name);
        gates.push(Gate::most(gate('F'), what, downs as f64, 0.0));
    }
    if let Some(trace) = named("6b") {
        let mut mistaken = 0;
        suite::ours(&trace, conditions, &mut |_, decision| {
            mistaken += u32::from(decision.reason == Reason::DownstreamBound);
        });
        let what = "decisions that take slow work for a saturated downstream in 6b";
        gates.push(Gate::most(gate('C'), what, f64::from(mistaken), 0.0));
    }
    if let Some(trace) = named("13 ") {
        constant(&gate('B'), &trace, conditions, gates);
    }
}

/// Our controller, which knows nothing at the start, with as many pods where nobody names keys: what they ask
/// for counts.
fn untold(trace: &Trace, world: World, replicas: u32) -> Run {
    let setup = Setup {
        keys: false,
        ..Setup::of(trace)
    };
    let start = Sizes {
        lanes: setup.policy.min_lanes,
        replicas,
    };
    let mut controller = Autopilot::new(trace, setup);
    run(trace, world, start, &mut controller, &mut |_, _| {})
}

/// Nothing changes under a constant load once it has settled.
pub fn constant(name: &str, trace: &Trace, conditions: Conditions, gates: &mut Vec<Gate>) {
    let run = suite::ours(trace, conditions, &mut |_, _| {});
    let calm = &run.course[SETTLED.min(run.course.len())..];
    let changes = calm
        .windows(2)
        .filter(|pair| pair[1].pods != pair[0].pods)
        .count();
    let what = format!(
        "changes of replicas after 10 minutes of trace {}",
        trace.name
    );
    gates.push(Gate::most(name, what, changes as f64, 0.0));
}

/// Gate G: where each queue needs a pod of its own there are as many pods as queues, else fewer.
fn as_many_as_queues(conditions: Conditions, name: &str, gates: &mut Vec<Gate>) {
    let queues = 24u32;
    let steady = |rate: f64| Trace {
        name: format!("{rate} messages/s"),
        seconds: 1200,
        queues,
        rate: (0..1200)
            .map(|second| (f64::from(second) / 600.0).min(1.0) * rate)
            .collect(),
        ..Trace::default()
    };
    let pods = |rate: f64| {
        let run = suite::ours(&steady(rate), conditions, &mut |_, _| {});
        f64::from(run.course.last().map_or(0, |moment| moment.pods))
    };
    // A pod does 320/s: two queues of 200/s are too much for one, two of 100/s are not.
    let name = format!("G/{name}");
    gates.push(Gate::least(
        &name,
        "pods where each of 24 queues needs one",
        pods(4800.0),
        f64::from(queues),
    ));
    gates.push(Gate::most(
        &name,
        "pods where two queues fit in one",
        pods(2400.0),
        f64::from(queues) - 1.0,
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_outages_and_queue_counts_hold() {
        let mut gates = Vec::new();
        for handoff in [2, 20] {
            let name = handoff.to_string();
            keys_and_outages(conditions(30, handoff, None), &name, &mut gates);
            as_many_as_queues(conditions(30, handoff, None), &name, &mut gates);
        }
        let failed: Vec<_> = gates
            .iter()
            .filter(|gate| !gate.pass)
            .map(Gate::to_string)
            .collect();
        assert!(gates.len() >= 16 && failed.is_empty(), "{failed:#?}");
    }
}
