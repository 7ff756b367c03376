//! The dead letters of a group: what they are, and sending them again.
//!
//! Sending again promises, for the letters of one broker:
//! - a letter goes to the end of the queue that its message came from, letters of one key in order; from one that
//!   was not sent on, nothing of its key is ([`course`]);
//! - what was sent is noted at the broker ([`memory`]) after each letter, and not sent again. A crash between the
//!   two, or an answer of the broker that is lost, costs a duplicate. Which letter a message was is in its property
//!   [`PROPERTY_DEAD_LETTER`](keylane_consumer::source::rocketmq::letters::PROPERTY_DEAD_LETTER), and its id is that
//!   of the message that was given up: a duplicate is known by either;
//! - one does so at a time: whoever does holds the broker's lock of the letters, which lives for 60 s, and stops
//!   long before that. Whoever notes something finds out if somebody else did.
//!
//! The committed offset of a group of ours would have been simpler. But it can only tell of a beginning: keys
//! that are asked for alone, and those that go on while another is held, need more.
//!
//! Every reading is page by page, bounded in bytes and time.

pub mod course;
pub mod memory;
mod read;
mod replay;
mod shapes;

pub use shapes::{
    Content, DeadLetter, Held, LetterId, Listing, NotALetter, Replay, Replayed, Sent, Unknown,
};

use keylane_consumer::contract::spec::ConsumerSpec;
use keylane_consumer::message::QueueId;
use keylane_consumer::source::rocketmq::{Access, RocketmqSource};
use keylane_consumer::source::{Route, Source as _, SourceError};
use memory::Memory;
use std::time::Duration;

/// One question takes no longer, but for the call under way: the API server gives up much later.
const TIME: Duration = Duration::from_secs(6);
/// Letters that are read for one question, in bytes at the broker.
const BYTES: usize = 64 << 20;

/// Why nothing can be told or done.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    /// A broker does not answer or refuses.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Somebody else sends letters again.
    #[error(
        "the dead letters of {0} are being sent again by somebody else, or were until a moment ago: try again in a minute"
    )]
    Busy(QueueId),
    /// What was sent again cannot be read.
    #[error(
        "the note of what was sent again from {queue} cannot be read ({reason}), so nothing is sent: use the newest operator"
    )]
    Note {
        /// Queue of dead letters.
        queue: QueueId,
        /// Why.
        reason: String,
    },
    /// It cannot be asked for so.
    #[error("{0}")]
    Asked(String),
}

/// The dead letters of one consumer's group.
pub struct Letters {
    source: RocketmqSource,
    spec: ConsumerSpec,
    route: Route,
    /// Queues of dead letters.
    queues: Vec<QueueId>,
}

impl Letters {
    /// Finds out where they are. The access is that of the same spec.
    pub async fn connect(spec: &ConsumerSpec, access: Access) -> Result<Self, LettersError> {
        // Not a member of the group: it never sends a heartbeat.
        let id = format!("keylane-letters:{:016x}", rand::random::<u64>());
        let source = RocketmqSource::connect_with(spec, &id, access).await?;
        let route = Box::pin(source.route()).await?;
        let queues = source.letter_queues().await?;
        Ok(Self {
            source,
            spec: spec.clone(),
            route,
            queues,
        })
    }

    /// What was sent again from a queue of letters, and the offset of the next note.
    async fn memory(&self, queue: &QueueId) -> Result<(Memory, u64), LettersError> {
        let (note, next) = self.source.last_note(queue).await?;
        let Some(note) = note else {
            return Ok((Memory::default(), next));
        };
        let memory = Memory::decode(&note).map_err(|reason| LettersError::Note {
            queue: queue.clone(),
            reason,
        })?;
        let Some(witness) = memory.witness() else {
            return Ok((memory, next));
        };
        let page = self.source.letters(queue, witness.offset).await?;
        let found = page.letters.first().map(|letter| &letter.message);
        let expired = witness.offset < page.min;
        let same = found.is_some_and(|found| {
            let is = (found.offset, found.stored_at_ms, found.physical_offset);
            is == (
                witness.offset,
                witness.stored_at_ms,
                witness.physical_offset,
            )
        });
        // The topic was made anew: these are other letters.
        Ok(if same || expired {
            (memory, next)
        } else {
            (Memory::default(), next)
        })
    }
}

fn unknown(queue: &QueueId, reason: &impl ToString) -> Unknown {
    Unknown {
        queue: queue.to_string(),
        reason: reason.to_string(),
    }
}

fn id(queue: &QueueId, offset: u64) -> LetterId {
    LetterId {
        broker: queue.broker.to_string(),
        queue: queue.id,
        offset,
    }
}
