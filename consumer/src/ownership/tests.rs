//! What concerns several queues, other members and brokers. One queue by itself is explored in
//! [`super::explore`].

mod stand_in;
mod traps;

use super::*;
use crate::journal::{Newest, State};

const CALL_BOUND: Duration = Duration::from_secs(7);
const STEP: Duration = Duration::from_millis(50);
const ME: &str = "keylane:host:1";

fn queue(id: u32) -> QueueId {
    QueueId::new("b", id)
}

fn ours(ids: &[u32]) -> Allocation {
    Allocation {
        ours: ids.iter().map(|id| queue(*id)).collect(),
        ..Allocation::default()
    }
}

/// One process, and a broker that answers at once and gives every lock it has.
struct World {
    ownership: Ownership,
    now: Time,
    /// The broker answers nothing.
    away: bool,
    /// Locks that others hold.
    taken: BTreeMap<QueueId, Incarnation>,
    journals: BTreeMap<QueueId, Head>,
    /// Actions that need no answer, and unlocks.
    seen: Vec<Action>,
    /// In whose names all locks were given back.
    freed: Vec<(Arc<str>, Incarnation)>,
    lock_requests: u32,
}

impl World {
    fn new() -> Self {
        Self {
            ownership: Ownership::new(ME.into(), None, CALL_BOUND),
            now: Time::from_secs(1000),
            away: false,
            taken: BTreeMap::new(),
            journals: BTreeMap::new(),
            seen: Vec::new(),
            freed: Vec::new(),
            lock_requests: 0,
        }
    }

    fn claimed_by(&mut self, queue: QueueId, by: &str, state: State) {
        let head = self.journals.entry(queue).or_default();
        head.newest = Some(Newest {
            epoch: head.end,
            by: by.into(),
            state,
        });
        head.end += 1;
    }

    fn settle(&mut self) {
        loop {
            let actions = self.ownership.poll(self.now);
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.answer(action);
            }
        }
    }

    fn answer(&mut self, action: Action) {
        let now = self.now;
        match action {
            Action::Lock { broker, queues } => {
                self.lock_requests += 1;
                let free = |queue: &&QueueId| !self.taken.contains_key(*queue);
                let locked = queues.iter().filter(free).cloned().collect();
                let locked = (!self.away).then_some(&locked);
                self.ownership.lock_reply(now, &broker, &queues, locked);
            }
            Action::Free { broker, holder } => {
                self.taken.retain(|_, of| *of != holder);
                self.freed.push((broker, holder));
            }
            Action::Unlock { queue, holder } => {
                if holder.is_some() && self.taken.get(&queue) == holder.as_ref() {
                    self.taken.remove(&queue);
                }
                self.ownership.unlocked(&queue);
                self.seen.push(Action::Unlock { queue, holder });
            }
            Action::Read { queue, ticket } => {
                let head = self.journals.entry(queue.clone()).or_default();
                self.ownership.journal_read(now, &queue, ticket, Some(head));
            }
            Action::Append {
                queue,
                ticket,
                record,
            } => {
                let head = self.journals.entry(queue.clone()).or_default();
                let offset = head.end;
                head.end += 1;
                let (epoch, state) = match record {
                    Record::Claim { .. } => (offset, State::Claimed),
                    Record::Progress { epoch, waiting } => (epoch, State::Ran { waiting }),
                    Record::Released { epoch, waiting } => {
                        (epoch, State::Released { running: waiting })
                    }
                    Record::Withdrawn {
                        epoch,
                        former,
                        waiting,
                    } => (epoch, State::Withdrawn { former, waiting }),
                };
                head.newest = Some(Newest {
                    epoch,
                    by: ME.into(),
                    state,
                });
                self.ownership.appended(now, &queue, ticket, Some(offset));
            }
            other => self.seen.push(other),
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            self.settle();
        }
    }

    /// Lets time pass until it is so; returns how much passed.
    fn until(&mut self, is_so: impl Fn(&[Action]) -> bool) -> Duration {
        let started = self.now;
        self.settle();
        while !is_so(&self.seen) {
            self.now += STEP;
            assert!(
                self.now < started + Duration::from_secs(600),
                "{:?}",
                self.seen
            );
            self.settle();
        }
        self.now - started
    }
}

