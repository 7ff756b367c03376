//! The lane core against a model: a random world of queues, handlers and losses, replayed by its seed.

mod world;

use super::*;
use crate::contract::spec::Backoff;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::HashMap;
use world::World;

const TIMEOUT: Duration = Duration::from_secs(3);
const GRACE: Duration = Duration::from_secs(5);

fn settings(lanes: u32) -> Settings {
    Settings {
        retry: Retry {
            max_attempts: 4,
            backoff: Backoff::default(),
        },
        limits: Limits {
            messages: 40,
            bytes: 1 << 20,
            span: 200,
            pull: 16,
        },
        timeout: TIMEOUT,
        cancel_grace: GRACE,
        lanes,
    }
}

fn message(offset: u64) -> Arc<Message> {
    Arc::new(Message {
        offset,
        id: offset.to_string(),
        stored_at_ms: 0,
        properties: HashMap::new(),
        body: Bytes::new(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn order_holds_and_everything_finishes_whatever_fails(
        seed: u64,
        queues in 1usize..4,
        keys in 1u64..12,
        messages in 1usize..120,
        lanes in 1u32..8,
        failures in 0.0f64..0.6,
    ) {
        let mut world = World::new(seed, queues, keys, messages, lanes, failures);
        for index in 0..queues {
            world.assign(index);
        }
        for _ in 0..1500 {
            world.step();
        }
        world.settle();
    }
}

/// An executor with one queue whose messages carry these keys, all pulled.
fn loaded(lanes: u32, keys: &[&str]) -> (LaneExecutor, Vec<Call>) {
    let mut executor = LaneExecutor::new(settings(lanes), 1);
    let lease = Duration::from_secs(1_000_000);
    let assignment = Assignment(1);
    executor.handle(
        Time::ZERO,
        Input::Assign {
            queue: QueueId::new("b", 0),
            assignment,
            start: 0,
            lease,
        },
    );
    let messages = keys.iter().zip(0..);
    let messages = messages.map(|(key, offset)| Keyed {
        key: Some(Arc::from(*key)),
        message: message(offset),
    });
    let (next, messages) = (keys.len() as u64, messages.collect());
    executor.handle(
        Time::ZERO,
        Input::Pulled {
            assignment,
            from: 0,
            next,
            messages,
        },
    );
    let calls = calls(&mut executor);
    (executor, calls)
}

fn calls(executor: &mut LaneExecutor) -> Vec<Call> {
    std::iter::from_fn(|| executor.poll_output())
        .filter_map(|output| {
            if let Output::Dispatch(call) = output {
                Some(call)
            } else {
                None
            }
        })
        .collect()
}

fn offsets(calls: &[Call]) -> Vec<u64> {
    calls.iter().map(|call| call.message.offset).collect()
}

fn refused() -> CallResult {
    CallResult::NotTaken {
        error: "refused".into(),
        retry_after: None,
    }
}

#[test]
fn keys_of_one_queue_run_side_by_side_and_each_in_order() {
    let (mut executor, first) = loaded(8, &["a", "a", "b", "c", "b"]);
    assert_eq!(offsets(&first), [0, 2, 3]);
    executor.handle(
        Time::ZERO,
        Input::CallEnded {
            id: first[1].id,
            result: CallResult::Done,
        },
    );
    assert_eq!(offsets(&calls(&mut executor)), [4]);
    assert_eq!(executor.progress(Assignment(1)).unwrap().watermark, 0);
}

#[test]
fn a_blocked_key_delays_nobody_else_is_named_and_recovers() {
    let (mut executor, mut running) = loaded(1, &["bad", "good", "bad", "good"]);
    let mut now = Time::ZERO;
    while executor.summary().blocked == 0 {
        let call = running.pop().expect("a call runs");
        let bad = call.key.as_deref() == Some("bad");
        let result = if bad {
            CallResult::Failed {
                error: "500".into(),
                retry_after: None,
            }
        } else {
            CallResult::Done
        };
        executor.handle(
            now,
            Input::CallEnded {
                id: call.id,
                result,
            },
        );
        running = calls(&mut executor);
        if running.is_empty() && executor.summary().blocked == 0 {
            now = executor.next_deadline().unwrap();
            executor.handle(now, Input::Tick);
            running = calls(&mut executor);
        }
    }
    let summary = executor.summary();
    let blocked = &summary.blocked_keys[0];
    assert_eq!(
        (blocked.key.as_str(), blocked.offset, blocked.attempts),
        ("bad", 0, 4)
    );
    assert_eq!((blocked.last_error.as_str(), summary.completed), ("500", 2));
    assert_eq!(executor.progress(Assignment(1)).unwrap().watermark, 0);
    let retry = executor.next_deadline().unwrap();
    executor.handle(retry, Input::Tick);
    let call = calls(&mut executor).remove(0);
    executor.handle(
        retry,
        Input::CallEnded {
            id: call.id,
            result: CallResult::Done,
        },
    );
    assert_eq!(
        (executor.summary().blocked, offsets(&calls(&mut executor))),
        (0, vec![2])
    );
}

#[test]
fn one_key_that_is_always_refused_delays_itself_only() {
    let (mut executor, running) = loaded(4, &["a", "b", "c"]);
    executor.handle(
        Time::ZERO,
        Input::CallEnded {
            id: running[0].id,
            result: refused(),
        },
    );
    executor.handle(
        Time::ZERO,
        Input::CallEnded {
            id: running[1].id,
            result: CallResult::Done,
        },
    );
    let summary = executor.summary();
    assert!(summary.handler_available);
    assert_eq!((summary.failed, summary.completed), (0, 1));
}

#[test]
fn a_handler_that_refuses_two_keys_is_probed_by_one_call_at_a_time() {
    let (mut executor, running) = loaded(3, &["a", "b", "c", "d", "e", "f"]);
    for call in &running {
        executor.handle(
            Time::ZERO,
            Input::CallEnded {
                id: call.id,
                result: refused(),
            },
        );
    }
    assert!(!executor.summary().handler_available);
    let mut probes = 0;
    let mut now = Time::ZERO;
    while now < Duration::from_secs(60) {
        now = executor.next_deadline().unwrap();
        executor.handle(now, Input::Tick);
        let calls = calls(&mut executor);
        assert!(calls.len() <= 1, "{} probes at once", calls.len());
        for call in calls {
            probes += 1;
            executor.handle(
                now,
                Input::CallEnded {
                    id: call.id,
                    result: refused(),
                },
            );
        }
    }
    assert!((5..30).contains(&probes), "{probes} probes in a minute");
    loop {
        now = executor.next_deadline().unwrap();
        executor.handle(now, Input::Tick);
        if let Some(call) = calls(&mut executor).pop() {
            executor.handle(
                now,
                Input::CallEnded {
                    id: call.id,
                    result: CallResult::Done,
                },
            );
            break;
        }
    }
    assert!(executor.summary().handler_available);
    assert_eq!(executor.summary().failed, 0);
}

#[test]
fn nothing_is_dispatched_past_the_lease_until_it_is_renewed() {
    let mut executor = LaneExecutor::new(settings(4), 1);
    let (assignment, second) = (Assignment(1), Duration::from_secs(1));
    executor.handle(
        Time::ZERO,
        Input::Assign {
            queue: QueueId::new("b", 0),
            assignment,
            start: 0,
            lease: second,
        },
    );
    let messages = vec![Keyed {
        key: None,
        message: message(0),
    }];
    executor.handle(
        second,
        Input::Pulled {
            assignment,
            from: 0,
            next: 1,
            messages,
        },
    );
    assert!(calls(&mut executor).is_empty());
    executor.handle(
        second,
        Input::Renew {
            assignment,
            lease: second * 2,
        },
    );
    assert_eq!(calls(&mut executor).len(), 1);
}

#[test]
fn a_queue_that_is_given_away_finishes_what_runs_and_starts_nothing() {
    let (mut executor, running) = loaded(1, &["a", "b"]);
    let assignment = Assignment(1);
    executor.handle(Time::ZERO, Input::Release { assignment });
    assert!(executor.poll_output().is_none());
    executor.handle(
        Time::ZERO,
        Input::CallEnded {
            id: running[0].id,
            result: CallResult::Done,
        },
    );
    assert!(matches!(
        executor.poll_output(),
        Some(Output::Drained { .. })
    ));
    assert!(executor.poll_output().is_none());
    let progress = executor.progress(assignment).unwrap();
    assert_eq!((progress.watermark, progress.buffered), (1, 0));
}

#[test]
fn busy_time_is_lanes_times_time() {
    let (mut executor, running) = loaded(2, &["a", "b"]);
    executor.handle(
        Duration::from_secs(3),
        Input::CallEnded {
            id: running[0].id,
            result: CallResult::Done,
        },
    );
    executor.handle(Duration::from_secs(5), Input::Tick);
    assert_eq!(executor.summary().busy_time, Duration::from_secs(3 * 2 + 2));
}
