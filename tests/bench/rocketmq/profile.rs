//! Where Keylane's process spends its processor time, by the kernel's own sampling (`perf`).

mod costs;
mod symbols;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use tempfile::NamedTempFile;

/// Samples a second and processor.
const RATE: &str = "499";
/// How far the kernel lets programs look (`Documentation/admin-guide/sysctl/kernel.rst`).
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";
const NO_PERF: &str =
    "--profile needs perf, which cannot be started: on Debian it is in the package linux-perf";
const NO_NAMES: &str = "--profile needs the names of functions, which release builds leave out: set \
                        CARGO_PROFILE_RELEASE_STRIP=none in the environment and start again, which builds all anew";

/// Whether a program can be looked at here; the error says what to do. To be asked before anything is measured,
/// which takes minutes.
pub fn check(program: &Path) -> Result<()> {
    let samples = NamedTempFile::new()?;
    let tried = perf(&["record", "--quiet", "--freq", RATE, "--output"])
        .arg(samples.path())
        .args(["--", "true"])
        .output()
        .context(NO_PERF)?;
    let paranoid = std::fs::read_to_string(PARANOID).unwrap_or_default();
    ensure!(tried.status.success(), refused(&tried, paranoid.trim()));
    let bytes = std::fs::read(program);
    let bytes = bytes.with_context(|| format!("{} cannot be read", program.display()))?;
    ensure!(!symbols::are_stripped(&bytes), NO_NAMES);
    Ok(())
}

fn perf(arguments: &[&str]) -> Command {
    let mut perf = Command::new("perf");
    perf.args(arguments).stdin(Stdio::null());
    perf
}

/// What perf said when it would not record, and what lets it.
fn refused(tried: &Output, paranoid: &str) -> String {
    let said = String::from_utf8_lossy(&tried.stderr);
    format!(
        "--profile: perf may not record here ({}). {PARANOID} is {paranoid:?}: as root let programs look at their \
         own by `sysctl kernel.perf_event_paranoid=1`, in a container with the capability PERFMON. perf says: {}",
        tried.status,
        said.trim()
    )
}

/// A recording that is made.
pub struct Profile {
    perf: Child,
    samples: NamedTempFile,
}

impl Profile {
    /// Records a process from now on, to its end at most.
    pub fn of(pid: u32) -> Result<Self> {
        let samples = NamedTempFile::new()?;
        let perf = perf(&["record", "--quiet", "--freq", RATE, "--pid"])
            .arg(pid.to_string())
            .arg("--output")
            .arg(samples.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context(NO_PERF)?;
        Ok(Self { perf, samples })
    }

    /// Ends it and says in words what cost most, each with its share in percent.
    pub fn costs(mut self) -> Result<Vec<String>> {
        if self.perf.try_wait()?.is_none() {
            kill_process(Pid::from_child(&self.perf), Signal::INT)?;
        }
        self.perf.wait()?;
        let report = perf(&["report", "--stdio", "--sort", "dso,symbol", "--input"])
            .arg(self.samples.path())
            .output()
            .context(NO_PERF)?;
        let costs = costs::read(&String::from_utf8_lossy(&report.stdout));
        ensure!(
            !costs.is_empty(),
            "perf has no samples: the process ended too soon, give it more --messages. perf says: {}",
            String::from_utf8_lossy(&report.stderr).trim()
        );
        Ok(costs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    #[test]
    fn who_may_not_record_is_told_what_lets_them() {
        let tried = Output {
            status: ExitStatus::from_raw(255 << 8),
            stdout: Vec::new(),
            stderr: b"Access to performance monitoring is limited.\n".into(),
        };
        let said = refused(&tried, "4");
        for part in [
            "perf_event_paranoid is \"4\"",
            "sysctl kernel.perf_event_paranoid=1",
            "PERFMON",
            "monitoring is limited.",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
}
