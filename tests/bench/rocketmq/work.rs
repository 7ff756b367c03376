//! Simulated work that takes exactly as long as it is to: tokio's timers go by the millisecond, so one of
//! them would come out as up to two. A thread sleeps by the system's own timer instead.
//!
//! All work takes the same time, so it ends in the order it began in: the thread never has to be woken for
//! work that ends before what it waits for.

use futures::task::AtomicWaker;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Task {
    over: AtomicBool,
    waker: AtomicWaker,
}

#[derive(Default)]
struct Line {
    tasks: Mutex<VecDeque<(Instant, Arc<Task>)>>,
    begun: Condvar,
}

/// Work of one length.
pub struct Work {
    length: Duration,
    line: Arc<Line>,
}

impl Work {
    /// The thread that ends it lives as long as the process.
    pub fn of(length: Duration) -> Self {
        let line = Arc::new(Line::default());
        if !length.is_zero() {
            let line = line.clone();
            std::thread::spawn(move || line.serve());
        }
        Self { length, line }
    }

    /// Work that begins now.
    pub fn begin(&self) -> Running {
        let task = (!self.length.is_zero()).then(|| {
            let task = Arc::new(Task::default());
            self.line.push(Instant::now() + self.length, task.clone());
            task
        });
        Running(task)
    }
}

impl Line {
    fn push(&self, end: Instant, task: Arc<Task>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.push_back((end, task));
        if tasks.len() == 1 {
            self.begun.notify_one();
        }
    }

    fn serve(&self) {
        let mut ended = Vec::new();
        loop {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            while tasks.is_empty() {
                tasks = self
                    .begun
                    .wait(tasks)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            let now = Instant::now();
            while tasks.front().is_some_and(|(end, _)| *end <= now) {
                ended.extend(tasks.pop_front().map(|(_, task)| task));
            }
            let next = tasks.front().map(|(end, _)| *end);
            drop(tasks);
            let none = ended.is_empty();
            for task in ended.drain(..) {
                task.over.store(true, Ordering::Release);
                task.waker.wake();
            }
            if let Some(next) = next.filter(|_| none) {
                std::thread::sleep(next.saturating_duration_since(now));
            }
        }
    }
}

/// Work under way; ready when it is over.
pub struct Running(Option<Arc<Task>>);

impl Future for Running {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(task) = &self.0 else {
            return Poll::Ready(());
        };
        task.waker.register(context.waker());
        if task.over.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::future::{FutureExt, join_all};

    /// Less than tokio's timers can tell apart.
    const SHORT: Duration = Duration::from_micros(200);
    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn work_takes_as_long_as_it_is_to_and_not_a_millisecond_more() {
        let work = Work::of(SHORT);
        let mut shortest = Duration::MAX;
        // One after the other: timers that go by the millisecond would let each but the first take one.
        for number in 0..50 {
            let begun = Instant::now();
            block_on(work.begin());
            let took = begun.elapsed();
            assert!(took >= SHORT, "{took:?}");
            if number > 0 {
                shortest = shortest.min(took);
            }
        }
        // However busy the machine is, one of them was not kept waiting.
        assert!(shortest < MILLISECOND * 8 / 10, "{shortest:?}");
    }

    #[test]
    fn work_that_begins_at_the_same_time_ends_at_the_same_time() {
        let length = Duration::from_millis(50);
        let work = Work::of(length);
        let begun = Instant::now();
        block_on(join_all((0..200).map(|_| work.begin())));
        let took = begun.elapsed();
        // One after the other it would be ten seconds.
        assert!((length..length * 40).contains(&took), "{took:?}");
    }

    #[test]
    fn no_work_is_over_at_once() {
        assert!(Work::of(Duration::ZERO).begin().now_or_never().is_some());
    }
}
