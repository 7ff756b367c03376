//! RocketMQ's own consumers, driven by a small program over its Java client.

use crate::{Load, Measured, Used};
use anyhow::{Context, Result, bail};
use keylane_tests::rocketmq::{Broker, jars};
use serde::Deserialize;
use std::process::Stdio;
use tokio::process::Command;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/rocketmq/Peer.java");
const LIMIT_SECONDS: u32 = 300;

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

    fn mode(self) -> &'static str {
        match self {
            Self::JavaOrderly => "orderly",
            Self::JavaConcurrent => "concurrent",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Printed {
    messages: u32,
    seconds: f64,
    cpu_seconds: f64,
    rss_mib: f64,
    inversions: u64,
    overlaps: u64,
}

/// Runs a peer over a topic that holds the load's messages; the program starts from source, so this
/// needs a JDK.
pub async fn run(peer: Peer, broker: &Broker, topic: &str, load: &Load) -> Result<Measured> {
    let lib = tokio::task::spawn_blocking(jars).await??;
    // The client keeps logs and offsets below its user's home.
    let home = tempfile::tempdir()?;
    let output = Command::new("java")
        .arg("-Xmx1g")
        .arg(format!("-Duser.home={}", home.path().display()))
        .arg("-cp")
        .arg(lib.join("*"))
        .arg(PROGRAM)
        .args([peer.mode(), &broker.name_server(), topic, topic])
        .args([load.messages, load.work_ms].map(|number| number.to_string()))
        .args([load.lanes, LIMIT_SECONDS].map(|number| number.to_string()))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context(
            "cannot run java (a JDK of version 11 or newer, such as openjdk-17-jdk-headless)",
        )?;
    let text = String::from_utf8_lossy(&output.stdout);
    let printed = text
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str::<Printed>(line).ok());
    let Some(printed) = printed else {
        let errors = String::from_utf8_lossy(&output.stderr);
        // The client's logging tells its own set-up in hundreds of lines.
        let telling = text.lines().chain(errors.lines());
        let telling: Vec<&str> = telling.filter(|line| !line.contains(" |-")).collect();
        let telling = telling.join("\n");
        bail!(
            "{} gave no result ({}): {}",
            peer.name(),
            output.status,
            telling.trim()
        );
    };
    Ok(Measured {
        messages: printed.messages,
        seconds: printed.seconds,
        consumer: Used {
            cpu_seconds: printed.cpu_seconds,
            rss_mib: printed.rss_mib,
        },
        handler: None,
        inversions: printed.inversions,
        overlaps: printed.overlaps,
    })
}
