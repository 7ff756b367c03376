//! What the core tells about itself.

use super::*;

#[test]
fn a_key_that_fails_while_others_move_is_named_as_stuck() {
    let mut rig = Rig::loaded(9, &["stuck", "a"]);
    for offset in 1..2_000 {
        rig.now += millis(10);
        if offset == 5 {
            rig.end(0, lost());
        }
        rig.done(offset);
        rig.deliver(1, offset + 1, &["a"]);
        let named = rig.summary().stuck_keys;
        assert_eq!(
            !named.is_empty(),
            rig.now > secs(1),
            "{named:?} at {:?}",
            rig.now
        );
    }
    let named = &rig.summary().stuck_keys[0];
    assert_eq!(
        (named.key.key.as_str(), named.key.offset, named.since),
        ("stuck", 0, Time::ZERO)
    );
    assert_eq!(
        (named.state, named.messages, named.key.attempts),
        (LaneState::Running, 1, 1)
    );
    let usual = rig.summary().usual_service;
    assert!(usual > millis(9) && usual < millis(11), "{usual:?}");
    rig.wait(secs(60));
    assert!(
        rig.summary().stuck_keys.is_empty(),
        "when nothing moves no key is stuck by itself"
    );
}

#[test]
fn the_longest_lanes_are_named() {
    let mut keys = vec!["long"; 300];
    keys.extend(["longer"; 600]);
    keys.extend(["short"; 5]);
    let mut rig = Rig::loaded(1, &keys);
    let lengths = |rig: &Rig| -> Vec<(String, u64)> {
        let longest = rig.summary().longest;
        longest
            .iter()
            .map(|lane| (lane.key.as_str().to_owned(), lane.messages))
            .collect()
    };
    assert_eq!(
        lengths(&rig),
        [("longer".to_owned(), 600), ("long".to_owned(), 300)]
    );
    for _ in 0..880 {
        let offset = rig.offsets()[0];
        rig.done(offset);
    }
    assert_eq!(
        rig.summary()
            .longest
            .iter()
            .map(|lane| lane.messages)
            .sum::<u64>(),
        25
    );
    rig.give(Input::Drop {
        assignment: Assignment(1),
    });
    assert_eq!(lengths(&rig), []);
}

#[test]
fn hot_and_split_keys_are_named() {
    let mut rig = Rig::new(Settings {
        lanes: 9,
        ..Settings::default()
    });
    rig.assign(1, 1, 0);
    rig.assign(2, 2, 0);
    rig.deliver(1, 0, &["hot", "a", "hot", "b", "hot"]);
    rig.deliver(2, 0, &["c", "b"]);
    rig.now = secs(1);
    let summary = rig.summary();
    assert_eq!(
        (summary.hot_keys[0].key.as_str(), &summary.hot_keys[0].queue),
        ("hot", &queue(1))
    );
    assert!(
        (summary.hot_keys[0].rate - 3.0).abs() < 0.5,
        "{:?}",
        summary.hot_keys[0]
    );
    let split = SplitKey {
        key: "b".into(),
        queues: [queue(1), queue(2)],
    };
    assert_eq!(summary.split_keys, [split]);
}

#[test]
fn the_oldest_unfinished_message_is_known_exactly() {
    let mut rig = Rig::new(Settings {
        lanes: 9,
        ..Settings::default()
    });
    rig.assign(1, 0, 0);
    let messages = (0..3).map(|offset| Incoming {
        place: Place::Own,
        message: Arc::new(Message {
            offset,
            born_at_ms: 100 - offset as i64,
            stored_at_ms: 200 + offset as i64,
            ..Message::default()
        }),
    });
    rig.give(Input::Pulled {
        assignment: Assignment(1),
        from: 0,
        next: 3,
        messages: messages.collect(),
    });
    rig.done(1);
    let oldest = |rig: &Rig| rig.core.oldest_unfinished(Assignment(1));
    assert_eq!(
        oldest(&rig),
        Some(Oldest {
            offset: 0,
            born_at_ms: 100,
            stored_at_ms: 200
        })
    );
    rig.done(0);
    assert_eq!(
        oldest(&rig),
        Some(Oldest {
            offset: 2,
            born_at_ms: 98,
            stored_at_ms: 202
        })
    );
    rig.done(2);
    assert_eq!(oldest(&rig), None);
}

#[test]
fn counts_of_dropped_queues_are_kept_and_lanes_say_what_they_do() {
    let mut rig = Rig::loaded(2, &["a", "b", "c", "d"]);
    rig.done(0);
    rig.end(1, failed());
    rig.suspend(false, &[], &["d"]);
    rig.done(2);
    let mut states: Vec<_> = rig
        .core
        .lane_views()
        .map(|lane| (lane.head, lane.state))
        .collect();
    states.sort_by_key(|(head, _)| *head);
    // d was called before it was suspended.
    assert_eq!(states, [(1, LaneState::Backoff), (3, LaneState::Running)]);
    rig.give(Input::Drop {
        assignment: Assignment(1),
    });
    let summary = rig.summary();
    assert_eq!(
        (
            summary.counters.finished,
            summary.counters.failed,
            summary.counters.dispatched
        ),
        (2, 1, 4)
    );
    assert_eq!(
        (summary.live_keys, summary.busy),
        (0, 1),
        "a call outlives its queue"
    );
    rig.done(3);
    assert_eq!(
        (rig.summary().counters.finished, rig.summary().busy),
        (2, 0)
    );
}
