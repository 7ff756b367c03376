//! The processes of containers, which are processes of this machine too.

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{self, File};
use std::os::fd::OwnedFd;

/// The processes of one container. What has ended is not mistaken for another that has its number now.
pub struct Processes(Vec<(i32, OwnedFd)>);

impl Processes {
    /// Those of a container, by the id that the cluster knows it by.
    pub fn of(container: &str) -> Result<Self> {
        let id = container.rsplit('/').next().unwrap_or(container);
        ensure!(id.len() >= 32, "{container:?} is no id of a container");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("/proc cannot be read")? {
            let name = entry?.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let Some(pid) = Pid::from_raw(number) else {
                continue;
            };
            // First the handle, then the question: it is of the process that is asked about.
            let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
                continue;
            };
            let groups = fs::read_to_string(format!("/proc/{number}/cgroup"));
            if groups.is_ok_and(|groups| groups.contains(id)) {
                found.push((number, handle));
            }
        }
        Ok(Self(found))
    }

    /// With those of another.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Sends a signal to all of them that have not ended.
    pub fn signal(&self, signal: Signal) {
        for (_, process) in &self.0 {
            let _ended = pidfd_send_signal(process, signal);
        }
    }

    /// The network they are in. It is there as long as this file is open.
    pub fn network(&self) -> Result<File> {
        let (number, _) = self.0.first().context("the container has no process")?;
        let path = format!("/proc/{number}/ns/net");
        File::open(&path).with_context(|| format!("{path} cannot be opened"))
    }
}
