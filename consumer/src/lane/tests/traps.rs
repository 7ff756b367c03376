//! What other consumers fell into. Each test is named after the trap; where it was seen is said there.

use super::*;

/// RocketMQ's RebalancePushImpl forces the lock open after 20 s while the handler still runs.
#[test]
fn lease_ends_while_a_handler_runs() {
    let mut rig = Rig::loaded(2, &["a", "a", "b", "b"]);
    rig.give(Input::Release {
        assignment: Assignment(1),
    });
    rig.wait(secs(3_600));
    assert_eq!(
        (rig.drained.len(), rig.offsets()),
        (0, vec![0, 2]),
        "it is not drained by time"
    );
    rig.done(0);
    rig.done(2);
    assert_eq!((rig.drained.len(), rig.offsets()), (1, vec![]));
}

/// confluentinc/parallel-consumer #843.
#[test]
fn same_key_on_two_workers_after_revoke_and_reassignment() {
    for drop in [true, false] {
        let mut rig = Rig::loaded(9, &["a", "b", "a"]);
        let stale = rig.take(0).id;
        rig.done(1);
        rig.now = secs(10);
        if drop {
            rig.give(Input::Drop {
                assignment: Assignment(1),
            });
        }
        assert_eq!(rig.core.running(Assignment(1)).count(), usize::from(!drop));
        rig.assign(2, 0, 0);
        rig.deliver(2, 0, &["a", "b", "a"]);
        assert_eq!(rig.offsets(), [1], "the former call of a still runs");
        assert_eq!(rig.core.running(Assignment(2)).count(), 2);
        rig.give(Input::CallEnded {
            id: stale,
            acked: 1,
            result: CallResult::Done,
        });
        assert_eq!(rig.progress(2).watermark, 0, "its result belongs to nobody");
        rig.done(1);
        rig.until_called(secs(60));
        assert_eq!(
            (rig.now, rig.offsets()),
            (BOUND, vec![0]),
            "until it can no longer run"
        );
        rig.done(0);
        assert_eq!(rig.offsets(), [2]);
    }
}

/// confluentinc/parallel-consumer, fixed by PR #909: the commit was pinned until a restart.
#[test]
fn a_fresh_record_dropped_behind_a_stale_container_of_an_old_epoch() {
    let mut rig = Rig::loaded(9, &["a", "b"]);
    let stale = [rig.take(0).id, rig.take(1).id];
    rig.give(Input::Drop {
        assignment: Assignment(1),
    });
    rig.now = BOUND;
    rig.assign(2, 0, 0);
    rig.deliver(1, 0, &["x", "x", "x"]);
    rig.deliver(2, 0, &["a", "b"]);
    rig.deliver(2, 2, &["a"]);
    for id in stale {
        rig.give(Input::CallEnded {
            id,
            acked: 1,
            result: failed(),
        });
        rig.give(Input::CallOver { id });
    }
    assert_eq!(rig.offsets(), [0, 1]);
    rig.done(1);
    rig.done(0);
    rig.done(2);
    let progress = rig.progress(2);
    assert_eq!(
        (progress.watermark, progress.buffered, rig.core.busy()),
        (3, 0, 0)
    );
    assert_eq!(rig.core.in_memory(), InMemory::default());
}

/// All of them: with the default limits, a million finished messages above a stuck one are no reason to stop.
#[test]
fn one_stuck_key_pins_the_minimum_then_the_whole_queue_stops() {
    let mut rig = Rig::loaded(64, &["stuck"]);
    let mut next = 1;
    while next <= 1_000_000 {
        let (_, offset, most) = rig.pulls.pop().expect("the queue is pulled on");
        assert_eq!(offset, next);
        let keys: Vec<String> = (0..u64::from(most))
            .map(|key| (key % 100).to_string())
            .collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        rig.deliver(1, next, &keys);
        next += u64::from(most);
        while let Some(call) = rig.calls.get(1) {
            let offset = call.message.offset;
            rig.done(offset);
        }
    }
    let progress = rig.progress(1);
    assert_eq!((progress.watermark, progress.finished_above), (0, next - 1));
    assert_eq!(progress.buffered, 1);
    rig.done(0);
    assert_eq!(rig.progress(1).watermark, next);
}

