//! What can go wrong between a test and RocketMQ.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cluster::ClusterError;

/// Why RocketMQ could not be started, reached or asked.
#[derive(Debug, thiserror::Error)]
pub enum RocketMqError {
    /// A program could not be found, installed or run.
    #[error(transparent)]
    Program(#[from] ClusterError),
    /// A file or directory could not be used.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A server ended, or never began to serve.
    #[error("{part} does not serve: {reason} (its output is in {})", .log.display())]
    NotServing {
        /// `name server` or `broker`.
        part: &'static str,
        /// What was seen.
        reason: String,
        /// Where the server writes.
        log: PathBuf,
    },
    /// No connection, or it broke.
    #[error("connection to {address}: {reason}")]
    Connection {
        /// The server's address.
        address: String,
        /// What happened.
        reason: String,
    },
    /// No answer in time.
    #[error("{address} did not answer request {code} within {limit:?}")]
    NoAnswer {
        /// The server's address.
        address: String,
        /// The request code.
        code: i32,
        /// How long it was given.
        limit: Duration,
    },
    /// The server refused a request.
    #[error("{address} refused request {request}: code {code}, {remark}")]
    Refused {
        /// The server's address.
        address: String,
        /// The request code.
        request: i32,
        /// The response code.
        code: i32,
        /// The server's words.
        remark: String,
    },
    /// An answer that does not have the expected form.
    #[error("{from} answered what cannot be read: {reason}: {text}")]
    Unreadable {
        /// Who answered.
        from: String,
        /// What is wrong.
        reason: String,
        /// The answer's beginning.
        text: String,
    },
    /// RocketMQ's own tool reported an error.
    #[error("mqadmin {command} failed: {output}")]
    Mqadmin {
        /// The sub-command and its arguments.
        command: String,
        /// What it printed.
        output: String,
    },
    /// A queue that the topic does not have.
    #[error("topic {topic} has {queues} queues, there is no queue {queue}")]
    NoSuchQueue {
        /// The topic.
        topic: String,
        /// How many queues it has.
        queues: usize,
        /// The queue asked for.
        queue: usize,
    },
    /// A condition did not become true in time.
    #[error(transparent)]
    TimedOut(#[from] crate::wait::TimedOut),
}

impl RocketMqError {
    pub(super) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// The result of everything in this module.
pub type Result<T> = std::result::Result<T, RocketMqError>;