fn assigned(seen: &[Action]) -> usize {
    let assign = |action: &&Action| matches!(action, Action::Assign { .. });
    seen.iter().filter(assign).count()
}

#[test]
fn a_first_start_waits_for_nothing_and_locks_are_asked_for_together() {
    let mut world = World::new();
    world.ownership.allocate(world.now, &ours(&[0, 1, 2, 3]));
    let waited = world.until(|seen| assigned(seen) == 4);
    assert!(waited <= STEP, "{waited:?}");
    let before = world.lock_requests;
    world.until(|seen| seen.len() >= 4 + 4 * 5);
    let renewals = world.lock_requests - before;
    assert!(
        renewals <= 6,
        "{renewals} requests for 5 renewals of 4 queues"
    );
}

#[test]
fn a_clean_hand_over_waits_for_nothing_but_the_keys_that_still_run() {
    let mut world = World::new();
    let running = Keys::new([7]);
    let state = State::Released {
        running: running.clone(),
    };
    world.claimed_by(queue(0), "keylane:other:1", state);
    world.ownership.allocate(world.now, &ours(&[0]));
    let waited = world.until(|seen| assigned(seen) == 1);
    assert!(waited <= STEP, "{waited:?}");
    let held = world.seen.iter().find_map(|action| match action {
        Action::Assign { held, .. } => Some(held.clone()),
        _ => None,
    });
    let until = world.now - waited + CALL_BOUND;
    assert_eq!(
        held,
        Some(Held {
            keys: running,
            until
        })
    );
}

#[test]
fn the_queue_of_an_absent_member_is_taken_in_its_name_and_waited_for() {
    let mut world = World::new();
    let other = "keylane:other:1";
    world.taken.insert(queue(0), other.into());
    let state = State::Ran {
        waiting: Keys::default(),
    };
    world.claimed_by(queue(0), other, state);
    let broker: Arc<str> = "b".into();
    world
        .ownership
        .members(&broker, BTreeSet::from([ME.into(), other.into()]));
    world.ownership.allocate(world.now, &ours(&[0]));
    for _ in 0..100 {
        world.now += STEP;
        world.settle();
    }
    assert_eq!(world.seen, [], "it is on the list");
    world
        .ownership
        .members(&broker, BTreeSet::from([ME.into()]));
    let waited = world.until(|seen| assigned(seen) == 1);
    let bound = LEASE + CALL_BOUND;
    assert!((bound..bound + STEP * 10).contains(&waited), "{waited:?}");
    let unlock = Action::Unlock {
        queue: queue(0),
        holder: Some(other.into()),
    };
    assert_eq!(world.seen[0], unlock);
}

/// The journal may name one that is gone while a third has the lock, and has not claimed yet.
#[test]
fn a_lock_that_another_has_is_given_back_in_the_name_of_an_absent_member_once_a_second() {
    let (gone, third) = ("keylane:gone:1", "keylane:third:1");
    let mut world = World::new();
    world.claimed_by(queue(0), gone, State::Claimed);
    world.taken.insert(queue(0), third.into());
    let broker: Arc<str> = "b".into();
    let list = |world: &mut World, names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        world.ownership.members(&broker, names);
    };
    list(&mut world, &[ME, third, gone]);
    list(&mut world, &[ME, third]);
    world.ownership.allocate(world.now, &ours(&[0]));
    let before = world.lock_requests;
    world.pass(Duration::from_secs(10));
    assert!(
        world.lock_requests - before >= 40,
        "it is tried as often as ever"
    );
    let unlock = Action::Unlock {
        queue: queue(0),
        holder: Some(gone.into()),
    };
    assert!(world.seen.iter().all(|action| *action == unlock));
    assert!((9..=11).contains(&world.seen.len()), "{}", world.seen.len());
}

