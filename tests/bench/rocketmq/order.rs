//! Judges the order of each key as it is handled, as `Peer.java` does for the others.

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
