//! `cargo scale-sim`: the controller and the rules of others on the same traffic.
//!
//! The controller is the operator's own code. Everything is deterministic: the same arguments print the
//! same figures.

mod bench;
mod gates;
mod peers;
mod plot;
mod random;
mod suite;
mod summary;
mod traces;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use keylane_operator::simulate::{Trace, World};
use std::io::Write;
use std::path::PathBuf;
use suite::{Conditions, Row};

/// Runs the autoscaling controller, and the rules of others, on traffic.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo scale-sim")]
struct Cli {
    /// Traces from files (JSON); none: the suite.
    #[arg(long, value_name = "FILE")]
    trace: Vec<PathBuf>,
    /// Controllers: keylane, keda, flink, numaflow, hpa. Each with all its settings.
    #[arg(long, value_delimiter = ',', default_value = "keylane")]
    controllers: Vec<String>,
    /// Seconds from asking for a pod to its being ready.
    #[arg(long, default_value_t = 30)]
    start_delay: u32,
    /// Seconds a queue stands still when it moves.
    #[arg(long, default_value_t = 2)]
    handoff: u32,
    /// Start with a capacity of a pod that is wrong by this factor, instead of with nothing.
    #[arg(long)]
    capacity_error: Option<f64>,
    /// Print the gates, with both hand-overs; the exit status says whether all hold.
    #[arg(long)]
    gates: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Print each decision of the controller that changes something.
    #[arg(long)]
    explain: bool,
    /// Write a plot of each trace (SVG) into this directory.
    #[arg(long, value_name = "DIR", default_value = "target/scale-sim")]
    plots: PathBuf,
    /// Run the suite with all controllers, and everything the gates ask for, and write the tables into this page.
    #[arg(long, value_name = "PAGE")]
    summary: Option<PathBuf>,
    /// Measure how long a decision takes with 1,024 queues, 64 pods and 1,000 hot keys.
    #[arg(long)]
    bench_decide: bool,
}

/// Names of the controllers.
const CONTROLLERS: [&str; 5] = ["keylane", "keda", "flink", "numaflow", "hpa"];

fn main() -> Result<()> {
    let cli = Cli::parse_from(keylane_tests::arguments());
    if let Some(name) = cli
        .controllers
        .iter()
        .find(|name| !CONTROLLERS.contains(&name.as_str()))
    {
        bail!(
            "{name:?} is no controller; there are {}",
            CONTROLLERS.join(", ")
        );
    }
    if cli.bench_decide {
        return bench::decide(cli.json);
    }
    if let Some(page) = &cli.summary {
        return summary::write(page, &progress);
    }
    if cli.gates {
        let gates = gates::all(&progress)?;
        let failed = gates.iter().filter(|gate| !gate.pass).count();
        for gate in &gates {
            out(&if cli.json {
                gate.json().to_string()
            } else {
                gate.to_string()
            })?;
        }
        next("cargo scale-sim -- --controllers keylane,keda,flink,numaflow,hpa --handoff 20");
        ensure!(failed == 0, "{failed} of {} gates do not hold", gates.len());
        return Ok(());
    }
    let traces = read(&cli.trace)?;
    let conditions = Conditions {
        world: World {
            start_delay: cli.start_delay,
            handoff: cli.handoff,
            ..World::default()
        },
        capacity_error: cli.capacity_error,
    };
    if cli.explain {
        return explain(&traces, conditions);
    }
    let wanted = |name: &str| cli.controllers.iter().any(|wanted| wanted == name);
    let rows = suite::rows(&traces, conditions, &wanted, &progress);
    if cli.json {
        for row in &rows {
            for (trace, score) in traces.iter().zip(&row.scores) {
                out(&suite::line(&trace.name, row.controller, &row.setting, score).to_string())?;
            }
        }
    } else {
        table(&traces, &rows)?;
    }
    for trace in &traces {
        plot::write(&cli.plots, trace, conditions, &rows)
            .with_context(|| format!("{} cannot be written", cli.plots.display()))?;
    }
    eprintln!("Plots: {}/*.svg", cli.plots.display());
    next(if cli.trace.is_empty() {
        "cargo scale-sim -- --gates"
    } else {
        "cargo scale-sim -- --trace FILE --explain"
    });
    Ok(())
}

/// A reader that has seen enough is no failure of ours.
fn out(line: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

fn progress(done: usize, of: usize) {
    if done.is_multiple_of(10) || done == of {
        eprint!("\r{done} of {of} settings ");
    }
    if done == of {
        eprintln!();
    }
}

fn next(command: &str) {
    eprintln!("Next: {command}");
}

fn read(files: &[PathBuf]) -> Result<Vec<Trace>> {
    if files.is_empty() {
        return Ok(traces::tuning());
    }
    files
        .iter()
        .map(|file| {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("{} cannot be read", file.display()))?;
            Trace::from_json(&text).with_context(|| format!("{} cannot be run", file.display()))
        })
        .collect()
}

fn explain(traces: &[Trace], conditions: Conditions) -> Result<()> {
    for trace in traces {
        out(&trace.name)?;
        let mut last = String::new();
        let mut result = Ok(());
        suite::ours(trace, conditions, &mut |second, decision| {
            let what = format!(
                "{} {} {:?}",
                decision.lanes, decision.replicas, decision.reason
            );
            if what != last && result.is_ok() {
                result = out(&format!("{second:6} s  {}", decision.message));
            }
            last = what;
        });
        result?;
    }
    Ok(())
}

/// Ours trace by trace, then each controller's best settings over all.
fn table(traces: &[Trace], rows: &[Row]) -> Result<()> {
    out(
        "seconds of violation, pods as a multiple of the least, changes of replicas, reversals, changes of lanes, worst age, inflated seconds",
    )?;
    if let Some(own) = rows.iter().find(|row| row.controller == "keylane") {
        for (trace, score) in traces.iter().zip(&own.scores) {
            out(&format!(
                "{:26} {:5} s {:6.2} {:4} {:3} {:4} {:6.0} s {:5} s",
                trace.name,
                score.violation_seconds,
                score.pod_seconds as f64 / score.least_pod_seconds as f64,
                score.actions,
                score.reversals,
                score.lane_actions,
                score.worst_age,
                score.inflated_seconds
            ))?;
        }
    }
    for controller in CONTROLLERS {
        let mut own: Vec<_> = rows
            .iter()
            .filter(|row| row.controller == controller)
            .collect();
        own.sort_by(|left, right| left.violations().total_cmp(&right.violations()));
        for row in own.iter().take(3) {
            out(&format!(
                "{:8} {:52} {:6.0} s {:6.2} {:5.0} {:5.0}",
                row.controller,
                row.setting,
                row.violations(),
                row.pods(),
                row.sum(|score| f64::from(score.actions)),
                row.sum(|score| f64::from(score.reversals))
            ))?;
        }
    }
    Ok(())
}
