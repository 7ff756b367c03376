//! A lock whose waiters leave their work instead of waiting.
//!
//! Whoever has something for the state behind the gate puts it into the inbox and, if nobody is inside,
//! goes in and serves the inbox until it is empty. If somebody is inside, that one will: it looks into the
//! inbox again after it came out. So nothing stays in the inbox while everybody is outside, nobody waits
//! to put something in, and under load the state is entered once for many items. (Flat combining:
//! D. Hendler, I. Incze, N. Shavit, M. Tzafrir, 2010.)

use super::sync::{Mutex, MutexGuard};
use std::sync::TryLockError;

/// State of type `T` that takes items of type `I`.
#[derive(Debug)]
pub struct Gate<T, I> {
    state: Mutex<T>,
    inbox: Mutex<Vec<I>>,
}

const BROKEN: &str = "the state behind the gate is broken: its last user panicked";

impl<T, I> Gate<T, I> {
    pub fn new(state: T) -> Self {
        Self {
            state: Mutex::new(state),
            inbox: Mutex::default(),
        }
    }

    /// Leaves an item; it is served by this thread or by the one that is inside. `serve` gets items in
    /// the order they came and takes all of them out.
    pub fn put(&self, item: I, serve: impl FnMut(&mut T, &mut Vec<I>)) {
        self.inbox().push(item);
        self.clear(serve);
    }

    /// Goes in, waiting if need be; serves what arrived meanwhile.
    pub fn enter<R>(
        &self,
        act: impl FnOnce(&mut T) -> R,
        serve: impl FnMut(&mut T, &mut Vec<I>),
    ) -> R {
        let done = act(&mut self.state.lock().expect(BROKEN));
        self.clear(serve);
        done
    }

    fn clear(&self, mut serve: impl FnMut(&mut T, &mut Vec<I>)) {
        loop {
            if self.inbox().is_empty() {
                return;
            }
            let mut state = match self.state.try_lock() {
                Ok(state) => state,
                Err(TryLockError::WouldBlock) => return,
                Err(TryLockError::Poisoned(_)) => panic!("{BROKEN}"),
            };
            let mut items = std::mem::take(&mut *self.inbox());
            serve(&mut state, &mut items);
            drop(state);
            // The inbox keeps the larger allocation.
            let mut inbox = self.inbox();
            if inbox.is_empty() && inbox.capacity() < items.capacity() {
                *inbox = items;
            }
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Vec<I>> {
        self.inbox.lock().expect(BROKEN)
    }
}
