//! Running programs to their end: found also where a bare PATH misses them, with their output kept.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use super::error::{ClusterError, Result};
use super::progress::Reminder;

/// Directories of system programs that a user's PATH often lacks.
const SYSTEM_DIRS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// PATH with the system directories added at its end.
#[must_use]
pub fn search_path() -> String {
    let mut path = std::env::var("PATH").unwrap_or_default();
    for dir in SYSTEM_DIRS {
        if !path.split(':').any(|have| have == dir) {
            if !path.is_empty() {
                path.push(':');
            }
            path.push_str(dir);
        }
    }
    path
}

/// The first executable of that name on the search path.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    search_path()
        .split(':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| Path::new(dir).join(program))
        .find(|path| {
            path.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

/// A command that finds system programs, reads nothing and goes round no proxy on its way to the
/// cluster.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let program = program.as_ref();
    // `Command` searches our own PATH, not the one set for the child.
    let resolved = program.to_str().and_then(find);
    let mut command = match &resolved {
        Some(path) => Command::new(path),
        None => Command::new(program),
    };
    command.env("PATH", search_path()).stdin(Stdio::null());
    command
}

/// Runs a short program and gives its standard output; `what` names the work in an error.
pub fn output(what: &str, command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .map_err(ClusterError::io("run", Path::new(command.get_program())))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(what, &output))
}

/// Runs a short program and feeds it `input`.
pub fn feed(what: &str, command: &mut Command, input: &str) -> Result<String> {
    use std::io::Write;
    let program = PathBuf::from(command.get_program());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(ClusterError::io("run", &program))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early tells why itself.
        let _ended_early = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(ClusterError::io("run", &program))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(what, &output))
}

/// Runs a long program with its output in a log file, reminding the reader of it.
pub fn logged(what: &str, command: &mut Command, log: &Path) -> Result<()> {
    let program = PathBuf::from(command.get_program());
    let file = create_log(log)?;
    let copy = file.try_clone().map_err(ClusterError::io("open", log))?;
    let mut child = command
        .stdout(file)
        .stderr(copy)
        .spawn()
        .map_err(ClusterError::io("run", &program))?;
    let mut reminder = Reminder::new(Instant::now());
    let status = loop {
        if let Some(status) = child
            .try_wait()
            .map_err(ClusterError::io("run", &program))?
        {
            break status;
        }
        reminder.tick(Instant::now(), Some(log));
        std::thread::sleep(std::time::Duration::from_millis(30));
    };
    if status.success() {
        return Ok(());
    }
    Err(ClusterError::Failed {
        what: what.to_owned(),
        status: status.to_string(),
        tail: tail(&std::fs::read_to_string(log).unwrap_or_default()),
        log: Some(log.to_path_buf()),
    })
}

/// Opens a log file afresh, with its directory.
pub fn create_log(log: &Path) -> Result<File> {
    if let Some(dir) = log.parent() {
        std::fs::create_dir_all(dir).map_err(ClusterError::io("create", dir))?;
    }
    File::create(log).map_err(ClusterError::io("create", log))
}

fn failed(what: &str, output: &Output) -> ClusterError {
    let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
    if text.trim().is_empty() {
        text = String::from_utf8_lossy(&output.stdout).into_owned();
    }
    ClusterError::Failed {
        what: what.to_owned(),
        status: output.status.to_string(),
        tail: tail(&text),
        log: None,
    }
}

/// The last lines of a text, on one line.
#[must_use]
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let from = lines.len().saturating_sub(4);
    lines[from..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_four_lines_with_text() {
        assert_eq!(tail("a\nb\n\nc\nd\ne\n\n"), "b | c | d | e");
        assert_eq!(tail(""), "");
    }

    #[test]
    fn a_failing_program_is_told_with_its_words_and_status() {
        let mut sh = command("sh");
        sh.args(["-c", "echo no such thing >&2; exit 3"]);
        let error = output("the check", &mut sh).unwrap_err().to_string();
        assert_eq!(error, "the check failed (exit status: 3): no such thing");
    }

    #[test]
    fn programs_are_found_by_name_only_when_they_can_run() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-of-keylane").is_none());
    }
}
