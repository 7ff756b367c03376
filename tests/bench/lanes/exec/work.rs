//! Simulated work that takes exactly as long as it is to: tokio's timers go by the millisecond, so ten of
//! them would come out as up to eleven. A thread sleeps by the system's own timer instead.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

struct Waiting {
    end: Instant,
    number: u64,
    done: oneshot::Sender<()>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.end, self.number).cmp(&(other.end, other.number))
    }
}

/// Ends work when its time has come; the thread ends with the last user.
pub struct Work(Sender<(Instant, oneshot::Sender<()>)>);

impl Work {
    pub fn start() -> Self {
        let (orders, inbox) = mpsc::channel::<(Instant, oneshot::Sender<()>)>();
        std::thread::spawn(move || {
            let mut waiting = BinaryHeap::new();
            let mut number = 0;
            loop {
                let now = Instant::now();
                while let Some(Reverse(Waiting { end, .. })) = waiting.peek() {
                    if *end > now {
                        break;
                    }
                    if let Some(Reverse(Waiting { done, .. })) = waiting.pop() {
                        // Whoever gave up waiting is not told.
                        let _gone = done.send(());
                    }
                }
                let pause = waiting
                    .peek()
                    .map_or(Duration::from_secs(3600), |Reverse(first)| {
                        first.end.saturating_duration_since(now)
                    });
                match inbox.recv_timeout(pause) {
                    Ok((end, done)) => {
                        number += 1;
                        waiting.push(Reverse(Waiting { end, number, done }));
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Self(orders)
    }

    /// Waits so long from now.
    pub async fn take(&self, time: Duration) {
        let (done, ended) = oneshot::channel();
        // The thread is there as long as we are.
        let _sent = self.0.send((Instant::now() + time, done));
        let _ended = ended.await;
    }
}
