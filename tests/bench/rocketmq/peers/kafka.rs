//! Confluent's parallel-consumer, on a Kafka that runs no longer than it: what else is measured is not to
//! share the machine with it.

use super::{Java, LIMIT_SECONDS, Peer, measured, source};
use crate::load::{self, Load};
use crate::report::Measured;
use anyhow::{Context, Result, ensure};
use keylane_tests::kafka::{Kafka, VERSION};
use std::process::Stdio;
use tokio::io::{AsyncWriteExt, BufWriter};

const SOURCES: [&str; 3] = [
    source!("Measure"),
    source!("ParallelConsumer"),
    source!("Preload"),
];

pub async fn run(peer: Peer, topic: &str, load: &Load) -> Result<Measured> {
    eprintln!("==> Starting Kafka {VERSION}");
    let kafka = Kafka::start().await?;
    let java = Java::compile(kafka.lib(), &SOURCES).await?;
    load::tell(topic, load);
    preload(&kafka, &java, topic, load).await?;
    let mut command = java.command(&[kafka.quiet()], "ParallelConsumer");
    command
        .args([&kafka.address(), topic, topic])
        .args([load.total(), load.work_ms].map(|number| number.to_string()))
        .args([load.lanes, LIMIT_SECONDS].map(|number| number.to_string()));
    measured(peer, &mut command, async |_: u32| Ok(())).await
}

/// Makes the topic, with the load's messages.
async fn preload(kafka: &Kafka, java: &Java<'_>, topic: &str, load: &Load) -> Result<()> {
    let mut child = java
        .command(&[kafka.quiet()], "Preload")
        .args([&kafka.address(), topic, &load.queues.to_string()])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("java cannot be started")?;
    let lines = child.stdin.take();
    let feed = async {
        let mut lines = BufWriter::new(lines.context("java has no standard input")?);
        for message in load.beforehand() {
            let key = message.key().unwrap_or_default();
            lines.write_all(key.as_bytes()).await?;
            lines.write_all(b"\t").await?;
            lines.write_all(message.body()).await?;
            lines.write_all(b"\n").await?;
        }
        lines.flush().await?;
        anyhow::Ok(())
    };
    // If it ends early, what it says of that is the reason, and not that it reads no more.
    let (fed, ended) = tokio::join!(feed, child.wait_with_output());
    let ended = ended?;
    ensure!(
        ended.status.success(),
        "Kafka was not sent the messages ({}): {}",
        ended.status,
        String::from_utf8_lossy(&ended.stderr).trim()
    );
    fed
}
