//! A terminal for a program that behaves otherwise where there is one, and what it has printed there so far.

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A program in a terminal of its own; killed when dropped.
pub struct Terminal {
    child: Child,
    screen: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts a program in it.
    pub fn start(mut command: Command) -> Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).context("there is no pseudoterminal to be had")?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let its = ioctl_tiocgptpeer(&ours, flags)?;
        command
            .stdin(its.try_clone()?)
            .stdout(its.try_clone()?)
            .stderr(its);
        let child = command.spawn()?;
        // Its side is held by the program alone from now on: what it prints ends with it.
        drop(command);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&screen);
        let reader = std::thread::spawn(move || read(File::from(ours), &shared));
        Ok(Self {
            child,
            screen,
            reader: Some(reader),
        })
    }

    /// What it has printed so far, with all that moves the cursor or colours.
    #[must_use]
    pub fn screen(&self) -> String {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&screen).into_owned()
    }

    /// Whether it has ended by itself, and how.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end; how it ended, and all that it printed.
    pub fn finish(mut self) -> Result<(ExitStatus, String)> {
        let status = self.child.wait()?;
        if let Some(reader) = self.reader.take() {
            ensure!(reader.join().is_ok(), "its terminal cannot be read");
        }
        Ok((status, self.screen()))
    }

    /// Ends it, which it must not have done by itself; how it ended then. Not by the signal of Ctrl-C: who started
    /// the tests may have them ignore that.
    pub fn stop(mut self) -> Result<ExitStatus> {
        ensure!(self.ended()?.is_none(), "it has ended before");
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _ended_before = self.child.wait();
    }
}

/// Reads until nobody has the other side any more, which is an error here.
fn read(mut ours: File, screen: &Mutex<Vec<u8>>) {
    let mut part = [0; 4096];
    loop {
        match ours.read(&mut part) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(length) => {
                let mut screen = screen.lock().unwrap_or_else(PoisonError::into_inner);
                screen.extend_from_slice(&part[..length]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::time::Duration;

    #[test]
    fn all_that_is_printed_is_there_at_the_end() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "test -t 1 && seq 10000; exit 3"]);
        let (status, screen) = Terminal::start(shell).unwrap().finish().unwrap();
        assert_eq!(status.code(), Some(3));
        assert!(screen.trim_end().ends_with("10000"), "{screen}");
    }

    #[tokio::test]
    async fn what_is_printed_in_a_terminal_is_seen_until_it_is_stopped() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "test -t 1 && echo a terminal; exec sleep 600"]);
        let mut terminal = Terminal::start(shell).unwrap();
        let limit = Duration::from_secs(30);
        crate::wait::until(limit, "a line", async || {
            let screen = terminal.screen();
            screen.contains("a terminal").then_some(()).ok_or(screen)
        })
        .await
        .unwrap();
        assert_eq!(terminal.ended().unwrap(), None);
        // Whether the shell is still one or the sleep already: either ends.
        let status = terminal.stop().unwrap();
        assert_eq!(status.signal(), Some(15));
    }
}
