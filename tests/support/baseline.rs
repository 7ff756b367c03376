//! RocketMQ's own ordered consumer, run as a measure of what order per queue gives.

use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/OrderedBaseline.java");

/// What the ordered consumer did.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// Messages handled.
    pub messages: u64,
    /// Seconds from the start of the first message to the end of the last.
    pub seconds: f64,
    /// Messages a second.
    pub per_second: f64,
}

/// What it is to do.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// Name server, host:port.
    pub name_server: &'a str,
    /// Topic that holds at least `messages` messages.
    pub topic: &'a str,
    /// Consumer group; a new one starts at the first message.
    pub group: &'a str,
    /// How many messages to handle.
    pub messages: u64,
    /// Time of work a message, in whole milliseconds.
    pub work: Duration,
    /// Longest time the messages may take, in whole seconds.
    pub limit: Duration,
}

/// Why there is no measure.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// Java could not be run.
    #[error("cannot run java (a JDK of version 11 or newer, such as openjdk-17-jdk-headless): {0}")]
    Java(#[from] std::io::Error),
    /// It ended without a result.
    #[error("RocketMQ's ordered consumer gave no result ({status}): {output}")]
    NoResult {
        /// How it ended.
        status: String,
        /// What it printed.
        output: String,
    },
}

impl Run<'_> {
    /// Runs it with the client of these jars; it starts from source, so this needs a JDK.
    pub async fn ordered(&self, lib: &Path) -> Result<Baseline, BaselineError> {
        // The client keeps logs and offsets below its user's home.
        let home = tempfile::tempdir()?;
        let class_path: PathBuf = lib.join("*");
        let output = Command::new("java")
            .arg("-Xmx512m")
            .arg(format!("-Duser.home={}", home.path().display()))
            .arg("-cp")
            .arg(class_path)
            .arg(PROGRAM)
            .args([self.name_server, self.topic, self.group])
            .arg(self.messages.to_string())
            .arg(self.work.as_millis().to_string())
            .arg(self.limit.as_secs().to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let result = text
            .lines()
            .rev()
            .find_map(|line| serde_json::from_str(line).ok());
        result.ok_or_else(|| {
            let errors = String::from_utf8_lossy(&output.stderr);
            // The client's logging tells its own set-up in hundreds of lines.
            let telling = text.lines().chain(errors.lines());
            let telling: Vec<&str> = telling.filter(|line| !line.contains(" |-")).collect();
            BaselineError::NoResult {
                status: output.status.to_string(),
                output: telling.join("\n").trim().to_owned(),
            }
        })
    }
}
