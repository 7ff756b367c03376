//! What a consumer costs when nothing comes: a process of its own with the library, the topic's few messages
//! handled, all of its queues held.

use crate::load::Load;
use crate::printed::{self, STARTED};
use crate::profile::Profile;
use anyhow::Result;
use keylane_consumer::contract::admin::QueuePhase;
use keylane_consumer::{Consumer, Failure};
use keylane_tests::rocketmq::Broker;
use keylane_tests::usage::{peak_memory, processor_time};
use keylane_tests::wait;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::process::Command;

/// How long it has to get all queues and handle what there is.
const SETTLE: Duration = Duration::from_secs(180);
/// How long it is left alone before it is measured.
const PAUSE: Duration = Duration::from_secs(10);

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[arg(long)]
    name_server: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    queues: u32,
    #[arg(long)]
    messages: u32,
    /// How long it is measured.
    #[arg(long)]
    seconds: u64,
}

/// What an idle consumer used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Idle {
    pub system: String,
    pub handler: String,
    pub queues: u32,
    /// How long it was measured.
    pub seconds: u64,
    /// Of one core.
    pub idle_cpu_percent: f64,
    /// The largest so far.
    pub rss_mib: f64,
    /// From the start to when it held every queue.
    pub settled_seconds: f64,
}

/// Consumes the topic, waits, and prints what the waiting cost.
pub async fn consume(options: Options) -> Result<()> {
    let begun = std::time::Instant::now();
    let running = Consumer::builder()
        .name_servers([options.name_server])
        .topic(&options.topic)
        .group(&options.topic)
        .start(|_| async { Ok::<(), Failure>(()) })
        .await?;
    wait::until(SETTLE, "all queues held, everything handled", async || {
        let stats = running.control().stats().await;
        let stats = stats.map_err(|gone| gone.to_string())?;
        let held = stats.queues.iter();
        let held = held.filter(|queue| queue.phase == QueuePhase::Owned);
        let held = held.count();
        if held == options.queues as usize && stats.completed >= u64::from(options.messages) {
            Ok(())
        } else {
            Err(format!("{held} held, {} handled", stats.completed))
        }
    })
    .await?;
    let settled = begun.elapsed();
    tokio::time::sleep(PAUSE).await;
    println!("{STARTED}");
    let pid = std::process::id();
    let before = processor_time(pid)?;
    let measured = Duration::from_secs(options.seconds);
    tokio::time::sleep(measured).await;
    let used = processor_time(pid)? - before;
    let idle = Idle {
        system: "keylane".into(),
        handler: "noop".into(),
        queues: options.queues,
        seconds: options.seconds,
        idle_cpu_percent: hundredths(used.as_secs_f64() * 100.0 / measured.as_secs_f64()),
        rss_mib: peak_memory(pid)?.round(),
        settled_seconds: hundredths(settled.as_secs_f64()),
    };
    println!("{}", serde_json::to_string(&idle)?);
    running.stop().await?;
    Ok(())
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// Runs an idle consumer to its end; `profiled` asks what it spent its time with.
pub async fn measure(
    broker: &Broker,
    topic: &str,
    load: &Load,
    seconds: u64,
    profiled: bool,
) -> Result<(Idle, Option<Profile>)> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["idle", "--topic", topic])
        .args(["--name-server", &broker.name_server()])
        .args(["--queues", &load.queues.to_string()])
        .args(["--messages", &load.messages.to_string()])
        .args(["--seconds", &seconds.to_string()]);
    let started = async |pid: u32| profiled.then(|| Profile::of(pid)).transpose();
    printed::run("the idle consumer", &mut command, started).await
}
