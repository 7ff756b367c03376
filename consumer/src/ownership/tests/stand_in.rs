//! Who takes a queue that is another's: next in line for one that stays away, or the next owner of one that is
//! missing.

use super::*;

#[test]
fn a_stand_in_takes_a_queue_only_if_its_owner_does_not_want_the_lock_back() {
    let mut world = World::new();
    world.claimed_by(queue(0), "keylane:other:1", State::Claimed);
    world.taken.insert(queue(0), "keylane:other:1".into());
    let allocation = Allocation {
        stand_in: BTreeSet::from([queue(0)]),
        ..Allocation::default()
    };
    world.ownership.allocate(world.now, &allocation);
    world.pass(Duration::from_secs(20));
    assert_eq!(world.seen, []);
    // The broker forgets its locks; the owner has its own back before the stand-in asks again.
    world.away = true;
    world.pass(Duration::from_secs(2));
    (world.away, world.taken) = (false, BTreeMap::new());
    world.until(|seen| !seen.is_empty());
    let unlock = Action::Unlock {
        queue: queue(0),
        holder: None,
    };
    assert_eq!(world.seen, vec![unlock.clone()]);
    world.taken.insert(queue(0), "keylane:other:1".into());
    world.pass(Duration::from_secs(20));
    assert_eq!(world.seen.len(), 1);
    // The owner gives it away; whoever it is meant for takes it before the stand-in asks again.
    let running = Keys::default();
    world.claimed_by(queue(0), "keylane:other:1", State::Released { running });
    world.taken.clear();
    world.until(|seen| seen.len() > 1);
    assert_eq!(world.seen, [unlock.clone(), unlock]);
    world.claimed_by(queue(0), "keylane:other:2", State::Claimed);
    world.taken.insert(queue(0), "keylane:other:2".into());
    world.pass(Duration::from_secs(20));
    assert_eq!(world.seen.len(), 2);
    // Frozen: its lock ends, and it stays away.
    world.taken.clear();
    let waited = world.until(|seen| assigned(seen) == 1);
    let bound = LEASE + CALL_BOUND + Duration::from_secs(1);
    assert!(waited <= bound, "{waited:?}");
    // It is given back after a while, for the owner may be back.
    let kept = world.until(|seen| matches!(seen.last(), Some(Action::Release { .. })));
    assert!(kept >= Duration::from_secs(59), "{kept:?}");
}

#[test]
fn a_queue_that_is_meant_for_another_now_is_not_kept_as_a_stand_in() {
    let mut world = World::new();
    world.ownership.allocate(world.now, &ours(&[0]));
    world.until(|seen| assigned(seen) == 1);
    let allocation = Allocation {
        stand_in: BTreeSet::from([queue(0)]),
        ..Allocation::default()
    };
    world.ownership.allocate(world.now, &allocation);
    let kept = world.until(|seen| matches!(seen.last(), Some(Action::Release { .. })));
    assert!(kept <= STEP, "{kept:?}");
}

#[test]
fn a_stand_in_takes_a_released_queue_that_whoever_it_is_meant_for_leaves() {
    let mut world = World::new();
    let running = Keys::default();
    world.claimed_by(queue(0), "keylane:other:1", State::Released { running });
    let allocation = Allocation {
        stand_in: BTreeSet::from([queue(0)]),
        ..Allocation::default()
    };
    world.ownership.allocate(world.now, &allocation);
    let waited = world.until(|seen| assigned(seen) == 1);
    assert!(waited <= Duration::from_secs(5), "{waited:?}");
}

#[test]
fn a_queue_whose_owner_left_is_taken_early_only_if_it_was_released() {
    let allocation = Allocation {
        if_released: BTreeMap::from([(queue(0), None)]),
        ..Allocation::default()
    };
    let ran = State::Ran {
        waiting: Keys::default(),
    };
    let released = State::Released {
        running: Keys::default(),
    };
    let mut world = World::new();
    world.claimed_by(queue(0), "keylane:other:1", ran);
    world.ownership.allocate(world.now, &allocation);
    world.pass(Duration::from_secs(2));
    let unlock = Action::Unlock {
        queue: queue(0),
        holder: None,
    };
    assert!(!world.seen.is_empty() && world.seen.iter().all(|action| *action == unlock));
    world.claimed_by(queue(0), "keylane:other:1", released);
    world.seen.clear();
    let waited = world.until(|seen| assigned(seen) == 1);
    assert!(waited <= Duration::from_millis(500), "{waited:?}");
}

