#![recursion_limit = "512"]
//! `cargo bench-rocketmq`: Keylane beside RocketMQ's own consumers, on the same broker in one run, and beside
//! Confluent's parallel-consumer on a Kafka.
//!
//! Each consumer gets a topic of its own with the same messages, does the same work, and runs in a
//! process of its own, one after the other. Rates are from the first to the last handled message. The
//! machine is shared with the broker: what counts are ratios of one run.
//!
//! With `--rate` the messages are not there beforehand but sent at that rate while the consumer runs, and
//! the time from the sending of each to the begin of its handling is told. With `--hot-key` Keylane runs
//! once more, without the messages of the hot key: the others must be as fast beside it. `--idle` measures
//! what waiting costs. `--profile` names what Keylane's process spends its time with.
//!
//! In the end the medians are told and, where the load is that of a goal, whether Keylane reaches it. The exit
//! status is 1 if it broke the order of a key, and not for a goal that is missed: how fast the machine is, and what
//! else it does, the program cannot know.
//!
//! The broker sends up to 1,024 messages in a reply, as the documentation recommends to users; `--stock-broker`
//! leaves that as RocketMQ comes.

mod count;
mod function;
mod goals;
mod idle;
mod keylane;
mod line;
mod load;
mod options;
mod order;
mod peers;
mod printed;
mod profile;
mod report;
mod serve;
mod work;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use keylane_tests::rocketmq::{Broker, Settings};
use load::Load;
use options::{Bench, Handler};
use report::Report;

/// What a reply to a pull holds at most as RocketMQ comes. Source: `MessageStoreConfig.java` of 5.3.3.
const STOCK: Settings<'static> = &[
    ("maxTransferCountOnMessageInMemory", "32"),
    ("maxTransferBytesOnMessageInMemory", "262144"),
];

/// Measures Keylane beside the consumers of others.
#[derive(Debug, Parser)]
#[command(
    bin_name = "cargo bench-rocketmq",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    process: Option<Process>,
    #[command(flatten)]
    bench: Bench,
}

/// What this program starts itself as.
#[derive(Debug, Subcommand)]
enum Process {
    /// A consumer with a Rust handler.
    #[command(hide = true)]
    Function(function::Options),
    /// A handler behind HTTP or gRPC.
    #[command(hide = true)]
    Serve(serve::Options),
    /// A consumer that has nothing to do.
    #[command(hide = true)]
    Idle(idle::Options),
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse_from(keylane_tests::arguments()) {
        Cli {
            process: Some(Process::Function(options)),
            ..
        } => function::run(options).await,
        Cli {
            process: Some(Process::Serve(options)),
            ..
        } => serve::run(options).await,
        Cli {
            process: Some(Process::Idle(options)),
            ..
        } => idle::consume(options).await,
        Cli { bench, .. } if bench.idle => wait(&bench).await,
        Cli { bench, .. } => measure(&bench).await,
    }
}

async fn start(bench: &Bench) -> Result<Broker> {
    eprintln!("==> Starting RocketMQ");
    let settings = if bench.stock_broker { STOCK } else { &[] };
    Ok(Broker::start_with(settings).await?)
}

async fn measure(bench: &Bench) -> Result<()> {
    bench.check()?;
    let programs = keylane::Programs::of(bench.handler).await?;
    if bench.profile {
        profile::check(&programs.keylane()?)?;
    }
    let broker = start(bench).await?;
    let mut report = Report::new(bench.json, bench.stock_broker);
    for run in 1..=bench.runs {
        let load = bench.load();
        let mut own = vec![(report::OWN, load)];
        if bench.hot_key {
            own.push((report::WITHOUT_HOT_KEY, load.of_others()));
        }
        for (system, load) in own {
            let topic = format!("{system}-{run}");
            load::prepare(&broker, &topic, &load).await?;
            let ran = keylane::run(&programs, &broker, &topic, &load, bench.profile).await?;
            let measured = ran.measured;
            report.add(system, bench.handler.name(), &load, measured);
            if let Some(profile) = ran.profile {
                report::tell_costs(&profile.costs()?);
            }
            ensure!(
                measured.inversions + measured.overlaps == 0,
                "Keylane broke the order of a key: {measured:?}"
            );
        }
        for peer in bench.peers.iter() {
            let topic = format!("{}-{run}", peer.name());
            let load = peer.load(load);
            let measured = peers::run(peer, &broker, &topic, &load).await?;
            report.add(peer.name(), Handler::Noop.name(), &load, measured);
        }
    }
    report.conclude(bench.handler);
    Ok(())
}

/// Measures consumers to which nothing comes.
async fn wait(bench: &Bench) -> Result<()> {
    bench.check()?;
    if bench.profile {
        profile::check(&std::env::current_exe()?)?;
    }
    let broker = start(bench).await?;
    let mut runs = Vec::new();
    for run in 1..=bench.runs {
        let topic = format!("idle-{run}");
        let load = Load {
            // So many that the queues are not all empty.
            messages: bench.queues * 4,
            ..bench.load()
        };
        load::prepare(&broker, &topic, &load).await?;
        let seconds = bench.idle_seconds;
        let measured = idle::measure(&broker, &topic, &load, seconds, bench.profile);
        let (idle, profile) = measured.await?;
        report::tell_idle(bench.json, &idle);
        if let Some(profile) = profile {
            report::tell_costs(&profile.costs()?);
        }
        runs.push(idle);
    }
    report::conclude_idle(bench.queues, &runs);
    Ok(())
}
