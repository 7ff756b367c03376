//! The world: processes with the real core, and the order in which things happen to them.

use super::broker::{Broker, QueueIndex, Reply};
use super::judge::Judge;
use super::plan::{Mode, Plan};
use crate::exec::commits::{Answer, Commits, Due};
use crate::lane::{
    Assignment, CallId, CallResult, Held, InMemory, Input, LaneExecutor, Output, Place, SendBack,
    Suspension, Time,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

/// How often a process writes down what is finished.
const PERSIST: Duration = Duration::from_millis(200);
const RENEW: Duration = Duration::from_secs(1);
const ALLOCATE: Duration = Duration::from_millis(100);
/// After the last fault everything is finished within this time; an exhausted message that blocks its key
/// is tried again once a minute.
const SETTLED: Duration = Duration::from_secs(600);

/// A call that a process waits for.
#[derive(Debug)]
pub struct InFlight {
    pub queue: QueueIndex,
    pub offset: u64,
}

/// One life of a process.
#[derive(Debug)]
pub struct Pod {
    pub executor: LaneExecutor,
    pub life: u64,
    pub frozen_until: Time,
    pub lanes: u32,
    pub calls: BTreeMap<CallId, InFlight>,
    pub commits: Commits,
    pub suspension: Suspension,
    wake: Option<Time>,
    /// What arrived while it was frozen, in order.
    asleep: VecDeque<Input>,
}

/// Who has a queue.
#[derive(Debug)]
pub enum Owner {
    /// Nobody; it can be taken at `at`, and then `held` has to wait.
    Free { at: Time, held: Held },
    /// This process.
    Pod {
        pod: usize,
        assignment: Assignment,
        lease: Time,
        /// What it was told to wait for.
        held: Held,
        /// It is being given away; at this time without waiting any longer.
        leaving: Option<Time>,
        /// None of its calls runs any more.
        drained: bool,
    },
}

/// What happens.
#[derive(Debug)]
pub enum Event {
    Input(usize, u64, Input),
    /// A reply to a pull arrives, for so many messages from an offset on.
    Reply(usize, u64, Assignment, QueueIndex, u64, u32),
    /// The handler has finished these messages.
    Truth(CallName, QueueIndex, Vec<u64>),
    /// The handler of a process dies.
    Die(usize, u64),
    /// A commit, or a check of what is committed, reaches the broker.
    Commit(usize, u64, Due),
    /// Its answer reaches the process.
    Committed(usize, u64, Due, Answer),
    /// The broker takes a message back.
    Back(usize, u64, Box<SendBack>),
    Wake(usize, u64),
    /// A process is frozen no more, unless it was frozen again.
    Thaw(usize, u64),
    /// Nothing of a process is suspended any more.
    Resume(usize, u64),
    Persist,
    Renew,
    Allocate,
    Fault,
}

/// A call, in all lives.
pub type CallName = (usize, u64, CallId);

#[derive(Debug)]
struct Timed(Time, u64, Event);

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// How a world ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// When everything was finished.
    pub finished_at: Time,
    /// Handler calls.
    pub calls: u64,
    /// Messages in the dead letter queue.
    pub dead_letters: u64,
}

/// A simulated world.
#[derive(Debug)]
pub struct World {
    pub(super) plan: Plan,
    pub(super) rng: StdRng,
    pub(super) now: Time,
    pub(super) broker: Broker,
    pub(super) judge: Judge,
    pub(super) pods: Vec<Pod>,
    pub(super) owners: Vec<Owner>,
    /// Calls that ended with their handler.
    pub(super) killed: BTreeSet<CallName>,
    /// It tells what happens.
    pub(super) traced: bool,
    pub(super) assignments: u64,
    events: BinaryHeap<Reverse<Timed>>,
    numbers: u64,
}

impl World {
    /// A world in which nothing has happened yet.
    pub fn new(plan: Plan) -> Self {
        let mut rng = StdRng::seed_from_u64(plan.seed);
        let mut broker = Broker::new(plan.queues);
        let mut judge = Judge::new(broker.queues.len());
        for queue in 0..plan.queues {
            for _ in 0..plan.messages {
                if rng.random_bool(0.1) {
                    broker.send_filtered(queue);
                    continue;
                }
                let key = rng.random_range(0..plan.keys + 1).to_string();
                let key = (key != "0").then_some(key.as_str());
                let place = match plan.mode {
                    Mode::Key => Place::Key,
                    Mode::Queue => Place::Shared,
                    Mode::Unordered => Place::Own,
                };
                let poison = rng.random_bool(plan.poison);
                let (offset, lane) = broker.send(queue, place, key, poison);
                judge.sent(queue, offset, lane);
            }
        }
        let owners = broker.queues.iter().map(|_| Owner::Free {
            at: Time::ZERO,
            held: Held::default(),
        });
        let mut world = Self {
            owners: owners.collect(),
            pods: Vec::new(),
            now: Time::ZERO,
            rng,
            broker,
            judge,
            killed: BTreeSet::new(),
            traced: false,
            assignments: 0,
            events: BinaryHeap::new(),
            numbers: 0,
            plan,
        };
        for pod in 0..world.plan.pods {
            let pod = world.new_pod(pod as u64);
            world.pods.push(pod);
        }
        for event in [Event::Persist, Event::Renew, Event::Allocate, Event::Fault] {
            world.after(Duration::from_millis(1), event);
        }
        world
    }