/// Apache RocketMQ LitePull: the offset of a filtered tail is never committed, and it counts as lag.
#[test]
fn filtered_tail_never_commits_and_filtered_messages_count_as_lag() {
    let mut rig = Rig::loaded(1, &["a"]);
    rig.done(0);
    let (assignment, _, _) = rig.pulls.pop().expect("a pull");
    rig.give(Input::Pulled {
        assignment,
        from: 1,
        next: 1_000_000,
        messages: Vec::new(),
    });
    assert_eq!(rig.progress(1).watermark, 1_000_000);
    rig.give(Input::Pulled {
        assignment,
        from: 1_000_000,
        next: 1_000_100,
        messages: vec![incoming(1_000_050, "a")],
    });
    let progress = rig.progress(1);
    assert_eq!(
        (progress.watermark, progress.finished_above),
        (1_000_050, 49)
    );
    let unfinished = progress.pulled - progress.watermark - progress.finished_above;
    assert_eq!(unfinished, 1, "the message, not the 99 round it");
    rig.done(1_000_050);
    assert_eq!(rig.progress(1).watermark, 1_000_100);
}

/// The story's first implementation and uForwarder.
#[test]
fn no_key_means_one_lane_for_all_or_null_pointer() {
    let mut rig = Rig::loaded(9, &["_", "_", "*", "*", "a"]);
    assert_eq!(
        rig.offsets(),
        [0, 2, 3, 4],
        "one lane of its queue, or each its own"
    );
    // A key is asked for, and there is none.
    let message = Arc::new(Message {
        offset: 5,
        ..Message::default()
    });
    let messages = vec![Incoming {
        place: Place::Key,
        message,
    }];
    rig.give(Input::Pulled {
        assignment: Assignment(1),
        from: 5,
        next: 6,
        messages,
    });
    rig.done(0);
    rig.done(1);
    assert_eq!(rig.take(5).key, LaneKey::Shared);
}

/// uForwarder.
#[test]
fn empty_body_escapes_the_limits() {
    let limits = Limits {
        bytes: 10 * incoming(0, "a").message.cost(),
        ..Limits::default()
    };
    let rig = Rig::with(
        Settings {
            limits,
            ..Settings::default()
        },
        &["a"; 100],
    );
    assert_eq!((rig.progress(1).buffered, rig.progress(1).pulled), (10, 10));
    assert!(incoming(0, "a").message.body.is_empty());
    assert_eq!(
        rig.core
            .queue_summary(Assignment(1))
            .map(|queue| queue.stopped),
        Some(true)
    );
}

/// apache/rocketmq #10827.
#[test]
fn lost_reply_to_a_pull_breaks_the_order_by_redelivery() {
    let mut rig = Rig::loaded(9, &["a", "a", "b"]);
    rig.done(0);
    rig.deliver(1, 0, &["a", "a", "b"]);
    assert_eq!(rig.offsets(), [2, 1], "a reply that comes twice");
    let twice = [4, 3, 3, 4, 2, 9].map(|offset| incoming(offset, "a"));
    rig.give(Input::Pulled {
        assignment: Assignment(1),
        from: 3,
        next: 5,
        messages: twice.to_vec(),
    });
    assert_eq!(
        rig.progress(1).buffered,
        4,
        "twice in one reply, disordered, not asked for"
    );
    for offset in [1, 3, 4] {
        assert_eq!(rig.offsets(), [2, offset]);
        rig.done(offset);
    }
}

