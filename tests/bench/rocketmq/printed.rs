//! What a consumer's process prints: `started` when what is measured begins, and at its end a line of JSON.

use crate::report::{Measured, Used};
use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

/// Printed when the first message is handled, or the time of waiting begins.
pub const STARTED: &str = "started";

/// The last line of a consumer that had messages.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Printed {
    pub messages: u32,
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub rss_mib: f64,
    pub inversions: u64,
    pub overlaps: u64,
    /// Milliseconds, of messages that are timed.
    #[serde(default)]
    pub p50_ms: Option<f64>,
    #[serde(default)]
    pub p99_ms: Option<f64>,
    /// Until all messages but those of the hot key were handled.
    #[serde(default)]
    pub others_seconds: Option<f64>,
    /// Messages that the broker sent for each that was handled.
    #[serde(default)]
    pub pulled_per_message: Option<f64>,
}

impl From<Printed> for Measured {
    fn from(printed: Printed) -> Self {
        Self {
            messages: printed.messages,
            seconds: printed.seconds,
            consumer: Used {
                cpu_seconds: printed.cpu_seconds,
                rss_mib: printed.rss_mib,
            },
            handler: None,
            inversions: printed.inversions,
            overlaps: printed.overlaps,
            latency: printed.p50_ms.zip(printed.p99_ms),
            others_seconds: printed.others_seconds,
            pulled_per_message: printed.pulled_per_message,
        }
    }
}

/// Runs a consumer's process to its end, and gives its last line; `then` happens once it has started, and is told
/// its id.
pub async fn run<P: DeserializeOwned, T>(
    name: &str,
    command: &mut Command,
    then: impl AsyncFnOnce(u32) -> Result<T>,
) -> Result<(P, T)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{:?} cannot be started", command.as_std().get_program()))?;
    let pid = child.id();
    let (Some(output), Some(mut errors)) = (child.stdout.take(), child.stderr.take()) else {
        bail!("the process of {name} has no output")
    };
    // Read to the end while it runs, or it would wait for us.
    let errors = tokio::spawn(async move {
        let mut text = String::new();
        let _whatever_there_is = errors.read_to_string(&mut text).await;
        text
    });
    let mut lines = BufReader::new(output).lines();
    let mut said = Vec::new();
    while let Some(line) = lines.next_line().await? {
        if line == STARTED {
            break;
        }
        said.push(line);
    }
    let rest = async {
        let mut rest = Vec::new();
        while let Some(line) = lines.next_line().await? {
            rest.push(line);
        }
        anyhow::Ok(rest)
    };
    let then = then(pid.unwrap_or_default());
    let (rest, then) = tokio::join!(rest, then);
    said.extend(rest?);
    let then = then?;
    let status = child.wait().await?;
    let printed = said
        .iter()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok());
    let Some(printed) = printed else {
        let errors = errors.await.unwrap_or_default();
        // RocketMQ's Java client tells its own set-up in hundreds of lines.
        let telling = said.iter().map(String::as_str).chain(errors.lines());
        let telling: Vec<&str> = telling.filter(|line| !line.contains(" |-")).collect();
        bail!(
            "{name} gave no result ({status}): {}",
            telling.join("\n").trim()
        );
    };
    Ok((printed, then))
}
