//! The systems that run under the same schedule: Keylane, and those that it is measured beside.

use crate::peer::{self, Peer};
use crate::schedule::Kind;
use anyhow::Result;
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

    /// The executor (`given`, or this workspace's), or the peer's classes in `directory`.
    pub async fn program(self, given: Option<&Path>, directory: &Path) -> Result<PathBuf> {
        let directory = directory.to_path_buf();
        match (self, given) {
            (Self::Peer(_), _) => {
                tokio::task::spawn_blocking(move || peer::compile(&directory)).await?
            }
            (Self::Keylane, Some(given)) => Ok(given.to_path_buf()),
            (Self::Keylane, None) => {
                let built = || release_binaries(&Paths::from_env(), &PROGRAMS);
                let built = tokio::task::spawn_blocking(built).await?;
                Ok(built?.swap_remove(1))
            }
        }
    }
}