/// It may have been killed after a lock and before its claim, so that no journal names it.
#[test]
fn the_locks_of_a_member_that_leaves_are_given_back_in_its_name_once_also_where_nothing_is_meant_for_us()
 {
    let (left, broker) = ("keylane:left:1", Arc::<str>::from("b"));
    let mut world = World::new();
    for id in [0, 1] {
        world.taken.insert(queue(id), left.into());
    }
    world.taken.insert(queue(2), "keylane:stays:1".into());
    let list = |world: &mut World, names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        world.ownership.members(&broker, names);
    };
    list(&mut world, &[ME, left, "keylane:stays:1"]);
    world.ownership.allocate(world.now, &ours(&[0]));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.freed, [], "it is on the list");
    list(&mut world, &[ME, "keylane:stays:1"]);
    list(&mut world, &[ME, "keylane:stays:1"]);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.freed, [(broker, left.into())]);
    assert_eq!(world.taken.keys().collect::<Vec<_>>(), [&queue(2)]);
}

#[test]
fn the_queue_of_a_pod_that_is_proven_gone_is_not_waited_for() {
    let mut world = World::new();
    let state = State::Ran {
        waiting: Keys::default(),
    };
    world.claimed_by(queue(0), "keylane:uid-1:1", state);
    world.ownership.allocate(world.now, &ours(&[0]));
    world.now += STEP;
    world.settle();
    world.ownership.pod_gone("uid-1");
    let waited = world.until(|seen| assigned(seen) == 1);
    assert!(waited <= STEP, "{waited:?}");
}

#[test]
fn a_new_master_address_drops_the_queue_and_lengthens_the_wait() {
    let mut world = World::new();
    world.ownership.allocate(world.now, &ours(&[0]));
    world.until(|seen| assigned(seen) == 1);
    world.ownership.master_changed(world.now, "b");
    let waited = world.until(|seen| assigned(seen) == 2);
    assert!(waited >= LEASE * 2 + CALL_BOUND, "{waited:?}");
    let dropped = |action: &Action| {
        matches!(
            action,
            Action::Drop {
                released: false,
                ..
            }
        )
    };
    assert!(world.seen.iter().any(dropped));
}

#[test]
fn a_lock_that_arrives_after_the_queue_went_to_another_is_given_back() {
    let mut world = World::new();
    world.ownership.allocate(world.now, &ours(&[0]));
    let actions = world.ownership.poll(world.now);
    assert!(matches!(&actions[..], [Action::Lock { .. }]));
    world.ownership.allocate(world.now, &Allocation::default());
    for action in actions {
        world.answer(action);
    }
    world.settle();
    let unlock = Action::Unlock {
        queue: queue(0),
        holder: None,
    };
    assert_eq!(world.seen, [unlock]);
    assert!(world.ownership.is_empty());
}

#[test]
fn a_queue_that_is_given_away_is_released_in_the_journal_before_its_lock() {
    let mut world = World::new();
    world.ownership.allocate(world.now, &ours(&[0]));
    world.until(|seen| assigned(seen) == 1);
    world.seen.clear();
    world.ownership.allocate(world.now, &Allocation::default());
    world.settle();
    assert!(matches!(world.seen[..], [Action::Release { .. }]));
    world.ownership.drained(&queue(0));
    world.settle();
    let rest = &world.seen[1..];
    assert!(
        matches!(
            rest,
            [
                Action::Drop { released: true, .. },
                Action::Unlock { holder: None, .. }
            ]
        ),
        "{rest:?}"
    );
    let newest = world.journals[&queue(0)].newest.as_ref();
    assert!(newest.is_some_and(|newest| matches!(newest.state, State::Released { .. })));
    assert!(world.ownership.is_empty());
}

