//! Where calls wait for a thread.
//!
//! One line, first come first served, emptied by runners: threads of their own, as many as the runtime
//! has. A call is taken out one at a time, so a handler that blocks its thread delays no call but its own.
//! (Tasks of the runtime would not do: a task that is woken by another sits in a slot of that one's thread
//! which no other thread may empty, and stays there while the thread is blocked.) A runner is woken only
//! if there is a call that nobody is about to take.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier, mpsc};
    use std::time::Duration;

    #[test]
    fn a_call_that_blocks_its_thread_delays_no_other() {
        let line = Arc::new(Line::default());
        let (done, ended) = mpsc::channel();
        let release = Arc::new(Barrier::new(2));
        let runners: Vec<_> = (0..2)
            .map(|_| {
                let (line, done, release) = (line.clone(), done.clone(), release.clone());
                std::thread::spawn(move || {
                    line.run(|call| {
                        if call == 0 {
                            release.wait();
                        }
                        done.send(call).unwrap();
                        None
                    });
                })
            })
            .collect();
        line.push(&mut (0..100).collect());
        for _ in 1..100 {
            let call = ended.recv_timeout(Duration::from_secs(30));
            assert_ne!(call.unwrap(), 0);
        }
        release.wait();
        assert_eq!(ended.recv().unwrap(), 0);
        line.close();
        for runner in runners {
            runner.join().unwrap();
        }
    }

    #[test]
    fn calls_run_in_the_order_they_came_and_those_withdrawn_do_not() {
        let line = Line::default();
        line.push(&mut vec![1, 2, 3, 4]);
        assert_eq!(line.withdraw(|call| call % 2 == 0), [2, 4]);
        assert_eq!(line.push_and_pop(&mut vec![5]), Some(1));
        line.close();
        let mut ran = Vec::new();
        line.run(|call| {
            ran.push(call);
            None
        });
        assert_eq!(ran, [3, 5]);
    }
}
