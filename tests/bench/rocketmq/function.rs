//! Keylane with a Rust handler, in a process of its own: what a user of the library runs.

use crate::load::TIME_DIGITS;
use crate::order::Order;
use crate::printed::{Printed, STARTED};
use crate::usage::{peak_memory, processor_time};
use crate::work::Work;
use anyhow::{Context, Result};
use keylane_consumer::{Consumer, Delivery, Failure};
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[arg(long)]
    name_server: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    queues: u32,
    /// Messages to handle.
    #[arg(long)]
    total: u32,
    /// How many of them are timed.
    #[arg(long)]
    timed: u32,
    #[arg(long)]
    work_ms: u64,
    #[arg(long)]
    lanes: u32,
    #[arg(long)]
    limit_seconds: u64,
}

/// A moment, and the processor time used until then.
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

/// What is known of the messages handled so far.
struct Count {
    started: AtomicU32,
    handled: AtomicU32,
    total: u32,
    /// The begin of the messages that count.
    first: OnceLock<Option<Moment>>,
    last: OnceLock<Option<Moment>>,
    done: Notify,
    order: Order,
    work: Work,
    /// Microseconds from sending to handling.
    latencies: Mutex<Vec<u64>>,
    timed: bool,
}

impl Count {
    async fn handle(&self, delivery: Delivery) -> Result<(), Failure> {
        let message = &delivery.message;
        if self.started.fetch_add(1, Ordering::Relaxed) == 0 {
            println!("{STARTED}");
            std::io::stdout().flush()?;
            if !self.timed {
                self.first.get_or_init(Moment::now);
            }
        }
        if self.timed {
            self.time(&message.body)?;
        }
        let (queue, key, offset) = (delivery.queue.id, delivery.key.as_str(), message.offset);
        self.order.begin(queue, key, offset);
        self.work.begin().await;
        self.order.end(queue, key, offset);
        if self.handled.fetch_add(1, Ordering::Relaxed) + 1 == self.total {
            self.last.get_or_init(Moment::now);
            self.done.notify_one();
        }
        Ok(())
    }

    fn time(&self, body: &[u8]) -> Result<(), Failure> {
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
}

/// Consumes the topic from its begin, prints what was measured, and drains.
pub async fn run(options: Options) -> Result<()> {
    let count = Arc::new(Count {
        started: AtomicU32::new(0),
        handled: AtomicU32::new(0),
        total: options.total,
        first: OnceLock::new(),
        last: OnceLock::new(),
        done: Notify::new(),
        order: Order::new(options.queues),
        work: Work::of(Duration::from_millis(options.work_ms)),
        latencies: Mutex::default(),
        timed: options.timed > 0,
    });
    let handler = count.clone();
    let running = Consumer::builder()
        .name_servers([options.name_server])
        .topic(&options.topic)
        .group(&options.topic)
        .lanes(options.lanes)
        .start(move |delivery| {
            let count = handler.clone();
            async move { count.handle(delivery).await }
        })
        .await?;
    let limit = Duration::from_secs(options.limit_seconds);
    tokio::time::timeout(limit, count.done.notified())
        .await
        .with_context(|| {
            let handled = count.handled.load(Ordering::Relaxed);
            format!("handled {handled} of {} in {limit:?}", options.total)
        })?;
    let moment = |moment: &OnceLock<Option<Moment>>| {
        let moment = moment.get().and_then(Option::as_ref);
        let moment = moment.context("the processor time of this process is not known")?;
        anyhow::Ok((moment.at, moment.used))
    };
    let (first, last) = (moment(&count.first)?, moment(&count.last)?);
    let printed = Printed {
        messages: if options.timed > 0 {
            options.timed
        } else {
            options.total
        },
        seconds: (last.0 - first.0).as_secs_f64(),
        cpu_seconds: (last.1 - first.1).as_secs_f64(),
        rss_mib: peak_memory(std::process::id())?,
        inversions: count.order.inversions(),
        overlaps: count.order.overlaps(),
        p50_ms: count.percentile(0.5),
        p99_ms: count.percentile(0.99),
    };
    println!("{}", serde_json::to_string(&printed)?);
    running.stop().await?;
    Ok(())
}
