//! Processes that never outlive this one, not even when it is killed.
//!
//! The kernel ends a child when the *thread* that started it ends (`setpriv --pdeathsig`), so one
//! thread that lives as long as the process starts them all. Directories of such processes are
//! removed by a shell that waits for the end of a pipe only this process holds.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{OnceLock, mpsc};

use rustix::process::{Pid, Signal};

use crate::cluster::{ClusterError, Result, run};

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// A child that is killed with us, and when it is dropped.
#[derive(Debug)]
pub(crate) struct Tied {
    child: Child,
}

impl Tied {
    /// Starts `program` with these arguments, its output at the end of `log`.
    pub(crate) fn start(
        program: &str,
        args: &[String],
        env: &[(&str, &str)],
        log: &Path,
    ) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(ClusterError::io("open", log))?;
        let err = out.try_clone().map_err(ClusterError::io("open", log))?;
        let mut command = run::command("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", program])
            .args(args)
            .envs(env.iter().copied())
            .stdout(out)
            .stderr(err)
            // Ctrl-C in a terminal is for the tests, which then stop what they started.
            .process_group(0);
        let (reply, child) = mpsc::channel();
        let gone = || io::Error::other("the thread that starts processes is gone");
        let child = starter()
            .send((command, reply))
            .map_err(|_| gone())
            .and_then(|()| child.recv().map_err(|_| gone())?)
            .map_err(ClusterError::io("run", Path::new(program)))?;
        Ok(Self { child })
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Sends a signal unless it has ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.ended().is_some() {
            return;
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Not reaped yet, so the number is still this child's.
            let _gone = rustix::process::kill_process(pid, signal);
        }
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        self.kill();
    }
}

fn starter() -> mpsc::Sender<Job> {
    static STARTER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    STARTER
        .get_or_init(|| {
            let (jobs, todo) = mpsc::channel::<Job>();
            std::thread::spawn(move || {
                for (mut command, reply) in todo {
                    if let Err(mpsc::SendError(Ok(mut unwanted))) = reply.send(command.spawn()) {
                        let _gone = unwanted.kill();
                        let _reaped = unwanted.wait();
                    }
                }
            });
            jobs
        })
        .clone()
}

/// Removes a directory when this process has ended, or when it is dropped.
#[derive(Debug)]
pub(crate) struct Sweeper {
    shell: Child,
    end: Option<ChildStdin>,
}

impl Sweeper {
    /// Watches over `dir`.
    pub(crate) fn of(dir: &Path) -> Result<Self> {
        // Killed processes may still write for an instant, so removing is tried again.
        let script = "cat >/dev/null; for i in 1 2 3 4 5 6 7 8 9; do rm -rf \"$1\" && exit 0; \
                      sleep 0.3; done";
        let mut shell = run::command("sh")
            .args(["-c", script, "sh"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(ClusterError::io("watch over", dir))?;
        let end = shell.stdin.take();
        Ok(Self { shell, end })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.end.take());
        let _reaped = self.shell.wait();
    }
}
