//! What becomes of messages that fail.

use super::*;

fn policy(retry: RetryPolicy) -> Settings {
    Settings {
        lanes: 4,
        retry,
        ..Settings::default()
    }
}

/// Fails the message at every call until it goes back or an hour has passed; returns how long that took.
fn fail_until_back(rig: &mut Rig, offset: u64) -> Duration {
    let begin = rig.now;
    while rig.backs.is_empty() && rig.now < begin + secs(3_600) {
        rig.until_called(secs(3_600));
        if !rig.calls.is_empty() {
            rig.end(offset, failed());
        }
    }
    rig.now - begin
}

#[test]
fn a_poison_message_goes_to_the_dead_letters_within_a_minute_and_its_key_goes_on() {
    let mut rig = Rig::with(policy(RetryPolicy::default()), &["bad", "good", "bad"]);
    rig.done(1);
    let took = fail_until_back(&mut rig, 0);
    assert!((secs(40)..=secs(60)).contains(&took), "{took:?}");
    let back = &rig.backs[0];
    assert_eq!(
        (back.message.offset, back.delay_level, back.reason.as_str()),
        (0, -1, "500")
    );
    assert_eq!(
        rig.progress(1).watermark,
        0,
        "it is not finished before the acknowledgement"
    );
    assert!(rig.calls.is_empty(), "and its key waits for it");
    rig.sent_back(Ok(()));
    assert_eq!((rig.progress(1).watermark, rig.offsets()), (2, vec![2]));
    let counters = rig.summary().counters;
    assert_eq!(
        (
            counters.exhausted,
            counters.dead_lettered,
            counters.finished
        ),
        (1, 1, 2)
    );
}

#[test]
fn a_key_whose_every_message_fails_is_exhausted_at_the_first_failure_until_one_succeeds() {
    let keys = vec!["bad"; 100];
    let mut rig = Rig::with(policy(RetryPolicy::default()), &keys);
    fail_until_back(&mut rig, 0);
    rig.sent_back(Ok(()));
    for offset in 1..50 {
        assert_eq!(
            fail_until_back(&mut rig, offset),
            Duration::ZERO,
            "{offset}"
        );
        rig.sent_back(Ok(()));
    }
    rig.done(50);
    assert!(
        fail_until_back(&mut rig, 51) > secs(40),
        "it has its budget again"
    );
}

#[test]
fn the_budget_of_a_key_outlives_its_lane_and_is_not_anothers() {
    let mut rig = Rig::with(policy(RetryPolicy::default()), &["bad"]);
    fail_until_back(&mut rig, 0);
    rig.sent_back(Ok(()));
    assert_eq!(rig.summary().live_keys, 0);
    rig.deliver(1, 1, &["bad"]);
    assert_eq!(fail_until_back(&mut rig, 1), Duration::ZERO);
    rig.sent_back(Ok(()));
    rig.deliver(1, 2, &["other"]);
    assert!(fail_until_back(&mut rig, 2) > secs(40));
}

#[test]
fn without_a_budget_attempts_decide() {
    let retry = RetryPolicy {
        budget: None,
        max_attempts: 16,
        ..RetryPolicy::default()
    };
    let mut rig = Rig::with(policy(retry), &["bad"]);
    let took = fail_until_back(&mut rig, 0);
    assert!((secs(80)..secs(130)).contains(&took), "{took:?}");
    assert_eq!(
        (
            rig.summary().counters.failed,
            rig.summary().counters.retried
        ),
        (16, 15)
    );
}

