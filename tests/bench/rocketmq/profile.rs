//! Where Keylane's process spends its processor time, by the kernel's own sampling (`perf`).

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, Stdio};
use tempfile::NamedTempFile;

/// Samples a second and processor.
const RATE: &str = "499";
/// How many costs are told.
const COSTS: usize = 5;

/// A recording that is made.
pub struct Profile {
    perf: Child,
    samples: NamedTempFile,
}

impl Profile {
    /// Records a process from now on, to its end at most.
    pub fn of(pid: u32) -> Result<Self> {
        let samples = NamedTempFile::new()?;
        let perf = Command::new("perf")
            .args(["record", "--quiet", "--freq", RATE, "--pid"])
            .arg(pid.to_string())
            .arg("--output")
            .arg(samples.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let perf = perf.context("--profile needs perf, on Debian in the package linux-perf")?;
        Ok(Self { perf, samples })
    }

    /// Ends it and gives the functions that cost most, each with its share in percent.
    pub fn costs(mut self) -> Result<Vec<String>> {
        if self.perf.try_wait()?.is_none() {
            kill_process(Pid::from_child(&self.perf), Signal::INT)?;
        }
        self.perf.wait()?;
        let report = Command::new("perf")
            .args(["report", "--stdio", "--sort", "dso,symbol", "--input"])
            .arg(self.samples.path())
            .stdin(Stdio::null())
            .output()?;
        let costs = read(&String::from_utf8_lossy(&report.stdout));
        ensure!(
            !costs.is_empty(),
            "perf has no samples; give it more --messages: {}",
            String::from_utf8_lossy(&report.stderr).trim()
        );
        Ok(costs)
    }
}

/// The first rows of a report.
fn read(report: &str) -> Vec<String> {
    let rows = report.lines().map(str::trim);
    let rows = rows.filter(|row| row.contains('%') && !row.starts_with('#'));
    // After the function come columns of counters that most machines do not have.
    let rows = rows.map(|row| row.trim_end_matches([' ', '-']));
    rows.take(COSTS).map(str::to_owned).collect()
}
