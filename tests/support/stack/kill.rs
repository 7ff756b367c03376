//! A pod that is gone from one moment to the next, as when its node fails.

use super::Stack;
use anyhow::{Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;

impl Stack {
    /// Kills all processes of a pod where they are processes of this machine, and deletes it by force: nobody
    /// hears how it ended. On another cluster the kubelet leaves them two seconds.
    pub fn kill_pod(&self, name: &str) -> Result<()> {
        let uid = self.kubectl(&["get", "pod", name, "--output=jsonpath={.metadata.uid}"])?;
        let uid = uid.trim();
        // Part of a name would be that of every pod.
        ensure!(uid.len() == 36, "{uid:?} is no uid of a pod");
        if self.cluster.is_local() {
            kill_all_in(&format!("pod{uid}"));
        }
        self.kubectl(&["delete", "pod", name, "--force", "--grace-period=0"])?;
        Ok(())
    }
}

/// Kills every process in a cgroup with this name in its path.
fn kill_all_in(group: &str) {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else {
            continue;
        };
        // First the handle, then the question: it is of the process that is asked about.
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        let groups = fs::read_to_string(entry.path().join("cgroup"));
        if groups.is_ok_and(|groups| groups.contains(group)) {
            let _ended = pidfd_send_signal(&handle, Signal::KILL);
        }
    }
}
