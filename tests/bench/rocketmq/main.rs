#![recursion_limit = "512"]
//! `cargo bench-rocketmq`: Keylane beside RocketMQ's own consumers, on the same broker in one run.
//!
//! Each consumer gets a topic of its own with the same messages, does the same work, and runs in a
//! process of its own, one after the other. Rates are from the first to the last handled message. The
//! machine is shared with the broker: what counts are ratios of one run.

mod keylane;
mod peers;
mod usage;

use anyhow::{Result, ensure};
use clap::Parser;
use keylane_tests::cluster::Paths;
use keylane_tests::images::workspace::{PROGRAMS, release_binaries};
use keylane_tests::rocketmq::{Broker, Message};
use peers::Peer;
use serde_json::json;

/// Measures Keylane beside RocketMQ's own consumers.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench-rocketmq")]
struct Cli {
    /// RocketMQ's consumers to run beside Keylane.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "java-orderly"
    )]
    peers: Vec<Peer>,
    /// Work of each message, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 10)]
    work: u32,
    /// Keys.
    #[arg(long, default_value_t = 1_000)]
    keys: u64,
    /// Queues.
    #[arg(long, default_value_t = 8)]
    queues: u32,
    /// Messages; RocketMQ's ordered consumer gets no more than 20 s of work.
    #[arg(long, default_value_t = 100_000)]
    messages: u32,
    /// Lanes of Keylane, and threads of the others.
    #[arg(long, default_value_t = 256)]
    lanes: u32,
    /// Times everything is run; medians are told at the end.
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// One JSON object a system and run on standard output; all else goes to standard error.
    #[arg(long)]
    json: bool,
}

/// What a consumer is to do.
#[derive(Clone, Copy, Debug)]
struct Load {
    messages: u32,
    work_ms: u32,
    lanes: u32,
}

/// What a process used.
#[derive(Clone, Copy, Debug)]
struct Used {
    cpu_seconds: f64,
    rss_mib: f64,
}

/// What a consumer did.
#[derive(Clone, Copy, Debug)]
struct Measured {
    messages: u32,
    seconds: f64,
    consumer: Used,
    /// The handler, where it is a process of its own.
    handler: Option<Used>,
    inversions: u64,
    overlaps: u64,
}

impl Measured {
    fn per_second(&self) -> f64 {
        f64::from(self.messages) / self.seconds
    }

    fn per_100k(&self, used: Used) -> f64 {
        used.cpu_seconds * 1e5 / f64::from(self.messages)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    ensure!(cli.runs > 0, "--runs is 0: at least 1");
    let binaries =
        tokio::task::spawn_blocking(|| release_binaries(&Paths::from_env(), &PROGRAMS)).await??;
    let [_, executor, handler] = &binaries[..] else {
        anyhow::bail!("three programs are built")
    };
    eprintln!("==> Starting RocketMQ");
    let broker = Broker::start().await?;
    let load = Load {
        messages: cli.messages,
        work_ms: cli.work,
        lanes: cli.lanes,
    };
    let mut rates: Vec<(&str, Vec<f64>)> = vec![("keylane", Vec::new())];
    rates.extend(cli.peers.iter().map(|peer| (peer.name(), Vec::new())));
    for run in 1..=cli.runs {
        for (index, (system, rates)) in rates.iter_mut().enumerate() {
            let topic = format!("{system}-{run}");
            let measured = if index == 0 {
                fill(&broker, &topic, &cli, load).await?;
                keylane::run(executor, handler, &broker, &topic, &load).await?
            } else {
                let peer = cli.peers[index - 1];
                let load = load_of(peer, load, cli.queues);
                fill(&broker, &topic, &cli, load).await?;
                peers::run(peer, &broker, &topic, &load).await?
            };
            tell(&cli, system, &measured);
            ensure!(
                index > 0 || measured.inversions + measured.overlaps == 0,
                "Keylane broke the order of a key: {measured:?}"
            );
            rates.push(measured.per_second());
        }
    }
    eprintln!("\nMedians of {} runs, messages a second:", cli.runs);
    let own = median(&mut rates[0].1);
    for (system, rates) in &mut rates {
        let rate = median(rates);
        eprintln!(
            "  {system:<16} {rate:9.0}   Keylane has {:.2} times that",
            own / rate
        );
    }
    Ok(())
}

/// The ordered consumer is slow in proportion to the work: it gets what it can do in 20 s.
fn load_of(peer: Peer, load: Load, queues: u32) -> Load {
    let most = match (peer, 20_000u32.checked_div(load.work_ms)) {
        (Peer::JavaOrderly, Some(each)) => each.saturating_mul(queues),
        _ => u32::MAX,
    };
    Load {
        messages: load.messages.min(most),
        ..load
    }
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn tell(cli: &Cli, system: &str, measured: &Measured) {
    let handler = measured.handler;
    if cli.json {
        let line = json!({
            "system": system, "handler": handler.map_or("noop", |_| "http"), "work_ms": cli.work, "keys": cli.keys,
            "queues": cli.queues, "messages": measured.messages, "per_second": measured.per_second().round(),
            "cpu_s_per_100k": measured.per_100k(measured.consumer),
            "handler_cpu_s_per_100k": handler.map(|used| measured.per_100k(used)),
            "rss_mib": measured.consumer.rss_mib.round(), "inversions": measured.inversions,
            "overlaps": measured.overlaps,
        });
        println!("{line}");
    } else {
        let handler = handler.map_or_else(String::new, |used| {
            format!(" + {:.2} in the handler", measured.per_100k(used))
        });
        println!(
            "  {system:<16} {:9.0} messages/s, {:.2} CPU-s a 100,000{handler}, {:.0} MiB, {} inversions, {} overlaps",
            measured.per_second(),
            measured.per_100k(measured.consumer),
            measured.consumer.rss_mib,
            measured.inversions,
            measured.overlaps
        );
    }
}

async fn fill(broker: &Broker, topic: &str, cli: &Cli, load: Load) -> Result<()> {
    eprintln!(
        "==> {topic}: {} messages of {} keys in {} queues",
        load.messages, cli.keys, cli.queues
    );
    broker.create_topic(topic, cli.queues).await?;
    let body = "x".repeat(256);
    let messages = (0..u64::from(load.messages))
        .map(|number| Message::keyed(&format!("order-{}", number % cli.keys), body.clone()));
    broker.producer(topic).await?.send_all(messages).await?;
    Ok(())
}
