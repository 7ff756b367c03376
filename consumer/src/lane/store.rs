//! How lanes and messages lie in memory.
//!
//! A message is a [`Node`] in two lists: its lane, and its queue in the order of offsets. A lane is a
//! [`Lane`]; it has no copy of its key, which is that of its messages. The first message of a lane has a
//! [`Head`] from its first call until it is finished: whatever is rare (attempts, errors, timers) is there.
//! All of them are numbers in slabs, so that nothing but a message itself is allocated for a message.
//!
//! Invariants: a lane exists exactly while it has messages; they are in offset order; [`State`] says in
//! which list the lane waits, and it is in no other.

use super::LaneKey;
use super::Time;
use super::limits::InMemory;
use super::list::{Linked, Links, List};
use super::queue::Queue;
use super::slab::{NONE, Slab};
use crate::message::{Message, QueueId};
use std::sync::Arc;

/// The messages of a queue in the order of offsets.
#[derive(Debug)]
pub struct InOrder;
/// Lanes that wait for the same thing.
#[derive(Debug)]
pub struct InLine;
/// Lanes of about the same length.
#[derive(Debug)]
pub struct ByLength;
/// Heads in the order of their first call.
#[derive(Debug)]
pub struct ByAge;
/// Heads that wait for a person.
#[derive(Debug)]
pub struct Blocked;

/// A message in memory.
#[derive(Debug)]
pub struct Node {
    pub message: Arc<Message>,
    pub lane: u32,
    /// The next message of the lane.
    pub next: u32,
    order: Links,
}

/// What a lane waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A slot; in the line of its queue.
    Ready,
    /// The end of a former owner's call; in the line of its queue.
    Held,
    /// The end of its suspension.
    Suspended,
    /// The call of another suspect.
    Suspect,
    /// What its head says.
    InHand,
}

/// The kind of a lane, see [`super::Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Key,
    Shared,
    Own,
}

/// A lane.
#[derive(Debug)]
pub struct Lane {
    pub first: u32,
    last: u32,
    pub len: u32,
    pub queue: u32,
    /// Of its key, also for a lane that has none: tells the lanes of a queue apart nearly always.
    pub hash: u32,
    /// Its head, if that was called.
    pub head: u32,
    line: Links,
    length: Links,
    pub state: State,
    pub kind: Kind,
}

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

macro_rules! linked {
    ($value:ty, $kind:ty, $field:ident) => {
        impl Linked<$kind> for $value {
            fn links(&self) -> &Links {
                &self.$field
            }

            fn links_mut(&mut self) -> &mut Links {
                &mut self.$field
            }
        }
    };
}
linked!(Node, InOrder, order);
linked!(Lane, InLine, line);
linked!(Lane, ByLength, length);
linked!(Head, ByAge, age);
linked!(Head, Blocked, block);

/// Shorter lanes are in no list by length.
const LONG: u32 = 8;

/// The lanes and messages of all queues.
#[derive(Debug, Default)]
pub struct Store {
    pub lanes: Slab<Lane>,
    pub nodes: Slab<Node>,
    pub heads: Slab<Head>,
    /// What is in memory, with what calls of dropped queues still hold.
    pub memory: InMemory,
    /// Heads in the order of their first call.
    pub by_age: List<ByAge>,
    pub blocked: List<Blocked>,
    pub suspended: List<InLine>,
    pub suspects: List<InLine>,
    /// Lanes with 2ⁿ to 2ⁿ⁺¹ - 1 messages.
    lengths: [List<ByLength>; 32],
}

impl Store {
    /// The name of a lane.
    pub fn key(&self, lane: u32) -> LaneKey {
        let lane = &self.lanes[lane];
        let message = &self.nodes[lane.first].message;
        match (lane.kind, &message.key) {
            (Kind::Key, Some(key)) => LaneKey::Key(key.clone()),
            (Kind::Own, _) => LaneKey::Own(message.offset),
            (Kind::Shared | Kind::Key, _) => LaneKey::Shared,
        }
    }

    /// The first message of a lane.
    pub fn first(&self, lane: u32) -> &Arc<Message> {
        &self.nodes[self.lanes[lane].first].message
    }

    /// Makes a lane without messages, which has to get one.
    pub fn add_lane(&mut self, queue: &mut Queue, slot: u32, kind: Kind, hash: u32) -> u32 {
        let lane = self.lanes.insert(Lane {
            first: NONE,
            last: NONE,
            len: 0,
            queue: slot,
            hash,
            head: NONE,
            line: Links::default(),
            length: Links::default(),
            state: State::InHand,
            kind,
        });
        queue.lanes += 1;
        match kind {
            Kind::Key => queue.table.insert(hash, lane),
            Kind::Shared => queue.shared = lane,
            Kind::Own => {}
        }
        lane
    }

