//! Core and shell together: threads, clocks and a handler in this process; only the broker is made up.
//! Consumption is Broadcasting, so that no queue waits for a lock.

mod broker;
mod work;

use crate::Goal::{AtLeast, AtMost};
use crate::{Figure, Measurement};
use broker::{Broker, Topic};
use keylane_consumer::config::Config;
use keylane_consumer::exec::{Control, Executor, Measures, Options, incarnation};
use keylane_consumer::handler::func::FuncHandler;
use keylane_consumer::handler::{Delivery, Outcome};
use keylane_consumer::lane::CallResult;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use work::Work;

/// All measurements of core and shell.
pub const MEASUREMENTS: &[Measurement] = &[
    ("exec throughput", throughput),
    ("exec hot key", hot_key),
    ("exec busy lanes", busy_lanes),
    ("exec stuck key", stuck_key),
    ("exec idle latency", idle_latency),
];

const THREADS: usize = 2;

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// An executor that consumes a made-up topic.
struct Running {
    control: Control,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Must be called on the runtime it is to run on.
    fn start<F, R>(topic: Arc<Topic>, lanes: u32, handler: F) -> Self
    where
        F: Fn(Delivery) -> R + Send + Sync + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        let text = "{apiVersion: keylane.dev/v1alpha1, kind: OrderedConsumer, metadata: {name: bench}, spec: \
                    {rocketmq: {nameServers: [\"none:1\"]}, topic: T, consumerGroup: G, consumption: Broadcasting, \
                    handler: {http: {port: 1}}, limits: {messages: 40000}, drain: {timeout: 1s}}}";
        let config = Config::parse(text, Path::new("bench")).expect("a good document");
        let options = Options::new(incarnation("bench"), lanes);
        let executor = Executor::new(
            config.spec(),
            options,
            Broker(topic),
            FuncHandler::new(handler),
            Measures::new().expect("good names"),
        );
        let (control, stop) = (executor.control(), CancellationToken::new());
        let task = tokio::spawn(executor.run(stop.clone()));
        Self {
            control,
            stop,
            task,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        // A call that never ends outlives the drain.
        let _ended = tokio::time::timeout(Duration::from_secs(5), self.task).await;
    }
}

/// Counts calls and tells when there were enough.
#[derive(Default)]
struct Count {
    calls: AtomicU64,
    first: Mutex<Option<Instant>>,
    enough: AtomicU64,
    reached: Notify,
}

impl Count {
    fn until(calls: u64) -> Arc<Self> {
        Arc::new(Self {
            enough: AtomicU64::new(calls),
            ..Self::default()
        })
    }

    fn one(&self) {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if calls == 1 {
            *self.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        if calls == self.enough.load(Ordering::Relaxed) {
            self.reached.notify_one();
        }
    }

    /// Calls a second from the first to the last.
    async fn rate(&self) -> f64 {
        self.reached.notified().await;
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let since = first.expect("it has begun").elapsed();
        self.enough.load(Ordering::Relaxed) as f64 / since.as_secs_f64()
    }
}

/// Messages a second with a handler that does nothing.
fn nothing_to_do(queues: u32, keys: u64, messages: u64) -> f64 {
    runtime().block_on(async {
        let topic = Topic::new(queues, keys, messages / u64::from(queues));
        let count = Count::until(messages);
        let handler = {
            let count = count.clone();
            move |_| {
                count.one();
                std::future::ready(Outcome::from(CallResult::Done))
            }
        };
        let running = Running::start(topic, 512, handler);
        let rate = count.rate().await;
        running.stop().await;
        rate
    })
}

fn throughput() -> Vec<Figure> {
    let rate = nothing_to_do(8, 1_000, 4_000_000);
    vec![
        Figure::new(
            "exec: 1,000 keys, 8 queues, no-op handler",
            rate,
            "messages/s",
        )
        .goal(AtLeast(500_000.0)),
    ]
}

fn hot_key() -> Vec<Figure> {
    let rate = nothing_to_do(1, 1, 1_000_000);
    vec![
        Figure::new("exec: one hot key, no-op handler", rate, "messages/s")
            .goal(AtLeast(300_000.0)),
    ]
}

/// Calls a second of 100 lanes with work of this length; `failing` is a key that fails always.
fn working(work: Duration, calls: u64, failing: Option<&'static str>) -> f64 {
    runtime().block_on(async {
        let topic = Topic::new(8, 1_000, calls);
        let count = Count::until(calls);
        let worker = Arc::new(Work::start());
        let handler = {
            let count = count.clone();
            move |delivery: Delivery| {
                let (count, worker) = (count.clone(), worker.clone());
                async move {
                    if failing.is_some() && delivery.message.key.as_deref() == failing {
                        return Outcome::from(CallResult::Failed {
                            error: "it always fails".into(),
                            retry_after: None,
                        });
                    }
                    worker.take(work).await;
                    count.one();
                    Outcome::from(CallResult::Done)
                }
            }
        };
        let running = Running::start(topic, 100, handler);
        let rate = count.rate().await;
        running.stop().await;
        rate
    })
}

fn busy_lanes() -> Vec<Figure> {
    [(10, 60_000), (100, 6_000)]
        .into_iter()
        .map(|(millis, calls)| {
            let ideal = 100.0 * 1_000.0 / millis as f64;
            let rate = working(Duration::from_millis(millis), calls, None);
            let name = format!("exec: 100 lanes at {millis} ms, of the ideal {ideal}/s");
            Figure::new(name, 100.0 * rate / ideal, "%").goal(AtLeast(98.0))
        })
        .collect()
}

fn stuck_key() -> Vec<Figure> {
    let work = Duration::from_millis(10);
    let without = working(work, 30_000, None);
    let with = working(work, 30_000, Some("order-00000000"));
    vec![
        Figure::new(
            "exec: one key fails always, throughput of the others",
            100.0 * with / without,
            "%",
        )
        .goal(AtLeast(99.0)),
    ]
}

/// Time from a message's arrival at the broker to the begin of its call, one message at a time.
fn idle_latency() -> Vec<Figure> {
    const MESSAGES: u64 = 2_000;
    let latencies = runtime().block_on(async {
        let topic = Topic::new(1, 10, 0);
        let (began, mut calls) = tokio::sync::mpsc::unbounded_channel();
        let running = Running::start(topic.clone(), 100, move |_| {
            // The receiver is there until all have arrived.
            let _sent = began.send(Instant::now());
            std::future::ready(Outcome::from(CallResult::Done))
        });
        while running
            .control
            .stats()
            .await
            .is_ok_and(|stats| stats.queues.iter().all(|queue| queue.watermark.is_none()))
        {
            tokio::task::yield_now().await;
        }
        let mut latencies = Vec::new();
        for number in 0..MESSAGES {
            // Idle: every thread is parked by now.
            tokio::time::sleep(Duration::from_millis(1 + number % 3)).await;
            let sent = Instant::now();
            topic.add(1);
            let began = calls.recv().await.expect("a call");
            latencies.push(began.saturating_duration_since(sent).as_secs_f64() * 1e3);
        }
        running.stop().await;
        latencies
    });
    let mut sorted = latencies;
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
    vec![
        Figure::new("exec: added latency when idle, p50", at(0.5), "ms"),
        Figure::new("exec: added latency when idle, p99", at(0.99), "ms").goal(AtMost(1.0)),
    ]
}
