//! A reset of a queue's offsets that was asked for, as the journal knows it.
//!
//! What is finished is the union of records, and a union only grows: a position that somebody wishes back
//! could not be said in it. So a reset begins a new **generation** of the queue's progress. Its first record
//! makes it, every later one carries it, and readers take the union of one generation only
//! ([`super::Log::finished`]): the newest one that the owner with the highest epoch wrote in, because that
//! owner had read everything before it.
//!
//! - A record that makes a generation is void if somebody claimed the queue between its tenure's claim and
//!   it: it arrived late, after a successor had begun to read. So it counts for every later owner or for
//!   none, and whoever made it knows which once it has read the journal behind it.
//! - It is one record: before it lies in the journal the old position is in force, afterwards the new one.
//!   What is committed at the broker follows. Until progress has passed the end that the queue had then, a
//!   committed offset up to there may be one from before, however late it arrived: it is left out, and
//!   owners write their progress at every interval ([`Reset::is_behind`]).
//! - For who may run it is a *progress* record like any other ([`super::Head`]), so nothing changes for that.
//! - A generation is named by tenure and number, not by the offset of its record: writing it again after an
//!   answer was lost changes nothing.
//!
//! A program that does not know of resets reads such records as those of a later version: it may run the
//! queue after the full wait, and begins at the committed offset or at what older records say. So a reset is
//! asked for only when every member knows of them.

use super::Epoch;
use std::sync::Arc;

/// How many requests are remembered.
pub const REQUESTS: usize = 8;
/// Bytes of a request's id.
pub const REQUEST_BYTES: usize = 63;

/// Names a reset. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    /// The tenure that made it.
    pub epoch: Epoch,
    /// How many that tenure had made before.
    pub number: u32,
}

/// A reset of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Its name.
    pub generation: Generation,
    /// This record makes it.
    pub begins: bool,
    /// Offset after the last message that the queue had then: nothing from before says more.
    pub until: u64,
    /// Watermark before.
    pub from: u64,
    /// Everything below was finished with it.
    pub position: u64,
    /// Offsets that were not finished and are below the position.
    pub skipped: u64,
    /// Offsets that were finished and are not any more.
    pub replayed: u64,
    /// Ids of the requests that were obeyed, the last first; at most [`REQUESTS`].
    pub requests: Arc<[Arc<str>]>,
}

impl Reset {
    /// Whether a watermark may be lower than what was committed before.
    pub fn is_behind(&self, watermark: u64) -> bool {
        watermark < self.until
    }

    /// Whether a request was obeyed.
    pub fn obeyed(&self, request: &str) -> bool {
        self.requests.iter().any(|id| **id == *request)
    }

    /// The ids to remember once this request is obeyed after `former`.
    pub fn requests(request: &str, former: Option<&Self>) -> Arc<[Arc<str>]> {
        let former = former.map_or(&[][..], |former| &former.requests);
        let rest = former.iter().filter(|id| ***id != *request).cloned();
        let all = std::iter::once(Arc::from(request)).chain(rest);
        all.take(REQUESTS).collect()
    }

    /// The same generation, for the records that follow the one that made it.
    pub fn followed(&self) -> Self {
        Self {
            begins: false,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests;