#[test]
fn a_message_that_blocks_its_key_delays_nobody_else_is_named_and_recovers() {
    let retry = RetryPolicy {
        max_attempts: 3,
        on_exhausted: OnExhausted::Block,
        ..RetryPolicy::default()
    };
    let mut rig = Rig::with(policy(retry), &["bad", "good", "bad", "good"]);
    rig.done(1);
    rig.done(3);
    for _ in 0..3 {
        rig.until_called(secs(10));
        rig.end(0, failed());
    }
    assert_eq!(rig.progress(1).finished_above, 2);
    let summary = rig.summary();
    assert_eq!(
        (summary.blocked, summary.counters.exhausted, summary.busy),
        (1, 1, 0)
    );
    let named = &summary.blocked_keys[0];
    assert_eq!(
        (
            named.key.as_str(),
            named.offset,
            named.attempts,
            named.error.as_str()
        ),
        ("bad", 0, 3, "500")
    );
    assert_eq!(
        rig.core.lane_views().next().map(|lane| lane.state),
        Some(LaneState::Blocked)
    );
    assert_eq!(
        rig.until_called(secs(600)),
        secs(60),
        "it is tried once a minute"
    );
    rig.end(0, failed());
    assert_eq!(rig.until_called(secs(600)), secs(60));
    assert_eq!(rig.summary().counters.exhausted, 1, "it is counted once");
    rig.done(0);
    assert_eq!((rig.summary().blocked, rig.offsets()), (0, vec![2]));
}

#[test]
fn a_permanent_answer_is_not_tried_again() {
    let mut rig = Rig::loaded(1, &["a", "a"]);
    rig.end(
        0,
        CallResult::Permanent {
            error: "422".into(),
        },
    );
    assert_eq!((rig.backs[0].delay_level, rig.offsets().len()), (-1, 0));
    let retry = RetryPolicy {
        on_exhausted: OnExhausted::Block,
        ..RetryPolicy::default()
    };
    let mut rig = Rig::with(policy(retry), &["a", "a"]);
    rig.end(
        0,
        CallResult::Permanent {
            error: "422".into(),
        },
    );
    assert_eq!((rig.backs.len(), rig.summary().blocked), (0, 1));
}

#[test]
fn a_way_back_that_fails_is_tried_again_with_backoff_and_finishes_nothing() {
    let mut rig = Rig::loaded(1, &["a", "a"]);
    rig.end(
        0,
        CallResult::Permanent {
            error: "422".into(),
        },
    );
    let mut waits = Vec::new();
    for _ in 0..6 {
        rig.sent_back(Err("broker is gone".into()));
        assert_eq!((rig.progress(1).watermark, rig.offsets()), (0, vec![]));
        waits.push(rig.until_called(secs(60)));
    }
    assert!(waits[5] > waits[0] * 8, "{waits:?}");
    rig.sent_back(Ok(()));
    assert_eq!((rig.progress(1).watermark, rig.offsets()), (1, vec![1]));
}

#[test]
fn a_handler_may_set_the_next_delay_within_the_budget_of_the_key() {
    let after = |wait| CallResult::Failed {
        error: "later".into(),
        retry_after: Some(wait),
    };
    let mut rig = Rig::loaded(1, &["a"]);
    rig.end(0, after(secs(7)));
    assert_eq!(rig.until_called(secs(60)), secs(7));
    rig.end(0, after(secs(600)));
    assert_eq!(
        rig.until_called(secs(600)),
        secs(53),
        "cut at the end of the budget"
    );
    rig.end(0, after(secs(1)));
    assert_eq!(rig.backs.len(), 1);
}

#[test]
fn a_timed_out_attempt_counts_its_late_result_does_not_and_its_key_waits_until_it_is_over() {
    let mut rig = Rig::loaded(1, &["a", "b"]);
    rig.now = secs(30);
    let id = rig.end(0, CallResult::TimedOut);
    assert_eq!(rig.offsets(), [1], "its slot is free");
    rig.done(1);
    rig.give(Input::CallEnded {
        id,
        acked: 1,
        result: CallResult::Done,
    });
    assert_eq!(rig.progress(1).watermark, 0, "the late result is ignored");
    assert_eq!(rig.until_called(secs(60)), secs(5), "the cancel grace");
    assert_eq!(rig.calls[0].attempt, 2);
    let id = rig.end(0, CallResult::TimedOut);
    rig.wait(secs(1));
    rig.give(Input::CallOver { id });
    assert_eq!(rig.offsets(), [0], "at once when it is over");
    rig.give(Input::CallOver { id });
    rig.wait(secs(60));
    assert_eq!(rig.offsets(), [0], "what is said twice counts once");
}

