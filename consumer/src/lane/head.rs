//! The head of a lane: its first message, from its first call until it is finished.
//!
//! Invariants: the heads of lanes are in the order of their first call; one whose queue was dropped has no
//! lane and is in no list.

use super::Time;
use super::limits::InMemory;
use super::list::{Links, linked};
use super::slab::NONE;
use super::store::{Kind, Store};
use crate::message::QueueId;

/// Heads in the order of their first call.
#[derive(Debug)]
pub struct ByAge;
/// Heads that wait for a person.
#[derive(Debug)]
pub struct Blocked;

/// What a head does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is called, with the messages that follow it in the batch.
    Running,
    /// Its call ended without an answer and may still run until `sure_at`.
    Unsure,
    /// It waits until `not_before`, or for a slot.
    Waiting,
    /// It is on its way to the broker.
    SendingBack,
}

/// The first message of a lane, from its first call until it is finished.
#[derive(Debug)]
pub struct Head {
    /// [`NONE`] if its queue was dropped.
    pub lane: u32,
    /// Number of its last call or way back.
    pub call: u32,
    pub stage: Stage,
    /// Messages of the call.
    pub count: u32,
    /// When its last call was dispatched.
    pub sent: Time,
    /// When its first call was dispatched.
    pub since: Time,
    pub first_failed: Option<Time>,
    pub sure_at: Time,
    pub not_before: Time,
    /// Number of the timer that counts; 0 for none.
    pub timer: u64,
    pub attempts: u32,
    /// Calls in a row that the handler did not take, or ways back that failed.
    pub refusals: u32,
    /// It was in flight when the handler's connection died, and had no answer since.
    pub suspect: bool,
    /// Its attempts as a suspect are in the journal.
    pub recorded: bool,
    /// Its call is the one of a suspect.
    pub alone: bool,
    pub exhausted: bool,
    pub blocked: bool,
    /// The delay level to send it back with.
    pub send_back: Option<i32>,
    pub error: Option<Box<str>>,
    pub orphan: Option<Box<Orphan>>,
    age: Links,
    block: Links,
}

impl Head {
    fn new(lane: u32, now: Time) -> Self {
        Self {
            lane,
            call: 0,
            stage: Stage::Waiting,
            count: 0,
            sent: now,
            since: now,
            first_failed: None,
            sure_at: now,
            not_before: now,
            timer: 0,
            attempts: 0,
            refusals: 0,
            suspect: false,
            recorded: false,
            alone: false,
            exhausted: false,
            blocked: false,
            send_back: None,
            error: None,
            orphan: None,
            age: Links::default(),
            block: Links::default(),
        }
    }
}

/// What is known of a call whose queue was dropped.
#[derive(Debug)]
pub struct Orphan {
    pub queue: QueueId,
    pub fingerprint: u64,
    pub kind: Kind,
    pub memory: InMemory,
}

linked!(Head, ByAge, age);
linked!(Head, Blocked, block);

impl Store {
    /// The head of a lane, made if it has none yet.
    pub fn open_head(&mut self, lane: u32, now: Time) -> u32 {
        let known = self.lanes[lane].head;
        if known != NONE {
            return known;
        }
        let head = self.heads.insert(Head::new(lane, now));
        self.lanes[lane].head = head;
        self.by_age.push_back(&mut self.heads, head);
        head
    }

    /// The head is finished, and the next message of the same call takes its place.
    pub fn renew_head(&mut self, head: u32, now: Time) {
        self.unblock(head);
        self.by_age.remove(&mut self.heads, head);
        let of = &mut self.heads[head];
        *of = Head {
            call: of.call,
            // It alone is what became of the call: whatever followed it in the call waits again.
            count: 1,
            sent: of.sent,
            ..Head::new(of.lane, now)
        };
        self.by_age.push_back(&mut self.heads, head);
    }

    /// Forgets a head.
    pub fn close_head(&mut self, head: u32) {
        self.unblock(head);
        if self.heads[head].orphan.is_none() {
            self.by_age.remove(&mut self.heads, head);
        }
        let Head { lane, .. } = self.heads.remove(head);
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.head = NONE;
        }
    }

    /// Leaves a head behind whose lane goes.
    pub fn orphan_head(&mut self, head: u32, orphan: Orphan) {
        self.unblock(head);
        self.by_age.remove(&mut self.heads, head);
        self.memory += orphan.memory;
        let of = &mut self.heads[head];
        let lane = std::mem::replace(&mut of.lane, NONE);
        of.orphan = Some(Box::new(orphan));
        self.lanes[lane].head = NONE;
    }

    /// Puts a head among those that wait for a person.
    pub fn block(&mut self, head: u32) {
        if !std::mem::replace(&mut self.heads[head].blocked, true) {
            self.blocked.push_back(&mut self.heads, head);
        }
    }

    fn unblock(&mut self, head: u32) {
        if std::mem::replace(&mut self.heads[head].blocked, false) {
            self.blocked.remove(&mut self.heads, head);
        }
    }
}
