//! Where calls wait for a thread.
//!
//! One line, first come first served, emptied by as many runners as the runtime has threads. A call is
//! taken out one at a time, so a handler that blocks its thread delays no call but its own. A runner is
//! woken only if there is a call that nobody is about to take.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Calls a runner starts before it lets other tasks of its thread run.
const CALLS_A_TURN: u32 = 64;

#[derive(Debug)]
pub struct Line<C> {
    calls: Mutex<VecDeque<C>>,
    /// Runners that found nothing.
    idle: AtomicUsize,
    wake: Notify,
    closed: AtomicBool,
}

impl<C> Default for Line<C> {
    fn default() -> Self {
        Self {
            calls: Mutex::default(),
            idle: AtomicUsize::new(0),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }
}

impl<C> Line<C> {
    fn calls(&self) -> MutexGuard<'_, VecDeque<C>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all of `calls` in.
    pub fn push(&self, calls: &mut Vec<C>) {
        if !calls.is_empty() {
            self.calls().extend(calls.drain(..));
            self.wake_one();
        }
    }

    /// Takes all of `calls` in and gives the first in line to the caller, who runs it now.
    pub fn push_and_pop(&self, calls: &mut Vec<C>) -> Option<C> {
        let mut line = self.calls();
        line.extend(calls.drain(..));
        self.take(line)
    }

    fn pop(&self) -> Option<C> {
        self.take(self.calls())
    }

    fn take(&self, mut line: MutexGuard<'_, VecDeque<C>>) -> Option<C> {
        let call = line.pop_front();
        let more = !line.is_empty();
        drop(line);
        if more {
            self.wake_one();
        }
        call
    }

    /// Takes out the calls that must not run any more.
    pub fn withdraw(&self, which: impl Fn(&C) -> bool) -> Vec<C> {
        let mut line = self.calls();
        let (out, stay) = line.drain(..).partition(which);
        *line = stay;
        Vec::from_iter::<VecDeque<C>>(out)
    }

    fn wake_one(&self) {
        if self.idle.load(Ordering::SeqCst) > 0 {
            self.wake.notify_one();
        }
    }

    /// Ends the runners once the line is empty.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.wake.notify_waiters();
        self.wake.notify_one();
    }

    /// Runs calls until the line is closed. `start` may return the next call to run.
    pub async fn run(&self, mut start: impl FnMut(C) -> Option<C>) {
        let mut next = None;
        let mut turn = 0;
        loop {
            let Some(call) = next.take().or_else(|| self.pop()) else {
                if !self.wait().await {
                    return;
                }
                continue;
            };
            next = start(call);
            turn += 1;
            if turn == CALLS_A_TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits for a call; false if none will come.
    async fn wait(&self) -> bool {
        let woken = self.wake.notified();
        self.idle.fetch_add(1, Ordering::SeqCst);
        // Whoever pushed before we counted as idle did not wake us.
        let closed = self.closed.load(Ordering::SeqCst);
        if !closed && self.calls().is_empty() {
            woken.await;
        }
        self.idle.fetch_sub(1, Ordering::SeqCst);
        if closed {
            // The next runner is to see it too.
            self.wake.notify_one();
        }
        !closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::mpsc;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_call_that_blocks_its_thread_delays_no_other() {
        let line = Arc::new(Line::default());
        let (done, mut ended) = mpsc::unbounded_channel();
        let release = Arc::new(std::sync::Barrier::new(2));
        let runners: Vec<_> = (0..2)
            .map(|_| {
                let (line, done, release) = (line.clone(), done.clone(), release.clone());
                tokio::spawn(async move {
                    line.run(|call| {
                        if call == 0 {
                            release.wait();
                        }
                        done.send(call).unwrap();
                        None
                    })
                    .await;
                })
            })
            .collect();
        line.push(&mut (0..100).collect());
        for _ in 1..100 {
            let call = tokio::time::timeout(Duration::from_secs(30), ended.recv()).await;
            assert_ne!(call.unwrap(), Some(0));
        }
        release.wait();
        assert_eq!(ended.recv().await, Some(0));
        line.close();
        for runner in runners {
            runner.await.unwrap();
        }
    }

    #[tokio::test]
    async fn calls_run_in_the_order_they_came_and_those_withdrawn_do_not() {
        let line = Line::default();
        line.push(&mut vec![1, 2, 3, 4]);
        assert_eq!(line.withdraw(|call| call % 2 == 0), [2, 4]);
        assert_eq!(line.push_and_pop(&mut vec![5]), Some(1));
        line.close();
        let mut ran = Vec::new();
        line.run(|call| {
            ran.push(call);
            None
        })
        .await;
        assert_eq!(ran, [3, 5]);
    }
}
