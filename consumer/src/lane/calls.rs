//! What follows from the end of a call.
//!
//! Invariants: a head in [`Stage::Unsure`] has a timer at `sure_at`, one in [`Stage::Waiting`] has a timer
//! at `not_before` or its lane is in a line; `in_hand` of a queue is the number of its heads in any other
//! stage than [`Stage::Waiting`].

use super::executor::{LaneExecutor, name, parse};
use super::head::Stage;
use super::retry::{self, DEAD_LETTER};
use super::slab::NONE;
use super::store::Kind;
use super::{CallId, CallResult, OnExhausted, OnFailure, Output, SendBack, SendBackId, Time};
use std::time::Duration;

impl LaneExecutor {
    /// See [`super::Input::CallEnded`].
    pub(super) fn call_ended(&mut self, id: CallId, acked: u32, result: CallResult) {
        let (number, head) = parse(id.0);
        let Some(of) = self.store.heads.get_mut(head) else {
            return;
        };
        // The late result of a call that timed out is ignored.
        if of.call != number || of.stage != Stage::Running {
            return;
        }
        of.stage = Stage::Waiting;
        if std::mem::take(&mut of.alone) {
            self.suspect_runs = false;
        }
        let (lane, count) = (of.lane, of.count);
        self.busy -= 1;
        self.judge_handler(number, head, &result);
        if lane == NONE {
            return self.orphan_ended(head, &result);
        }
        let slot = self.store.lanes[lane].queue;
        self.queues[slot].in_hand -= 1;
        let done = result == CallResult::Done;
        let acked = if done { count } else { acked.min(count) };
        for _ in 0..acked {
            self.finish_first(slot, lane);
        }
        if acked > 0 {
            let key = (slot, self.store.lanes[lane].hash);
            if !self.budgets.is_empty() {
                self.budgets.succeeded(key);
            }
        }
        if acked == count {
            self.observe(self.now.saturating_sub(self.store.heads[head].sent));
            self.advance(slot, lane, head);
        } else {
            if acked > 0 {
                self.store.renew_head(head, self.now);
            }
            self.not_done(slot, lane, head, result);
        }
        self.made_room(slot);
    }

    /// What the end of a call says about the handler as a whole.
    fn judge_handler(&mut self, number: u32, head: u32, result: &CallResult) {
        match result {
            CallResult::Done
            | CallResult::Failed { .. }
            | CallResult::Permanent { .. }
            | CallResult::Panicked { .. } => self.availability.answered(),
            CallResult::NotTaken { .. } => {
                let lane = self.store.lanes.get(self.store.heads[head].lane);
                let key = lane.map_or((NONE, head), |lane| (lane.queue, lane.hash));
                self.availability.refused(self.now, number, key);
            }
            CallResult::TimedOut | CallResult::Lost { .. } | CallResult::NotSent => {
                self.availability.no_answer(self.now, number);
            }
        }
    }

    /// Learns what a call usually takes: the median, by steps of two percent (after Q. Ma, S. Muthukrishnan
    /// and M. Sandler, Frugal Streaming for Estimating Quantiles, 2013).
    fn observe(&mut self, took: Duration) {
        let took = took.as_secs_f64().max(1e-6);
        if self.usual == 0.0 {
            self.usual = took;
        } else if took > self.usual {
            self.usual *= 1.02;
        } else {
            self.usual /= 1.02;
        }
    }

    /// The call of a dropped queue ended.
    fn orphan_ended(&mut self, head: u32, result: &CallResult) {
        let of = &mut self.store.heads[head];
        if let Some(orphan) = &mut of.orphan {
            self.store.memory -= std::mem::take(&mut orphan.memory);
        }
        match self.sure_at(head, result) {
            Some(sure_at) => self.unsure_until(head, sure_at),
            None => self.orphan_over(head),
        }
    }

    fn orphan_over(&mut self, head: u32) {
        self.store.close_head(head);
        self.orphans -= 1;
    }

    /// Until when a call may still run that ended like this.
    fn sure_at(&self, head: u32, result: &CallResult) -> Option<Time> {
        let grace = self.settings.cancel_grace;
        match result {
            CallResult::TimedOut => Some(self.now + grace),
            CallResult::Lost { .. } => {
                let bound = self.store.heads[head].sent + self.settings.timeout + grace;
                Some(bound.max(self.now))
            }
            _ => None,
        }
    }

    fn unsure_until(&mut self, head: u32, sure_at: Time) {
        let timer = self.timers.set_head(sure_at, head);
        let of = &mut self.store.heads[head];
        (of.stage, of.sure_at, of.timer) = (Stage::Unsure, sure_at, timer);
    }

