//! Keylane as users run it: the library with a Rust handler in one process, or the executor with a handler
//! in a process of its own.

use crate::load::{self, Load};
use crate::options::Handler;
use crate::peers::LIMIT_SECONDS;
use crate::printed::{self, Printed};
use crate::profile::Profile;
use crate::report::{Measured, Used};
use crate::serve::Protocol;
use anyhow::{Context, Result};
use clap::ValueEnum;
use keylane_tests::cluster::Paths;
use keylane_tests::images::workspace::{PROGRAMS, release_binaries};
use keylane_tests::rocketmq::Broker;
use keylane_tests::usage::{peak_memory, processor_time};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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
    /// The executor, and this program itself as its handler.
    Remote {
        executor: PathBuf,
        protocol: Protocol,
    },
}

/// What was measured, and what it was spent with if that was asked for.
pub struct Ran {
    pub measured: Measured,
    pub profile: Option<Profile>,
}

impl Programs {
    /// The programs for a handler, built if need be.
    pub async fn of(handler: Handler) -> Result<Self> {
        let protocol = match handler {
            Handler::Noop => return Ok(Self::Function),
            Handler::Http => Protocol::Http,
            Handler::Http2 => Protocol::Http2,
            Handler::Grpc => Protocol::Grpc,
        };
        let build = || release_binaries(&Paths::from_env(), &PROGRAMS);
        let mut binaries = tokio::task::spawn_blocking(build).await??;
        Ok(Self::Remote {
            executor: binaries.swap_remove(1),
            protocol,
        })
    }

    /// The program whose process is Keylane's.
    pub fn keylane(&self) -> Result<PathBuf> {
        match self {
            Self::Function => Ok(std::env::current_exe()?),
            Self::Remote { executor, .. } => Ok(executor.clone()),
        }
    }
}

/// Runs Keylane over a topic that holds the load's messages.
pub async fn run(
    programs: &Programs,
    broker: &Broker,
    topic: &str,
    load: &Load,
    profiled: bool,
) -> Result<Ran> {
    match programs {
        Programs::Function => function(broker, topic, load, profiled).await,
        Programs::Remote { executor, protocol } => {
            remote(executor, *protocol, broker, topic, load, profiled).await
        }
    }
}

/// This program as a process that handles the load's messages.
fn handling(process: &str, load: &Load) -> Result<tokio::process::Command> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.arg(process);
    for (option, value) in [
        ("--queues", load.queues),
        ("--total", load.total()),
        ("--timed", load.rate.map_or(0, |_| load.messages)),
        ("--others", load.others()),
        ("--work-ms", load.work_ms),
        ("--limit-seconds", LIMIT_SECONDS),
    ] {
        command.args([option, &value.to_string()]);
    }
    Ok(command)
}

async fn function(broker: &Broker, topic: &str, load: &Load, profiled: bool) -> Result<Ran> {
    let mut command = handling("function", load)?;
    command.args(["--topic", topic]);
    command.args(["--name-server", &broker.name_server()]);
    command.args(["--lanes", &load.lanes.to_string()]);
    let started = async |pid: u32| {
        let profile = profiled.then(|| Profile::of(pid)).transpose()?;
        load::send(broker, topic, load, || Ok(())).await?;
        anyhow::Ok(profile)
    };
    let (printed, profile) = printed::run::<Printed, _>("keylane", &mut command, started).await?;
    let measured = printed.into();
    Ok(Ran { measured, profile })
}

async fn remote(
    executor: &Path,
    protocol: Protocol,
    broker: &Broker,
    topic: &str,
    load: &Load,
    profiled: bool,
) -> Result<Ran> {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let port = free.local_addr()?.port();
    drop(free);
    let endpoint = match protocol {
        Protocol::Http => json!({"http": {"port": port}}),
        Protocol::Http2 => json!({"http": {"port": port, "version": "HTTP2"}}),
        Protocol::Grpc => json!({"grpc": {"port": port}}),
    };
    let document = json!({
        "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer", "metadata": {"name": "bench"},
        "spec": {
            "rocketmq": {"nameServers": [broker.name_server()]},
            "topic": topic, "consumerGroup": topic, "handler": endpoint,
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
    // It waits until the handler answers.
    let executor = Ends::start(&mut command)?;
    let mut command = handling("serve", load)?;
    let name = protocol.to_possible_value();
    let name = name.as_ref().map_or("", |name| name.get_name());
    command.args(["--protocol", name, "--port", &port.to_string()]);
    let started = async |_: u32| {
        let profile = profiled.then(|| Profile::of(executor.pid())).transpose()?;
        // What it used until the first message that counts.
        let before = || processor_time(executor.pid());
        anyhow::Ok((load::send(broker, topic, load, before).await?, profile))
    };
    let (printed, (before, profile)) =
        printed::run::<Printed, _>("the handler", &mut command, started).await?;
    let measured = Measured::from(printed);
    let used = Used {
        cpu_seconds: (processor_time(executor.pid())? - before).as_secs_f64(),
        rss_mib: peak_memory(executor.pid())?,
    };
    let measured = Measured {
        consumer: used,
        handler: Some(measured.consumer),
        ..measured
    };
    Ok(Ran { measured, profile })
}