/// It may have died while the broker was away: nothing tells of it, and others wait long for who may come back.
#[test]
fn a_queue_whose_owner_is_missing_is_taken_once_it_had_time_to_come_back() {
    let returns = Duration::from_secs(3);
    for missing_for in [0, 2, 60].map(Duration::from_secs) {
        let mut world = World::new();
        world.pass(Duration::from_secs(60));
        let ran = State::Ran {
            waiting: Keys::default(),
        };
        world.claimed_by(queue(0), "keylane:other:1", ran);
        let missing = |since| Allocation {
            if_released: BTreeMap::from([(queue(0), since)]),
            ..Allocation::default()
        };
        // While its owner is on the list it is not taken, however long its lock is free.
        world.ownership.allocate(world.now, &missing(None));
        world.pass(Duration::from_secs(5));
        assert_eq!(world.journals[&queue(0)].end, 1, "nobody claimed it");
        let since = world.now - missing_for;
        world.ownership.allocate(world.now, &missing(Some(since)));
        let waited = world.until(|seen| assigned(seen) == 1);
        let bound = returns.saturating_sub(missing_for) + LEASE + CALL_BOUND;
        let late = Duration::from_secs(1);
        assert!((bound..bound + late).contains(&waited), "{waited:?}");
        // It comes back at last, and gets it.
        world.ownership.allocate(world.now, &Allocation::default());
        let kept = world.until(|seen| matches!(seen.last(), Some(Action::Release { .. })));
        assert!(kept <= STEP, "{kept:?}");
    }
}

#[test]
fn an_owner_that_is_missing_and_has_its_lock_keeps_its_queue() {
    let mut world = World::new();
    world.claimed_by(queue(0), "keylane:other:1", State::Claimed);
    world.taken.insert(queue(0), "keylane:other:1".into());
    let allocation = Allocation {
        if_released: BTreeMap::from([(queue(0), Some(world.now))]),
        ..Allocation::default()
    };
    world.ownership.allocate(world.now, &allocation);
    world.pass(Duration::from_secs(20));
    assert_eq!(world.seen, []);
}

/// It was frozen until another had claimed its queue, and the broker forgot all locks before it woke.
#[test]
fn who_wakes_up_with_a_lock_leaves_the_queue_to_whoever_runs_it() {
    let other = "keylane:other:1";
    let woken = |state: State, holds: bool| {
        let mut world = World::new();
        world.ownership.allocate(world.now, &ours(&[0]));
        world.until(|seen| assigned(seen) == 1);
        world.now += Duration::from_secs(90);
        world.claimed_by(queue(0), other, state);
        world.seen.clear();
        world.settle();
        if holds {
            world.taken.insert(queue(0), other.into());
        }
        world
    };
    let running = State::Ran {
        waiting: Keys::default(),
    };
    let mut world = woken(running.clone(), true);
    let unlock = Action::Unlock {
        queue: queue(0),
        holder: None,
    };
    assert!(world.seen.contains(&unlock), "{:?}", world.seen);
    world.pass(Duration::from_secs(60));
    assert_eq!(assigned(&world.seen), 0);
    // One that does not come back is waited for, a moment later.
    let wait = woken(running, false).until(|seen| assigned(seen) == 1);
    assert!(
        wait < CALL_BOUND + LEASE + Duration::from_secs(4),
        "{wait:?}"
    );
    // What it has given away is taken at once.
    let released = State::Released {
        running: Keys::default(),
    };
    let wait = woken(released, false).until(|seen| assigned(seen) == 1);
    assert!(wait < Duration::from_secs(1), "{wait:?}");
}
