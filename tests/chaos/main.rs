#![recursion_limit = "512"]
//! `cargo chaos`: consumer processes of one group on a real broker, a steady rate of keyed messages, and
//! whatever can happen to processes, connections, handlers, broker and name server, judged from outside.
//!
//! A seed gives the schedule. The handlers are one process of their own that records every call and that
//! nothing happens to; each consumer process has TCP relays of its own to broker, name server and handler,
//! which is where connections are cut. Progress and tables go to standard error; with `--json` every
//! event, every verdict and a summary are JSON objects on standard output. The exit code is 1 if order was
//! broken, a message lost, or a process ended by itself.

mod gaps;
mod gone;
mod happened;
mod load;
mod order;
mod peer;
mod processes;
mod record;
mod recorder;
mod relay;
mod report;
mod run;
mod schedule;
mod settings;
mod verdict;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use keylane_tests::cluster::Paths;
use keylane_tests::images::workspace::{PROGRAMS, release_binaries};
use peer::Peer;
use processes::Subject;
use report::Teller;
use run::Load;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use verdict::Verdict;

/// Consumes under faults and judges from outside.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo chaos", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    run: Options,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The recording process; started by the harness itself.
    #[command(hide = true)]
    Record {
        #[arg(long)]
        members: usize,
    },
}

#[derive(Debug, clap::Args)]
struct Options {
    /// How long things happen. Some time before and after it is needed to begin and to end.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Gives the schedule: the same seed, the same events.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One JSON object an event, a verdict and a summary on standard output.
    #[arg(long)]
    json: bool,
    /// Places for consumer processes.
    #[arg(long, default_value_t = 4)]
    members: usize,
    /// Messages a second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Keys.
    #[arg(long, default_value_t = 200)]
    keys: u64,
    /// Queues of the topic.
    #[arg(long, default_value_t = 8)]
    queues: u32,
    /// Run RocketMQ's own consumer in place of Keylane's executor.
    #[arg(long, value_enum)]
    peer: Option<Peer>,
    /// The executor to run. Default: this workspace's, built in release mode.
    #[arg(long, value_name = "FILE")]
    consumer: Option<PathBuf>,
    /// Directory for the logs of the consumer processes, and for the record of all calls. Default: one that
    /// is removed at the end.
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// Print the schedule and do nothing.
    #[arg(long)]
    plan: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let cli = Cli::parse_from(keylane_tests::arguments());
    match cli.part {
        Some(Part::Record { members }) => recorder::run(members).await.map(|()| ExitCode::SUCCESS),
        // Waiting for a broker is not for other threads.
        None => tokio::task::LocalSet::new().run_until(chaos(cli.run)).await,
    }
}

async fn chaos(options: Options) -> Result<ExitCode> {
    ensure!(
        options.members >= 3,
        "--members is {}: at least 3, two of which can work at any time",
        options.members
    );
    ensure!(
        (0.5..=1_440.0).contains(&options.minutes),
        "--minutes is {}: from 0.5 to 1440",
        options.minutes
    );
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    let plan = schedule::plan(options.seed, length, options.members);
    if options.plan {
        for event in &plan {
            println!("{:8.1} s  {:?}", event.at.as_secs_f64(), event);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let temporary = tempfile::tempdir()?;
    let logs = options
        .logs
        .clone()
        .unwrap_or_else(|| temporary.path().into());
    std::fs::create_dir_all(&logs)
        .with_context(|| format!("--logs {}: it cannot be created", logs.display()))?;
    let subject = Subject {
        peer: options.peer,
        program: program(&options, temporary.path().into()).await?,
        topic: "CHAOS".into(),
        group: "chaos".into(),
        logs,
    };
    let what = options.peer.map_or("keylane", Peer::name);
    let teller = Teller::new(options.json);
    teller.say(&format!(
        "{what}, seed {}: {} events in {:.1} minutes",
        options.seed,
        plan.len(),
        options.minutes
    ));
    let load = Load {
        rate: options.rate,
        keys: options.keys,
        queues: options.queues,
    };
    let outcome = run::run(&plan, length, load, &subject, &teller).await?;
    ensure!(!outcome.calls.is_empty(), "no handler was ever called");
    if options.logs.is_some() {
        let record = serde_json::to_string(&outcome.calls)?;
        std::fs::write(subject.logs.join("record.json"), record)?;
    }
    let verdict = Verdict::of(&outcome);
    teller.verdicts(&outcome, &verdict);
    teller.summary(what, options.seed, &outcome, &verdict);
    Ok(match verdict.passes(&outcome) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The executor, or the directory of the peer's classes.
async fn program(options: &Options, directory: PathBuf) -> Result<PathBuf> {
    if options.peer.is_some() {
        return tokio::task::spawn_blocking(move || peer::compile(&directory)).await?;
    }
    if let Some(program) = &options.consumer {
        return Ok(program.clone());
    }
    let built = tokio::task::spawn_blocking(|| release_binaries(&Paths::from_env(), &PROGRAMS));
    Ok(built.await??.swap_remove(1))
}
