//! Who runs when.

use super::*;

#[test]
fn keys_of_one_queue_run_side_by_side_and_each_in_order() {
    let mut rig = Rig::loaded(8, &["a", "a", "b", "c", "b", "_", "_", "*", "*"]);
    assert_eq!(rig.offsets(), [0, 2, 3, 5, 7, 8]);
    rig.done(2);
    assert_eq!(rig.offsets(), [0, 3, 5, 7, 8, 4]);
    assert_eq!(rig.progress(1).watermark, 0);
}

#[test]
fn the_next_message_leaves_from_the_completion_of_the_previous() {
    let mut rig = Rig::loaded(1, &["a", "a", "a"]);
    for offset in 0..3 {
        assert_eq!(
            rig.core.next_deadline(),
            None,
            "there is nothing to poll for"
        );
        assert_eq!(rig.offsets(), [offset]);
        rig.done(offset);
    }
}

#[test]
fn slots_are_shared_fairly_between_queues_then_by_age() {
    let mut rig = Rig::new(Settings {
        lanes: 2,
        ..Settings::default()
    });
    rig.assign(1, 1, 0);
    rig.assign(2, 2, 100);
    rig.deliver(1, 0, &["a", "b", "c", "d", "e"]);
    rig.deliver(2, 100, &["a", "b"]);
    assert_eq!(rig.offsets(), [0, 1]);
    rig.done(0);
    assert_eq!(
        rig.offsets(),
        [1, 2],
        "the queue that waited first is first"
    );
    for (ended, begun) in [(1, 100), (2, 3), (100, 101), (3, 4)] {
        rig.done(ended);
        assert_eq!(rig.offsets().last(), Some(&begun));
    }
}

#[test]
fn a_lane_that_goes_on_takes_its_place_behind_those_that_wait() {
    let mut rig = Rig::loaded(1, &["a", "a", "a", "b", "c"]);
    let mut order = Vec::new();
    while let [offset] = rig.offsets()[..] {
        order.push(offset);
        rig.done(offset);
    }
    assert_eq!(order, [0, 3, 4, 1, 2]);
}