#[test]
fn a_claim_that_another_is_to_have_is_waited_for_and_released_without_being_run() {
    let ran = State::Ran {
        waiting: Keys::default(),
    };
    let mut world = World::new();
    world.claimed_by(queue(0), "keylane:other_10.0.0.1:1", ran);
    world.ownership.allocate(world.now, &ours(&[0]));
    world.settle();
    world.ownership.allocate(world.now, &Allocation::default());
    world.pass(LEASE);
    assert_eq!(world.seen, [], "nobody may have it sooner");
    let unlock = Action::Unlock {
        queue: queue(0),
        holder: None,
    };
    let waited = world.until(|seen| *seen == [unlock.clone()]);
    assert!(waited <= CALL_BOUND + 2 * STEP, "{waited:?}");
    let released = State::Released {
        running: Keys::default(),
    };
    let newest = world.journals[&queue(0)].newest.as_ref();
    assert_eq!(newest.map(|newest| &newest.state), Some(&released));
    assert!(world.ownership.is_empty());
}

#[test]
fn a_released_queue_that_is_meant_for_another_as_soon_as_it_is_claimed_is_released_again() {
    let running = Keys::new([7]);
    let mut world = World::new();
    let state = State::Released { running };
    world.claimed_by(queue(0), "keylane:other:1", state.clone());
    world.ownership.allocate(world.now, &ours(&[0]));
    // Up to the claim, whose answer is under way.
    let claim = loop {
        let actions = world.ownership.poll(world.now);
        let mut actions = actions.into_iter();
        let action = actions.next().expect("something to do");
        assert_eq!(actions.next(), None);
        if let Action::Append { .. } = action {
            break action;
        }
        world.answer(action);
    };
    world.ownership.allocate(world.now, &Allocation::default());
    world.settle();
    assert_eq!(
        world.seen,
        [],
        "the lock is kept until it is known what became of it"
    );
    world.answer(claim);
    world.settle();
    let unlock = Action::Unlock {
        queue: queue(0),
        holder: None,
    };
    assert_eq!(world.seen, [unlock]);
    let newest = world.journals[&queue(0)].newest.as_ref();
    assert_eq!(newest.map(|newest| &newest.state), Some(&state));
}

#[test]
fn a_claimed_queue_goes_back_at_once_to_the_pod_that_ran_it() {
    let (former, back) = ("keylane:uid-1:1", "keylane:uid-1:2");
    let waiting = Keys::new([7]);
    let ran = State::Ran {
        waiting: waiting.clone(),
    };
    let mut world = World::new();
    world.claimed_by(queue(0), former, ran);
    let broker: Arc<str> = "b".into();
    let list = |world: &mut World, names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        world.ownership.members(&broker, names);
    };
    list(&mut world, &[ME]);
    world.ownership.allocate(world.now, &ours(&[0]));
    world.pass(Duration::from_secs(1));
    list(&mut world, &[ME, back]);
    world.pass(Duration::from_secs(1));
    let newest = |world: &World| {
        let newest = world.journals[&queue(0)].newest.clone();
        newest.map(|newest| newest.state)
    };
    assert_eq!(newest(&world), Some(State::Claimed), "it is still ours");
    world.ownership.allocate(world.now, &Allocation::default());
    world.settle();
    let former = former.into();
    let withdrawn = State::Withdrawn { former, waiting };
    assert_eq!(newest(&world), Some(withdrawn));
    let unlock = Action::Unlock {
        queue: queue(0),
        holder: None,
    };
    assert_eq!(world.seen, [unlock]);
    assert!(world.ownership.is_empty());
}

