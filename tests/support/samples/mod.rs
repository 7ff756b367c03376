//! The samples of `consumer/samples`, built and started as a user would, and what they log of each call.

mod deployed;

pub use deployed::Deployed;

use crate::cluster::error::{ClusterError, Result};
use crate::cluster::lock::take_turn;
use crate::cluster::packages::{self, ensure_go};
use crate::cluster::{Paths, run};
use crate::images::workspace::{PROGRAMS, release_binaries, workspace};
use crate::judge::{Ended, Judge, Micros, Report, Reported};
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// A sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sample {
    /// A handler behind HTTP.
    Python,
    /// A handler behind gRPC.
    Go,
    /// A program with the library.
    Rust,
}

impl Sample {
    /// Its directory's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Go => "go",
            Self::Rust => "rust",
        }
    }

    fn dir(self) -> PathBuf {
        workspace().join("consumer/samples").join(self.name())
    }

    /// The Kubernetes object beside it.
    pub fn manifest(self) -> Result<Value> {
        let file = match self {
            Self::Python | Self::Go => "ordered-consumer.yaml",
            Self::Rust => "deployment.yaml",
        };
        let path = self.dir().join(file);
        let text = std::fs::read_to_string(&path).map_err(ClusterError::io("read", &path))?;
        serde_norway::from_str(&text).map_err(|error| ClusterError::Input {
            field: "the manifest of a sample",
            value: path.display().to_string(),
            reason: error.to_string(),
        })
    }

    /// What an image of it is made of beside its Containerfile, built if it is to be.
    pub fn program(self, paths: &Paths) -> Result<PathBuf> {
        match self {
            Self::Python => Ok(self.dir().join("handler.py")),
            Self::Go => {
                ensure_go()?;
                let program = paths.bin().join("order-handler-go");
                let mut build = run::command("go");
                build
                    .current_dir(self.dir())
                    .env("CGO_ENABLED", "0")
                    .env("GOWORK", "off")
                    .env("GOFLAGS", "-mod=readonly -buildvcs=false")
                    .args(["build", "-trimpath", "-o"])
                    .arg(&program)
                    .arg(".");
                run::output("building the sample in Go", &mut build)?;
                Ok(program)
            }
            Self::Rust => Ok(release_binaries(paths, &PROGRAMS)?.swap_remove(3)),
        }
    }

    /// The command that runs it here.
    pub fn command(self, paths: &Paths) -> Result<Command> {
        let program = self.program(paths)?;
        if self != Self::Python {
            return Ok(Command::new(program));
        }
        let _turn = take_turn(
            &paths.images_lock(),
            "another command that installs programs",
        )?;
        packages::ensure(paths, &packages::PYTHON)?;
        let mut command = run::command("python3");
        command.arg(program);
        Ok(command)
    }
}

/// What a sample logs of a call.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    source: String,
    key: Option<String>,
    sequence: u64,
    #[serde(rename = "attempt")]
    _attempt: u32,
    started_us: Micros,
    ended_us: Micros,
    ok: bool,
}

/// A judge of what samples log.
#[derive(Debug, Default)]
pub struct Record {
    judge: Judge,
    lines: u64,
}

impl Record {
    /// Adds a line of a process; the error is what is wrong with it.
    pub fn take(&mut self, process: &str, line: &str) -> serde_json::Result<()> {
        let line: Line = serde_json::from_str(line)?;
        self.lines += 1;
        self.judge.take(Report {
            handler: process.to_owned(),
            sequence: self.lines,
            at: line.ended_us,
            calls: vec![Reported {
                id: self.lines,
                queue: line.source,
                key: line.key,
                offset: line.sequence,
                start: line.started_us,
                end: Some(Ended {
                    at: line.ended_us,
                    ok: line.ok,
                }),
            }],
        });
        Ok(())
    }

    /// The judge.
    #[must_use]
    pub fn judge(&self) -> &Judge {
        &self.judge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sequence: u64, started: Micros, ended: Micros) -> String {
        format!(
            r#"{{"source":"rocketmq://b/T/0","key":"order-1","sequence":{sequence},"attempt":1,"startedUs":{started},"endedUs":{ended},"ok":true}}"#
        )
    }

    #[test]
    fn what_processes_log_is_judged_together() {
        let mut record = Record::default();
        record.take("first", &line(1, 10, 20)).unwrap();
        record.take("second", &line(0, 15, 30)).unwrap();
        assert!(record.take("first", "listening on 127.0.0.1:8080").is_err());
        let verdict = record.judge().verdict();
        assert_eq!((verdict.distinct, verdict.duplicates), (2, 0));
        assert_eq!((verdict.inversions, verdict.overlaps), (1, 1));
    }
}
