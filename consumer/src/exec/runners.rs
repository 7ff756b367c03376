//! Where calls wait for a thread.
//!
//! One line, first come first served, emptied by runners: threads of their own, as many as the runtime
//! has. A call is taken out one at a time, so a handler that blocks its thread delays no call but its own.
//! (Tasks of the runtime would not do: a task that is woken by another sits in a slot of that one's thread
//! which no other thread may empty, and stays there while the thread is blocked.) A runner is woken only
//! if there is a call that nobody is about to take.

use super::sync::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::PoisonError;

#[derive(Debug)]
struct Waiting<C> {
    calls: VecDeque<C>,
    /// Runners that found nothing.
    idle: usize,
    closed: bool,
}

#[derive(Debug)]
pub struct Line<C> {
    waiting: Mutex<Waiting<C>>,
    wake: Condvar,
}

impl<C> Default for Line<C> {
    fn default() -> Self {
        let waiting = Waiting {
            calls: VecDeque::new(),
            idle: 0,
            closed: false,
        };
        Self {
            waiting: Mutex::new(waiting),
            wake: Condvar::new(),
        }
    }
}

impl<C> Line<C> {
    fn waiting(&self) -> MutexGuard<'_, Waiting<C>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all of `calls` in.
    pub fn push(&self, calls: &mut Vec<C>) {
        if !calls.is_empty() {
            let mut waiting = self.waiting();
            waiting.calls.extend(calls.drain(..));
            self.wake_one(waiting);
        }
    }

    /// Takes all of `calls` in and gives the first in line to the caller, who runs it now.
    pub fn push_and_pop(&self, calls: &mut Vec<C>) -> Option<C> {
        let mut waiting = self.waiting();
        waiting.calls.extend(calls.drain(..));
        self.take(waiting)
    }

    fn take(&self, mut waiting: MutexGuard<'_, Waiting<C>>) -> Option<C> {
        let call = waiting.calls.pop_front();
        if !waiting.calls.is_empty() {
            self.wake_one(waiting);
        }
        call
    }

    fn wake_one(&self, waiting: MutexGuard<'_, Waiting<C>>) {
        let idle = waiting.idle > 0;
        drop(waiting);
        if idle {
            self.wake.notify_one();
        }
    }

    /// Takes out the calls that must not run any more.
    pub fn withdraw(&self, which: impl Fn(&C) -> bool) -> Vec<C> {
        let mut waiting = self.waiting();
        let (out, stay) = waiting.calls.drain(..).partition(which);
        waiting.calls = stay;
        Vec::from_iter::<VecDeque<C>>(out)
    }

    /// Ends the runners once the line is empty.
    pub fn close(&self) {
        self.waiting().closed = true;
        self.wake.notify_all();
    }

    /// Runs calls until the line is closed. `start` may return the next call to run.
    pub fn run(&self, mut start: impl FnMut(C) -> Option<C>) {
        let mut next = None;
        while let Some(call) = next.take().or_else(|| self.next()) {
            next = start(call);
        }
    }

    /// Waits for a call; none if none will come.
    fn next(&self) -> Option<C> {
        let mut waiting = self.waiting();
        while waiting.calls.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting.idle += 1;
            waiting = self
                .wake
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
            waiting.idle -= 1;
        }
        self.take(waiting)
    }
}
