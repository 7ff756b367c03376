//! What is to happen at a time.

use super::{Assignment, Time};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What a timer is for. A timer that has been overtaken stays until it is due and is recognised then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// A head waits for it, if it is its timer of this number.
    Head(u32, u64),
    /// A queue may be pulled again.
    Pull(Assignment),
    /// Calls of a former owner of the queue have ended.
    Hold(Assignment),
}

/// Timers by time, then by age.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Time, u64, Due)>>,
    numbers: u64,
}

impl Timers {
    /// A timer for a head; returns its number.
    pub fn set_head(&mut self, at: Time, head: u32) -> u64 {
        let number = self.numbers + 1;
        self.set(at, Due::Head(head, number));
        number
    }

    /// A timer.
    pub fn set(&mut self, at: Time, due: Due) {
        self.numbers += 1;
        self.heap.push(Reverse((at, self.numbers, due)));
    }

    /// When the first is due.
    pub fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes one out that is due.
    pub fn pop(&mut self, now: Time) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        let Reverse((.., due)) = self.heap.pop()?;
        if self.heap.capacity() > 1024 && self.heap.len() * 8 < self.heap.capacity() {
            self.heap.shrink_to(self.heap.len() * 2);
        }
        Some(due)
    }
}
