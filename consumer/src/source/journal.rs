//! The part of the port that ownership needs: the journal, and locks in another's name.

use super::SourceError;
use crate::journal::Witness;
use crate::message::{QueueId, Topic};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

/// Records of the journal from an offset on.
#[derive(Debug, Default)]
pub struct Records {
    /// Smallest offset that the broker holds.
    pub min: u64,
    /// Offset of the next record to be stored.
    pub max: u64,
    /// Offsets and records, as many as came at once; none if the offset asked for is not between the two.
    pub found: Vec<(u64, Bytes)>,
}

/// What ownership needs of RocketMQ. The journal's topic is made where it is missing or has too few queues.
pub trait Journal: Send + Sync + 'static {
    /// Appends a record about a queue; returns its offset once the broker acknowledged it. After an error
    /// it may be there, or come to be there.
    fn append(
        &self,
        queue: &QueueId,
        record: Vec<u8>,
    ) -> impl Future<Output = Result<u64, SourceError>> + Send;

    /// Records about a queue from this offset on, without waiting for new ones.
    fn records(
        &self,
        queue: &QueueId,
        from: u64,
    ) -> impl Future<Output = Result<Records, SourceError>> + Send;

    /// Smallest offset, and offset of the next record to be stored, of every queue of the journal at this
    /// broker, by the id of the queue its records are about: one question. A broker may not answer it, and
    /// tells nothing of some or all of them then.
    fn ends(
        &self,
        broker: &str,
        topic: Topic,
    ) -> impl Future<Output = BTreeMap<u32, (u64, u64)>> + Send;

    /// The message at an offset of a consumed queue, as a witness; none if there is none.
    fn witness(
        &self,
        queue: &QueueId,
        offset: u64,
    ) -> impl Future<Output = Result<Option<Witness>, SourceError>> + Send;

    /// Gives back those locks of another client that it has of these queues of one broker.
    fn unlock_for(
        &self,
        broker: &str,
        queues: &BTreeSet<QueueId>,
        holder: &str,
    ) -> impl Future<Output = Result<(), SourceError>> + Send;
}
