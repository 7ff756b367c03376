#![recursion_limit = "512"]
//! `cargo bench-rocketmq`: Keylane beside RocketMQ's own consumers, on the same broker in one run.
//!
//! Each consumer gets a topic of its own with the same messages, does the same work, and runs in a
//! process of its own, one after the other. Rates are from the first to the last handled message. The
//! machine is shared with the broker: what counts are ratios of one run.
//!
//! With `--rate` the messages are not there beforehand but sent at that rate while the consumer runs, and
//! the time from the sending of each to the begin of its handling is told.

mod function;
mod keylane;
mod load;
mod order;
mod peers;
mod printed;
mod report;
mod usage;
mod work;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use keylane_tests::rocketmq::Broker;
use load::Load;
use peers::Peer;
use report::Report;

/// Measures Keylane beside RocketMQ's own consumers.
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
}

#[derive(Debug, clap::Args)]
struct Bench {
    /// RocketMQ's consumers to run beside Keylane; an empty value for none.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "java-orderly,java-concurrent"
    )]
    peers: Vec<Peer>,
    /// Keylane's handler. noop: a Rust function in its process. http: a server in a process of its own.
    #[arg(long, value_enum, default_value_t = Handler::Noop)]
    handler: Handler,
    /// Work of each message, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    work: u32,
    /// Keys.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    keys: u64,
    /// Queues.
    #[arg(long, value_name = "N", default_value_t = 8)]
    queues: u32,
    /// Messages; with work, RocketMQ's ordered consumer gets no more than 20 s of it.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    messages: u32,
    /// Lanes of Keylane, and threads of the others.
    #[arg(long, value_name = "N", default_value_t = 100)]
    lanes: u32,
    /// Share of the messages that one key has, in percent; the other keys share the rest.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=99))]
    hot: u32,
    /// Send so many messages a second while the consumer runs, and tell how long each took to arrive.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<u32>,
    /// Times everything is run; medians are told at the end.
    #[arg(long, value_name = "N", default_value_t = 1)]
    runs: u32,
    /// One JSON object a system and run on standard output; all else goes to standard error.
    #[arg(long)]
    json: bool,
}

/// Keylane's handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Handler {
    /// A Rust function in Keylane's process.
    Noop,
    /// An HTTP server.
    Http,
}

impl Handler {
    /// The name in figures.
    fn name(self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Http => "http",
        }
    }
}

impl Bench {
    fn load(&self) -> Load {
        Load {
            messages: self.messages,
            keys: self.keys,
            queues: self.queues,
            hot: self.hot,
            work_ms: self.work,
            lanes: self.lanes,
            rate: self.rate,
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse() {
        Cli {
            process: Some(Process::Function(options)),
            ..
        } => function::run(options).await,
        Cli { bench, .. } => measure(&bench).await,
    }
}

async fn measure(bench: &Bench) -> Result<()> {
    for (field, value) in [
        ("runs", u64::from(bench.runs)),
        ("keys", bench.keys),
        ("queues", bench.queues.into()),
        ("messages", bench.messages.into()),
        ("lanes", bench.lanes.into()),
        ("rate", bench.rate.unwrap_or(1).into()),
    ] {
        ensure!(value > 0, "--{field} is 0: at least 1");
    }
    ensure!(
        bench.rate.is_none() || bench.handler == Handler::Noop,
        "--rate needs --handler noop"
    );
    let programs = keylane::Programs::of(bench.handler).await?;
    eprintln!("==> Starting RocketMQ");
    let broker = Broker::start().await?;
    let mut report = Report::new(bench.json);
    for run in 1..=bench.runs {
        let topic = format!("keylane-{run}");
        let load = bench.load();
        load::prepare(&broker, &topic, &load).await?;
        let measured = keylane::run(&programs, &broker, &topic, &load).await?;
        report.add("keylane", bench.handler.name(), &load, measured);
        ensure!(
            measured.inversions + measured.overlaps == 0,
            "Keylane broke the order of a key: {measured:?}"
        );
        for peer in &bench.peers {
            let topic = format!("{}-{run}", peer.name());
            let load = peer.load(load);
            load::prepare(&broker, &topic, &load).await?;
            let measured = peers::run(*peer, &broker, &topic, &load).await?;
            report.add(peer.name(), Handler::Noop.name(), &load, measured);
        }
    }
    report.conclude();
    Ok(())
}
