//! What is known of the messages a handler handled: how many, in what time, in what order.

use crate::load::{HOT_KEY, TIME_DIGITS};
use crate::order::Order;
use crate::printed::{Printed, STARTED};
use crate::work::Work;
use anyhow::{Context, Result};
use keylane_tests::usage::{peak_memory, processor_time};
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// What to handle.
#[derive(Debug, clap::Args)]
pub struct Expected {
    #[arg(long)]
    queues: u32,
    /// Messages to handle.
    #[arg(long)]
    total: u32,
    /// How many of them are timed.
    #[arg(long)]
    timed: u32,
    /// How many of them are not of the hot key.
    #[arg(long)]
    others: u32,
    #[arg(long)]
    work_ms: u64,
    #[arg(long)]
    limit_seconds: u64,
}

impl Expected {
    /// Messages to handle, timed or not.
    pub fn total(&self) -> u32 {
        self.total
    }
}

/// A moment, and the processor time this process used until then.
struct Moment {
    at: Instant,
    used: Duration,
}

impl Moment {
    fn now() -> Option<Self> {
        Some(Self {
            used: processor_time(std::process::id()).ok()?,
            at: Instant::now(),
        })
    }
}

/// Where a message lies, and what orders it.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub queue: u32,
    pub key: &'a str,
    pub offset: u64,
}

/// The messages handled so far.
pub struct Count {
    expected: Expected,
    started: AtomicU32,
    handled: AtomicU32,
    others: AtomicU32,
    /// The begin of the messages that count.
    first: OnceLock<Option<Moment>>,
    last: OnceLock<Option<Moment>>,
    last_other: OnceLock<Instant>,
    done: Notify,
    order: Order,
    work: Work,
    /// Microseconds from sending to handling.
    latencies: Mutex<Vec<u64>>,
}

impl Count {
    pub fn new(expected: Expected) -> Self {
        Self {
            started: AtomicU32::new(0),
            handled: AtomicU32::new(0),
            others: AtomicU32::new(0),
            first: OnceLock::new(),
            last: OnceLock::new(),
            last_other: OnceLock::new(),
            done: Notify::new(),
            order: Order::new(expected.queues),
            work: Work::of(Duration::from_millis(expected.work_ms)),
            latencies: Mutex::default(),
            expected,
        }
    }

    fn timed(&self) -> bool {
        self.expected.timed > 0
    }

    /// Handles a message.
    pub async fn handle(&self, place: Place<'_>, body: &[u8]) -> Result<()> {
        if self.started.fetch_add(1, Ordering::Relaxed) == 0 {
            println!("{STARTED}");
            std::io::stdout().flush()?;
            if !self.timed() {
                self.first.get_or_init(Moment::now);
            }
        }
        if self.timed() {
            self.time(body)?;
        }
        let Place { queue, key, offset } = place;
        self.order.begin(queue, key, offset);
        self.work.begin().await;
        self.order.end(queue, key, offset);
        if key != HOT_KEY && self.others.fetch_add(1, Ordering::Relaxed) + 1 == self.expected.others
        {
            self.last_other.get_or_init(Instant::now);
        }
        if self.handled.fetch_add(1, Ordering::Relaxed) + 1 == self.expected.total {
            self.last.get_or_init(Moment::now);
            self.done.notify_one();
        }
        Ok(())
    }

    fn time(&self, body: &[u8]) -> Result<()> {
        let sent = body.get(..TIME_DIGITS).unwrap_or_default();
        let sent: u64 = std::str::from_utf8(sent)?.parse()?;
        if sent > 0 {
            self.first.get_or_init(Moment::now);
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
            let took = u64::try_from(now)?.saturating_sub(sent);
            let mut latencies = self
                .latencies
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            latencies.push(took);
        }
        Ok(())
    }

    /// Milliseconds that this share of the messages took at most.
    fn percentile(&self, share: f64) -> Option<f64> {
        let mut latencies = self
            .latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        latencies.sort_unstable();
        let last = latencies.len().checked_sub(1)?;
        Some(latencies[(last as f64 * share).round() as usize] as f64 / 1e3)
    }

    /// What was measured, once everything is handled.
    pub async fn result(&self) -> Result<Printed> {
        let limit = Duration::from_secs(self.expected.limit_seconds);
        let total = self.expected.total;
        tokio::time::timeout(limit, self.done.notified())
            .await
            .with_context(|| {
                let handled = self.handled.load(Ordering::Relaxed);
                format!("handled {handled} of {total} in {limit:?}")
            })?;
        let moment = |moment: &OnceLock<Option<Moment>>| {
            let moment = moment.get().and_then(Option::as_ref);
            let moment = moment.context("the processor time of this process is not known")?;
            anyhow::Ok((moment.at, moment.used))
        };
        let (first, last) = (moment(&self.first)?, moment(&self.last)?);
        let others = self.last_other.get();
        Ok(Printed {
            messages: if self.timed() {
                self.expected.timed
            } else {
                total
            },
            seconds: (last.0 - first.0).as_secs_f64(),
            cpu_seconds: (last.1 - first.1).as_secs_f64(),
            rss_mib: peak_memory(std::process::id())?,
            inversions: self.order.inversions(),
            overlaps: self.order.overlaps(),
            p50_ms: self.percentile(0.5),
            p99_ms: self.percentile(0.99),
            others_seconds: others.map(|last| (*last - first.0).as_secs_f64()),
            pulled_per_message: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::USUAL;

    fn count(total: u32, timed: u32) -> Count {
        Count::new(Expected {
            queues: 1,
            total,
            timed,
            others: total,
            work_ms: 0,
            limit_seconds: 10,
        })
    }

    async fn handle(count: &Count, key: &str, offset: u64, body: &[u8]) {
        let place = Place {
            queue: 0,
            key,
            offset,
        };
        count.handle(place, body).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_handled_is_counted_and_its_order_judged() {
        let count = count(3, 0);
        handle(&count, "order-1", 1, b"").await;
        handle(&count, "order-2", 2, b"").await;
        handle(&count, "order-1", 0, b"").await;
        let printed = count.result().await.unwrap();
        assert_eq!((printed.messages, printed.inversions), (3, 1));
        assert_eq!((printed.overlaps, printed.p50_ms), (0, None));
    }

    #[tokio::test]
    async fn messages_that_were_there_beforehand_are_not_timed() {
        let count = count(2, 1);
        let body = |sent: u128| format!("{sent:0TIME_DIGITS$}{}", "x".repeat(9));
        handle(&count, "order-1", 0, body(0).as_bytes()).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let earlier = now.as_micros() - 5_000;
        handle(&count, "order-1", 1, body(earlier).as_bytes()).await;
        let printed = count.result().await.unwrap();
        assert_eq!(printed.messages, 1);
        assert!(printed.p50_ms >= Some(5.0), "{printed:?}");
        assert_eq!(printed.p50_ms, printed.p99_ms);
    }

    #[test]
    fn percentiles_are_of_what_was_timed_in_order_of_length() {
        let count = count(USUAL.messages, USUAL.messages);
        assert_eq!(count.percentile(0.5), None);
        // 1 to 101 ms, the longest first.
        let mut latencies = count.latencies.lock().unwrap();
        latencies.extend((1..=101).rev().map(|number| number * 1_000));
        drop(latencies);
        assert_eq!(count.percentile(0.5), Some(51.0));
        assert_eq!(count.percentile(0.99), Some(100.0));
    }
}
