//! Where consumption of a queue begins.
//!
//! `startFrom` applies once in the life of a group: when no queue has a committed offset. Whoever finds
//! that commits a starting offset on every queue, the smallest queue last, so that an offset on the
//! smallest queue says that all had theirs. A queue without one after that appeared later and begins at
//! its oldest message: nothing sent before its discovery is lost.

use super::clock::Clock;
use crate::contract::spec::{Position, StartFrom};
use crate::lane::Time;
use crate::message::QueueId;
use crate::ownership::{First, Start};
use crate::source::{Commit, Source, SourceError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Finds starting offsets, and remembers since when queues had none.
pub struct Starts<S> {
    source: Arc<S>,
    clock: Arc<Clock>,
    start_from: StartFrom,
    none_at: Mutex<BTreeMap<QueueId, Time>>,
}

impl<S: Source> Starts<S> {
    pub fn new(source: Arc<S>, clock: Arc<Clock>, start_from: StartFrom) -> Self {
        Self {
            source,
            clock,
            start_from,
            none_at: Mutex::default(),
        }
    }

    /// Committed offset of a queue; remembers when there was none.
    pub async fn committed(&self, queue: &QueueId) -> Result<Option<u64>, SourceError> {
        let sent = self.clock.now();
        let committed = self.source.committed(queue).await?;
        if committed.is_none() {
            self.none_at
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(queue.clone(), sent);
        }
        Ok(committed)
    }

    /// Where the group stands in `queue`, one of `queues`; commits starting offsets where that is due.
    pub async fn find(
        &self,
        queue: &QueueId,
        queues: &BTreeSet<QueueId>,
    ) -> Result<Start, SourceError> {
        let offset = match self.committed(queue).await? {
            Some(offset) => offset,
            None => {
                let smallest = queues.first().unwrap_or(queue);
                if smallest != queue && self.committed(smallest).await?.is_some() {
                    let (min, _) = self.source.bounds(queue).await?;
                    self.commit(queue, min).await?;
                    min
                } else {
                    self.start_group(queue, queues).await?
                }
            }
        };
        let none_at = self
            .none_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(queue)
            .copied();
        let committed_at = self.clock.now();
        Ok(Start {
            offset,
            first: none_at.map(|none_at| First {
                none_at,
                committed_at,
            }),
        })
    }

    /// Commits a starting offset on every queue that has none; returns that of `queue`.
    async fn start_group(
        &self,
        queue: &QueueId,
        queues: &BTreeSet<QueueId>,
    ) -> Result<u64, SourceError> {
        let mut found = None;
        for each in queues.iter().rev() {
            let offset = match self.committed(each).await? {
                Some(offset) => offset,
                None => {
                    let offset = self.position(each).await?;
                    self.commit(each, offset).await?;
                    offset
                }
            };
            if each == queue {
                found = Some(offset);
            }
        }
        match found {
            Some(offset) => Ok(offset),
            // The route no longer names the queue; it is about to be given up.
            None => self.position(queue).await,
        }
    }

    async fn position(&self, queue: &QueueId) -> Result<u64, SourceError> {
        let (min, max) = self.source.bounds(queue).await?;
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
