//! RocketMQ's ordered consumer, in place of Keylane's executor.

use crate::schedule::Kind;
use crate::settings::{CALL_BOUND, DRAINS, TIMEOUT};
use crate::subject::Subject;
use anyhow::Result;
use keylane_tests::jars;
use keylane_tests::rocketmq::jars;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/chaos/peer/Orderly.java");

/// One of RocketMQ's consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// The Java client's ordered push consumer.
    JavaOrderly,
}

impl Peer {
    /// The name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::JavaOrderly => "java-orderly",
        }
    }

    /// The exit code of a process that SIGTERM ended while its runtime was still starting. It has consumed nothing
    /// then: its program begins with the hook that ends it in good order, with 0.
    pub fn ended_before_its_begin(self) -> i32 {
        match self {
            Self::JavaOrderly => 128 + Signal::TERM.as_raw(),
        }
    }

    /// What happens to it in place of an event that makes no sense for it: it has no pod whose end it
    /// could be told, and knows nothing of one that ran beside its handler before it.
    pub fn instead(self, of: Kind) -> Option<&'static str> {
        match of {
            Kind::ExecutorKilled | Kind::ExecutorKilledUnprobed => {
                Some("process killed and started again, and nobody knows")
            }
            Kind::PodGone => Some("process and handler killed, and nobody is told"),
            _ => None,
        }
    }
}

/// Compiles it into a directory below `into`; needs a JDK.
pub fn compile(into: &Path) -> Result<PathBuf> {
    let classes = into.join("classes");
    std::fs::create_dir_all(&classes)?;
    jars::compile(&jars()?, &[SOURCE], &classes)?;
    Ok(classes)
}

/// A process of it.
pub fn command(_: Peer, subject: &Subject, name_server: &str, handler: u16) -> Result<Command> {
    let classes = format!(
        "{}:{}",
        jars()?.join("*").display(),
        subject.program.display()
    );
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "java", "-Xmx128m"])
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        // The client keeps logs and offsets below its user's home.
        .arg(format!("-Duser.home={}", subject.logs.display()))
        .args(["-cp", &classes, "Orderly", name_server])
        .args([&subject.topic, &subject.group])
        .arg(format!("http://127.0.0.1:{handler}"))
        .args([TIMEOUT, CALL_BOUND, DRAINS].map(|time| time.as_millis().to_string()));
    Ok(command)
}
