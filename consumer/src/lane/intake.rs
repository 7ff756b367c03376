//! Taking messages in: when to pull, and which lane each message goes to.

use super::executor::LaneExecutor;
use super::hot::Sample;
use super::limits::{InMemory, Share};
use super::store::{Kind, State};
use super::timers::Due;
use super::{Assignment, Incoming, Output, Place, Time};
use std::hash::{BuildHasher, Hasher};

impl LaneExecutor {
    /// A reply to a pull.
    pub(super) fn pulled(
        &mut self,
        assignment: Assignment,
        from: u64,
        next: u64,
        mut messages: Vec<Incoming>,
    ) {
        let Some(slot) = self.slot(assignment) else {
            return;
        };
        self.pull_ended(slot);
        let queue = &mut self.queues[slot];
        queue.usual_reply = messages.len() as u64;
        queue.counters.pulled += messages.len() as u64;
        if queue.releasing || queue.pulled != from {
            return self.check_pull(slot);
        }
        if !messages.is_sorted_by_key(|incoming| incoming.message.offset) {
            messages.sort_by_key(|incoming| incoming.message.offset);
        }
        let mut sample = self.hot.reply(self.now, messages.len());
        let mut at = from;
        for incoming in messages {
            let offset = incoming.message.offset;
            // Twice in one reply, or outside of what was asked: neither can be told from garbage.
            if offset < at || offset >= next {
                continue;
            }
            let queue = &mut self.queues[slot];
            queue.finished.finish_range(at, offset);
            at = offset;
            if queue.finished.contains(offset) {
                at += 1;
                continue;
            }
            let cost = incoming.message.cost();
            queue.usual_cost = (queue.usual_cost * 15 + cost).div_ceil(16);
            if !self.share(slot).admits(cost) {
                // The rest is pulled again when there is room.
                let queue = &mut self.queues[slot];
                queue.pulled = at;
                self.stop(slot);
                return self.give_turn(slot);
            }
            self.take_in(slot, incoming, &mut sample);
            at += 1;
        }
        let queue = &mut self.queues[slot];
        queue.finished.finish_range(at, next);
        queue.pulled = queue.pulled.max(next);
        self.give_turn(slot);
        self.check_pull(slot);
    }

    /// A pull failed, or brought nothing.
    pub(super) fn pull_failed(&mut self, assignment: Assignment, retry_at: Time) {
        let Some(slot) = self.slot(assignment) else {
            return;
        };
        self.pull_ended(slot);
        let queue = &mut self.queues[slot];
        queue.pull_after = retry_at;
        if self.now < retry_at {
            self.timers.set(retry_at, Due::Pull(assignment));
        }
        self.check_pull(slot);
    }

    /// Puts a message into its lane.
    fn take_in(&mut self, slot: u32, incoming: Incoming, sample: &mut Sample) {
        let Incoming { place, message } = incoming;
        let Self {
            store,
            queues,
            hot,
            splits,
            hasher,
            now,
            ..
        } = self;
        let (kind, hash) = match (place, &message.key) {
            (Place::Key, Some(key)) => {
                let mut state = hasher.build_hasher();
                state.write(key.as_bytes());
                let hash = state.finish();
                if let Some(weight) = sample.next() {
                    hot.count(weight, slot, hash, key);
                }
                (Kind::Key, hash)
            }
            (Place::Own, _) => (Kind::Own, hasher.hash_one(message.offset)),
            (Place::Shared | Place::Key, _) => (Kind::Shared, 0),
        };
        let (short, queue) = (hash as u32, &queues[slot]);
        let known = match (kind, &message.key) {
            (Kind::Key, Some(key)) => queue.lane(store, short, key),
            (Kind::Shared, _) => queue.shared(),
            _ => None,
        };
        if let Some(lane) = known {
            return store.append(&mut queues[slot], lane, message);
        }
        if let (Kind::Key, Some(key)) = (kind, &message.key)
            && splits.watches(hash)
        {
            let name = |slot: u32| queues.get(slot).map(|queue| queue.id.clone());
            splits.met(*now, slot, hash, key, name);
        }
        let queue = &mut queues[slot];
        let lane = store.add_lane(queue, slot, kind, short);
        store.append(queue, lane, message);
        let held = queue.holds(*now, || store.key(lane).fingerprint());
        let line = if held { State::Held } else { State::Ready };
        store.join_line(queue, lane, line);
    }

    fn pull_ended(&mut self, slot: u32) {
        let queue = &mut self.queues[slot];
        queue.pulling = false;
        self.expected -= std::mem::take(&mut queue.expected);
    }

    fn share(&self, slot: u32) -> Share<'_> {
        Share {
            limits: &self.settings.limits,
            queues: self.queues.len() as u64,
            used: self.store.memory,
            held: self.queues[slot].memory,
        }
    }

    /// Asks for a pull of the queue, if there is none under way and the limits allow it.
    pub(super) fn check_pull(&mut self, slot: u32) {
        let queue = &self.queues[slot];
        if queue.pulling || queue.releasing || self.now < queue.pull_after {
            return;
        }
        // What was finished under a former owner may lie right above.
        let queue = &mut self.queues[slot];
        queue.pulled = queue.pulled.max(queue.finished.watermark());
        let (span, cost, stopped) = (queue.span(), queue.usual_cost, queue.stopped);
        let usual = queue.usual_reply;
        let share = self.share(slot).expecting(self.expected);
        let room = share.room(span, cost, stopped);
        if room == 0 {
            return self.stop(slot);
        }
        let expected = usual.min(u64::from(room));
        let expected = InMemory {
            messages: expected,
            bytes: expected * cost,
        };
        self.expected += expected;
        let queue = &mut self.queues[slot];
        queue.expected = expected;
        queue.stopped = false;
        queue.pulling = true;
        let pull = Output::Pull {
            assignment: queue.assignment,
            queue: queue.id.clone(),
            offset: queue.pulled,
            max_messages: room,
        };
        self.outputs.push_back(pull);
    }

    fn stop(&mut self, slot: u32) {
        let queue = &mut self.queues[slot];
        queue.stopped = true;
        if !std::mem::replace(&mut queue.in_stopped, true) {
            self.stopped.push_back(slot);
        }
    }

    /// Looks whether the next of the stopped queues can go on: what it may hold depends on the others.
    pub(super) fn check_stopped(&mut self) {
        let Some(slot) = self.stopped.pop_front() else {
            return;
        };
        self.queues[slot].in_stopped = false;
        if self.queues[slot].stopped {
            self.check_pull(slot);
        }
    }
}