    /// The first message of a lane is finished.
    fn finish_first(&mut self, slot: u32, lane: u32) {
        let queue = &mut self.queues[slot];
        let message = self.store.take_first(queue, lane);
        queue.finished.finish(message.offset);
        if !queue.suspects.is_empty() {
            queue.suspects.remove(&message.offset);
        }
        queue.counters.finished += 1;
        self.last_finish = self.now;
    }

    /// The head is finished: the lane goes on or ends.
    fn advance(&mut self, slot: u32, lane: u32, head: u32) {
        self.store.close_head(head);
        if self.store.lanes[lane].len == 0 {
            self.store.free_lane(&mut self.queues[slot], lane);
        } else {
            self.make_ready(lane);
        }
    }

    /// Something of a queue has ended: it may be drained now, or pulled again.
    fn made_room(&mut self, slot: u32) {
        self.check_drained(slot);
        if self.queues[slot].stopped {
            self.check_pull(slot);
        }
    }

    /// The head stays: an attempt of its message, or not.
    fn not_done(&mut self, slot: u32, lane: u32, head: u32, result: CallResult) {
        let sure_at = self.sure_at(head, &result);
        let suspect = matches!(result, CallResult::Lost { .. });
        let permanent = matches!(result, CallResult::Permanent { .. });
        let cut = |wanted: Option<Duration>| Some(wanted?.min(retry::LONGEST_RETRY_AFTER));
        let (error, wanted) = match result {
            CallResult::Failed { error, retry_after } => (error, cut(retry_after)),
            CallResult::Permanent { error }
            | CallResult::Panicked { error }
            | CallResult::Lost { error } => (error, None),
            CallResult::TimedOut => {
                let error = format!("no answer within {:?}", self.settings.timeout);
                (error, None)
            }
            CallResult::NotTaken { error, retry_after } => {
                return self.not_taken(slot, head, error, cut(retry_after));
            }
            // The handler has seen nothing. The lease may have been renewed meanwhile; if not, the queue
            // is not in line.
            CallResult::NotSent | CallResult::Done => return self.wait(head, self.now),
        };
        let of = &mut self.store.heads[head];
        of.attempts += 1;
        of.refusals = 0;
        of.first_failed.get_or_insert(self.now);
        (of.suspect, of.recorded) = (suspect, false);
        of.error = Some(error.into());
        let attempts = of.attempts;
        self.queues[slot].counters.failed += 1;
        self.suspect(slot, lane, suspect.then_some(attempts));
        let again_at = self.decide(slot, lane, head, wanted, permanent);
        match sure_at {
            Some(sure_at) => {
                self.queues[slot].in_hand += 1;
                self.store.heads[head].not_before = again_at;
                self.unsure_until(head, sure_at);
            }
            None => self.wait(head, again_at),
        }
    }

    fn not_taken(&mut self, slot: u32, head: u32, error: String, wanted: Option<Duration>) {
        let of = &mut self.store.heads[head];
        of.refusals += 1;
        of.error = Some(error.into());
        let delay = retry::refused_delay(&self.settings.retry.backoff, of.refusals);
        self.queues[slot].counters.refused += 1;
        self.wait(head, self.now + wanted.unwrap_or(delay));
    }

    /// Decides what becomes of a message that failed, and says when.
    pub(super) fn decide(
        &mut self,
        slot: u32,
        lane: u32,
        head: u32,
        wanted: Option<Duration>,
        permanent: bool,
    ) -> Time {
        let policy = &self.settings.retry;
        let of = &self.store.heads[head];
        let reconsumed = self.store.first(lane).reconsume_times;
        let back = self.settings.on_failure == OnFailure::SendBack;
        let attempts = of
            .attempts
            .saturating_add(if back { reconsumed } else { 0 });
        let used_up = permanent || attempts >= policy.max_attempts;
        if back && !used_up {
            self.store.heads[head].send_back = Some(retry::delay_level(reconsumed, wanted));
            return self.now;
        }
        let key = (slot, self.store.lanes[lane].hash);
        let remembered = self.store.lanes[lane].kind != Kind::Own;
        let blocked = self.now.saturating_sub(of.first_failed.unwrap_or(self.now));
        let mut delay =
            wanted.unwrap_or_else(|| retry::delay(&policy.backoff, of.attempts, &mut self.rng));
        let mut broken = false;
        if let Some(budget) = policy.budget {
            let left = if remembered {
                self.budgets.left(budget, self.now, key, blocked)
            } else {
                budget.blocked.saturating_sub(blocked)
            };
            // A wait that the handler asked for is cut; one of our own is not worth beginning.
            broken = left.is_zero() || wanted.is_none() && delay > left;
            delay = delay.min(left);
        }
        if !used_up && !broken {
            return self.now + delay;
        }
        if !std::mem::replace(&mut self.store.heads[head].exhausted, true) {
            self.queues[slot].counters.exhausted += 1;
            if let Some(budget) = policy.budget.filter(|_| remembered) {
                self.budgets.spend(budget, self.now, key, blocked, broken);
            }
        }
        match policy.on_exhausted {
            OnExhausted::DeadLetter => {
                self.store.heads[head].send_back = Some(DEAD_LETTER);
                self.now
            }
            OnExhausted::Block => {
                self.store.block(head);
                self.now + retry::BLOCKED_RETRY
            }
        }
    }

