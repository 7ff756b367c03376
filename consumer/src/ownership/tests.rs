//! Ownership against a world of processes that freeze and die and a broker that forgets.

use super::*;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const CALL_BOUND: Duration = Duration::from_secs(7);
const STEP: Duration = Duration::from_millis(50);
const BROKER_LOCK: Duration = Duration::from_secs(60);
const FLUSH_EVERY: Duration = Duration::from_secs(5);

fn queue() -> QueueId {
    QueueId::new("b", 0)
}

fn set(queues: &[QueueId]) -> BTreeSet<QueueId> {
    queues.iter().cloned().collect()
}

/// The broker's side: a lock table in memory, offsets flushed now and then.
#[derive(Default)]
struct Broker {
    holder: Option<(u64, Time)>,
    committed: Option<u64>,
    flushed: Option<u64>,
    last_flush: Time,
}

impl Broker {
    fn lock(&mut self, now: Time, who: u64) -> bool {
        let free = self
            .holder
            .is_none_or(|(holder, at)| holder == who || now >= at + BROKER_LOCK);
        if free {
            self.holder = Some((who, now));
        }
        free
    }

    fn flush(&mut self, now: Time) {
        if now >= self.last_flush + FLUSH_EVERY {
            self.last_flush = now;
            self.flushed = self.committed;
        }
    }

    fn crash(&mut self) {
        self.holder = None;
        self.committed = self.flushed;
    }
}

struct Process {
    /// Its client id.
    name: u64,
    ownership: Ownership,
    frozen_until: Time,
    lease: Option<Time>,
    /// Answers under way: when they arrive, and what they are.
    answers: Vec<(Time, Answer)>,
    releasing: bool,
}

enum Answer {
    Locked {
        sent: Time,
        asked: BTreeSet<QueueId>,
        got: Option<bool>,
    },
    Start(Option<Start>),
    Released,
}

impl Process {
    fn new(name: u64) -> Self {
        Self {
            name,
            ownership: Ownership::new(CALL_BOUND),
            frozen_until: Time::ZERO,
            lease: None,
            answers: Vec::new(),
            releasing: false,
        }
    }
}

struct World {
    rng: StdRng,
    now: Time,
    broker: Broker,
    processes: Vec<Process>,
    /// When each process last dispatched; also those that died since.
    dispatched: BTreeMap<u64, Time>,
    names: u64,
    owned_steps: u64,
}

impl World {
    fn new(seed: u64, count: usize) -> Self {
        let processes = (0..count as u64).map(Process::new).collect();
        Self {
            rng: StdRng::seed_from_u64(seed),
            now: Time::ZERO,
            broker: Broker::default(),
            processes,
            dispatched: BTreeMap::new(),
            names: count as u64,
            owned_steps: 0,
        }
    }

    fn delay(&mut self) -> Duration {
        Duration::from_millis(if self.rng.random_bool(0.02) {
            self.rng.random_range(0..4000)
        } else {
            20
        })
    }

    fn step(&mut self, faults: bool) {
        self.now += STEP;
        self.broker.flush(self.now);
        if faults {
            self.fault();
        }
        for index in 0..self.processes.len() {
            if self.now >= self.processes[index].frozen_until {
                self.run(index);
            }
        }
    }

    fn fault(&mut self) {
        let index = self.rng.random_range(0..self.processes.len());
        match self.rng.random_range(0..4000) {
            0..4 => self.broker.crash(),
            4..8 => {
                self.processes[index].frozen_until =
                    self.now + Duration::from_secs(self.rng.random_range(1..100));
            }
            8..11 => {
                // Killed: its lock stays, its calls run on; a new process has a new name.
                self.processes[index] = Process::new(self.names);
                self.names += 1;
            }
            11..40 => {
                // Members see the group differently for a while: both may be allocated the queue.
                let wanted = self.rng.random_bool(0.6);
                self.processes[index].ownership.allocate(if wanted {
                    set(&[queue()])
                } else {
                    set(&[])
                });
            }
            _ => {}
        }
    }

