//! The systems that run under the same schedule: Keylane, and those that it is measured beside.

use crate::peer::{self, Peer};
use crate::schedule::Kind;
use anyhow::{Result, ensure};
use keylane_tests::cluster::Paths;
use keylane_tests::images::workspace::{PROGRAMS, release_binaries};
use std::path::{Path, PathBuf};

/// What consumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Keylane's executor.
    Keylane,
    /// Another consumer.
    Peer(Peer),
}

impl System {
    /// The name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keylane => "keylane",
            Self::Peer(peer) => peer.name(),
        }
    }

    /// What happens to it in place of an event that makes no sense for it.
    pub fn instead(self, of: Kind) -> Option<&'static str> {
        match self {
            Self::Keylane => None,
            Self::Peer(peer) => peer.instead(of),
        }
    }

    /// Whether a process that was asked to end and gave this exit code did so in good order.
    pub fn ends_well(self, code: Option<i32>) -> bool {
        match self {
            Self::Keylane => code == Some(0),
            Self::Peer(peer) => code == Some(0) || code == Some(peer.ended_before_its_begin()),
        }
    }

    /// The executor (`given`, or this workspace's), or the peer's classes in `directory`.
    pub async fn program(self, given: Option<&Path>, directory: &Path) -> Result<PathBuf> {
        let directory = directory.to_path_buf();
        match (self, given) {
            (Self::Peer(_), _) => {
                tokio::task::spawn_blocking(move || peer::compile(&directory)).await?
            }
            (Self::Keylane, Some(given)) => {
                // Said at once, and not after a piece in which nobody called a handler.
                ensure!(
                    given.is_file(),
                    "--consumer: {} is no file",
                    given.display()
                );
                Ok(given.to_path_buf())
            }
            (Self::Keylane, None) => {
                let built = || release_binaries(&Paths::from_env(), &PROGRAMS);
                let built = tokio::task::spawn_blocking(built).await?;
                Ok(built?.swap_remove(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_executor_that_is_not_there_is_refused_before_anything_is_run() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("executor");
        let given = System::Keylane.program(Some(&missing), directory.path());
        let refused = given.await.unwrap_err().to_string();
        assert!(refused.contains("--consumer"), "{refused}");
        std::fs::write(&missing, "").unwrap();
        let given = System::Keylane.program(Some(&missing), directory.path());
        assert_eq!(given.await.unwrap(), missing);
    }

    #[test]
    fn a_java_process_that_ended_before_its_program_began_had_nothing_to_put_in_order() {
        let java = System::Peer(Peer::JavaOrderly);
        let well =
            |system: System| [Some(0), Some(143), Some(1), None].map(|c| system.ends_well(c));
        assert_eq!(well(java), [true, true, false, false]);
        assert_eq!(well(System::Keylane), [true, false, false, false]);
    }
}
