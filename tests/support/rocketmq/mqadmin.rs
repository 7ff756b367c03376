//! RocketMQ's own command-line tool, the independent witness of what a broker holds.

use super::door::Door;
use super::error::{Result, RocketMqError};
use super::jars::jars;
use crate::cluster::run;

/// Runs of a tool that cannot begin.
const TRIES: u32 = 5;
const MAIN: &str = "org.apache.rocketmq.tools.command.MQAdminStartup";

/// What a broker holds of one queue and group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueProgress {
    /// The broker's name.
    pub broker: String,
    /// The queue's id on that broker.
    pub queue: u32,
    /// The offset after the queue's last message.
    pub broker_offset: i64,
    /// The group's committed offset, the first one it has not finished; also 0 when it has never
    /// committed one, which the tool does not tell apart.
    pub consumer_offset: i64,
}

/// Runs `mqadmin ARGS -n NAME_SERVER` and gives what it printed. Takes about 2 s.
///
/// # Errors
/// When it reports an exception, which it does with exit status 0.
pub async fn mqadmin(name_server: &str, args: &[&str]) -> Result<String> {
    mqadmin_through(&Door::default(), name_server, args).await
}

/// The same of servers that do not let everybody in.
pub(super) async fn mqadmin_through(
    door: &Door,
    name_server: &str,
    args: &[&str],
) -> Result<String> {
    let mut all: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    all.extend(["-n".to_owned(), name_server.to_owned()]);
    let command = all.join(" ");
    let failed = |output: String| RocketMqError::Mqadmin {
        command: command.clone(),
        output,
    };
    let door = door.clone();
    let run = move || {
        let mut output = run_tool(&door, &all)?;
        for _ in 1..TRIES {
            if !has_lost_an_interface(&output) {
                break;
            }
            output = run_tool(&door, &all)?;
        }
        Ok::<_, RocketMqError>(output)
    };
    let output = tokio::task::spawn_blocking(run)
        .await
        .map_err(|error| failed(error.to_string()))??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let exception = [&text, &errors]
        .iter()
        .any(|part| part.contains("Exception:") || part.contains("command is not supported"));
    if !output.status.success() || exception {
        return Err(failed(format!("{text}{errors}")));
    }
    Ok(text)
}

/// The tool looks for an address of its own before it does anything, and gives up when a network interface goes
/// while it looks: pods of a cluster on this machine come and go with theirs.
fn has_lost_an_interface(output: &std::process::Output) -> bool {
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    said.iter()
        .any(|text| text.contains("because \"localHost\" is null"))
}

fn run_tool(door: &Door, args: &[String]) -> Result<std::process::Output> {
    let lib = jars()?;
    // The tool keeps logs below its user's home.
    let home = tempfile::tempdir().map_err(RocketMqError::io(
        "create a directory in",
        &std::env::temp_dir(),
    ))?;
    if let Some((user, password)) = &door.user {
        let conf = home.path().join("conf");
        let tools = conf.join("tools.yml");
        let text = format!("accessKey: {user}\nsecretKey: {password}\n");
        std::fs::create_dir(&conf)
            .and_then(|()| std::fs::write(&tools, text))
            .map_err(RocketMqError::io("write", &tools))?;
    }
    run::command("java")
        .args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
        .args(&door.java)
        .arg(format!("-Duser.home={}", home.path().display()))
        .arg("-cp")
        .arg(lib.join("*"))
        .arg(MAIN)
        .args(args)
        .env("ROCKETMQ_HOME", home.path())
        .output()
        .map_err(RocketMqError::io("run", "java".as_ref()))
}

/// What the brokers hold of this group's progress in this topic, by queue.
pub async fn progress(name_server: &str, group: &str, topic: &str) -> Result<Vec<QueueProgress>> {
    progress_through(&Door::default(), name_server, group, topic).await
}

/// The same of servers that do not let everybody in.
pub(super) async fn progress_through(
    door: &Door,
    name_server: &str,
    group: &str,
    topic: &str,
) -> Result<Vec<QueueProgress>> {
    let args = ["consumerProgress", "-g", group, "-t", topic];
    parse(&mqadmin_through(door, name_server, &args).await?, topic)
}

fn parse(text: &str, topic: &str) -> Result<Vec<QueueProgress>> {
    let mut queues = Vec::new();
    for line in text.lines() {
        let columns: Vec<&str> = line.split_whitespace().collect();
        // Topic, broker, queue, broker offset, consumer offset, and more that is not needed.
        let [of, broker, queue, broker_offset, consumer_offset, ..] = columns[..] else {
            continue;
        };
        if of != topic {
            continue;
        }
        let read = || -> Option<QueueProgress> {
            Some(QueueProgress {
                broker: broker.to_owned(),
                queue: queue.parse().ok()?,
                broker_offset: broker_offset.parse().ok()?,
                consumer_offset: consumer_offset.parse().ok()?,
            })
        };
        queues.push(read().ok_or_else(|| RocketMqError::Unreadable {
            from: "mqadmin consumerProgress".to_owned(),
            reason: "not a row of the table".to_owned(),
            text: line.to_owned(),
        })?);
    }
    queues.sort_by(|a, b| (&a.broker, a.queue).cmp(&(&b.broker, b.queue)));
    Ok(queues)
}
