//! What other consumers fell into. Each test is named after the trap; where it was seen is said there.

use super::*;

/// apache/rocketmq #2621: a lock that was refused was asked for again at the next rebalance, 20 s later.
#[test]
fn twenty_seconds_of_silence_because_a_lock_is_only_noticed_at_the_next_tick() {
    let mut world = World::new();
    let released = State::Released {
        running: Keys::default(),
    };
    world.claimed_by(queue(0), "keylane:other:1", released);
    world.taken.insert(queue(0), "keylane:other:1".into());
    world.ownership.allocate(world.now, &ours(&[0]));
    world.pass(Duration::from_secs(3));
    assert_eq!(assigned(&world.seen), 0, "the other still holds the lock");
    // Nobody says that it is free now.
    world.taken.clear();
    let waited = world.until(|seen| assigned(seen) == 1);
    assert!(waited <= Duration::from_millis(300), "{waited:?}");
}

/// apache/rocketmq-client-go PR #1220: locks of queues that went to others were kept until they expired.
#[test]
fn locks_of_queues_no_longer_wanted_are_kept_a_minute() {
    let mut world = World::new();
    world.ownership.allocate(world.now, &ours(&[0, 1]));
    world.until(|seen| assigned(seen) == 2);
    world.ownership.allocate(world.now, &ours(&[1]));
    world.until(|seen| {
        seen.iter()
            .any(|action| matches!(action, Action::Release { .. }))
    });
    world.ownership.drained(&queue(0));
    let unlock = Action::Unlock {
        queue: queue(0),
        holder: None,
    };
    let waited = world.until(|seen| seen.contains(&unlock));
    assert!(waited <= 2 * STEP, "{waited:?}");
    let before = world.lock_requests;
    world.pass(Duration::from_secs(30));
    let unlocks = world.seen.iter().filter(|seen| **seen == unlock).count();
    assert_eq!(unlocks, 1, "and it is not asked for again");
    assert!(world.lock_requests - before <= 11, "renewals of the other");
}
