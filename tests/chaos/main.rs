#![recursion_limit = "512"]
//! `cargo chaos`: consumer processes of one group on a real broker, a steady rate of keyed messages, and
//! whatever can happen to processes, connections, handlers, broker and name server, judged from outside.
//! With `--cluster` they are pods on a real Kubernetes, and what happens is what Kubernetes does to pods.
//!
//! A seed gives the schedule. One process of its own, which nothing happens to, records every handler call.
//! Schedule, record, verdict and report are the same whoever runs the members (`ground`). Progress and tables go to standard error; with `--json` every
//! event, every verdict and a summary are JSON objects on standard output. The exit code is 1 if order was
//! broken, a message lost, or a process ended by itself, and with `--goals` if one is missed; the last lines on
//! standard error say why. Of systems that run beside Keylane it is not.

mod course;
mod figures;
mod gaps;
mod ground;
mod happened;
mod load;
mod options;
mod order;
mod peer;
mod pieces;
mod pods;
mod processes;
mod record;
mod recorder;
mod recording;
mod report;
mod run;
mod schedule;
mod settings;
mod stage;
mod subject;
mod system;
mod verdict;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use figures::Figures;
use options::Options;
use pieces::Pieces;
use report::Teller;
use run::Load;
use stage::Stage;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use subject::Subject;
use system::System;
use verdict::Verdict;

/// What beginning and ending a piece may take beside the time in which things happen.
const BEGINS_AND_ENDS: Duration = Duration::from_secs(900);

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
        /// How many members are processes.
        #[arg(long, default_value_t = 0)]
        members: usize,
        /// Where pods reach it.
        #[arg(long)]
        pods_at: Option<IpAddr>,
    },
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let cli = Cli::parse_from(keylane_tests::arguments());
    match cli.part {
        Some(Part::Record { members, pods_at }) => {
            recorder::run(members, pods_at).await?;
            Ok(ExitCode::SUCCESS)
        }
        // Waiting for a broker is not for other threads.
        None => tokio::task::LocalSet::new().run_until(chaos(cli.run)).await,
    }
}

async fn chaos(options: Options) -> Result<ExitCode> {
    let pieces = options.pieces()?;
    let seeds = pieces.seeds();
    if options.plan {
        for seed in seeds {
            println!("seed {seed}");
            for event in pieces.plan(seed) {
                println!("{:8.1} s  {:?}", event.at.as_secs_f64(), event);
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let built = tempfile::tempdir()?;
    let mut programs: Vec<(System, PathBuf)> = Vec::new();
    for system in pieces.systems.iter().filter(|_| !options.cluster) {
        let given = options.consumer.as_deref();
        programs.push((*system, system.program(given, built.path()).await?));
    }
    let teller = Teller::new(options.json);
    let stage = match options.cluster {
        true => Stage::cluster(&options.namespace, !options.shared_operator).await?,
        false => Stage::Machine,
    };
    if let Some(events) = pieces.events {
        let minutes = pieces.length.as_secs_f64() / 60.0;
        teller.say(&format!(
            "{events} events: {} pieces of {minutes:.1} minutes of {} systems",
            seeds.len(),
            pieces.systems.len()
        ));
    }
    let sums = pieces.run(&teller, async |system, seed, teller: &Teller| {
        let program = programs.iter().find(|(of, _)| *of == system);
        // What is in the image of a pod runs there.
        let program = program.map_or(Path::new(""), |(_, program)| program);
        one(&options, (&stage, &pieces), (system, program), seed, teller).await
    });
    let sums = sums.await;
    if pieces.events.is_some() || sums.len() > 1 {
        teller.sums(&sums);
    }
    let why = pieces.why_not(&sums);
    if !why.is_empty() {
        teller.failed(&why);
        return Ok(ExitCode::FAILURE);
    }
    stage.clear().await?;
    Ok(ExitCode::SUCCESS)
}

/// One piece of one system.
async fn one(
    options: &Options,
    (stage, pieces): (&Stage, &Pieces),
    (system, program): (System, &Path),
    seed: u64,
    teller: &Teller,
) -> Result<Figures> {
    let temporary = tempfile::Builder::new()
        .prefix("keylane-chaos-")
        .tempdir()?;
    let logs = options.logs.as_deref().unwrap_or(temporary.path());
    let subject = Subject {
        system,
        program: program.into(),
        topic: "CHAOS".into(),
        group: "chaos".into(),
        logs: logs.join(format!("{}-{seed}", system.name())),
    };
    std::fs::create_dir_all(&subject.logs)
        .with_context(|| format!("{}: it cannot be created", subject.logs.display()))?;
    let load = Load {
        rate: options.rate,
        keys: options.keys,
        queues: options.queues,
    };
    let within = pieces.length + BEGINS_AND_ENDS;
    let ended = tokio::time::timeout(
        within,
        judged((stage, pieces), seed, load, &subject, teller),
    )
    .await;
    let ended = ended
        .with_context(|| format!("it has not ended within {} s", within.as_secs()))
        .flatten();
    let passed = ended.as_ref().is_ok_and(Figures::passed);
    if !passed && options.logs.is_none() && pieces.judges(system) {
        // Whoever comes back in the morning wants to know why.
        teller.say(&format!("logs and record: {}", subject.logs.display()));
        let _kept = temporary.keep();
    }
    ended
}

async fn judged(
    (stage, pieces): (&Stage, &Pieces),
    seed: u64,
    load: Load,
    subject: &Subject,
    teller: &Teller,
) -> Result<Figures> {
    let plan = pieces.plan(seed);
    teller.begins(&plan, pieces.length);
    let outcome = stage.play(pieces, &plan, load, subject, teller).await?;
    ensure!(!outcome.calls.is_empty(), "no handler was ever called");
    let record = serde_json::to_string(&outcome.calls)?;
    std::fs::write(subject.logs.join("record.json"), record)?;
    let verdict = Verdict::of(&outcome);
    let figures = Figures::of(subject.system, seed, &outcome, &verdict);
    teller.verdicts(&outcome, &verdict);
    if pieces.judges(subject.system) {
        teller.faults(&outcome, &verdict);
    }
    let exits = outcome.exits.iter();
    for code in exits.filter(|code| !subject.system.ends_well(**code)) {
        let code = code.map_or("none, it was killed".to_owned(), |code| code.to_string());
        teller.say(&format!(
            "a process did not end in good order: exit code {code}"
        ));
    }
    teller.summary(subject.system, &figures);
    Ok(figures)
}
