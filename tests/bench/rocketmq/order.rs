//! Judges the order of each key as it is handled, as `Measure.java` does for the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

#[derive(Default)]
struct Lane {
    running: bool,
    /// Offset after the last that was finished.
    finished: u64,
}

/// The lanes of each queue.
pub struct Order {
    queues: Vec<Mutex<HashMap<Box<str>, Lane>>>,
    inversions: AtomicU64,
    overlaps: AtomicU64,
}

impl Order {
    pub fn new(queues: u32) -> Self {
        Self {
            queues: (0..queues).map(|_| Mutex::default()).collect(),
            inversions: AtomicU64::new(0),
            overlaps: AtomicU64::new(0),
        }
    }

    /// A message starts.
    pub fn begin(&self, queue: u32, key: &str, offset: u64) {
        self.with(queue, key, |lane| {
            if lane.running {
                self.overlaps.fetch_add(1, Ordering::Relaxed);
            }
            // Started after a later one, or itself, was finished.
            if offset < lane.finished {
                self.inversions.fetch_add(1, Ordering::Relaxed);
            }
            lane.running = true;
        });
    }

    /// It has ended.
    pub fn end(&self, queue: u32, key: &str, offset: u64) {
        self.with(queue, key, |lane| {
            lane.running = false;
            lane.finished = lane.finished.max(offset + 1);
        });
    }

    fn with(&self, queue: u32, key: &str, act: impl FnOnce(&mut Lane)) {
        let mut lanes = self.queues[queue as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match lanes.get_mut(key) {
            Some(lane) => act(lane),
            None => act(lanes.entry(key.into()).or_default()),
        }
    }

    pub fn inversions(&self) -> u64 {
        self.inversions.load(Ordering::Relaxed)
    }

    pub fn overlaps(&self) -> u64 {
        self.overlaps.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an order of begins (`true`) and ends of messages of one key is judged as.
    fn judged(moves: &[(bool, u64)]) -> (u64, u64) {
        let order = Order::new(1);
        for (begins, offset) in moves {
            if *begins {
                order.begin(0, "order-1", *offset);
            } else {
                order.end(0, "order-1", *offset);
            }
        }
        (order.inversions(), order.overlaps())
    }

    const fn begin(offset: u64) -> (bool, u64) {
        (true, offset)
    }

    const fn end(offset: u64) -> (bool, u64) {
        (false, offset)
    }

    #[test]
    fn one_after_the_other_by_offset_is_in_order_whatever_lies_between() {
        let moves = [begin(0), end(0), begin(3), end(3), begin(7), end(7)];
        assert_eq!(judged(&moves), (0, 0));
    }

    #[test]
    fn one_that_begins_while_another_runs_overlaps_it() {
        let moves = [begin(0), begin(1), end(0), end(1)];
        assert_eq!(judged(&moves), (0, 1));
    }

    #[test]
    fn one_that_begins_after_a_later_one_has_ended_is_an_inversion() {
        let moves = [begin(1), end(1), begin(0), end(0), begin(2), end(2)];
        assert_eq!(judged(&moves), (1, 0));
        // What came before stays judged by the latest that has ended.
        let moves = [begin(5), end(5), begin(1), end(1), begin(2), end(2)];
        assert_eq!(judged(&moves), (2, 0));
    }

    #[test]
    fn one_that_has_ended_and_begins_again_is_an_inversion() {
        let moves = [begin(4), end(4), begin(4), end(4)];
        assert_eq!(judged(&moves), (1, 0));
    }

    #[test]
    fn keys_and_queues_have_an_order_of_their_own() {
        let order = Order::new(2);
        for (queue, key) in [(0, "order-1"), (0, "order-2"), (1, "order-1")] {
            order.begin(queue, key, 9);
        }
        order.end(0, "order-1", 9);
        for (queue, key) in [(0, "order-2"), (1, "order-1")] {
            order.end(queue, key, 9);
        }
        order.begin(1, "order-2", 0);
        assert_eq!((order.inversions(), order.overlaps()), (0, 0));
    }
}
