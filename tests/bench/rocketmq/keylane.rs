//! Keylane as users run it: the library with a Rust handler in one process, or the executor with a handler
//! in a process of its own.

use crate::load::{self, Load};
use crate::peers::LIMIT_SECONDS;
use crate::report::{Measured, Used};
use crate::usage::{peak_memory, processor_time};
use crate::{Handler, printed};
use anyhow::{Context, Result, ensure};
use keylane_tests::cluster::Paths;
use keylane_tests::images::workspace::{PROGRAMS, release_binaries};
use keylane_tests::judge::Verdict;
use keylane_tests::rocketmq::Broker;
use keylane_tests::wait;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A process that ends with this one's use of it.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Ends {
    fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.with_context(|| format!("{:?} cannot be started", command.get_program()));
        Ok(Self(child?))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

/// What is started.
pub enum Programs {
    /// This program itself, with a Rust handler.
    Function,
    /// The executor, and a handler.
    Http { executor: PathBuf, handler: PathBuf },
}

impl Programs {
    /// The programs for a handler, built if need be.
    pub async fn of(handler: Handler) -> Result<Self> {
        if handler == Handler::Noop {
            return Ok(Self::Function);
        }
        let build = || release_binaries(&Paths::from_env(), &PROGRAMS);
        let binaries = tokio::task::spawn_blocking(build).await??;
        let [_, executor, handler, ..] = &binaries[..] else {
            anyhow::bail!("the programs are built")
        };
        Ok(Self::Http {
            executor: executor.clone(),
            handler: handler.clone(),
        })
    }
}

/// Runs Keylane over a topic that holds the load's messages.
pub async fn run(
    programs: &Programs,
    broker: &Broker,
    topic: &str,
    load: &Load,
) -> Result<Measured> {
    match programs {
        Programs::Function => function(broker, topic, load).await,
        Programs::Http { executor, handler } => http(executor, handler, broker, topic, load).await,
    }
}

async fn function(broker: &Broker, topic: &str, load: &Load) -> Result<Measured> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.args(["function", "--topic", topic]);
    command.args(["--name-server", &broker.name_server()]);
    for (option, value) in [
        ("--queues", load.queues),
        ("--total", load.total()),
        ("--timed", load.rate.map_or(0, |_| load.messages)),
        ("--work-ms", load.work_ms),
        ("--lanes", load.lanes),
        ("--limit-seconds", LIMIT_SECONDS),
    ] {
        command.args([option, &value.to_string()]);
    }
    printed::run("keylane", &mut command, load::send(broker, topic, load)).await
}

/// Runs the executor and the sample handler over a topic that holds the load's messages.
async fn http(
    executor: &Path,
    handler: &Path,
    broker: &Broker,
    topic: &str,
    load: &Load,
) -> Result<Measured> {
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port()
        .to_string();
    let mut command = Command::new(handler);
    command.args([
        "serve",
        "--port",
        &port,
        "--work-ms",
        &load.work_ms.to_string(),
    ]);
    let handler = Ends::start(&mut command)?;
    let document = json!({
        "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer", "metadata": {"name": "bench"},
        "spec": {
            "rocketmq": {"nameServers": [broker.name_server()]},
            "topic": topic, "consumerGroup": topic, "handler": {"http": {"port": port.parse::<u16>()?}},
        }
    });
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), document.to_string())?;
    let mut command = Command::new(executor);
    command
        .args(["run", "--probe-port=0", "--metrics-port=0", "--lanes"])
        .arg(load.lanes.to_string())
        .arg("--file")
        .arg(file.path())
        .env("RUST_LOG", "warn,rocketmq=off");
    let executor = Ends::start(&mut command)?;
    let before = [
        processor_time(executor.pid())?,
        processor_time(handler.pid())?,
    ];
    let verdict = verdict(&port, load.messages).await?;
    let used = |process: &Ends, before: Duration| -> Result<Used> {
        Ok(Used {
            cpu_seconds: (processor_time(process.pid())? - before).as_secs_f64(),
            rss_mib: peak_memory(process.pid())?,
        })
    };
    let (consumer, handler) = (used(&executor, before[0])?, used(&handler, before[1])?);
    let (Some(first), Some(last)) = (verdict.first_at, verdict.last_at) else {
        anyhow::bail!("the handler's record has no times")
    };
    ensure!(
        verdict.duplicates == 0,
        "{} messages were handled twice",
        verdict.duplicates
    );
    Ok(Measured {
        messages: load.messages,
        seconds: last.saturating_sub(first).max(1) as f64 / 1e3,
        consumer,
        handler: Some(handler),
        inversions: verdict.inversions,
        overlaps: verdict.overlaps,
        latency: None,
    })
}

/// The handler's own verdict, once it has handled everything.
async fn verdict(port: &str, messages: u32) -> Result<Verdict> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://127.0.0.1:{port}/verdict");
    // Asked for seldom: judging a large record takes time from the handler.
    let mut interval = tokio::time::interval(Duration::from_secs(5));
    let limit = Duration::from_secs(600);
    let verdict = wait::until(limit, "everything handled", async || {
        interval.tick().await;
        let answer = client.get(&url).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let verdict: Verdict = answer.json().await.map_err(|error| error.to_string())?;
        if verdict.distinct >= u64::from(messages) {
            Ok(verdict)
        } else {
            Err(format!("{} handled", verdict.distinct))
        }
    });
    Ok(verdict.await?)
}
