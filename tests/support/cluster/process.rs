//! Long-running parts of the cluster: started so that they outlive the command that started them,
//! recorded, and only ever signalled when the recorded process is still the same one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::binaries::write;
use super::error::{ClusterError, Result};
use super::paths::Paths;
use super::run;
use super::wait::{self, Pending};

/// A process, told apart from any later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The process id.
    pub pid: i32,
    /// Start time in clock ticks after boot.
    started: u64,
    /// The boot it was started in.
    boot: String,
}

impl Identity {
    /// The process that has this id now; `None` when there is none, or only a zombie.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, started) = parse_stat(&stat)?;
        if state == 'Z' || state == 'X' {
            return None;
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Some(Self {
            pid,
            started,
            boot: boot.trim().to_owned(),
        })
    }

    /// Whether this very process still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal if this very process still runs.
    pub fn signal(&self, signal: Signal) {
        if let (true, Some(pid)) = (self.is_alive(), Pid::from_raw(self.pid)) {
            // It may end between the look and the signal, which is what was wanted.
            let _gone = rustix::process::kill_process(pid, signal);
        }
    }
}

/// State and start time out of `/proc/PID/stat`; the name in it may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

/// A part to start.
#[derive(Debug)]
pub struct Daemon {
    /// Its name in records and logs.
    pub name: &'static str,
    /// Its program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

/// Starts a part with its output in its log file and records it.
pub fn start(paths: &Paths, daemon: &Daemon) -> Result<()> {
    let log = paths.log(daemon.name);
    let out = run::create_log(&log)?;
    let err = out.try_clone().map_err(ClusterError::io("open", &log))?;
    // The shell closes what a caller may have left open, so that nobody waits for a daemon to close
    // a pipe; setsid takes it off the terminal. Both exec, so the child's id is the daemon's.
    let script = "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec setsid \"$@\"";
    let child = run::command("sh")
        .env_clear()
        .env("PATH", run::search_path())
        .env(
            "HOME",
            std::env::var_os("HOME").unwrap_or_else(|| "/".into()),
        )
        .current_dir(paths.state())
        .args(["-c", script, "sh"])
        .arg(&daemon.program)
        .args(&daemon.args)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(ClusterError::io("run", &daemon.program))?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let Some(identity) = Identity::of(pid) else {
        return Err(ended(paths, daemon.name));
    };
    let text = serde_json::to_string(&identity).unwrap_or_default();
    write(&record(paths, daemon.name), &text)
}

/// The recorded process of a part, if it still runs.
#[must_use]
pub fn running(paths: &Paths, name: &str) -> Option<Identity> {
    recorded(&record(paths, name)).filter(Identity::is_alive)
}

/// A waiting probe's check that a part has not ended meanwhile.
pub fn still_running(paths: &Paths, name: &str) -> std::result::Result<(), Pending> {
    match running(paths, name) {
        Some(_) => Ok(()),
        None => Err(Pending::Never(ended(paths, name))),
    }
}

fn ended(paths: &Paths, name: &str) -> ClusterError {
    let log = paths.log(name);
    let text = fs::read_to_string(&log).unwrap_or_default();
    ClusterError::Failed {
        what: name.to_owned(),
        status: "it ended by itself".to_owned(),
        tail: run::tail(&text),
        log: Some(log),
    }
}

/// Every recorded process that still runs.
#[must_use]
pub fn all_running(paths: &Paths) -> Vec<Identity> {
    let Ok(entries) = fs::read_dir(paths.state().join("pids")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| recorded(&entry.path()))
        .filter(Identity::is_alive)
        .collect()
}

/// Ends processes at once.
pub fn kill(processes: &[Identity]) -> Result<()> {
    for process in processes {
        process.signal(Signal::KILL);
    }
    wait::until(
        "processes gone",
        Duration::from_secs(20),
        None,
        || match processes.iter().find(|process| process.is_alive()) {
            Some(process) => Err(format!("process {} still runs", process.pid).into()),
            None => Ok(()),
        },
    )
}

/// Every process whose command line satisfies `wanted`.
#[must_use]
pub fn with_command_line(wanted: impl Fn(&[String]) -> bool) -> Vec<Identity> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let args: Vec<String> = line
                .split(|byte| *byte == 0)
                .map(|arg| String::from_utf8_lossy(arg).into_owned())
                .collect();
            wanted(&args)
        })
        .filter_map(Identity::of)
        .collect()
}

fn record(paths: &Paths, name: &str) -> PathBuf {
    paths.state().join("pids").join(format!("{name}.json"))
}

fn recorded(path: &Path) -> Option<Identity> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_look_like_the_rest_of_the_line() {
        let stat = "7 (a) Z (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1000 2";
        assert_eq!(parse_stat(stat), Some(('S', 4242)));
        assert_eq!(parse_stat("7 (a"), None);
    }

    #[test]
    fn a_record_of_another_start_or_boot_is_not_our_process() {
        let me = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        let reused = Identity {
            started: me.started + 1,
            ..me.clone()
        };
        assert!(!reused.is_alive());
        let rebooted = Identity {
            boot: "before".to_owned(),
            ..me
        };
        assert!(!rebooted.is_alive());
    }

    #[test]
    fn kill_returns_when_the_process_is_gone() {
        let mut child = run::command("sh")
            .args(["-c", "trap '' TERM; echo ready; exec tail -f /dev/null"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let process = Identity::of(i32::try_from(child.id()).unwrap()).unwrap();
        kill(std::slice::from_ref(&process)).unwrap();
        assert!(!process.is_alive());
        child.wait().unwrap();
    }
}
