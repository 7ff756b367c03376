//! The loop: what happened comes in, what to do goes out.
//!
//! Invariants: a queue is in the line of queues if it has ready lanes and may dispatch; `busy` is the
//! number of heads in [`Stage::Running`].

use super::availability::Availability;
use super::budget::Budgets;
use super::head::Stage;
use super::hot::Hot;
use super::limits::InMemory;
use super::queue::Queue;
use super::slab::Slab;
use super::split::Splits;
use super::store::{State, Store};
use super::timers::{Due, Timers};
use super::view::Counters;
use super::{Assignment, Call, CallId, Input, Output, Settings, Suspension, Time};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// See the [module docs](super).
#[derive(Debug)]
pub struct LaneExecutor {
    pub(super) settings: Settings,
    pub(super) rng: StdRng,
    pub(super) hasher: foldhash::fast::FixedState,
    pub(super) now: Time,
    pub(super) store: Store,
    pub(super) queues: Slab<Queue>,
    pub(super) assignments: BTreeMap<Assignment, u32>,
    /// Queues with ready lanes, each once, in the order of their turn.
    pub(super) turns: VecDeque<u32>,
    /// Queues that a limit stopped, each once.
    pub(super) stopped: VecDeque<u32>,
    /// What the pulls under way are expected to bring.
    pub(super) expected: InMemory,
    pub(super) timers: Timers,
    pub(super) outputs: VecDeque<Output>,
    pub(super) availability: Availability,
    pub(super) budgets: Budgets,
    pub(super) hot: Hot,
    pub(super) splits: Splits,
    pub(super) suspension: Suspension,
    pub(super) busy: u32,
    pub(super) busy_time: Duration,
    /// A suspect runs.
    pub(super) suspect_runs: bool,
    /// Calls whose queue was dropped.
    pub(super) orphans: u32,
    /// Numbers calls and ways back.
    calls: u32,
    /// When a message was last finished.
    pub(super) last_finish: Time,
    /// What a call that succeeds usually takes, in seconds.
    pub(super) usual: f64,
    /// Counts of queues that were dropped.
    pub(super) past: Counters,
}