    /// Adds a message at the end of a lane.
    pub fn append(&mut self, queue: &mut Queue, lane: u32, message: Arc<Message>) {
        let memory = InMemory::one(message.cost());
        self.memory += memory;
        queue.memory += memory;
        let node = self.nodes.insert(Node {
            message,
            lane,
            next: NONE,
            order: Links::default(),
        });
        queue.order.push_back(&mut self.nodes, node);
        let of = &mut self.lanes[lane];
        let last = std::mem::replace(&mut of.last, node);
        of.len += 1;
        let len = of.len;
        match last {
            NONE => of.first = node,
            last => self.nodes[last].next = node,
        }
        if len.is_power_of_two() && len >= LONG {
            self.change_length(lane, len / 2, len);
        }
    }

    /// Takes the first message out of a lane, which may be empty then.
    pub fn take_first(&mut self, queue: &mut Queue, lane: u32) -> Arc<Message> {
        let of = &mut self.lanes[lane];
        let (node, len) = (of.first, of.len);
        queue.order.remove(&mut self.nodes, node);
        let Node { message, next, .. } = self.nodes.remove(node);
        of.first = next;
        if next == NONE {
            of.last = NONE;
        }
        of.len -= 1;
        if len.is_power_of_two() && len >= LONG {
            self.change_length(lane, len, len - 1);
        }
        let memory = InMemory::one(message.cost());
        self.memory -= memory;
        queue.memory -= memory;
        message
    }

    /// Forgets all but the first `keep` messages of a lane.
    pub fn truncate(&mut self, queue: &mut Queue, lane: u32, keep: u32) {
        let numbers: Vec<u32> = self.messages(lane).skip(keep as usize).collect();
        if numbers.is_empty() {
            return;
        }
        let last = self.messages(lane).take(keep as usize).last();
        for node in numbers {
            queue.order.remove(&mut self.nodes, node);
            let memory = InMemory::one(self.nodes.remove(node).message.cost());
            self.memory -= memory;
            queue.memory -= memory;
        }
        let of = &mut self.lanes[lane];
        let len = std::mem::replace(&mut of.len, keep);
        match last {
            Some(last) => {
                of.last = last;
                self.nodes[last].next = NONE;
            }
            None => (of.first, of.last) = (NONE, NONE),
        }
        self.change_length(lane, len, keep);
    }

    /// The messages of a lane, as numbers of nodes.
    pub fn messages(&self, lane: u32) -> impl Iterator<Item = u32> + '_ {
        let number = |number: u32| (number != NONE).then_some(number);
        std::iter::successors(number(self.lanes[lane].first), move |node| {
            number(self.nodes[*node].next)
        })
    }

    /// Takes a lane out of the line it waits in.
    pub fn leave_line(&mut self, queue: &mut Queue, lane: u32) {
        match self.lanes[lane].state {
            State::Ready => queue.ready.remove(&mut self.lanes, lane),
            State::Held => queue.held.remove(&mut self.lanes, lane),
            State::Suspended => self.suspended.remove(&mut self.lanes, lane),
            State::Suspect => self.suspects.remove(&mut self.lanes, lane),
            State::InHand => {}
        }
        self.lanes[lane].state = State::InHand;
    }

    /// Puts a lane that is in no line into one.
    pub fn join_line(&mut self, queue: &mut Queue, lane: u32, state: State) {
        self.lanes[lane].state = state;
        match state {
            State::Ready => queue.ready.push_back(&mut self.lanes, lane),
            State::Held => queue.held.push_back(&mut self.lanes, lane),
            State::Suspended => self.suspended.push_back(&mut self.lanes, lane),
            State::Suspect => self.suspects.push_back(&mut self.lanes, lane),
            State::InHand => {}
        }
    }

    /// Frees a lane that has no messages and is in no line.
    pub fn free_lane(&mut self, queue: &mut Queue, lane: u32) {
        let head = self.lanes[lane].head;
        if head != NONE {
            self.close_head(head);
        }
        let Lane { kind, hash, .. } = self.lanes.remove(lane);
        queue.lanes -= 1;
        match kind {
            Kind::Key => queue.table.remove(hash, lane),
            Kind::Shared => queue.shared = NONE,
            Kind::Own => {}
        }
    }

    /// Forgets a lane and its messages.
    pub fn forget_lane(&mut self, queue: &mut Queue, lane: u32) {
        self.leave_line(queue, lane);
        self.truncate(queue, lane, 0);
        self.free_lane(queue, lane);
    }

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

    fn change_length(&mut self, lane: u32, from: u32, to: u32) {
        let list = |len: u32| (len >= LONG).then(|| len.ilog2() as usize);
        let (from, to) = (list(from), list(to));
        if from == to {
            return;
        }
        if let Some(from) = from {
            self.lengths[from].remove(&mut self.lanes, lane);
        }
        if let Some(to) = to {
            self.lengths[to].push_back(&mut self.lanes, lane);
        }
    }

    /// About `most` of the longest lanes: of lanes that differ by less than a factor of two any may be
    /// missing.
    pub fn longest(&self, most: usize) -> Vec<u32> {
        let by_length = self.lengths.iter().rev();
        let mut longest: Vec<u32> = by_length
            .flat_map(|list| list.iter(&self.lanes))
            .take(4 * most)
            .collect();
        longest.sort_by_key(|lane| std::cmp::Reverse(self.lanes[*lane].len));
        longest.truncate(most);
        longest
    }
}