    pub(super) fn new_pod(&mut self, life: u64) -> Pod {
        Pod {
            executor: LaneExecutor::new(self.plan.settings(), self.rng.random()),
            life,
            frozen_until: Time::ZERO,
            lanes: self.plan.lanes,
            calls: BTreeMap::new(),
            commits: Commits::default(),
            suspension: Suspension::default(),
            wake: None,
            asleep: VecDeque::new(),
        }
    }

    pub(super) fn after(&mut self, wait: Duration, event: Event) {
        self.numbers += 1;
        self.events
            .push(Reverse(Timed(self.now + wait, self.numbers, event)));
    }

    pub(super) fn is_calm(&self) -> bool {
        self.now >= self.plan.faults_until
    }

    /// The same world, which prints what happens.
    pub fn traced(self) -> Self {
        Self {
            traced: true,
            ..self
        }
    }

    /// Runs until everything is finished.
    ///
    /// # Panics
    /// Where a promise is broken.
    pub fn run(mut self) -> Outcome {
        while !self.is_settled() {
            let Some(Reverse(Timed(at, _, event))) = self.events.pop() else {
                panic!("nothing more happens, and not everything is finished");
            };
            assert!(
                at < self.plan.faults_until + SETTLED,
                "{} messages are not finished: {:?}",
                self.judge.unfinished(),
                self.pods
                    .iter()
                    .map(|pod| pod.executor.summary(at))
                    .collect::<Vec<_>>()
            );
            self.now = at;
            if self.traced {
                println!("{at:?} {event:?}");
            }
            self.happens(event);
        }
        for pod in &self.pods {
            let summary = pod.executor.summary(self.now);
            let left = (
                summary.live_keys,
                summary.busy,
                summary.waiting,
                summary.blocked,
            );
            assert_eq!(left, (0, 0, 0, 0), "something is left behind");
        }
        Outcome {
            finished_at: self.now,
            calls: self.judge.starts,
            dead_letters: self.broker.dead_letters,
        }
    }

