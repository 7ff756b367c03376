//! The lane executor: who runs next, over all queues.

use super::availability::Availability;
use super::queue::{Queue, State};
use super::{
    Assignment, Call, CallId, CallResult, Input, LaneKey, LaneView, Output, Progress, Settings,
    Summary, Time, retry,
};
use crate::contract::admin::BlockedKey;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

const LISTED_BLOCKED_KEYS: usize = 32;
const LONGEST_REFUSED_WAIT: Duration = Duration::from_secs(2);
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

type Timer = Reverse<(Time, u64, Assignment, LaneKey)>;

struct Running {
    assignment: Assignment,
    key: LaneKey,
    sent: Time,
}

/// See the [module docs](super).
pub struct LaneExecutor {
    settings: Settings,
    rng: StdRng,
    lanes: u32,
    queues: BTreeMap<Assignment, Queue>,
    /// Queues with ready lanes, each once, in the order of their turn.
    turns: VecDeque<Assignment>,
    running: HashMap<CallId, Running>,
    calls: u64,
    timers: BinaryHeap<Timer>,
    timer_numbers: u64,
    blocked: BTreeSet<(Assignment, LaneKey)>,
    availability: Availability,
    outputs: VecDeque<Output>,
    last: Time,
    busy_time: Duration,
    completed: u64,
    failed: u64,
}

