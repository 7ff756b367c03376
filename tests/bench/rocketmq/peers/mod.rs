//! What Keylane is measured beside, driven by small programs over its Java clients: RocketMQ's own consumers
//! on the same broker, and Confluent's parallel-consumer on a Kafka of its own.

mod kafka;
mod rocketmq;

use crate::load::Load;
use crate::printed::{self, Printed};
use crate::report::Measured;
use anyhow::Result;
use clap::ValueEnum;
use keylane_tests::jars;
use keylane_tests::rocketmq::Broker;
use std::path::Path;
use std::str::FromStr;
use tempfile::TempDir;
use tokio::process::Command;

/// Longest time of a consumer.
pub const LIMIT_SECONDS: u32 = 300;
/// Work that the ordered consumer, slow in proportion to it, gets at most, milliseconds a queue.
const ORDERLY_WORK_MS: u32 = 20_000;

/// A consumer of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// RocketMQ's: one message at a time per queue, in order.
    JavaOrderly,
    /// RocketMQ's: any number at a time, in no order.
    JavaConcurrent,
    /// Confluent's for Kafka, in its order by key.
    ParallelConsumer,
}

impl Peer {
    /// The name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::JavaOrderly => "java-orderly",
            Self::JavaConcurrent => "java-concurrent",
            Self::ParallelConsumer => "parallel-consumer",
        }
    }

    /// Whether it takes part when messages are sent at a rate: those of Kafka are only there beforehand.
    pub fn has_rate(self) -> bool {
        self != Self::ParallelConsumer
    }

    /// What it can do in a reasonable time.
    pub fn load(self, load: Load) -> Load {
        let most = match (self, ORDERLY_WORK_MS.checked_div(load.work_ms)) {
            (Self::JavaOrderly, Some(each)) => each.saturating_mul(load.queues),
            _ => u32::MAX,
        };
        Load {
            messages: load.messages.min(most),
            ..load
        }
    }
}

/// The consumers to run beside Keylane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers(Vec<Peer>);

impl Peers {
    pub fn iter(&self) -> impl Iterator<Item = Peer> {
        self.0.iter().copied()
    }
}

impl FromStr for Peers {
    type Err = String;

    /// Names separated by commas; `none`, or nothing, for none.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if matches!(text, "" | "none") {
            return Ok(Self(Vec::new()));
        }
        let peers = text
            .split(',')
            .map(|name| <Peer as ValueEnum>::from_str(name, false));
        let peers: std::result::Result<_, String> = peers.collect();
        let known: Vec<&str> = Peer::value_variants()
            .iter()
            .map(|peer| peer.name())
            .collect();
        peers
            .map(Self)
            .map_err(|problem| format!("{problem}: give none, or some of {}", known.join(",")))
    }
}

/// Makes a topic with the load's messages, and runs a peer over it; needs a JDK.
pub async fn run(peer: Peer, broker: &Broker, topic: &str, load: &Load) -> Result<Measured> {
    match peer {
        Peer::JavaOrderly => rocketmq::run(peer, "orderly", broker, topic, load).await,
        Peer::JavaConcurrent => rocketmq::run(peer, "concurrent", broker, topic, load).await,
        Peer::ParallelConsumer => kafka::run(peer, topic, load).await,
    }
}

/// The source of a program of ours.
macro_rules! source {
    ($name:literal) => {
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/bench/rocketmq/peers/",
            $name,
            ".java"
        )
    };
}
use source;

/// Programs of ours over the jars of `lib`.
struct Java<'a> {
    lib: &'a Path,
    /// The compiled programs; clients that keep logs and offsets do it here too.
    home: TempDir,
}

impl<'a> Java<'a> {
    async fn compile(lib: &'a Path, sources: &'static [&'static str]) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let (from, into) = (lib.to_path_buf(), home.path().to_path_buf());
        tokio::task::spawn_blocking(move || jars::compile(&from, sources, &into)).await??;
        Ok(Self { lib, home })
    }

    /// A process of one, with more options of the virtual machine.
    fn command(&self, options: &[String], program: &str) -> Command {
        let (home, lib) = (self.home.path(), self.lib.join("*"));
        let mut command = Command::new("java");
        command
            .arg("-Xmx1g")
            .arg(format!("-Duser.home={}", home.display()))
            .args(options)
            .arg("-cp")
            .arg(format!("{}:{}", lib.display(), home.display()))
            .arg(program);
        command
    }
}

/// Lets a consumer run; `started` happens once it has its first message.
async fn measured(
    peer: Peer,
    command: &mut Command,
    started: impl AsyncFnOnce(u32) -> Result<()>,
) -> Result<Measured> {
    let (printed, ()) = printed::run::<Printed, ()>(peer.name(), command, started).await?;
    Ok(printed.into())
}
