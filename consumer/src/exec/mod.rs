//! The shell round the pure parts: carries messages from the source through lanes to the handler, and
//! progress back.
//!
//! One task owns all state and decides nothing itself: it asks [`LaneExecutor`], [`Ownership`],
//! [`Membership`] and [`Commits`]. Everything that waits runs in tasks of its own and reports by event.

mod clock;
mod commits;
mod control;
mod engine;
mod start;
mod tasks;

pub use clock::Clock;
pub use control::{Control, Gone};
pub use engine::Executor;

use crate::lane::Limits;
use std::time::Duration;

/// What an executor needs to know besides the OrderedConsumer.
#[derive(Clone, Debug)]
pub struct Options {
    /// Identity of this process; see [`incarnation`].
    pub incarnation: String,
    /// Lanes that may run at once until somebody sets another target.
    pub lanes: u32,
    /// What may be in memory.
    pub limits: Limits,
    /// Time between commits.
    pub persist_interval: Duration,
}

impl Options {
    /// The usual options.
    pub fn new(incarnation: String, lanes: u32) -> Self {
        Self {
            incarnation,
            lanes,
            limits: Limits::default(),
            persist_interval: Duration::from_secs(2),
        }
    }
}

/// An identity that no other process has or had: the pod's uid, or the host's name outside Kubernetes,
/// and a random part for each start of the process. It is the RocketMQ client id too.
pub fn incarnation(host: &str) -> String {
    let random: u64 = rand::random();
    format!(
        "{}{host}:{random:016x}",
        crate::ownership::membership::CLIENT_ID_PREFIX
    )
}
