//! Who may run which queue: the group's members share them, or everybody has all of them.

use super::broadcast::Broadcast;
use crate::contract::admin::QueuePhase;
use crate::journal::{Epoch, Head, Keys};
use crate::lane::{Assignment, Time};
use crate::message::QueueId;
use crate::ownership::membership::Allocation;
use crate::ownership::{Action, Ownership, Ticket};
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
    pub fn allocate(&mut self, now: Time, allocation: &Allocation) {
        match self {
            Self::Clustering(ownership) => ownership.allocate(now, allocation),
            Self::Broadcasting(broadcast) => broadcast.allocate(now, &allocation.ours),
        }
    }

    /// The members of the group at a broker, as far as its list is trusted.
    pub fn members(&mut self, broker: &Arc<str>, members: BTreeSet<String>) {
        if let Self::Clustering(ownership) = self {
            ownership.members(broker, members);
        }
    }

    /// Everything that ran in this pod is dead.
    pub fn pod_gone(&mut self, pod: &str) {
        if let Self::Clustering(ownership) = self {
            ownership.pod_gone(pod);
        }
    }

    /// Nothing runs in the handler of what former processes of this pod sent there.
    pub fn handler_idle(&mut self) {
        if let Self::Clustering(ownership) = self {
            ownership.handler_idle();
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
        broker: &Arc<str>,
        asked: &BTreeSet<QueueId>,
        locked: Option<&BTreeSet<QueueId>>,
    ) {
        if let Self::Clustering(ownership) = self {
            ownership.lock_reply(now, broker, asked, locked);
        }
    }

    pub fn unlocked(&mut self, queue: &QueueId) {
        if let Self::Clustering(ownership) = self {
            ownership.unlocked(queue);
        }
    }

    /// It was read where the group stands in a queue; none if that failed.
    pub fn read(&mut self, now: Time, queue: &QueueId, ticket: Ticket, head: Option<&Head>) {
        match self {
            Self::Clustering(ownership) => ownership.journal_read(now, queue, ticket, head),
            Self::Broadcasting(broadcast) if head.is_some() => broadcast.start_found(queue),
            Self::Broadcasting(broadcast) => broadcast.start_failed(now, queue),
        }
    }

    pub fn appended(&mut self, now: Time, queue: &QueueId, ticket: Ticket, offset: Option<u64>) {
        if let Self::Clustering(ownership) = self {
            ownership.appended(now, queue, ticket, offset);
        }
    }

    /// Our epoch in a queue, and the keys that still wait in it, for a progress record.
    pub fn recordable(&self, now: Time, queue: &QueueId) -> Option<(Epoch, Keys)> {
        match self {
            Self::Clustering(ownership) => ownership.recordable(now, queue),
            Self::Broadcasting(_) => None,
        }
    }

    /// A new assignment of a queue that is ours; what is known of the former one is out of date.
    pub fn reassign(&mut self, queue: &QueueId) -> Option<Assignment> {
        match self {
            Self::Clustering(ownership) => ownership.reassign(queue),
            Self::Broadcasting(_) => None,
        }
    }

    /// A queue that was to be released has stopped.
    pub fn drained(&mut self, queue: &QueueId) {
        match self {
            Self::Clustering(ownership) => ownership.drained(queue),
            Self::Broadcasting(broadcast) => broadcast.released(queue),
        }
    }

    /// The process has to end by then: claims that would still wait are left as they are.
    pub fn stop_waiting(&mut self, now: Time, by: Time) {
        if let Self::Clustering(ownership) = self {
            ownership.stop_waiting(now, by);
        }
    }

    pub fn poll(&mut self, now: Time) -> Vec<Action> {
        match self {
            Self::Clustering(ownership) => ownership.poll(now),
            Self::Broadcasting(broadcast) => broadcast.poll(now),
        }
    }

    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        match self {
            Self::Clustering(ownership) => ownership.next_deadline(now),
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