/// apache/rocketmq #10827: the handler was done and its answer was lost, so the message comes again. What
/// follows it waits, and an answer that turns up late changes nothing.
#[test]
fn lost_reply_to_an_acknowledgement_breaks_the_order_by_redelivery() {
    let mut rig = Rig::loaded(9, &["a", "a", "b"]);
    let late = rig.end(0, lost());
    assert_eq!(rig.offsets(), [2]);
    rig.done(2);
    rig.until_called(secs(60));
    assert_eq!((rig.now, rig.offsets()), (BOUND, vec![0]));
    rig.give(Input::CallEnded {
        id: late,
        acked: 1,
        result: CallResult::Done,
    });
    assert_eq!((rig.progress(1).watermark, rig.offsets()), (0, vec![0]));
    rig.done(0);
    assert_eq!((rig.progress(1).watermark, rig.offsets()), (1, vec![1]));
}

/// confluentinc/parallel-consumer, notes of 0.5.3.2.
#[test]
fn keys_never_freed() {
    let mut rig = Rig::new(Settings {
        lanes: 100,
        ..Settings::default()
    });
    rig.assign(1, 0, 0);
    for round in 0..100 {
        let keys: Vec<String> = (0..100).map(|key| format!("{round}-{key}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        rig.deliver(1, round * 100, &keys);
        for offset in rig.offsets() {
            rig.done(offset);
        }
    }
    assert_eq!(
        (rig.summary().live_keys, rig.core.lane_views().count()),
        (0, 0)
    );
    assert_eq!(rig.core.in_memory(), InMemory::default());
}

/// Apache RocketMQ LitePull `poll()`.
#[test]
fn limits_forget_what_is_already_handed_out() {
    let limits = Limits {
        messages: 4,
        ..Limits::default()
    };
    let mut rig = Rig::with(
        Settings {
            limits,
            lanes: 9,
            ..Settings::default()
        },
        &["a", "b", "c", "d"],
    );
    rig.pulls.clear();
    assert_eq!(rig.offsets().len(), 4, "all are handed out");
    rig.wait(secs(60));
    assert_eq!(rig.pulls, []);
    rig.done(0);
    rig.done(1);
    assert_eq!(rig.pulls, [], "it resumes below half");
    rig.done(2);
    assert_eq!(rig.pulls.len(), 1);
    // What calls of a dropped queue hold is in memory, too.
    rig.deliver(1, 4, &["e", "f", "g"]);
    rig.give(Input::Drop {
        assignment: Assignment(1),
    });
    assert_eq!(rig.core.in_memory().messages, 4);
    rig.pulls.clear();
    rig.assign(2, 1, 0);
    rig.deliver(2, 0, &["a", "b"]);
    assert_eq!(rig.progress(2).buffered, 1, "one is always allowed");
}

/// alibaba/rocketmq #459: after ten minutes without the downstream, consumers never recovered by themselves.
#[test]
fn downstream_down_for_ten_minutes_and_consumers_never_recover_without_a_restart() {
    let mut rig = Rig::loaded(3, &["a", "b", "c", "d", "e", "f"]);
    for offset in 0..3 {
        rig.end(offset, refused());
    }
    assert!(!rig.summary().handler_available);
    let (mut probes, end) = (0, rig.now + secs(600));
    while rig.now < end {
        rig.until_called(secs(600));
        assert!(rig.calls.len() <= 1, "{} probes at once", rig.calls.len());
        if let Some(offset) = rig.offsets().first().copied() {
            probes += 1;
            rig.end(offset, refused());
        }
    }
    assert!(
        (100..150).contains(&probes),
        "{probes} probes in ten minutes"
    );
    rig.until_called(secs(10));
    let probe = rig.offsets()[0];
    rig.done(probe);
    assert!(rig.summary().handler_available);
    for _ in 0..10 {
        rig.until_called(secs(5));
        for offset in rig.offsets() {
            rig.done(offset);
        }
    }
    let counters = rig.summary().counters;
    assert_eq!(
        (counters.finished, counters.failed, counters.exhausted),
        (6, 0, 0)
    );
}

/// The story's first implementation: keys were hashed to so many lanes, by `Math.abs(hash) % lanes`.
#[test]
fn hash_lanes_let_two_keys_wait_for_each_other() {
    let keys: Vec<String> = (0..5_000).map(|key| format!("order-{key}")).collect();
    let mut keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    // Its hash is Java's smallest integer, whose absolute value is negative.
    keys.push("polygenelubricants");
    let rig = Rig::loaded(10_000, &keys);
    assert_eq!(rig.offsets().len(), 5_001);
}

/// The story's first implementation.
#[test]
fn retry_that_spins() {
    let retry = RetryPolicy {
        max_attempts: 1_000,
        budget: None,
        ..RetryPolicy::default()
    };
    let mut rig = Rig::with(
        Settings {
            retry,
            ..Settings::default()
        },
        &["a"],
    );
    let mut calls = 0;
    while rig.now < secs(60) {
        rig.until_called(secs(60));
        if !rig.calls.is_empty() {
            calls += 1;
            rig.end(0, failed());
        }
    }
    assert!((8..16).contains(&calls), "{calls} calls in a minute");
}

/// The story's first implementation.
#[test]
fn send_back_that_says_yes_and_loses_the_message() {
    let settings = Settings {
        on_failure: OnFailure::SendBack,
        ..Settings::default()
    };
    let mut rig = Rig::with(settings, &["*"]);
    rig.end(0, failed());
    let first = rig.backs[0].id;
    assert_eq!(rig.progress(1).watermark, 0);
    rig.sent_back(Err("connection reset".into()));
    rig.until_called(secs(60));
    rig.give(Input::SentBack {
        id: first,
        result: Ok(()),
    });
    assert_eq!(
        rig.progress(1).watermark,
        0,
        "an answer that was given already"
    );
    rig.sent_back(Ok(()));
    assert_eq!(rig.progress(1).watermark, 1);
}

/// The story's first implementation.
#[test]
fn batch_is_assumed_to_be_of_one_queue() {
    let mut rig = Rig::new(Settings {
        lanes: 9,
        batch: 10,
        ..Settings::default()
    });
    rig.assign(1, 1, 0);
    rig.assign(2, 2, 0);
    rig.deliver(1, 0, &["a", "a", "_"]);
    rig.deliver(2, 0, &["a", "_", "a"]);
    let mut batches: Vec<_> = rig
        .calls
        .iter()
        .map(|call| (call.queue.id, call.message.offset, call.rest.len()))
        .collect();
    batches.sort_unstable();
    // The first message of each lane came alone and was called at once or with those of its reply.
    assert_eq!(batches, [(1, 0, 1), (1, 2, 0), (2, 0, 1), (2, 1, 0)]);
}

/// Kafka consumers in general: memory is shared, so one queue starves the rest.
#[test]
fn one_stuck_queue_uses_up_the_memory_of_all() {
    let limits = Limits {
        messages: 100,
        ..Limits::default()
    };
    let mut rig = Rig::new(Settings {
        limits,
        lanes: 1,
        ..Settings::default()
    });
    rig.assign(1, 1, 0);
    rig.assign(2, 2, 0);
    rig.deliver(1, 0, &["stuck"; 1_000]);
    let stuck = rig.progress(1).buffered;
    assert!((60..70).contains(&stuck), "{stuck}");
    rig.give(Input::SetLanes(2));
    let mut next = 0;
    for _ in 0..50 {
        rig.deliver(2, next, &["a"; 10]);
        next += 10;
        while let Some(call) = rig.calls.iter().find(|call| call.queue.id == 2) {
            let id = call.id;
            rig.calls.retain(|call| call.id != id);
            rig.give(Input::CallEnded {
                id,
                acked: 1,
                result: CallResult::Done,
            });
        }
    }
    assert_eq!(rig.progress(2).watermark, 500);
    assert_eq!(rig.progress(1).buffered, stuck);
}
