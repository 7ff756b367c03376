//! Who may run which queue: the group's members share them, or everybody has all of them.

use super::broadcast::Broadcast;
use crate::contract::admin::QueuePhase;
use crate::lane::{Assignment, Time};
use crate::message::QueueId;
use crate::ownership::{Action, Ownership, Start};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What asks for actions about queues.
#[derive(Debug)]
pub enum Owner {
    /// Queues are locked, committed and handed over.
    Clustering(Box<Ownership>),
    /// Queues are everybody's.
    Broadcasting(Broadcast),
}

impl Owner {
    pub fn is_clustering(&self) -> bool {
        matches!(self, Self::Clustering(_))
    }

    /// The queues meant for this process now.
    pub fn allocate(&mut self, now: Time, queues: BTreeSet<QueueId>) {
        match self {
            Self::Clustering(ownership) => ownership.allocate(queues),
            Self::Broadcasting(broadcast) => broadcast.allocate(now, &queues),
        }
    }

    pub fn master_changed(&mut self, now: Time, broker: &str) {
        if let Self::Clustering(ownership) = self {
            ownership.master_changed(now, broker);
        }
    }

    pub fn lock_reply(
        &mut self,
        now: Time,
        sent: Time,
        broker: &Arc<str>,
        asked: &BTreeSet<QueueId>,
        locked: Option<&BTreeSet<QueueId>>,
    ) {
        if let Self::Clustering(ownership) = self {
            ownership.lock_reply(now, sent, broker, asked, locked);
        }
    }

    pub fn start_found(&mut self, now: Time, queue: &QueueId, start: Start) {
        match self {
            Self::Clustering(ownership) => ownership.start_found(now, queue, start),
            Self::Broadcasting(broadcast) => broadcast.start_found(queue, start.offset),
        }
    }

    pub fn start_failed(&mut self, now: Time, queue: &QueueId) {
        match self {
            Self::Clustering(ownership) => ownership.start_failed(now, queue),
            Self::Broadcasting(broadcast) => broadcast.start_failed(now, queue),
        }
    }

    pub fn released(&mut self, queue: &QueueId) {
        match self {
            Self::Clustering(ownership) => ownership.released(queue),
            Self::Broadcasting(broadcast) => broadcast.released(queue),
        }
    }

    pub fn poll(&mut self, now: Time) -> Vec<Action> {
        match self {
            Self::Clustering(ownership) => ownership.poll(now),
            Self::Broadcasting(broadcast) => broadcast.poll(now),
        }
    }

    pub fn next_deadline(&self) -> Option<Time> {
        match self {
            Self::Clustering(ownership) => ownership.next_deadline(),
            Self::Broadcasting(broadcast) => broadcast.next_deadline(),
        }
    }

    pub fn phases(&self) -> Vec<(QueueId, QueuePhase, Option<Assignment>)> {
        match self {
            Self::Clustering(ownership) => ownership
                .phases()
                .map(|(queue, phase, assignment)| (queue.clone(), phase, assignment))
                .collect(),
            Self::Broadcasting(broadcast) => broadcast.phases().collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Self::Clustering(ownership) => ownership.is_empty(),
            Self::Broadcasting(broadcast) => broadcast.is_empty(),
        }
    }
}
