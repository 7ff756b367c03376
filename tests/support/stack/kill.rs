//! A pod that is gone from one moment to the next, as when its node fails.

use super::Stack;
use anyhow::{Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What the kernel calls the executor: it keeps 15 letters of a name.
const EXECUTOR: &str = "keylane-consume";
/// Longer than a handler takes to tell the judge of its last calls.
const TOLD: Duration = Duration::from_millis(300);

impl Stack {
    /// Kills all processes of a pod where they are processes of this machine, and deletes it by force: nobody
    /// hears how it ended. On another cluster the kubelet leaves them two seconds.
    pub fn kill_pod(&self, name: &str) -> Result<()> {
        let uid = self.kubectl(&["get", "pod", name, "--output=jsonpath={.metadata.uid}"])?;
        let uid = uid.trim();
        // Part of a name would be that of every pod.
        ensure!(uid.len() == 36, "{uid:?} is no uid of a pod");
        if self.cluster.is_local() {
            let group = format!("pod{uid}");
            // What its handler has done the judge must hear of: else it is taken for lost, if the executor
            // committed it in the last moment.
            kill_all_in(&group, |name| name == EXECUTOR);
            std::thread::sleep(TOLD);
            kill_all_in(&group, |_| true);
        }
        self.kubectl(&["delete", "pod", name, "--force", "--grace-period=0"])?;
        Ok(())
    }
}

/// Kills the processes of this name in a cgroup with that in its path.
fn kill_all_in(group: &str, is_meant: impl Fn(&str) -> bool) {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else {
            continue;
        };
        // First the handle, then the questions: they are of the process that is asked about.
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        if read(&entry.path(), "cgroup").contains(group)
            && is_meant(read(&entry.path(), "comm").trim())
        {
            let _ended = pidfd_send_signal(&handle, Signal::KILL);
        }
    }
}

/// What the kernel says of a process; nothing of one that is gone.
fn read(process: &Path, what: &str) -> String {
    fs::read_to_string(process.join(what)).unwrap_or_default()
}
