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
use super::head::{Blocked, ByAge, Head};
use super::limits::InMemory;
use super::list::{Links, List, linked};
use super::queue::Queue;
use super::slab::{NONE, Slab};
use crate::message::Message;
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
    /// A record of its attempts; in the line of its queue.
    Unrecorded,
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
    /// Which list by length it is in; 0 for none.
    class: u8,
}

linked!(Node, InOrder, order);
linked!(Lane, InLine, line);
linked!(Lane, ByLength, length);

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
    /// List n has lanes with about 2ⁿ messages.
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
            class: 0,
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
        let long = of.len >= LONG && of.len >= 2 << of.class;
        match last {
            NONE => of.first = node,
            last => self.nodes[last].next = node,
        }
        if long {
            self.classify(lane);
        }
    }

    /// Takes the first message out of a lane, which may be empty then.
    pub fn take_first(&mut self, queue: &mut Queue, lane: u32) -> Arc<Message> {
        let of = &mut self.lanes[lane];
        let node = of.first;
        queue.order.remove(&mut self.nodes, node);
        let Node { message, next, .. } = self.nodes.remove(node);
        of.first = next;
        if next == NONE {
            of.last = NONE;
        }
        of.len -= 1;
        let short = of.class > 0 && of.len <= (1 << of.class) / 2;
        if short {
            self.classify(lane);
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
        of.len = keep;
        match last {
            Some(last) => {
                of.last = last;
                self.nodes[last].next = NONE;
            }
            None => (of.first, of.last) = (NONE, NONE),
        }
        self.classify(lane);
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
            State::Unrecorded => queue.unrecorded.remove(&mut self.lanes, lane),
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
            State::Unrecorded => queue.unrecorded.push_back(&mut self.lanes, lane),
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

    /// Puts a lane into the list of its length. A lane stays in a list until it is twice as long as the
    /// list wants or half as long, so that one that goes up and down does not change lists.
    fn classify(&mut self, lane: u32) {
        let of = &mut self.lanes[lane];
        let class = if of.len < LONG {
            0
        } else {
            of.len.ilog2() as u8
        };
        let former = std::mem::replace(&mut of.class, class);
        if former > 0 {
            self.lengths[usize::from(former)].remove(&mut self.lanes, lane);
        }
        if class > 0 {
            self.lengths[usize::from(class)].push_back(&mut self.lanes, lane);
        }
    }

    /// About `most` of the longest lanes: of lanes that differ by less than a factor of four any may be
    /// missing.
    pub fn longest(&self, most: usize) -> Vec<u32> {
        let by_length = self.lengths.iter().rev();
        let mut longest: Vec<u32> = by_length
            .flat_map(|list| list.iter(&self.lanes))
            .take(8 * most)
            .collect();
        longest.sort_by_key(|lane| std::cmp::Reverse(self.lanes[*lane].len));
        longest.truncate(most);
        longest
    }
}
