#![recursion_limit = "512"]
//! `cargo bench-rocketmq`: Keylane beside RocketMQ's own consumers, on the same broker in one run.
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
use peers::Peers;
use report::Report;

/// Messages, unless it is said how many: at most so many, and with a rate or work of each those of so long.
const MESSAGES: u32 = 200_000;
const RATE_SECONDS: u32 = 30;
const WORK_MS: u32 = 60_000;
/// Messages of a hot key with work, unless it is said how many: so many fit into memory beside those of others
/// (one queue may hold two thirds of `limits.messages`), and so much work, one after the other, takes a minute.
const HOT_MESSAGES: u32 = 10_000;
const HOT_WORK_MS: u32 = 60_000;
/// What a reply to a pull holds at most as RocketMQ comes. Source: `MessageStoreConfig.java` of 5.3.3.
const STOCK: Settings<'static> = &[
    ("maxTransferCountOnMessageInMemory", "32"),
    ("maxTransferBytesOnMessageInMemory", "262144"),
];

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
    /// A handler behind HTTP or gRPC.
    #[command(hide = true)]
    Serve(serve::Options),
    /// A consumer that has nothing to do.
    #[command(hide = true)]
    Idle(idle::Options),
}

#[derive(Debug, clap::Args)]
struct Bench {
    /// RocketMQ's consumers to run beside Keylane, or none.
    #[arg(
        long,
        value_name = "NAMES",
        default_value = "java-orderly,java-concurrent"
    )]
    peers: Peers,
    /// Keylane's handler. noop: a Rust function in its process. http, http2, grpc: a server in a process of its own.
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
    /// Messages. RocketMQ's ordered consumer gets no more than 20 s of work a queue. Default: 200,000, but no more
    /// than half a minute of --rate and a minute of work for all lanes; with work and a hot key no more than 10,000
    /// and a minute of work of that key, which are handled one after the other.
    #[arg(long, value_name = "N")]
    messages: Option<u32>,
    /// Lanes of Keylane, and threads of the others.
    #[arg(long, value_name = "N", default_value_t = 100)]
    lanes: u32,
    /// Share of the messages that one key has, in percent; the other keys share the rest.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=99))]
    hot: u32,
    /// One key has half of the messages, and Keylane runs once more with those of the others alone.
    #[arg(long, conflicts_with_all = ["hot", "rate"])]
    hot_key: bool,
    /// Measure what a consumer of that many queues costs while nothing comes, and nothing else.
    #[arg(long, conflicts_with_all = ["hot", "hot_key", "rate", "work", "lanes"])]
    idle: bool,
    /// How long that is measured, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "idle")]
    idle_seconds: u64,
    /// Send so many messages a second while the consumer runs, and tell how long each took to arrive.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<u32>,
    /// Let the broker send 32 messages or 256 KiB in a reply at most, as RocketMQ comes, in place of 1,024 and 4 MiB.
    #[arg(long)]
    stock_broker: bool,
    /// Tell in words the five functions that cost Keylane's process most, by perf: with some millions of --messages,
    /// and with CARGO_PROFILE_RELEASE_STRIP=none in the environment, which builds programs that have the names.
    #[arg(long)]
    profile: bool,
    /// Times everything is run; medians, and whether they reach Keylane's goals, are told at the end.
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
    /// An HTTP server, called by HTTP/1.1.
    Http,
    /// The same, called by HTTP/2.
    Http2,
    /// A gRPC server.
    Grpc,
}

impl Handler {
    /// The name in figures.
    fn name(self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        }
    }
}

impl Bench {
    /// Percent of the messages that one key has.
    fn hot_percent(&self) -> u32 {
        if self.hot_key { 50 } else { self.hot }
    }

    fn messages(&self) -> u32 {
        let hot = self.hot_percent();
        let of_rate = self.rate.map(|rate| rate.saturating_mul(RATE_SECONDS));
        let of_work = WORK_MS.checked_div(self.work);
        let of_work = of_work.map(|each| each.max(1).saturating_mul(self.lanes));
        let of_hot_key = HOT_WORK_MS.checked_div(self.work).filter(|_| hot > 0);
        let of_hot_key = of_hot_key.map(|most| (most.clamp(1, HOT_MESSAGES) * 100).div_ceil(hot));
        let most = [of_rate, of_work, of_hot_key].into_iter().flatten();
        self.messages
            .unwrap_or_else(|| most.fold(MESSAGES, u32::min))
    }

    async fn broker(&self) -> Result<Broker> {
        eprintln!("==> Starting RocketMQ");
        let settings = if self.stock_broker { STOCK } else { &[] };
        Ok(Broker::start_with(settings).await?)
    }

    fn load(&self) -> Load {
        Load {
            messages: self.messages(),
            keys: self.keys,
            queues: self.queues,
            hot: self.hot_percent(),
            others_only: false,
            work_ms: self.work,
            lanes: self.lanes,
            rate: self.rate,
        }
    }
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

fn check(bench: &Bench) -> Result<()> {
    for (field, value) in [
        ("runs", u64::from(bench.runs)),
        ("keys", bench.keys),
        ("queues", bench.queues.into()),
        ("lanes", bench.lanes.into()),
        ("rate", bench.rate.unwrap_or(1).into()),
        ("idle-seconds", bench.idle_seconds),
        ("messages", bench.messages().into()),
    ] {
        ensure!(value > 0, "--{field} is 0: at least 1");
    }
    ensure!(
        !bench.idle || bench.handler == Handler::Noop,
        "--idle needs --handler noop"
    );
    Ok(())
}

async fn measure(bench: &Bench) -> Result<()> {
    check(bench)?;
    let programs = keylane::Programs::of(bench.handler).await?;
    if bench.profile {
        profile::check(&programs.keylane()?)?;
    }
    let broker = bench.broker().await?;
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
            load::prepare(&broker, &topic, &load).await?;
            let measured = peers::run(peer, &broker, &topic, &load).await?;
            report.add(peer.name(), Handler::Noop.name(), &load, measured);
        }
    }
    report.conclude(bench.handler);
    Ok(())
}

/// Measures consumers to which nothing comes.
async fn wait(bench: &Bench) -> Result<()> {
    check(bench)?;
    if bench.profile {
        profile::check(&std::env::current_exe()?)?;
    }
    let broker = bench.broker().await?;
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
