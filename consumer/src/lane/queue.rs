//! One assigned queue: its lanes, its progress, what of it is in memory.

use super::finished::Finished;
use super::limits::InMemory;
use super::list::List;
use super::slab::NONE;
use super::store::{InLine, InOrder, Store};
use super::view::{Counters, Oldest, Progress};
use super::{Assignment, Held, HeldKeys, Time};
use crate::message::QueueId;
use hashbrown::HashTable;
use std::collections::BTreeMap;

/// See the [module docs](self).
#[derive(Debug)]
pub struct Queue {
    pub id: QueueId,
    pub assignment: Assignment,
    pub lease: Time,
    pub releasing: bool,
    /// It said that it is drained.
    pub drained: bool,
    pub suspended: bool,
    /// Heads whose call runs or may still run, or that are on their way to the broker.
    pub in_hand: u32,
    /// The lanes of keys.
    pub table: Table,
    /// The shared lane.
    pub shared: u32,
    /// Lanes, those with keys and others.
    pub lanes: u64,
    /// All messages in the order of offsets; the first one is at the watermark.
    pub order: List<InOrder>,
    /// Lanes that are ready to run, in the order of their turn.
    pub ready: List<InLine>,
    /// Lanes that wait for a former owner's call.
    pub held: List<InLine>,
    /// Which those are.
    pub hold: Held,
    /// Lanes of suspects whose attempts are not in the journal yet.
    pub unrecorded: List<InLine>,
    /// Failed attempts, by offset, of messages that may have killed their handler, and had no answer since.
    pub suspects: BTreeMap<u64, u32>,
    /// It has its place in the line of queues.
    pub in_turn: bool,
    pub memory: InMemory,
    /// A pull is under way.
    pub pulling: bool,
    /// What it is expected to bring: as much as the last one, if that is not more than was asked for.
    pub expected: InMemory,
    /// Messages that the last reply had.
    pub usual_reply: u64,
    /// No pull before this time.
    pub pull_after: Time,
    /// A limit stopped the pull.
    pub stopped: bool,
    /// It has its place in the line of queues that a limit stopped.
    pub in_stopped: bool,
    /// What a message usually costs.
    pub usual_cost: u64,
    pub finished: Finished,
    pub pulled: u64,
    pub counters: Counters,
}

impl Queue {
    pub fn new(
        id: QueueId,
        assignment: Assignment,
        finished: Finished,
        lease: Time,
        hold: Held,
    ) -> Self {
        Self {
            id,
            assignment,
            lease,
            releasing: false,
            drained: false,
            suspended: false,
            in_hand: 0,
            table: Table::default(),
            shared: NONE,
            lanes: 0,
            order: List::default(),
            ready: List::default(),
            held: List::default(),
            hold,
            unrecorded: List::default(),
            suspects: BTreeMap::new(),
            in_turn: false,
            memory: InMemory::default(),
            pulling: false,
            expected: InMemory::default(),
            usual_reply: 0,
            pull_after: Time::ZERO,
            stopped: false,
            in_stopped: false,
            usual_cost: 1024,
            pulled: finished.watermark(),
            finished,
            counters: Counters::default(),
        }
    }

    pub fn may_dispatch(&self, now: Time) -> bool {
        !self.releasing && !self.suspended && now < self.lease
    }

    pub fn span(&self) -> u64 {
        self.pulled.saturating_sub(self.finished.watermark())
    }

    pub fn progress(&self) -> Progress {
        Progress {
            watermark: self.finished.watermark(),
            finished_above: self.finished.finished_above(),
            pulled: self.pulled,
            buffered: self.memory.messages,
            bytes: self.memory.bytes,
            running: self.in_hand,
        }
    }

    /// The unfinished message with the lowest offset.
    pub fn oldest(&self, store: &Store) -> Option<Oldest> {
        let message = &store.nodes[self.order.first()?].message;
        Some(Oldest {
            offset: message.offset,
            born_at_ms: message.born_at_ms,
            stored_at_ms: message.stored_at_ms,
        })
    }

    /// The shared lane.
    pub fn shared(&self) -> Option<u32> {
        (self.shared != NONE).then_some(self.shared)
    }

    /// The lane of a key.
    pub fn lane(&self, store: &Store, hash: u32, key: &str) -> Option<u32> {
        self.table.find(hash, |lane| {
            store.first(lane).key.as_deref().is_some_and(|of| of == key)
        })
    }

    /// Whether a new lane of this fingerprint has to wait for a former owner's call.
    pub fn holds(&self, now: Time, fingerprint: impl FnOnce() -> u64) -> bool {
        now < self.hold.until
            && match &self.hold.keys {
                HeldKeys::All => true,
                HeldKeys::Some(keys) => {
                    !keys.is_empty() && keys.binary_search(&fingerprint()).is_ok()
                }
            }
    }
}

/// The lanes of a queue by the hash of their key.
#[derive(Debug, Default)]
pub struct Table(HashTable<Entry>);

#[derive(Debug)]
struct Entry {
    /// Kept here, so that growing does not visit the lanes.
    hash: u32,
    lane: u32,
}

/// Spreads a hash over the bits that the table looks at.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Table {
    fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let found = self
            .0
            .find(spread(hash), |entry| entry.hash == hash && is(entry.lane));
        found.map(|entry| entry.lane)
    }

    /// Adds a lane that is not in the table.
    pub fn insert(&mut self, hash: u32, lane: u32) {
        let entry = Entry { hash, lane };
        self.0
            .insert_unique(spread(hash), entry, |entry| spread(entry.hash));
    }

    /// Takes a lane out.
    pub fn remove(&mut self, hash: u32, lane: u32) {
        if let Ok(entry) = self.0.find_entry(spread(hash), |entry| entry.lane == lane) {
            entry.remove();
        }
        // Not by its capacity: that leaves out places of what was removed.
        let (len, places) = (self.0.len(), self.0.num_buckets());
        if places > 64 && len * 16 < places {
            self.0.shrink_to(len * 2, |entry| spread(entry.hash));
        }
    }
}
