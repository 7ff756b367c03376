//! The shell round the pure parts: carries messages from the source through lanes to the handler, and
//! progress back.
//!
//! One task owns all state but the lane core and decides nothing itself: it asks [`Ownership`],
//! [`Membership`] and [`Commits`], and the core, which the ends of calls reach without it ([`calls`]).
//! Everything that waits runs in tasks of its own and reports by event.
//!
//! [`Ownership`]: crate::ownership::Ownership
//! [`Membership`]: crate::ownership::membership::Membership
//! [`Commits`]: commits::Commits

mod absent;
mod broadcast;
mod calls;
mod clock;
pub(crate) mod commits;
mod control;
mod engine;
mod follow;
mod gate;
mod given_up;
mod gone;
mod idle;
#[cfg(test)]
mod interleavings;
mod ledger;
mod live;
mod measures;
mod owner;
mod recorded;
mod redact;
pub(crate) mod reset;
mod runners;
mod start;
mod tasks;
mod together;
mod troubles;

/// What [`gate`] and [`runners`] lock with; `interleavings` compiles them over something else.
mod sync {
    pub use std::sync::{Condvar, Mutex, MutexGuard};
}

pub use clock::Clock;
pub use control::{Control, Gone, ResetError};
pub use engine::Executor;
pub use follow::follow;
pub use measures::Measures;
pub use redact::Redact;

use std::time::Duration;

/// What an executor needs to know besides the OrderedConsumer.
#[derive(Clone, Debug)]
pub struct Options {
    /// Identity of this process; see [`incarnation`].
    pub incarnation: String,
    /// The pod this process runs in, if there is one: no other process of Keylane runs there.
    pub pod: Option<String>,
    /// Lanes that may run at once until somebody sets another target.
    pub lanes: u32,
    /// Time between commits.
    pub persist_interval: Duration,
}

impl Options {
    /// The usual options.
    pub fn new(incarnation: String, lanes: u32) -> Self {
        Self {
            incarnation,
            pod: None,
            lanes,
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
