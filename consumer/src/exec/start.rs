//! Where consumption of a queue begins.
//!
//! `startFrom` applies once in the life of a group: when no queue has a committed offset. Whoever finds
//! that commits a starting offset on every queue, the smallest queue last, so that an offset on the
//! smallest queue says that all had theirs. A queue without one after that appeared later and begins at
//! its oldest message: nothing sent before its discovery is lost. So does every queue of the retry topic,
//! and a queue whose committed offset is beyond its end: its topic was recreated, or its log cut off.
//!
//! In consumption Broadcasting nothing is committed, and every queue begins at `startFrom`.

use crate::contract::spec::{Position, StartFrom};
use crate::message::{QueueId, Topic};
use crate::source::{Commit, Source, SourceError};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::Mutex;
use tracing::error;

const STARTED_AT_ONCE: usize = 16;

/// Where a queue begins, and what its broker holds of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// First offset that is not committed.
    pub offset: u64,
    /// Offset after the last message, read after the committed one.
    pub max: u64,
    /// Offset of the oldest message.
    pub min: u64,
}

/// Finds starting offsets.
pub struct Starts<S> {
    source: Arc<S>,
    start_from: StartFrom,
    /// Held by whoever starts the group: a thousand queues that are taken at once must not each do it for
    /// all of them.
    starting: Mutex<()>,
}

impl<S: Source> Starts<S> {
    pub fn new(source: Arc<S>, start_from: StartFrom) -> Self {
        Self {
            source,
            start_from,
            starting: Mutex::default(),
        }
    }

    /// Where `queue`, one of `queues`, begins; commits starting offsets where that is due.
    pub async fn find(
        &self,
        queue: &QueueId,
        queues: &BTreeSet<QueueId>,
    ) -> Result<Start, SourceError> {
        if let Some(offset) = self.source.committed(queue).await? {
            return self.within(queue, offset).await;
        }
        let _turn = self.starting.lock().await;
        if let Some(offset) = self.source.committed(queue).await? {
            return self.within(queue, offset).await;
        }
        let smallest = queues.first().unwrap_or(queue);
        let offset = if smallest != queue && self.source.committed(smallest).await?.is_some() {
            let (min, _) = self.source.bounds(queue).await?;
            self.commit(queue, min).await?;
            min
        } else {
            self.start_group(queue, queues).await?
        };
        self.within(queue, offset).await
    }

    /// The committed offset, or where to begin if it is beyond the end of the queue.
    async fn within(&self, queue: &QueueId, committed: u64) -> Result<Start, SourceError> {
        let (min, max) = self.source.bounds(queue).await?;
        let mut offset = committed;
        if committed > max {
            error!(
                "queue {queue}: the committed offset {committed} is beyond its end {max}: the topic was recreated or its \
                 log cut off; it is consumed from its oldest message, offset {min}"
            );
            self.commit(queue, min).await?;
            offset = min;
        }
        Ok(Start { offset, max, min })
    }

    /// Commits a starting offset on every queue that has none; returns that of `queue`.
    async fn start_group(
        &self,
        queue: &QueueId,
        queues: &BTreeSet<QueueId>,
    ) -> Result<u64, SourceError> {
        let all_but_smallest = queues.iter().skip(1).cloned();
        let mut offsets: HashMap<QueueId, u64> = stream::iter(all_but_smallest)
            .map(|each| self.start(each))
            .buffer_unordered(STARTED_AT_ONCE)
            .try_collect()
            .await?;
        if let Some(smallest) = queues.first() {
            offsets.extend([self.start(smallest.clone()).await?]);
        }
        match offsets.get(queue) {
            Some(offset) => Ok(*offset),
            // The route no longer names the queue; it is about to be given up.
            None => self.position(queue).await,
        }
    }

    /// Commits a starting offset on a queue that has none.
    async fn start(&self, queue: QueueId) -> Result<(QueueId, u64), SourceError> {
        let offset = match self.source.committed(&queue).await? {
            Some(offset) => offset,
            None => {
                let offset = self.position(&queue).await?;
                self.commit(&queue, offset).await?;
                offset
            }
        };
        Ok((queue, offset))
    }

    /// Where `startFrom` says that a queue begins.
    pub async fn position(&self, queue: &QueueId) -> Result<u64, SourceError> {
        let (min, max) = self.source.bounds(queue).await?;
        if queue.topic == Topic::Retry {
            return Ok(min);
        }
        match (self.start_from.position, self.start_from.timestamp) {
            (Position::Last, _) => Ok(max),
            (Position::Timestamp, Some(timestamp)) => {
                let offset = self
                    .source
                    .offset_at(queue, timestamp.as_millisecond())
                    .await?;
                Ok(offset.clamp(min, max))
            }
            _ => Ok(min),
        }
    }

    async fn commit(&self, queue: &QueueId, offset: u64) -> Result<(), SourceError> {
        match self.source.commit(queue, offset).await? {
            Commit::Stored => Ok(()),
            Commit::ResetPending => Err(SourceError::Refused {
                peer: queue.broker.to_string(),
                what: "the starting offset",
                code: 0,
                remark: "an offset reset of the group is pending; it is tried again".into(),
            }),
        }
    }
}