    fn is_settled(&self) -> bool {
        self.judge.unfinished() == 0
            && self.is_calm()
            && self
                .pods
                .iter()
                .all(|pod| pod.executor.in_memory() == InMemory::default())
            && self
                .owners
                .iter()
                .zip(&self.broker.queues)
                .all(|(owner, queue)| match owner {
                    Owner::Pod {
                        pod, assignment, ..
                    } => {
                        let progress = self.pods[*pod].executor.progress(*assignment);
                        let end = queue.offsets.len() as u64;
                        let finished = progress.is_some_and(|progress| progress.watermark == end);
                        finished && queue.committed == end
                    }
                    Owner::Free { .. } => false,
                })
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Input(pod, life, input) => self.input(pod, life, input),
            Event::Reply(pod, life, assignment, queue, from, most) => {
                let faults = self.network();
                let reply = self
                    .broker
                    .pull(&mut self.rng, self.now, queue, from, most, faults);
                let twice = self.rng.random_bool(faults / 2.0);
                for _ in 0..1 + usize::from(twice) {
                    let input = reply_input(self.now, assignment, from, &reply);
                    self.input(pod, life, input);
                }
            }
            Event::Truth(name, queue, offsets) => {
                if !self.killed.contains(&name) {
                    for offset in offsets {
                        self.judge.finished(queue, offset);
                    }
                }
            }
            Event::Commit(pod, life, due) => self.commit_arrives(pod, life, due),
            Event::Committed(pod, life, due, answer) => self.committed(pod, life, due, answer),
            Event::Die(pod, life) => self.handler_dies(pod, life),
            Event::Back(pod, life, back) => self.back(pod, life, &back),
            Event::Wake(pod, life) => {
                if self.pods[pod].life == life {
                    self.pods[pod].wake = None;
                    self.input(pod, life, Input::Tick);
                }
            }
            Event::Thaw(pod, life) => self.thaw(pod, life),
            Event::Resume(pod, life) => {
                if self.pods[pod].life == life {
                    self.suspended(pod, Suspension::default());
                }
            }
            Event::Persist => {
                for queue in 0..self.owners.len() {
                    self.persist(queue);
                }
                self.after(PERSIST, Event::Persist);
            }
            Event::Renew => {
                self.renew();
                self.after(RENEW, Event::Renew);
            }
            Event::Allocate => {
                self.allocate();
                self.after(ALLOCATE, Event::Allocate);
            }
            Event::Fault => {
                if !self.is_calm() {
                    self.fault();
                    let wait = self
                        .plan
                        .fault_every
                        .mul_f64(self.rng.random_range(0.1..2.0));
                    self.after(wait, Event::Fault);
                }
            }
        }
    }

    /// Gives an input to a process; later, if it is frozen, and never if it has died.
    pub(super) fn input(&mut self, pod: usize, life: u64, input: Input) {
        let of = &mut self.pods[pod];
        if of.life != life {
            return;
        }
        let first = of.asleep.is_empty();
        if first && self.now >= of.frozen_until {
            return self.take_in(pod, input);
        }
        of.asleep.push_back(input);
        if first {
            let wait = of.frozen_until - self.now;
            self.after(wait, Event::Thaw(pod, life));
        }
    }

    fn thaw(&mut self, pod: usize, life: u64) {
        while self.pods[pod].life == life {
            let of = &mut self.pods[pod];
            if self.now < of.frozen_until {
                let wait = of.frozen_until - self.now;
                return self.after(wait, Event::Thaw(pod, life));
            }
            let Some(input) = of.asleep.pop_front() else {
                return;
            };
            self.take_in(pod, input);
        }
    }

    fn take_in(&mut self, pod: usize, input: Input) {
        let of = &mut self.pods[pod];
        let life = of.life;
        if let Input::CallEnded { id, result, .. } = &input {
            // The dead do not answer.
            let lost = matches!(result, CallResult::Lost { .. });
            if !lost && self.killed.contains(&(pod, life, *id)) {
                return;
            }
            of.calls.remove(id);
        }
        of.executor.handle(self.now, input);
        self.carry_out(pod);
    }

    fn carry_out(&mut self, pod: usize) {
        while let Some(output) = self.pods[pod].executor.poll_output() {
            let life = self.pods[pod].life;
            let wait = Duration::from_micros(self.rng.random_range(100..5_000));
            match output {
                Output::Dispatch(call) => self.dispatch(pod, call),
                Output::Pull {
                    assignment,
                    queue,
                    offset,
                    max_messages,
                } => {
                    let queue = self.broker.index(&queue);
                    self.after(
                        wait,
                        Event::Reply(pod, life, assignment, queue, offset, max_messages),
                    );
                }
                Output::SendBack(back) => self.after(wait, Event::Back(pod, life, Box::new(back))),
                Output::Record { assignment } => {
                    let suspects = self.pods[pod].executor.suspects(assignment);
                    let recorded = Input::Recorded {
                        assignment,
                        suspects,
                    };
                    self.after(wait, Event::Input(pod, life, recorded));
                }
                Output::Drained { assignment } => self.drained(assignment),
            }
        }
        let of = &mut self.pods[pod];
        let deadline = of.executor.next_deadline();
        if let Some(at) = deadline
            && of.wake.is_none_or(|wake| at < wake)
        {
            of.wake = Some(at);
            let life = of.life;
            let wait = at.saturating_sub(self.now).max(Duration::from_nanos(1));
            self.after(wait, Event::Wake(pod, life));
        }
        self.check_bounds(pod);
    }

    /// What a process holds is bounded (P5), and it counts itself right.
    fn check_bounds(&self, pod: usize) {
        let executor = &self.pods[pod].executor;
        let (memory, busy) = (executor.in_memory(), u64::from(executor.busy()));
        // Queues that come when the memory is full, because calls of former ones still hold it, add the one
        // message that each is always allowed.
        let more = self.owners.len() as u64 + busy * u64::from(self.plan.batch);
        assert!(
            memory.messages <= self.plan.limits.messages + more,
            "{memory:?} in memory"
        );
        assert!(
            memory.bytes <= self.plan.limits.bytes + more * 500,
            "{memory:?} in memory"
        );
        assert_eq!(busy as usize, self.pods[pod].calls.len());
    }
}

fn reply_input(now: Time, assignment: Assignment, from: u64, reply: &Reply) -> Input {
    let failed = |wait| Input::PullFailed {
        assignment,
        retry_at: now + wait,
    };
    match reply {
        Reply::Failed => failed(Duration::from_millis(100)),
        Reply::NoNew => failed(Duration::from_millis(250)),
        Reply::Messages(next, messages) => Input::Pulled {
            assignment,
            from,
            next: *next,
            messages: messages.clone(),
        },
    }
}