#[test]
fn the_lane_target_moves_up_and_down_without_losing_or_reordering_anything() {
    let keys: Vec<String> = (0..20).map(|key| key.to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut rig = Rig::loaded(4, &keys);
    assert_eq!(rig.offsets(), [0, 1, 2, 3]);
    rig.give(Input::SetLanes(8));
    assert_eq!(rig.offsets(), [0, 1, 2, 3, 4, 5, 6, 7]);
    rig.give(Input::SetLanes(2));
    for offset in 0..6 {
        rig.done(offset);
        assert_eq!(
            rig.offsets().len(),
            7 - offset as usize,
            "running calls finish, none starts"
        );
    }
    rig.done(6);
    assert_eq!(rig.offsets(), [7, 8]);
    rig.give(Input::SetLanes(0));
    rig.done(7);
    rig.done(8);
    assert_eq!(rig.offsets(), [9], "one lane at least");
}

#[test]
fn a_batch_is_consecutive_messages_of_one_lane_and_its_acknowledged_prefix_is_finished() {
    let settings = Settings {
        lanes: 1,
        batch: 3,
        ..Settings::default()
    };
    let mut rig = Rig::with(settings, &["a", "b", "a", "a", "a", "a"]);
    let batch = |call: &Call| -> Vec<u64> {
        let rest = call.rest.iter().map(|message| message.offset);
        std::iter::once(call.message.offset).chain(rest).collect()
    };
    let call = rig.take(0);
    assert_eq!((batch(&call), call.attempt), (vec![0, 2, 3], 1));
    rig.give(Input::CallEnded {
        id: call.id,
        acked: 1,
        result: failed(),
    });
    let progress = rig.progress(1);
    assert_eq!((progress.watermark, progress.buffered), (1, 5));
    rig.done(1);
    rig.until_called(secs(1));
    let call = rig.take(2);
    assert_eq!(
        (batch(&call), call.attempt),
        (vec![2], 2),
        "what failed goes alone"
    );
    rig.give(Input::CallEnded {
        id: call.id,
        acked: 1,
        result: CallResult::Done,
    });
    let call = rig.take(3);
    assert_eq!(batch(&call), [3, 4, 5], "then batches again");
    rig.give(Input::CallEnded {
        id: call.id,
        acked: 3,
        result: failed(),
    });
    assert_eq!(
        rig.progress(1).watermark,
        6,
        "a failure about none of its messages"
    );
    assert_eq!(
        (rig.summary().counters.failed, rig.summary().live_keys),
        (1, 0)
    );
}

#[test]
fn suspended_means_nothing_is_dispatched_and_resumed_means_at_once() {
    type Suspend = (bool, &'static [u32], &'static [&'static str]);
    let suspensions: [(Suspend, &[u64]); 4] = [
        ((true, &[], &[]), &[]),
        ((false, &[1], &[]), &[100]),
        ((false, &[], &["a"]), &[1]),
        ((false, &[2], &["b"]), &[0]),
    ];
    for ((all, queues, keys), left) in suspensions {
        let mut rig = Rig::new(Settings {
            lanes: 1,
            ..Settings::default()
        });
        rig.assign(1, 1, 0);
        rig.assign(2, 2, 100);
        rig.deliver(1, 0, &["x"]);
        rig.deliver(1, 1, &["a", "b"]);
        rig.deliver(2, 100, &["a"]);
        // Decided, but not taken yet.
        let id = rig.take(0).id;
        rig.core.handle(
            rig.now,
            Input::CallEnded {
                id,
                acked: 1,
                result: CallResult::Done,
            },
        );
        rig.suspend(all, queues, keys);
        rig.give(Input::SetLanes(10));
        rig.deliver(1, 3, &["a"]);
        rig.wait(secs(60));
        let left: Vec<u64> = left
            .iter()
            .map(|offset| if *offset == 100 { 100 } else { offset + 1 })
            .collect();
        assert_eq!(rig.offsets(), left, "{all} {queues:?} {keys:?}");
        assert!(rig.summary().suspended);
        rig.suspend(false, &[], &[]);
        let mut offsets = rig.offsets();
        offsets.sort_unstable();
        assert_eq!(offsets, [1, 2, 100], "no time passes");
        assert!(!rig.summary().suspended);
    }
}

#[test]
fn a_suspended_key_holds_what_carries_it_in_a_shared_lane_too() {
    let settings = Settings {
        lanes: 9,
        batch: 9,
        ..Settings::default()
    };
    let mut rig = Rig::new(settings);
    rig.suspend(false, &[], &["b"]);
    rig.assign(1, 0, 0);
    let messages = ["a", "b", "a"]
        .iter()
        .zip(0..)
        .map(|(key, offset)| Incoming {
            place: Place::Shared,
            ..incoming(offset, key)
        });
    let input = Input::Pulled {
        assignment: Assignment(1),
        from: 0,
        next: 3,
        messages: messages.collect(),
    };
    rig.give(input);
    assert_eq!(rig.take(0).rest.len(), 0, "the batch ends before it");
}

#[test]
fn a_retry_that_is_due_while_its_key_is_suspended_waits_for_the_end_of_it() {
    let mut rig = Rig::loaded(4, &["a"]);
    rig.end(0, failed());
    rig.suspend(false, &[], &["a"]);
    rig.wait(secs(10));
    assert!(rig.calls.is_empty());
    rig.suspend(false, &[], &["b"]);
    assert_eq!(rig.offsets(), [0]);
}

#[test]
fn nothing_is_dispatched_past_the_lease_until_it_is_renewed() {
    let mut rig = Rig::new(Settings {
        lanes: 1,
        ..Settings::default()
    });
    let assignment = Assignment(1);
    rig.give(Input::Assign {
        queue: queue(0),
        assignment,
        start: 0,
        lease: secs(1),
        finished: Finished::default(),
        held: Held::default(),
    });
    rig.deliver(1, 0, &["a", "a"]);
    rig.now = secs(1);
    rig.done(0);
    assert!(rig.calls.is_empty());
    rig.give(Input::Renew {
        assignment,
        lease: secs(1),
    });
    assert!(rig.calls.is_empty(), "that is no renewal");
    rig.give(Input::Renew {
        assignment,
        lease: secs(2),
    });
    assert_eq!(rig.offsets(), [1]);
}

#[test]
fn a_queue_that_is_given_away_finishes_what_runs_and_starts_nothing() {
    let mut rig = Rig::loaded(2, &["a", "b", "a", "c"]);
    rig.end(1, failed());
    rig.give(Input::Release {
        assignment: Assignment(1),
    });
    assert_eq!(rig.progress(1).buffered, 2, "what runs is still in memory");
    rig.done(0);
    assert_eq!(rig.drained, [], "3 runs");
    rig.wait(secs(60));
    assert_eq!(rig.offsets(), [3]);
    rig.done(3);
    assert_eq!(rig.drained, [Assignment(1)]);
    let progress = rig.progress(1);
    assert_eq!(
        (
            progress.watermark,
            progress.finished_above,
            progress.buffered
        ),
        (1, 1, 0)
    );
    rig.wait(secs(60));
    assert_eq!((rig.drained.len(), rig.offsets()), (1, vec![]));
}

#[test]
fn a_queue_is_drained_only_when_a_call_that_timed_out_can_no_longer_run() {
    let mut rig = Rig::loaded(2, &["a", "b"]);
    rig.give(Input::Release {
        assignment: Assignment(1),
    });
    let id = rig.end(0, CallResult::TimedOut);
    rig.end(1, lost());
    assert_eq!(rig.core.running(Assignment(1)).count(), 2);
    rig.give(Input::CallOver { id });
    assert_eq!(rig.drained, []);
    rig.wait(BOUND);
    assert_eq!(rig.drained, [Assignment(1)]);
    assert_eq!(rig.progress(1).watermark, 0);
}

#[test]
fn keys_that_a_former_owner_may_still_run_wait_and_others_do_not() {
    let keys = [
        LaneKey::Key("b".into()).fingerprint(),
        LaneKey::Shared.fingerprint(),
    ];
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    for (keys, first) in [
        (HeldKeys::Some(keys.into()), vec![0]),
        (HeldKeys::All, vec![]),
    ] {
        let mut rig = Rig::new(Settings {
            lanes: 9,
            ..Settings::default()
        });
        rig.assign_held(
            1,
            0,
            0,
            Held {
                keys,
                until: secs(5),
            },
        );
        rig.deliver(1, 0, &["a", "b", "_"]);
        assert_eq!(rig.offsets(), first);
        rig.now = secs(4);
        rig.deliver(1, 3, &["b"]);
        assert_eq!(rig.offsets(), first);
        assert_eq!(rig.core.next_deadline(), Some(secs(5)));
        rig.wait(secs(1));
        let mut offsets = rig.offsets();
        offsets.sort_unstable();
        assert_eq!(offsets, [0, 1, 2]);
    }
}

#[test]
fn what_the_journal_says_is_finished_does_not_run_again() {
    let mut rig = Rig::new(Settings {
        lanes: 9,
        ..Settings::default()
    });
    let mut finished = Finished::default();
    finished.finish_range(2, 4);
    finished.finish(6);
    rig.give(Input::Assign {
        queue: queue(0),
        assignment: Assignment(1),
        start: 1,
        lease: secs(60),
        finished,
        held: Held::default(),
    });
    assert_eq!(rig.pulls, [(Assignment(1), 1, 1024)]);
    rig.deliver(1, 1, &["a", "a", "b", "b", "c", "d", "a"]);
    assert_eq!(rig.offsets(), [1, 4, 5]);
    rig.done(1);
    assert_eq!(
        (rig.progress(1).watermark, rig.offsets()),
        (4, vec![4, 5, 7])
    );
    rig.done(4);
    rig.done(5);
    assert_eq!(rig.progress(1).watermark, 7);
}

#[test]
fn busy_time_is_lanes_times_time() {
    let mut rig = Rig::loaded(2, &["a", "b"]);
    rig.now = secs(3);
    rig.done(0);
    rig.now = secs(5);
    assert_eq!(
        rig.summary().busy_time,
        secs(3 * 2 + 2),
        "also between inputs"
    );
    rig.wait(secs(1));
    assert_eq!(rig.summary().busy_time, secs(9));
}
