//! Why a round of the reconcile loop ended early. All of it is worth repeating.

use std::time::Duration;

/// Errors of the reconcile loop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The status could not be written.
    #[error("the status of {name:?} cannot be written: {source}")]
    Status {
        /// Name of the OrderedConsumer.
        name: String,
        /// Why.
        source: kube::Error,
        /// When to try again.
        retry: Duration,
    },
    /// The object was changed since it was read; the next round decides on what it is now.
    #[error("{name:?} was changed meanwhile; it is looked at again")]
    Changed {
        /// Name of the OrderedConsumer.
        name: String,
    },
    /// The status cannot be written as JSON.
    #[error("a status cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// For metrics: a closed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Changed { .. } => "changed",
            Self::Json(_) => "json",
        }
    }
}
