//! RocketMQ's own consumers, driven by a small program over its Java client.

use crate::load::{self, Load};
use crate::printed::{self, Printed};
use crate::report::Measured;
use anyhow::{Context, Result};
use clap::ValueEnum;
use keylane_tests::rocketmq::{Broker, jars};
use std::str::FromStr;
use tokio::process::Command;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/rocketmq/Peer.java");
/// Longest time of a consumer.
pub const LIMIT_SECONDS: u32 = 300;
/// Work that the ordered consumer, slow in proportion to it, gets at most, milliseconds a queue.
const ORDERLY_WORK_MS: u32 = 20_000;

/// One of RocketMQ's consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// One message at a time per queue, in order.
    JavaOrderly,
    /// Any number at a time, in no order.
    JavaConcurrent,
}

impl Peer {
    /// The name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::JavaOrderly => "java-orderly",
            Self::JavaConcurrent => "java-concurrent",
        }
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

    fn mode(self) -> &'static str {
        match self {
            Self::JavaOrderly => "orderly",
            Self::JavaConcurrent => "concurrent",
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

/// Runs a peer over a topic that holds the load's messages; the program starts from source, so this
/// needs a JDK.
pub async fn run(peer: Peer, broker: &Broker, topic: &str, load: &Load) -> Result<Measured> {
    let lib = tokio::task::spawn_blocking(jars).await??;
    // The client keeps logs and offsets below its user's home.
    let home = tempfile::tempdir()?;
    let timed = load.rate.map_or(0, |_| load.messages);
    let mut command = Command::new("java");
    command
        .arg("-Xmx1g")
        .arg(format!("-Duser.home={}", home.path().display()))
        .arg("-cp")
        .arg(lib.join("*"))
        .arg(PROGRAM)
        .args([peer.mode(), &broker.name_server(), topic, topic])
        .args([load.total(), timed, load.work_ms].map(|number| number.to_string()))
        .args([load.lanes, LIMIT_SECONDS].map(|number| number.to_string()));
    let started = async |_: u32| load::send(broker, topic, load, || Ok(())).await;
    let run = printed::run::<Printed, ()>(peer.name(), &mut command, started).await;
    let (printed, ()) = run.context(
        "java is that of a JDK of version 11 or newer, such as openjdk-17-jdk-headless?",
    )?;
    Ok(printed.into())
}