    /// Nothing of the head can run any more; it goes on at this time.
    pub(super) fn wait(&mut self, head: u32, at: Time) {
        let of = &mut self.store.heads[head];
        // A timer that was set before counts no more.
        (of.stage, of.not_before, of.timer) = (Stage::Waiting, at, 0);
        let lane = of.lane;
        let slot = self.store.lanes[lane].queue;
        if self.queues[slot].releasing {
            // It is the next owner's.
            self.store.forget_lane(&mut self.queues[slot], lane);
            self.check_drained(slot);
        } else if at <= self.now {
            self.go_on(slot, lane, head);
        } else {
            self.store.heads[head].timer = self.timers.set_head(at, head);
        }
    }

    fn go_on(&mut self, slot: u32, lane: u32, head: u32) {
        let back = self.store.heads[head].send_back.is_some();
        if back && self.queues[slot].may_dispatch(self.now) {
            let output = self.send_back(slot, lane, head);
            self.outputs.push_back(output);
        } else {
            self.make_ready(lane);
        }
    }

    /// The timer of a head is due.
    pub(super) fn head_due(&mut self, head: u32, number: u64) {
        let Some(of) = self.store.heads.get(head).filter(|of| of.timer == number) else {
            return;
        };
        match of.stage {
            Stage::Unsure => self.sure(head),
            Stage::Waiting => {
                let lane = of.lane;
                self.go_on(self.store.lanes[lane].queue, lane, head);
            }
            Stage::Running | Stage::SendingBack => {}
        }
    }

    /// See [`super::Input::CallOver`].
    pub(super) fn call_over(&mut self, id: CallId) {
        let (number, head) = parse(id.0);
        let of = self.store.heads.get(head);
        if of.is_some_and(|of| of.call == number && of.stage == Stage::Unsure) {
            self.sure(head);
        }
    }

    /// A call without an answer can no longer run.
    fn sure(&mut self, head: u32) {
        let of = &self.store.heads[head];
        let (lane, at) = (of.lane, of.not_before);
        if lane == NONE {
            return self.orphan_over(head);
        }
        let slot = self.store.lanes[lane].queue;
        self.queues[slot].in_hand -= 1;
        self.wait(head, at);
    }

    /// Sends the head of a lane back to the broker.
    pub(super) fn send_back(&mut self, slot: u32, lane: u32, head: u32) -> Output {
        let number = self.number();
        let of = &mut self.store.heads[head];
        (of.call, of.stage, of.count) = (number, Stage::SendingBack, 1);
        let reason = of.error.as_deref().unwrap_or_default().to_owned();
        let delay_level = of.send_back.unwrap_or(DEAD_LETTER);
        let attempts = of.attempts;
        let queue = &mut self.queues[slot];
        queue.in_hand += 1;
        Output::SendBack(SendBack {
            id: SendBackId(name(number, head)),
            assignment: queue.assignment,
            queue: queue.id.clone(),
            key: self.store.key(lane),
            message: self.store.first(lane).clone(),
            delay_level,
            attempts,
            reason,
        })
    }

    /// See [`super::Input::SentBack`].
    pub(super) fn sent_back(&mut self, id: SendBackId, result: Result<(), String>) {
        let (number, head) = parse(id.0);
        let Some(of) = self.store.heads.get_mut(head) else {
            return;
        };
        if of.call != number || of.stage != Stage::SendingBack {
            return;
        }
        of.stage = Stage::Waiting;
        let lane = of.lane;
        let slot = self.store.lanes[lane].queue;
        self.queues[slot].in_hand -= 1;
        match result {
            Ok(()) => {
                let counters = &mut self.queues[slot].counters;
                match of.send_back {
                    Some(DEAD_LETTER) => counters.dead_lettered += 1,
                    _ => counters.sent_back += 1,
                }
                self.finish_first(slot, lane);
                self.advance(slot, lane, head);
            }
            Err(error) => {
                of.refusals += 1;
                of.error = Some(error.into());
                let backoff = &self.settings.retry.backoff;
                let delay = retry::delay(backoff, of.refusals, &mut self.rng);
                self.wait(head, self.now + delay);
            }
        }
        self.made_room(slot);
    }
}