/// The pod's new process does not wait for its former one, whoever claimed the queue meanwhile; all others
/// do.
#[test]
fn a_withdrawn_claim_shortens_the_wait_of_those_who_know_what_became_of_the_former_owner() {
    let withdrawn = |world: &mut World| {
        let state = State::Withdrawn {
            former: "keylane:uid-1:1".into(),
            waiting: Keys::default(),
        };
        world.claimed_by(queue(0), "keylane:other:1", state);
        world.ownership.allocate(world.now, &ours(&[0]));
    };
    let mut stranger = World::new();
    withdrawn(&mut stranger);
    let waited = stranger.until(|seen| assigned(seen) == 1);
    assert!(waited >= LEASE + CALL_BOUND, "{waited:?}");
    let mut same = World::new();
    same.ownership = Ownership::new("keylane:uid-1:2".into(), Some("uid-1"), CALL_BOUND);
    same.ownership.handler_idle();
    withdrawn(&mut same);
    let waited = same.until(|seen| assigned(seen) == 1);
    assert!(waited <= STEP, "{waited:?}");
}

#[test]
fn a_process_that_has_to_end_does_not_wait_for_a_former_owner() {
    let mut world = World::new();
    world.claimed_by(queue(0), "keylane:other:1", State::Claimed);
    world.ownership.allocate(world.now, &ours(&[0]));
    world.settle();
    world.ownership.stop_waiting(world.now, world.now);
    assert_eq!(world.seen, [], "it is meant for us");
    world.ownership.allocate(world.now, &Allocation::default());
    world.ownership.stop_waiting(world.now, world.now);
    world.settle();
    assert!(world.ownership.is_empty());
    let newest = world.journals[&queue(0)].newest.as_ref();
    assert_eq!(newest.map(|newest| &newest.state), Some(&State::Claimed));
}

/// Whoever is next waits for as long from the moment the queue is given back.
#[test]
fn a_process_that_ends_before_its_wait_is_over_gives_the_queue_back_at_once() {
    let wait = LEASE + CALL_BOUND;
    for (left, at_once) in [(wait - STEP, true), (wait + 2 * STEP, false)] {
        let mut world = World::new();
        let waiting = Keys::default();
        world.claimed_by(queue(0), "keylane:other:1", State::Ran { waiting });
        world.ownership.allocate(world.now, &ours(&[0]));
        world.settle();
        world.ownership.allocate(world.now, &Allocation::default());
        world.ownership.stop_waiting(world.now, world.now + left);
        world.settle();
        assert_eq!(world.ownership.is_empty(), at_once, "{left:?}");
        world.pass(left);
        assert!(world.ownership.is_empty(), "{left:?}");
        let newest = world.journals[&queue(0)].newest.as_ref();
        let released = newest.is_some_and(|newest| matches!(newest.state, State::Released { .. }));
        assert_eq!(released, !at_once, "{left:?}");
    }
}

#[test]
fn a_lock_that_was_perhaps_granted_unheard_is_given_back_where_the_queue_is_another_s() {
    let mut world = World::new();
    world.away = true;
    world.ownership.allocate(world.now, &ours(&[0]));
    world.settle();
    assert_eq!(world.seen, [], "it is wanted and asked for again");
    world.ownership.allocate(world.now, &Allocation::default());
    world.settle();
    let unlock = Action::Unlock {
        queue: queue(0),
        holder: None,
    };
    assert_eq!(world.seen, std::slice::from_ref(&unlock));
    assert!(world.ownership.is_empty(), "a process may end now");
    // The request may be late.
    world.pass(Duration::from_secs(70));
    assert!(world.seen.iter().all(|action| *action == unlock));
    assert_eq!(world.seen.len(), 12);
    assert_eq!(world.ownership.next_deadline(world.now), None);
}

#[test]
fn there_is_always_something_to_wait_for_and_never_a_busy_loop() {
    let mut world = World::new();
    world.taken.insert(queue(1), "keylane:other:1".into());
    world.ownership.allocate(world.now, &ours(&[0, 1]));
    for _ in 0..2_000 {
        world.settle();
        let next = world.ownership.next_deadline(world.now);
        let next = next.expect("something to wait for");
        assert!(next > world.now, "{:?}", world.ownership);
        world.now = next;
    }
}
