//! What owners of a queue write down for those who come after them.
//!
//! Topic `KEYLANE_<group>` lies on the same brokers as the consumed topic and has at least its queues; the
//! records about one queue are in the queue with its id, in the order in which the broker took them. The
//! **epoch** of a tenure is the offset of its claim, so a later claim always has a higher epoch; every
//! other record carries its epoch.
//!
//! Two questions are answered from the last [`WINDOW`] records, and they are answered differently: who may
//! run is decided by the highest epoch alone ([`Head`]); what is finished is the union of all records that
//! can be read ([`Log::finished`]), because a message that is finished stays finished whoever says so, until
//! somebody wants it handled again ([`Reset`]).
//!
//! Pure: bytes in, bytes out. Nothing read here is trusted: a record that is damaged or of a later version
//! is recognised as such, and reading never panics.

mod codec;
mod finished;
mod log;
mod reset;

pub use codec::{MAX_BYTES, Unreadable, decode, encode};
pub use finished::Finished;
pub use log::{Entry, Head, Known, Log, Newest, State, WINDOW};
pub use reset::{Generation, REQUEST_BYTES, Reset};

use std::sync::Arc;

/// Offset of a tenure's claim.
pub type Epoch = u64;

/// Identity of one start of one process; see [`crate::exec::incarnation`].
pub type Incarnation = Arc<str>;

/// The journal's topic of a group. RocketMQ takes names of 127 characters, so a group has at most 119.
pub fn topic(group: &str) -> String {
    format!("KEYLANE_{group}")
}

/// The journal's topic about the queues of a group's retry topic: no other group's journal is called so.
pub fn retry_topic(group: &str) -> String {
    format!("KEYLANE%{group}")
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Who wrote it.
    pub by: Incarnation,
    /// What it says.
    pub body: Body,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// The writer holds the broker's lock and wants to run the queue. Its offset is the epoch.
    Claim {
        /// The highest epoch the writer saw before.
        predecessor: Option<Epoch>,
    },
    /// The writer runs the queue.
    Progress {
        /// The writer's claim.
        epoch: Epoch,
        /// How far it is; [`Progress::keys`] are those it does not run yet, because calls of an earlier
        /// owner may still run.
        progress: Progress,
    },
    /// The writer has stopped and will not run the queue again under this epoch.
    Released {
        /// The writer's claim.
        epoch: Epoch,
        /// How far it came; [`Progress::keys`] are those whose calls, its own or inherited ones, may
        /// still run.
        progress: Progress,
    },
    /// The writer never ran the queue under this epoch and never will: whoever comes next judges by what
    /// stood there when it was claimed, as if it had not been.
    Withdrawn {
        /// The writer's claim.
        epoch: Epoch,
        /// Who ran the queue before.
        former: Incarnation,
        /// Keys that one did not run yet.
        waiting: Keys,
    },
}

/// How far a tenure is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// What is finished.
    pub finished: Finished,
    /// Where the highest finished message lies, to recognise that the topic was recreated since.
    pub witness: Option<Witness>,
    /// Keys that must wait for the call bound.
    pub keys: Keys,
    /// Failed attempts of messages that may have killed their handler: offset and attempts.
    pub suspects: Vec<(u64, u32)>,
    /// The last reset of the queue, since which this is; none if there was none.
    pub reset: Option<Reset>,
}

/// A message of the consumed topic and where the broker keeps it. Another message at that offset means
/// that offsets started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Witness {
    /// Queue offset.
    pub offset: u64,
    /// Store timestamp, milliseconds since the Unix epoch.
    pub stored_at_ms: i64,
    /// Position in the commit log.
    pub physical_offset: u64,
}

/// A set of keys, by fingerprint. Keys can be long and many; a collision only makes another key wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Keys {
    /// These; sorted.
    Some(Arc<[u64]>),
    /// Too many to list: every key.
    All,
}

impl Keys {
    /// Most fingerprints that are listed.
    pub const LISTED: usize = 16_384;

    /// The set of these fingerprints.
    pub fn new(fingerprints: impl IntoIterator<Item = u64>) -> Self {
        let mut list: Vec<u64> = fingerprints.into_iter().collect();
        list.sort_unstable();
        list.dedup();
        if list.len() > Self::LISTED {
            Self::All
        } else {
            Self::Some(list.into())
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Some(list) if list.is_empty())
    }

    /// Keys of either set.
    pub fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Some(left), Self::Some(right)) => {
                Self::new(left.iter().chain(right.iter()).copied())
            }
            _ => Self::All,
        }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::Some(Arc::default())
    }
}