impl LaneExecutor {
    /// An executor without queues. The seed decides the jitter of retries and the places in hash tables.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings: Settings {
                lanes: settings.lanes.max(1),
                batch: settings.batch.max(1),
                ..settings
            },
            rng: StdRng::seed_from_u64(seed),
            hasher: foldhash::fast::FixedState::with_seed(seed),
            now: Time::ZERO,
            store: Store::default(),
            queues: Slab::default(),
            assignments: BTreeMap::new(),
            turns: VecDeque::new(),
            stopped: VecDeque::new(),
            expected: InMemory::default(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
            availability: Availability::default(),
            budgets: Budgets::default(),
            hot: Hot::default(),
            splits: Splits::default(),
            suspension: Suspension::default(),
            busy: 0,
            busy_time: Duration::ZERO,
            suspect_runs: false,
            orphans: 0,
            calls: 0,
            last_finish: Time::ZERO,
            usual: 0.0,
            past: Counters::default(),
        }
    }

    /// Takes in what happened. `now` must not be smaller than in an earlier call.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.busy_time += now.saturating_sub(self.now) * self.busy;
        self.now = self.now.max(now);
        let ended = matches!(input, Input::CallEnded { .. });
        match input {
            Input::Assign {
                queue,
                assignment,
                start,
                lease,
                mut finished,
                held,
            } => {
                finished.finish_range(0, start);
                self.assign(queue, assignment, finished, lease, held);
            }
            Input::Suspects {
                assignment,
                suspects,
            } => self.inherit_suspects(assignment, suspects),
            Input::Recorded {
                assignment,
                suspects,
            } => self.recorded(assignment, &suspects),
            Input::Renew { assignment, lease } => {
                if let Some(slot) = self.slot(assignment) {
                    let queue = &mut self.queues[slot];
                    queue.lease = queue.lease.max(lease);
                    self.give_turn(slot);
                    self.check_pull(slot);
                }
            }
            Input::Release { assignment } => self.release(assignment),
            Input::Drop { assignment } => self.drop_queue(assignment),
            Input::Pulled {
                assignment,
                from,
                next,
                messages,
            } => self.pulled(assignment, from, next, messages),
            Input::PullFailed {
                assignment,
                retry_at,
            } => self.pull_failed(assignment, retry_at),
            Input::CallEnded { id, acked, result } => self.call_ended(id, acked, result),
            Input::CallOver { id } => self.call_over(id),
            Input::SentBack { id, result } => self.sent_back(id, result),
            Input::SetLanes(lanes) => self.settings.lanes = lanes.max(1),
            Input::SetLimits(limits) => {
                self.settings.limits = limits;
                for _ in 0..self.stopped.len() {
                    self.check_stopped();
                }
            }
            Input::SetRetry(retry) => self.settings.retry = retry,
            Input::Suspend(suspension) => self.suspend(suspension),
            Input::Tick => {}
        }
        while let Some(due) = self.timers.pop(self.now) {
            match due {
                Due::Head(head, number) => self.head_due(head, number),
                Due::Pull(assignment) => {
                    if let Some(slot) = self.slot(assignment) {
                        self.check_pull(slot);
                    }
                }
                Due::Hold(assignment) => self.hold_over(assignment),
            }
        }
        // The end of a call checks its own queue; that of others can wait for what is rarer.
        if !ended {
            self.check_stopped();
        }
        self.next_suspect();
    }

    /// The next thing to do, if there is any.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        let output = output.or_else(|| self.next_call());
        // A suspect whose turn came has something written or sent back instead of being called.
        output.or_else(|| self.outputs.pop_front())
    }

    /// When to call [`LaneExecutor::handle`] again at the latest, even if nothing happens.
    pub fn next_deadline(&self) -> Option<Time> {
        // A probe needs a queue in line and a free slot; both come with an input of their own.
        let can_probe =
            !self.turns.is_empty() && self.busy < self.settings.lanes && !self.suspension.all;
        let probe = self.availability.next_probe().filter(|_| can_probe);
        self.timers.next().into_iter().chain(probe).min()
    }

    pub(super) fn slot(&self, assignment: Assignment) -> Option<u32> {
        self.assignments.get(&assignment).copied()
    }

    pub(super) fn assigned(&self) -> impl Iterator<Item = (Assignment, u32)> + '_ {
        self.assignments.iter().map(|(of, slot)| (*of, *slot))
    }

    /// Puts a queue in line for a slot, unless it is there already or has nothing to run.
    pub(super) fn give_turn(&mut self, slot: u32) {
        let queue = &mut self.queues[slot];
        let wants = !queue.ready.is_empty() && queue.may_dispatch(self.now);
        if wants && !std::mem::replace(&mut queue.in_turn, true) {
            self.turns.push_back(slot);
        }
    }

    /// Puts a lane that is in no line behind the ready ones of its queue.
    pub(super) fn make_ready(&mut self, lane: u32) {
        let slot = self.store.lanes[lane].queue;
        self.store
            .join_line(&mut self.queues[slot], lane, State::Ready);
        self.give_turn(slot);
    }

    /// A number that tells a call from all others of the same head.
    pub(super) fn number(&mut self) -> u32 {
        self.calls = self.calls.wrapping_add(1);
        self.calls
    }

    fn next_call(&mut self) -> Option<Output> {
        while self.busy < self.settings.lanes
            && !self.suspension.all
            && self.availability.permits(self.now)
        {
            let slot = self.turns.pop_front()?;
            let queue = &mut self.queues[slot];
            queue.in_turn = false;
            // Past its lease a queue leaves the line; a renewal puts it back.
            if !queue.may_dispatch(self.now) {
                continue;
            }
            let Some(lane) = queue.ready.first() else {
                continue;
            };
            self.store.leave_line(queue, lane);
            let output = self.start(slot, lane);
            self.give_turn(slot);
            if output.is_some() {
                return output;
            }
        }
        None
    }

    /// Calls the head of a lane that was ready, unless something is in the way.
    fn start(&mut self, slot: u32, lane: u32) -> Option<Output> {
        if self.is_suspended(self.store.lanes[lane].first) {
            let queue = &mut self.queues[slot];
            self.store.join_line(queue, lane, State::Suspended);
            return None;
        }
        let head = self.store.open_head(lane, self.now);
        if !self.recognise_suspect(slot, lane, head) {
            return None;
        }
        let of = &self.store.heads[head];
        if of.send_back.is_some() {
            return Some(self.send_back(slot, lane, head));
        }
        if of.suspect && !self.may_suspect_run(slot, lane, head) {
            return None;
        }
        let number = self.number();
        let most = self.batch(lane, head);
        let mut messages = self.store.messages(lane).take(most);
        let first = messages.next()?;
        let message = self.store.nodes[first].message.clone();
        // No allocation for a batch of one.
        let rest: Vec<_> = messages
            .map(|node| self.store.nodes[node].message.clone())
            .collect();
        let of = &mut self.store.heads[head];
        of.call = number;
        of.stage = Stage::Running;
        of.count = 1 + rest.len() as u32;
        of.sent = self.now;
        of.alone = of.suspect;
        let attempt = of.attempts + 1;
        let queue = &mut self.queues[slot];
        queue.in_hand += 1;
        queue.counters.dispatched += 1;
        queue.counters.retried += u64::from(of.attempts > 0);
        self.busy += 1;
        self.availability.called(number);
        Some(Output::Dispatch(Call {
            id: CallId(name(number, head)),
            queue: queue.id.clone(),
            key: self.store.key(lane),
            message,
            rest,
            attempt,
            lease: queue.lease,
        }))
    }

    /// How many messages the next call of a lane may have. One that failed goes alone, so that it is
    /// known which one fails.
    fn batch(&self, lane: u32, head: u32) -> usize {
        if self.settings.batch == 1 || self.store.heads[head].first_failed.is_some() {
            return 1;
        }
        let suspects = &self.queues[self.store.lanes[lane].queue].suspects;
        let is_suspect = |node: u32| {
            !suspects.is_empty() && suspects.contains_key(&self.store.nodes[node].message.offset)
        };
        let messages = self.store.messages(lane).take(self.settings.batch as usize);
        messages
            .take_while(|node| !self.is_suspended(*node) && !is_suspect(*node))
            .count()
    }

    fn is_suspended(&self, node: u32) -> bool {
        let keys = &self.suspension.keys;
        !keys.is_empty()
            && self.store.nodes[node]
                .message
                .key
                .as_deref()
                .is_some_and(|key| keys.contains(key))
    }
}

/// What a call of a head is called outside.
pub(super) fn name(number: u32, head: u32) -> u64 {
    u64::from(number) << 32 | u64::from(head)
}

/// The number and the head.
pub(super) fn parse(name: u64) -> (u32, u32) {
    ((name >> 32) as u32, name as u32)
}