    fn run(&mut self, index: usize) {
        let now = self.now;
        let (arrived, waiting) = std::mem::take(&mut self.processes[index].answers)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.processes[index].answers = waiting;
        for (_, answer) in Vec::from_iter::<Vec<(Time, Answer)>>(arrived) {
            let ownership = &mut self.processes[index].ownership;
            match answer {
                Answer::Locked { sent, asked, got } => {
                    let locked = got.map(|got| if got { asked.clone() } else { BTreeSet::new() });
                    ownership.lock_reply(now, sent, &"b".into(), &asked, locked.as_ref());
                }
                Answer::Start(Some(start)) => ownership.start_found(now, &queue(), start),
                Answer::Start(None) => ownership.start_failed(now, &queue()),
                Answer::Released => ownership.released(&queue()),
            }
        }
        for action in self.processes[index].ownership.poll(now) {
            self.act(index, action);
        }
        let process = &self.processes[index];
        if let (Some(lease), false) = (process.lease, process.releasing)
            && now < lease
        {
            self.dispatch(index);
        }
    }

    fn act(&mut self, index: usize, action: Action) {
        let now = self.now;
        let arrives = now + self.delay();
        let lost = self.rng.random_bool(0.02);
        match action {
            Action::Lock { queues, .. } => {
                let got = self.broker.lock(now, self.processes[index].name);
                let answer = Answer::Locked {
                    sent: now,
                    asked: queues,
                    got: (!lost).then_some(got),
                };
                self.processes[index].answers.push((arrives, answer));
            }
            Action::FindStart { .. } => {
                let start = match self.broker.committed {
                    Some(offset) => Start {
                        offset,
                        first: None,
                    },
                    None => {
                        self.broker.committed = Some(0);
                        Start {
                            offset: 0,
                            first: Some(First {
                                none_at: now,
                                committed_at: arrives,
                            }),
                        }
                    }
                };
                self.processes[index]
                    .answers
                    .push((arrives, Answer::Start((!lost).then_some(start))));
            }
            Action::Assign { lease, .. } => {
                self.processes[index].lease = Some(lease);
                self.processes[index].releasing = false;
            }
            Action::Renew { lease, .. } => {
                let known = &mut self.processes[index].lease;
                *known = known.map(|known| known.max(lease));
            }
            Action::Release { .. } => {
                self.processes[index].releasing = true;
                let drained = now + Duration::from_millis(self.rng.random_range(0..9000));
                self.processes[index]
                    .answers
                    .push((drained, Answer::Released));
            }
            Action::Drop { .. } => self.processes[index].lease = None,
            Action::Unlock { .. } => {
                if self
                    .broker
                    .holder
                    .is_some_and(|(holder, _)| holder == self.processes[index].name)
                {
                    self.broker.holder = None;
                }
            }
        }
    }

