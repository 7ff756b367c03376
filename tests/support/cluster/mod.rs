//! A real Kubernetes for tests and the demo: one made on this machine, or one the user has.
//!
//! The local one is built from source, runs as plain processes, keeps everything in the cache
//! directory and listens on loopback and on its own bridge only. `up` and `down` may be repeated,
//! and `up` also works after the processes were killed or the machine was restarted. Commands that
//! change it take turns.
//!
//! Not wired: host ports of pods, LoadBalancer Services, network policies, storage classes.

pub mod binaries;
mod cgroup;
mod components;
mod config;
pub mod disk;
pub mod error;
mod external;
mod handle;
mod local;
pub mod lock;
mod net;
pub mod packages;
pub mod paths;
mod pki;
mod process;
pub mod progress;
mod room;
pub mod run;
mod teardown;
pub mod wait;

pub use error::{ClusterError, Result};
pub use handle::{Cluster, Target};
pub use local::{down, status, up_local};
pub use net::NODE_IP;
pub use paths::Paths;

/// The cluster named by `KEYLANE_TEST_CONTEXT`, else the local one, started if it does not run.
pub fn up() -> Result<Cluster> {
    Target::from_env().up(&Paths::from_env())
}
