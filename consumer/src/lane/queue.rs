//! One assigned queue: its lanes, its progress, what of it is in memory.
//!
//! Invariants: a lane exists exactly while it holds messages; its messages are in offset order; it is in
//! `ready` exactly while its state is [`State::Ready`].

use super::limits::{Held, cost};
use super::offsets::Offsets;
use super::{Keyed, LaneKey, Progress, Time};
use crate::contract::admin::LaneState;
use crate::message::{Message, QueueId};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for a slot.
    Ready,
    /// Its head is with the handler.
    Running,
    /// Waits for the timer of this number.
    Waiting(u64),
}

#[derive(Debug)]
pub struct Lane {
    pub messages: VecDeque<Arc<Message>>,
    pub state: State,
    /// Failed attempts of the head.
    pub attempts: u32,
    /// Calls of the head in a row that the handler did not take.
    pub refusals: u32,
    /// The head has used up its attempts.
    pub blocked: bool,
    pub error: Option<Box<str>>,
}

impl Lane {
    pub fn view(&self) -> LaneState {
        match self.state {
            State::Running => LaneState::Running,
            _ if self.blocked => LaneState::Blocked,
            State::Ready => LaneState::Ready,
            State::Waiting(_) => LaneState::Backoff,
        }
    }
}

#[derive(Debug)]
pub struct Queue {
    pub id: QueueId,
    pub lease: Time,
    pub releasing: bool,
    pub running: u32,
    pub lanes: HashMap<LaneKey, Lane>,
    pub ready: VecDeque<LaneKey>,
    pub held: Held,
    /// A pull is under way.
    pub pulling: bool,
    /// No pull before this time.
    pub pull_after: Time,
    /// A limit stopped the pull.
    pub stopped: bool,
    offsets: Offsets,
    pulled: u64,
}

impl Queue {
    pub fn new(id: QueueId, start: u64, lease: Time) -> Self {
        Self {
            id,
            lease,
            releasing: false,
            running: 0,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            held: Held::default(),
            pulling: false,
            pull_after: Time::ZERO,
            stopped: false,
            offsets: Offsets::new(start),
            pulled: start,
        }
    }

    pub fn may_dispatch(&self, now: Time) -> bool {
        !self.releasing && now < self.lease
    }

    pub fn progress(&self) -> Progress {
        Progress {
            watermark: self.offsets.watermark(),
            finished_above: self.offsets.finished_above(),
            pulled: self.pulled,
            buffered: self.held.messages,
        }
    }

    /// Takes in a reply to a pull at the expected offset.
    pub fn take(&mut self, next: u64, mut messages: Vec<Keyed>) {
        messages.sort_by_key(|keyed| keyed.message.offset);
        let mut from = self.pulled;
        for Keyed { key, message } in messages {
            // Twice in one reply, or outside of what was asked: neither can be told apart from garbage.
            if message.offset < from || message.offset >= next {
                continue;
            }
            self.offsets.finish_range(from, message.offset);
            from = message.offset + 1;
            self.held.add(cost(message.body.len()));
            match self.lanes.get_mut(&key) {
                Some(lane) => lane.messages.push_back(message),
                None => {
                    self.lanes.insert(
                        key.clone(),
                        Lane {
                            messages: VecDeque::from([message]),
                            state: State::Ready,
                            attempts: 0,
                            refusals: 0,
                            blocked: false,
                            error: None,
                        },
                    );
                    self.ready.push_back(key);
                }
            }
        }
        self.offsets.finish_range(from, next.max(from));
        self.pulled = self.pulled.max(next);
    }

    /// The head of a lane is finished.
    pub fn finish_head(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        let Some(message) = lane.messages.pop_front() else {
            return;
        };
        self.offsets.finish(message.offset);
        self.held.remove(cost(message.body.len()));
        lane.attempts = 0;
        lane.refusals = 0;
        lane.blocked = false;
        lane.error = None;
        if lane.messages.is_empty() {
            self.lanes.remove(key);
            if self.lanes.capacity() > 1024 && self.lanes.len() * 8 < self.lanes.capacity() {
                self.lanes.shrink_to(self.lanes.len() * 2);
            }
        } else {
            lane.state = State::Ready;
            self.ready.push_back(key.clone());
        }
    }

    /// Forgets every message that is not with the handler.
    pub fn forget_waiting(&mut self) {
        let held = &mut self.held;
        self.lanes.retain(|_, lane| {
            let keep = usize::from(lane.state == State::Running);
            for message in lane.messages.drain(keep..) {
                held.remove(cost(message.body.len()));
            }
            keep > 0
        });
        self.ready.clear();
    }
}