    fn dispatch(&mut self, index: usize) {
        self.owned_steps += 1;
        let name = self.processes[index].name;
        for (other, at) in &self.dispatched {
            assert!(
                *other == name || self.now >= *at + CALL_BOUND,
                "at {:?} process {name} dispatches while a call of process {other} from {at:?} may run",
                self.now
            );
        }
        self.dispatched.insert(name, self.now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn nobody_dispatches_while_a_call_of_another_may_run(seed: u64, count in 2usize..4) {
        let mut world = World::new(seed, count);
        for process in &mut world.processes {
            process.ownership.allocate(set(&[queue()]));
        }
        for _ in 0..12_000 {
            world.step(true);
        }
        // Faults end, one process is allocated the queue: it gets it.
        for (index, process) in world.processes.iter_mut().enumerate() {
            process.frozen_until = Time::ZERO;
            process.ownership.allocate(if index == 0 { set(&[queue()]) } else { set(&[]) });
        }
        for _ in 0..2_400 {
            world.step(false);
        }
        prop_assert!(world.processes[0].lease.is_some_and(|lease| world.now < lease));
        prop_assert!(world.owned_steps > 0);
    }
}

/// Answers every action at once, as a broker without faults would; returns what is left to the test.
fn settle(ownership: &mut Ownership, now: Time, start: Start) -> Vec<Action> {
    let mut seen = Vec::new();
    loop {
        let actions = ownership.poll(now);
        if actions.is_empty() {
            return seen;
        }
        for action in actions {
            match action {
                Action::Lock { broker, queues } => {
                    ownership.lock_reply(now, now, &broker, &queues, Some(&queues))
                }
                Action::FindStart { queue } => ownership.start_found(now, &queue, start),
                other => seen.push(other),
            }
        }
    }
}

fn first_assignment(start: impl Fn(Time) -> Start) -> Time {
    let mut ownership = Ownership::new(CALL_BOUND);
    ownership.allocate(set(&[queue()]));
    let mut now = Time::ZERO;
    loop {
        let actions = settle(&mut ownership, now, start(now));
        if actions
            .iter()
            .any(|action| matches!(action, Action::Assign { .. }))
        {
            return now;
        }
        now = ownership
            .next_deadline()
            .expect("something to wait for")
            .max(now + Duration::from_millis(1));
    }
}

#[test]
fn the_wait_is_lease_and_call_bound_and_only_the_lease_at_the_very_first_start() {
    let known = first_assignment(|_| Start {
        offset: 5,
        first: None,
    });
    assert!(
        (LEASE + CALL_BOUND..LEASE + CALL_BOUND + STEP).contains(&known),
        "{known:?}"
    );
    let first = first_assignment(|now| Start {
        offset: 0,
        first: Some(First {
            none_at: now,
            committed_at: now,
        }),
    });
    assert!((LEASE..LEASE + STEP).contains(&first), "{first:?}");
}

#[test]
fn a_starting_offset_found_missing_long_before_the_lock_earns_no_exemption() {
    let mut ownership = Ownership::new(CALL_BOUND);
    ownership.allocate(set(&[queue()]));
    let late = LEASE * 2;
    let old = Start {
        offset: 0,
        first: Some(First {
            none_at: Time::ZERO,
            committed_at: Time::ZERO,
        }),
    };
    assert!(settle(&mut ownership, late, old).is_empty());
    assert!(settle(&mut ownership, late + LEASE, old).is_empty());
}

#[test]
fn a_new_master_address_drops_the_queue_and_lengthens_the_wait() {
    let mut ownership = Ownership::new(CALL_BOUND);
    ownership.allocate(set(&[queue()]));
    let start = Start {
        offset: 5,
        first: None,
    };
    ownership.master_changed(Time::ZERO, "b");
    let mut now = Time::ZERO;
    while settle(&mut ownership, now, start).is_empty() {
        now += STEP;
    }
    assert!(now >= LEASE * 2 + CALL_BOUND, "{now:?}");
    ownership.master_changed(now, "b");
    assert!(matches!(ownership.poll(now)[0], Action::Drop { .. }));
}

#[test]
fn a_lock_that_arrives_after_the_queue_went_to_another_is_given_back() {
    let mut ownership = Ownership::new(CALL_BOUND);
    ownership.allocate(set(&[queue()]));
    let actions = ownership.poll(Time::ZERO);
    assert!(matches!(&actions[..], [Action::Lock { .. }]));
    ownership.allocate(set(&[]));
    ownership.lock_reply(
        STEP,
        Time::ZERO,
        &"b".into(),
        &set(&[queue()]),
        Some(&set(&[queue()])),
    );
    assert_eq!(ownership.poll(STEP), [Action::Unlock { queue: queue() }]);
    assert!(ownership.is_empty());
}
