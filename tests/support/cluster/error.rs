//! What can stop a step, said so that the reader knows what to do next.

use std::path::{Path, PathBuf};

/// Why a cluster or an image could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The local cluster needs Linux kernel features.
    #[error(
        "the local cluster needs Linux, this is {0}; use a cluster you have with `--context NAME` \
         (or KEYLANE_TEST_CONTEXT=NAME)"
    )]
    NotLinux(&'static str),
    /// Network namespaces, mounts and cgroups need root.
    #[error(
        "the local cluster needs root (mounts, network namespaces, cgroups), this is user id {0}; \
         run it as root, or use a cluster you have with `--context NAME` (or KEYLANE_TEST_CONTEXT=NAME)"
    )]
    NotRoot(u32),
    /// A program is missing and could not be installed.
    #[error("`{command}` is missing: {reason}; install {package} and run this again")]
    MissingCommand {
        /// The program or file looked for.
        command: String,
        /// What provides it.
        package: String,
        /// Why it was not installed.
        reason: String,
    },
    /// Another process listens where a part of the cluster has to.
    #[error("{part} needs {address}, which {holder} holds; stop that process and run this again")]
    PortTaken {
        /// The part of the cluster.
        part: &'static str,
        /// Address and port.
        address: std::net::SocketAddr,
        /// Who holds it, as far as known.
        holder: String,
    },
    /// The cluster's addresses are in use on another interface.
    #[error(
        "the pod network {network} is in use on interface {interface}; remove that interface, or use \
         a cluster you have with `--context NAME` (or KEYLANE_TEST_CONTEXT=NAME)"
    )]
    NetworkTaken {
        /// The network wanted.
        network: &'static str,
        /// The interface that has it.
        interface: String,
    },
    /// The disk would be too full for a broker.
    #[error(
        "the disk of {} is {percent} % full ({free} GiB free) and this takes {need} GiB more, while RocketMQ's broker \
         refuses messages on a disk that is more than 90 % full: free {missing} GiB, or put the cache on another \
         disk with KEYLANE_CACHE (and what cargo builds with CARGO_TARGET_DIR)",
        .path.display()
    )]
    DiskFull {
        /// A directory on it.
        path: PathBuf,
        /// How full it is, in hundredths.
        percent: u64,
        /// What is needed, in GiB.
        need: u64,
        /// What is free, in GiB.
        free: u64,
        /// What is to be freed, in GiB.
        missing: u64,
    },
    /// Another Kubernetes runs on this machine.
    #[error(
        "another Kubernetes node runs on this machine (process {pid}), and two cannot share one set \
         of iptables chains; use it with `--context NAME` (or KEYLANE_TEST_CONTEXT=NAME), or stop it"
    )]
    AnotherKubernetes {
        /// A process of it.
        pid: i32,
    },
    /// A program ended with an error.
    #[error("{what} failed ({status}): {tail}{}", log_hint(.log.as_deref()))]
    Failed {
        /// The work that was tried.
        what: String,
        /// How the program ended.
        status: String,
        /// The end of what it printed.
        tail: String,
        /// Where the whole output is.
        log: Option<PathBuf>,
    },
    /// Something did not become true in time.
    #[error("{what} not within {seconds} s: {last}{}", log_hint(.log.as_deref()))]
    TimedOut {
        /// What was awaited.
        what: String,
        /// How long.
        seconds: u64,
        /// The last answer seen.
        last: String,
        /// A log that may say why.
        log: Option<PathBuf>,
    },
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A certificate could not be made.
    #[error("cannot make the certificate of {name}: {source}")]
    Certificate {
        /// Whose certificate.
        name: String,
        /// Why not.
        source: rcgen::Error,
    },
    /// There is no running cluster to use.
    #[error("no cluster is running here; start one with `cargo cluster up`")]
    NotUp,
    /// A kubeconfig could not be used by the client.
    #[error("cannot use the kubeconfig {}: {reason}", .path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A given input cannot be used.
    #[error("{field} is {value}: {reason}")]
    Input {
        /// What was given.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong and what would be right.
        reason: String,
    },
}

impl ClusterError {
    /// An adapter for `map_err` that keeps what was tried and on which path.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// The result of everything in this module.
pub type Result<T> = std::result::Result<T, ClusterError>;

fn log_hint(log: Option<&Path>) -> String {
    log.map(|log| format!(" (log: {})", log.display()))
        .unwrap_or_default()
}