impl LaneExecutor {
    /// An executor without queues. The seed decides the jitter of retries.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            lanes: settings.lanes.max(1),
            settings,
            rng: StdRng::seed_from_u64(seed),
            queues: BTreeMap::new(),
            turns: VecDeque::new(),
            running: HashMap::new(),
            calls: 0,
            timers: BinaryHeap::new(),
            timer_numbers: 0,
            blocked: BTreeSet::new(),
            availability: Availability::default(),
            outputs: VecDeque::new(),
            last: Time::ZERO,
            busy_time: Duration::ZERO,
            completed: 0,
            failed: 0,
        }
    }

    /// Takes in what happened. `now` must not be smaller than in an earlier call.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.busy_time += now.saturating_sub(self.last) * self.running.len() as u32;
        self.last = self.last.max(now);
        match input {
            Input::Assign {
                queue,
                assignment,
                start,
                lease,
            } => {
                self.queues
                    .insert(assignment, Queue::new(queue, start, lease));
                self.check_pull(now, assignment);
            }
            Input::Renew { assignment, lease } => self.renew(now, assignment, lease),
            Input::Release { assignment } => self.release(assignment),
            Input::Drop { assignment } => self.drop_queue(now, assignment),
            Input::Pulled {
                assignment,
                from,
                next,
                messages,
            } => {
                if let Some(queue) = self.queues.get_mut(&assignment) {
                    queue.pulling = false;
                    if !queue.releasing && queue.progress().pulled == from {
                        queue.take(next, messages);
                        self.give_turn(assignment);
                    }
                    self.check_pull(now, assignment);
                }
            }
            Input::PullFailed {
                assignment,
                retry_at,
            } => {
                if let Some(queue) = self.queues.get_mut(&assignment) {
                    queue.pulling = false;
                    queue.pull_after = retry_at;
                    self.check_pull(now, assignment);
                }
            }
            Input::CallEnded { id, result } => self.call_ended(now, id, result),
            Input::SetLanes(lanes) => self.lanes = lanes.max(1),
            Input::Tick => {}
        }
        self.fire_timers(now);
        self.dispatch(now);
    }

    /// The next thing to do, if there is any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`LaneExecutor::handle`] again at the latest, even if nothing happens.
    pub fn next_deadline(&self) -> Option<Time> {
        let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
        // A probe needs a lane that is ready and a free slot; both come with an input of their own.
        let can_probe = !self.turns.is_empty() && self.running.len() < self.lanes as usize;
        let probe = self.availability.next_probe().filter(|_| can_probe);
        timer.into_iter().chain(probe).min()
    }

    /// How far a queue is.
    pub fn progress(&self, assignment: Assignment) -> Option<Progress> {
        self.queues.get(&assignment).map(Queue::progress)
    }

    /// The target in force.
    pub fn lanes(&self) -> u32 {
        self.lanes
    }

    /// Counts over all queues. Costs O(queues + listed keys).
    pub fn summary(&self) -> Summary {
        let queues = self.queues.values().filter(|queue| !queue.releasing);
        Summary {
            busy: self.running.len() as u32,
            busy_time: self.busy_time,
            waiting: queues.map(|queue| queue.ready.len() as u32).sum(),
            live_keys: self
                .queues
                .values()
                .map(|queue| queue.lanes.len() as u64)
                .sum(),
            completed: self.completed,
            failed: self.failed,
            handler_available: self.availability.is_available(),
            blocked: self.blocked.len() as u64,
            blocked_keys: self
                .blocked
                .iter()
                .take(LISTED_BLOCKED_KEYS)
                .filter_map(|at| self.blocked_key(at))
                .collect(),
        }
    }

    /// Every lane. Costs O(lanes).
    pub fn lane_views(&self) -> impl Iterator<Item = LaneView> + '_ {
        self.queues.values().flat_map(|queue| {
            queue.lanes.iter().map(|(key, lane)| LaneView {
                queue: queue.id.clone(),
                key: key.clone(),
                head: lane.messages.front().map_or(0, |message| message.offset),
                messages: lane.messages.len() as u64,
                state: lane.view(),
                attempts: lane.attempts,
            })
        })
    }

    fn blocked_key(&self, (assignment, key): &(Assignment, LaneKey)) -> Option<BlockedKey> {
        let queue = self.queues.get(assignment)?;
        let lane = queue.lanes.get(key)?;
        Some(BlockedKey {
            key: key.as_deref().unwrap_or_default().to_owned(),
            broker: queue.id.broker.to_string(),
            queue_id: queue.id.id,
            offset: lane.messages.front()?.offset,
            attempts: lane.attempts,
            last_error: lane.error.as_deref().unwrap_or_default().to_owned(),
        })
    }

    fn renew(&mut self, now: Time, assignment: Assignment, lease: Time) {
        if let Some(queue) = self.queues.get_mut(&assignment) {
            queue.lease = queue.lease.max(lease);
            self.give_turn(assignment);
            self.check_pull(now, assignment);
        }
    }

    fn release(&mut self, assignment: Assignment) {
        let Some(queue) = self.queues.get_mut(&assignment) else {
            return;
        };
        queue.releasing = true;
        queue.forget_waiting();
        self.blocked.retain(|(of, _)| *of != assignment);
        if queue.running == 0 {
            self.outputs.push_back(Output::Drained { assignment });
        }
    }

    fn drop_queue(&mut self, now: Time, assignment: Assignment) {
        if self.queues.remove(&assignment).is_none() {
            return;
        }
        self.blocked.retain(|(of, _)| *of != assignment);
        // The shares of the others have grown.
        let others: Vec<_> = self.queues.keys().copied().collect();
        for other in others {
            self.check_pull(now, other);
        }
    }

    /// Puts a queue in line for a slot, unless it is there already or has nothing to run.
    fn give_turn(&mut self, assignment: Assignment) {
        let ready = self
            .queues
            .get(&assignment)
            .is_some_and(|queue| !queue.ready.is_empty());
        if ready && !self.turns.contains(&assignment) {
            self.turns.push_back(assignment);
        }
    }

    fn check_pull(&mut self, now: Time, assignment: Assignment) {
        let queues = self.queues.len();
        let Some(queue) = self.queues.get_mut(&assignment) else {
            return;
        };
        if queue.pulling || queue.releasing {
            return;
        }
        if now < queue.pull_after {
            self.timer_numbers += 1;
            self.timers
                .push(Reverse((queue.pull_after, 0, assignment, None)));
            return;
        }
        let progress = queue.progress();
        let span = progress.pulled - progress.watermark;
        let room = self
            .settings
            .limits
            .room(queue.held, span, queues, queue.stopped);
        if room == 0 {
            queue.stopped = true;
            return;
        }
        queue.stopped = false;
        queue.pulling = true;
        self.outputs.push_back(Output::Pull {
            assignment,
            queue: queue.id.clone(),
            offset: progress.pulled,
            max_messages: room,
        });
    }

    fn fire_timers(&mut self, now: Time) {
        while self
            .timers
            .peek()
            .is_some_and(|Reverse((at, ..))| *at <= now)
        {
            let Some(Reverse((_, number, assignment, key))) = self.timers.pop() else {
                break;
            };
            if number == 0 {
                self.check_pull(now, assignment);
                continue;
            }
            let Some(queue) = self.queues.get_mut(&assignment) else {
                continue;
            };
            let Some(lane) = queue.lanes.get_mut(&key) else {
                continue;
            };
            if lane.state == State::Waiting(number) {
                lane.state = State::Ready;
                queue.ready.push_back(key);
                self.give_turn(assignment);
            }
        }
    }

    fn dispatch(&mut self, now: Time) {
        while self.running.len() < self.lanes as usize && self.availability.permits(now) {
            let Some(assignment) = self.turns.pop_front() else {
                break;
            };
            let Some(queue) = self.queues.get_mut(&assignment) else {
                continue;
            };
            // Past its lease a queue leaves the line; a renewal puts it back.
            if !queue.may_dispatch(now) {
                continue;
            }
            let Some(key) = queue.ready.pop_front() else {
                continue;
            };
            if !queue.ready.is_empty() {
                self.turns.push_back(assignment);
            }
            let Some(lane) = queue.lanes.get_mut(&key) else {
                continue;
            };
            let Some(message) = lane.messages.front().cloned() else {
                continue;
            };
            lane.state = State::Running;
            queue.running += 1;
            self.calls += 1;
            let id = CallId(self.calls);
            self.availability.called();
            self.running.insert(
                id,
                Running {
                    assignment,
                    key: key.clone(),
                    sent: now,
                },
            );
            self.outputs.push_back(Output::Dispatch(Call {
                id,
                queue: queue.id.clone(),
                key,
                message,
                attempt: lane.attempts + 1,
                lease: queue.lease,
            }));
        }
    }

    fn call_ended(&mut self, now: Time, id: CallId, result: CallResult) {
        let Some(Running {
            assignment,
            key,
            sent,
        }) = self.running.remove(&id)
        else {
            return;
        };
        match &result {
            CallResult::Done | CallResult::Failed { .. } | CallResult::Permanent { .. } => {
                self.availability.answered()
            }
            CallResult::NotTaken { .. } => self.availability.refused(now, assignment, &key),
            CallResult::TimedOut | CallResult::Lost { .. } | CallResult::NotSent => {
                self.availability.no_answer(now)
            }
        }
        let Some(queue) = self.queues.get_mut(&assignment) else {
            return;
        };
        queue.running -= 1;
        if result == CallResult::Done {
            self.completed += 1;
            queue.finish_head(&key);
            self.blocked.remove(&(assignment, key));
            self.give_turn(assignment);
        } else {
            self.not_done(now, assignment, key, sent, result);
        }
        let Some(queue) = self.queues.get_mut(&assignment) else {
            return;
        };
        if queue.releasing {
            queue.forget_waiting();
            if queue.running == 0 {
                self.outputs.push_back(Output::Drained { assignment });
            }
        } else if queue.stopped {
            self.check_pull(now, assignment);
        }
    }

    /// The head of a lane stays; decides when it is tried again.
    fn not_done(
        &mut self,
        now: Time,
        assignment: Assignment,
        key: LaneKey,
        sent: Time,
        result: CallResult,
    ) {
        let retry = &self.settings.retry;
        let Some(queue) = self.queues.get_mut(&assignment) else {
            return;
        };
        let Some(lane) = queue.lanes.get_mut(&key) else {
            return;
        };
        let clamp = |wanted: Option<Duration>| wanted.map(|wanted| wanted.min(LONGEST_RETRY_AFTER));
        // When the call that ended can no longer run, and when the handler wants the next one.
        let (over, wanted, error) = match result {
            CallResult::Failed { error, retry_after } => (now, clamp(retry_after), error),
            CallResult::Permanent { error } => {
                lane.attempts = lane.attempts.max(retry.max_attempts - 1);
                (now, None, error)
            }
            CallResult::TimedOut => {
                let error = format!("no answer within {:?}", self.settings.timeout);
                (now + self.settings.cancel_grace, None, error)
            }
            CallResult::Lost { error } => (
                sent + self.settings.timeout + self.settings.cancel_grace,
                None,
                error,
            ),
            CallResult::NotTaken { error, retry_after } => {
                lane.refusals += 1;
                let wait =
                    retry.backoff.initial.get() * 2u32.saturating_pow(lane.refusals.min(16) - 1);
                lane.error = Some(error.into());
                let wait = clamp(retry_after).unwrap_or(wait.min(LONGEST_REFUSED_WAIT));
                return self.wait_until(assignment, key, now + wait);
            }
            // The lease may have been renewed meanwhile; if not, the queue is not in line.
            CallResult::NotSent | CallResult::Done => return self.wait_until(assignment, key, now),
        };
        self.failed += 1;
        lane.attempts += 1;
        lane.refusals = 0;
        lane.error = Some(error.into());
        let delay = wanted.unwrap_or_else(|| retry::delay(retry, lane.attempts, &mut self.rng));
        if lane.attempts >= retry.max_attempts {
            lane.blocked = true;
            self.blocked.insert((assignment, key.clone()));
        }
        self.wait_until(assignment, key, over.max(now) + delay);
    }

    fn wait_until(&mut self, assignment: Assignment, key: LaneKey, at: Time) {
        let Some(lane) = self
            .queues
            .get_mut(&assignment)
            .and_then(|queue| queue.lanes.get_mut(&key))
        else {
            return;
        };
        self.timer_numbers += 1;
        lane.state = State::Waiting(self.timer_numbers);
        self.timers
            .push(Reverse((at, self.timer_numbers, assignment, key)));
    }
}
