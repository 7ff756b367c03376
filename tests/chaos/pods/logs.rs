//! The logs of executors, kept beyond their pods.

use super::look::EXECUTOR;
use crate::subject::Subject;
use anyhow::{Context as _, Result};
use keylane_tests::stack::Stack;
use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::{Child, Command};

/// Writes the logs of a run.
pub struct Logs {
    kubectl: Box<dyn Fn() -> Command>,
    directory: PathBuf,
    /// Each ends with its container, or when this is dropped.
    following: Vec<Child>,
}

impl Logs {
    /// Of pods of a stack.
    pub fn new(stack: &Stack, subject: &Subject) -> Self {
        let (cluster, namespace) = (stack.cluster().clone(), stack.namespace().to_owned());
        let kubectl = move || {
            let mut command = Command::from(cluster.kubectl());
            command.args(["--namespace", &namespace]);
            command
        };
        Self {
            kubectl: Box::new(kubectl),
            directory: subject.logs.clone(),
            following: Vec::new(),
        }
    }

    /// Writes what an executor that was started now says.
    pub fn follow(&mut self, pod: &str) -> Result<()> {
        let log = self.directory.join(format!("{pod}.log"));
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("{} cannot be written", log.display()))?;
        let mut command = (self.kubectl)();
        command.args(["logs", "--follow", "--container", EXECUTOR, pod]);
        command
            .stdout(out.try_clone()?)
            .stderr(out)
            .kill_on_drop(true);
        let child = command.stdin(Stdio::null()).spawn();
        self.following
            .push(child.context("kubectl cannot be started")?);
        Ok(())
    }
}