#[test]
fn a_panic_of_the_handler_is_a_failed_attempt_of_that_key() {
    let mut rig = Rig::loaded(2, &["a", "b"]);
    rig.end(
        0,
        CallResult::Panicked {
            error: "index out of bounds".into(),
        },
    );
    assert!(rig.until_called(secs(1)) == Duration::ZERO, "b runs on");
    rig.done(1);
    assert!(rig.until_called(secs(1)) < millis(250));
    assert_eq!(rig.calls[0].attempt, 2);
}

#[test]
fn what_killed_the_handler_is_found_by_running_suspects_one_at_a_time() {
    let keys: Vec<String> = (0..20).map(|key| key.to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let retry = RetryPolicy {
        max_attempts: 5,
        budget: None,
        ..RetryPolicy::default()
    };
    let mut rig = Rig::with(
        Settings {
            lanes: 20,
            ..policy(retry)
        },
        &keys,
    );
    // Message 7 kills the handler and everything with it.
    let mut innocent_attempts = 0;
    let mut dead = Vec::new();
    for _ in 0..200 {
        rig.until_called(secs(100));
        while !rig.backs.is_empty() {
            dead.push(rig.backs[0].message.offset);
            rig.sent_back(Ok(()));
        }
        let suspects = rig.calls.iter().filter(|call| call.attempt > 1).count();
        assert!(suspects <= 1, "{suspects} suspects at once");
        if rig.offsets().contains(&7) {
            for offset in rig.offsets() {
                let id = rig.end(offset, lost());
                rig.give(Input::CallOver { id });
            }
        } else if let Some(call) = rig.calls.first() {
            innocent_attempts = innocent_attempts.max(call.attempt);
            let offset = call.message.offset;
            rig.done(offset);
        }
    }
    assert_eq!((dead, innocent_attempts), (vec![7], 2));
    assert_eq!(rig.progress(1).watermark, 20);
}

#[test]
fn a_suspect_runs_again_only_once_its_attempts_are_in_the_journal() {
    let mut rig = Rig::loaded(2, &["a", "b"]);
    rig.unrecordable = true;
    let id = rig.end(0, lost());
    rig.give(Input::CallOver { id });
    rig.wait(secs(100));
    assert_eq!(rig.offsets(), [1]);
    let one = Assignment(1);
    assert!(rig.core.is_unrecorded(one));
    assert_eq!(rig.core.suspects(one), [(0, 1)]);
    // A record of an earlier attempt does not do.
    rig.give(Input::Recorded {
        assignment: one,
        suspects: vec![(0, 0), (1, 1)],
    });
    assert_eq!(rig.offsets(), [1]);
    rig.record(one);
    rig.wait(Duration::ZERO);
    assert_eq!(rig.take(0).attempt, 2);
    assert!(!rig.core.is_unrecorded(one));
}

#[test]
fn what_had_an_answer_is_no_suspect_any_more() {
    let mut rig = Rig::loaded(2, &["a", "b"]);
    for offset in [0, 1] {
        let id = rig.end(offset, lost());
        rig.give(Input::CallOver { id });
    }
    assert_eq!(rig.core.suspects(Assignment(1)), [(0, 1), (1, 1)]);
    rig.until_called(secs(10));
    let first = rig.offsets()[0];
    rig.end(first, failed());
    rig.until_called(secs(10));
    rig.done(1 - first);
    assert_eq!(rig.core.suspects(Assignment(1)), []);
    // It is one of many again: another call may run beside it.
    rig.unrecordable = true;
    assert!(rig.until_called(secs(60)) < secs(60));
    assert_eq!(rig.take(first).attempt, 3);
}

#[test]
fn the_attempts_of_a_former_owner_count() {
    let retry = RetryPolicy {
        max_attempts: 3,
        ..RetryPolicy::default()
    };
    let mut rig = Rig::new(Settings {
        batch: 4,
        ..policy(retry)
    });
    rig.assign(1, 0, 0);
    rig.give(Input::Suspects {
        assignment: Assignment(1),
        suspects: vec![(1, 2), (2, 3), (3, 1)],
    });
    rig.deliver(1, 0, &["a", "a", "b", "c"]);
    // A batch ends before one, and each runs alone, one at a time.
    assert_eq!(rig.take(0).rest.len(), 0);
    assert_eq!(rig.take(3).attempt, 2);
    // The one that used up its attempts is not called again.
    assert_eq!(rig.backs[0].message.offset, 2);
    rig.sent_back(Ok(()));
    assert_eq!(rig.core.suspects(Assignment(1)), [(1, 2), (3, 1)]);
}

#[test]
fn a_lost_call_makes_its_key_wait_for_the_call_bound_from_its_start() {
    let mut rig = Rig::loaded(1, &["a"]);
    rig.now = secs(10);
    rig.end(0, lost());
    assert_eq!(rig.until_called(secs(60)), BOUND - secs(10));
}

#[test]
fn one_key_that_is_always_refused_delays_itself_only() {
    let mut rig = Rig::loaded(2, &["a", "b", "b", "b"]);
    for offset in 1..4 {
        if rig.offsets().contains(&0) {
            rig.end(0, refused());
        }
        rig.done(offset);
        rig.wait(secs(3));
    }
    let summary = rig.summary();
    assert!(summary.handler_available);
    assert_eq!((summary.counters.failed, summary.counters.finished), (0, 3));
    assert!(summary.counters.refused >= 3);
}

#[test]
fn a_call_that_was_not_sent_is_no_attempt() {
    let mut rig = Rig::loaded(1, &["a"]);
    rig.end(0, CallResult::NotSent);
    assert_eq!((rig.take(0).attempt, rig.summary().counters.failed), (1, 0));
}

#[test]
fn failures_of_mode_none_go_back_with_rocketmqs_delay_levels() {
    let settings = Settings {
        on_failure: OnFailure::SendBack,
        lanes: 9,
        ..Settings::default()
    };
    let mut rig = Rig::new(settings);
    rig.assign(1, 0, 0);
    let messages = [0, 1, 14, 15, 16]
        .iter()
        .zip(0..)
        .map(|(reconsumed, offset)| Incoming {
            place: Place::Own,
            message: Arc::new(Message {
                offset,
                reconsume_times: *reconsumed,
                ..Message::default()
            }),
        });
    let input = Input::Pulled {
        assignment: Assignment(1),
        from: 0,
        next: 5,
        messages: messages.collect(),
    };
    rig.give(input);
    for offset in 0..5 {
        rig.end(offset, failed());
    }
    let levels: Vec<i32> = rig.backs.iter().map(|back| back.delay_level).collect();
    assert_eq!(levels, [3, 4, 17, -1, -1]);
    assert_eq!(rig.progress(1).watermark, 0);
    for _ in 0..5 {
        rig.sent_back(Ok(()));
    }
    let counters = rig.summary().counters;
    assert_eq!(
        (
            rig.progress(1).watermark,
            counters.sent_back,
            counters.dead_lettered
        ),
        (5, 3, 2)
    );
}

#[test]
fn a_batch_that_was_cut_off_in_the_middle_is_given_away_with_its_head() {
    let settings = Settings {
        batch: 3,
        ..Settings::default()
    };
    let mut rig = Rig::with(settings, &["a", "a", "a"]);
    let id = rig.take(0).id;
    rig.give(Input::CallEnded {
        id,
        acked: 1,
        result: CallResult::TimedOut,
    });
    rig.give(Input::Release {
        assignment: Assignment(1),
    });
    // The call may still run, so the queue is not drained and its key is named.
    assert_eq!(rig.drained, []);
    assert_eq!(rig.core.running(Assignment(1)).count(), 1);
    assert_eq!(rig.summary().live_keys, 1);
    rig.give(Input::CallOver { id });
    assert_eq!(rig.drained, [Assignment(1)]);
    assert_eq!(rig.progress(1).watermark, 1);
    assert_eq!(rig.summary().in_memory, InMemory::default());
}
