//! How long a decision takes for a large group.

use anyhow::{Result, ensure};
use keylane_consumer::message::QueueId;
use keylane_operator::scale::{History, KeyLoad, Model, PodSample, Policy, QueueSample, Snapshot};
use serde_json::json;
use std::time::{Duration, Instant};

const QUEUES: u32 = 1024;
const PODS: u32 = 64;
const KEYS: u32 = 1000;
const CALLS: u32 = 400;
/// Each decision is made so often; the fastest counts.
const TIMES: u32 = 5;
/// Longest that any decision may take.
const LIMIT: Duration = Duration::from_millis(1);

/// A group at its `round`-th look, with load that rises and falls so that everything is decided, and on some
/// queues more than on others so that it matters which of them fall together.
fn snapshot(round: u32, replicas: u32) -> Snapshot {
    let now = 1_700_000_000 + u64::from(round) * 5;
    let load = 1.0 + 0.8 * (f64::from(round) / 40.0).sin();
    let pods = replicas.min(PODS);
    let offset = |queue: u32| {
        let heavy = if queue.is_multiple_of(32) { 3.0 } else { 1.0 };
        let each = heavy * (100.0 + f64::from(queue % 17));
        (f64::from(round) * 5.0 * each * load) as u64
    };
    Snapshot {
        now: Duration::from_secs(now),
        replicas,
        ready: pods,
        queues: (0..QUEUES)
            .map(|queue| QueueSample {
                id: QueueId::new(
                    if queue % 2 == 0 {
                        "broker-a"
                    } else {
                        "broker-b"
                    },
                    queue / 2,
                ),
                max_offset: Some(offset(queue)),
                unfinished: Some(u64::from(queue % 50)),
                owner: Some((queue % pods.max(1)) as usize),
            })
            .collect(),
        pods: (0..pods)
            .map(|pod| PodSample {
                incarnation: format!("0c6f2a52-8f5e-4c7b-9c5e-{pod:012}-9f3a11c04be2"),
                lanes: 200,
                busy_lanes: 150,
                waiting_lanes: 0,
                busy_lane_seconds: f64::from(round) * 5.0 * 150.0,
                completed: u64::from(round) * 5 * 1500,
                buffered: 1000,
                uptime_seconds: f64::from(10_000 - pod),
                cpu: None,
            })
            .collect(),
        hot_keys: (0..KEYS)
            .map(|key| KeyLoad {
                key: format!("order-{key}"),
                queue: QueueId::new("broker-a", key % 512),
                per_second: f64::from(key % 20),
                waiting: u64::from(key % 100),
            })
            .collect(),
        stuck_keys: Vec::new(),
    }
}

/// Measures and prints; fails if it takes too long.
pub fn decide(as_json: bool) -> Result<()> {
    let policy = Policy {
        max_replicas: 1000,
        ..Policy::default()
    };
    let mut history = History::with_model(Model::given(0.1, 1900.0, 40.0));
    let mut times = Vec::with_capacity(CALLS as usize);
    let (mut replicas, mut changes) = (PODS, 0);
    for round in 1..=CALLS {
        let mut snapshot = snapshot(round, replicas);
        snapshot
            .queues
            .sort_by(|left, right| left.id.cmp(&right.id));
        // It is pure: made again it takes as long, but for what other programs took away meanwhile.
        let mut fastest = Duration::MAX;
        let mut decide = || {
            let started = Instant::now();
            let decided = keylane_operator::scale::decide(&snapshot, &policy, &history);
            fastest = fastest.min(started.elapsed());
            decided
        };
        for _ in 1..TIMES {
            decide();
        }
        let (decision, next) = decide();
        times.push(fastest);
        changes += u32::from(decision.replicas != replicas);
        replicas = decision.replicas;
        history = next;
    }
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let status = serde_json::to_string(&history)?.len();
    let micros = |time: Duration| time.as_micros() as u64;
    if as_json {
        let line = json!({
            "queues": QUEUES, "pods": PODS, "hot_keys": KEYS, "calls": CALLS,
            "median_us": micros(at(0.5)), "p99_us": micros(at(0.99)), "worst_us": micros(at(1.0)),
            "history_bytes": status,
        });
        println!("{line}");
    } else {
        println!(
            "A decision over {QUEUES} queues, {PODS} pods, {KEYS} hot keys ({CALLS} calls, {changes} changes of replicas):"
        );
        println!(
            "  median {} us, 99 % {} us, worst {} us; the history is {status} bytes of JSON",
            micros(at(0.5)),
            micros(at(0.99)),
            micros(at(1.0))
        );
    }
    ensure!(at(1.0) <= LIMIT, "a decision takes more than {LIMIT:?}");
    Ok(())
}
