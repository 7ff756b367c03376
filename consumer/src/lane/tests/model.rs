//! The whole core against a model so plain that it can be seen to be right: for every message its key and
//! whether it is finished, for every key until when a call of it may run. Steps are random; a failure
//! shrinks to the few that matter.

use super::*;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::{BTreeMap, BTreeSet};

const QUEUES: u32 = 2;
const GRACE: Duration = Duration::from_secs(5);

/// What happens to the core.
#[derive(Clone, Debug)]
enum Step {
    /// Messages of these keys are pulled.
    Deliver(u32, Vec<u8>),
    /// A call ends: so many of its messages are done, then this.
    End(Index, u32, How),
    /// A call that had no answer is known to be over.
    Over(Index),
    /// The broker answers to a message that is sent back.
    SentBack(bool),
    Wait(u64),
    Lanes(u32),
    Suspend(Suspended),
    /// The queue is given away, and assigned again once it is drained.
    GiveAway(u32),
    /// The queue is lost and assigned again at once.
    Lose(u32),
}

#[derive(Clone, Copy, Debug)]
enum How {
    Done,
    Failed,
    Permanent,
    TimedOut,
    Lost,
    NotTaken,
    NotSent,
}

#[derive(Clone, Debug, Default)]
struct Suspended {
    all: bool,
    queues: Vec<u32>,
    keys: Vec<u8>,
}

impl Suspended {
    fn holds(&self, queue: u32, key: u8) -> bool {
        self.all || self.queues.contains(&queue) || self.keys.contains(&key)
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = || proptest::collection::vec(0..4u8, 0..6);
    let how = prop_oneof![
        8 => Just(How::Done),
        3 => Just(How::Failed),
        1 => Just(How::Permanent),
        1 => Just(How::TimedOut),
        1 => Just(How::Lost),
        1 => Just(How::NotTaken),
        1 => Just(How::NotSent),
    ];
    let suspended = (
        prop::bool::weighted(0.2),
        proptest::collection::vec(0..QUEUES, 0..2),
        proptest::collection::vec(0..4u8, 0..3),
    )
        .prop_map(|(all, queues, keys)| Suspended { all, queues, keys });
    let step = prop_oneof![
        6 => (0..QUEUES, keys()).prop_map(|(queue, keys)| Step::Deliver(queue, keys)),
        12 => (any::<Index>(), 0..3u32, how).prop_map(|(pick, acked, how)| Step::End(pick, acked, how)),
        2 => any::<Index>().prop_map(Step::Over),
        2 => any::<bool>().prop_map(Step::SentBack),
        4 => prop_oneof![0..3_000u64, 0..100_000u64].prop_map(Step::Wait),
        1 => (1..5u32).prop_map(Step::Lanes),
        2 => suspended.prop_map(Step::Suspend),
        1 => (0..QUEUES).prop_map(Step::GiveAway),
        1 => (0..QUEUES).prop_map(Step::Lose),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A key of a queue.
type Lane = (u32, u8);

#[derive(Debug, Default)]
struct Model {
    /// Key of every message, and whether it is finished.
    sent: [Vec<(u8, bool)>; QUEUES as usize],
    /// Until when a call of a lane may run.
    runs: BTreeMap<Lane, Time>,
    /// Messages that did not succeed at their first attempt since their queue was assigned.
    failed: BTreeSet<(u32, u64)>,
    /// Lanes that may wait for calls of an earlier assignment, until then.
    held: BTreeMap<Lane, Time>,
}

impl Model {
    fn of(&mut self, queue: u32) -> &mut Vec<(u8, bool)> {
        &mut self.sent[queue as usize]
    }

    fn unfinished(&self, queue: u32, key: u8) -> impl Iterator<Item = u64> + '_ {
        let all = self.sent[queue as usize].iter().zip(0..);
        all.filter(move |((of, done), _)| *of == key && !done)
            .map(|(_, offset)| offset)
    }

    fn running(&self, now: Time, queue: u32) -> impl Iterator<Item = (&Lane, &Time)> {
        let all = self.runs.iter();
        all.filter(move |((of, _), end)| *of == queue && **end > now)
    }

    fn watermark(&self, queue: u32) -> u64 {
        let all = &self.sent[queue as usize];
        all.iter().position(|(_, done)| !done).unwrap_or(all.len()) as u64
    }

    /// P1: a call has the first unfinished messages of its key, and no other call of it may run.
    fn started(&mut self, now: Time, call: &Call) {
        let (queue, offsets) = (call.queue.id, offsets(call));
        let key = self.of(queue)[offsets[0] as usize].0;
        let first: Vec<u64> = self.unfinished(queue, key).take(offsets.len()).collect();
        assert_eq!(offsets, first, "key {key} of {queue} out of order");
        let end = self.runs.insert((queue, key), now + BOUND);
        assert!(
            end.is_none_or(|end| end <= now),
            "key {key} of {queue} overlaps itself at {now:?}"
        );
    }

    fn finish(&mut self, queue: u32, offset: u64) {
        self.of(queue)[offset as usize].1 = true;
    }
}

fn offsets(call: &Call) -> Vec<u64> {
    let rest = call.rest.iter().map(|message| message.offset);
    std::iter::once(call.message.offset).chain(rest).collect()
}

/// What is known of one queue's assignment.
#[derive(Clone, Copy, Debug)]
struct Assigned {
    number: u64,
    /// Next offset to deliver.
    next: u64,
    releasing: bool,
}

struct Check {
    rig: Rig,
    model: Model,
    lanes: u32,
    suspended: Suspended,
    assigned: [Assigned; QUEUES as usize],
    assignments: u64,
    /// Calls in hand that were seen, and when they were sent.
    seen: BTreeMap<CallId, (Time, u64)>,
    /// Calls without an answer that may still run.
    unsure: Vec<(CallId, Lane, Time)>,
}

impl Check {
    fn new(batch: u32, on_exhausted: OnExhausted) -> Self {
        let retry = RetryPolicy {
            max_attempts: 3,
            on_exhausted,
            ..RetryPolicy::default()
        };
        let rig = Rig::new(Settings {
            batch,
            retry,
            lanes: 2,
            ..Settings::default()
        });
        let none = Assigned {
            number: 0,
            next: 0,
            releasing: false,
        };
        let mut check = Self {
            rig,
            model: Model::default(),
            lanes: 2,
            suspended: Suspended::default(),
            assigned: [none; QUEUES as usize],
            assignments: 0,
            seen: BTreeMap::new(),
            unsure: Vec::new(),
        };
        for queue in 0..QUEUES {
            check.assign(queue);
        }
        check
    }

    /// Assigns a queue, with what was finished in its last assignment; its messages will come again.
    fn assign(&mut self, queue: u32) {
        let last = Assignment(self.assigned[queue as usize].number);
        let finished = self.rig.core.finished(last).cloned().unwrap_or_default();
        let next = finished.watermark();
        self.rig.give(Input::Drop { assignment: last });
        let until = self.rig.now + BOUND;
        for lane in self.model.runs.keys().filter(|(of, _)| *of == queue) {
            self.model.held.insert(*lane, until);
        }
        self.model.failed.retain(|(of, _)| *of != queue);
        self.assignments += 1;
        self.assigned[queue as usize] = Assigned {
            number: self.assignments,
            next,
            releasing: false,
        };
        self.rig.give(Input::Assign {
            queue: super::queue(queue),
            assignment: Assignment(self.assignments),
            start: 0,
            lease: secs(1_000_000),
            finished,
            held: Held::default(),
        });
        self.deliver(queue);
    }

    /// Delivers all there is of a queue.
    fn deliver(&mut self, queue: u32) {
        let assigned = &mut self.assigned[queue as usize];
        let keys = &self.model.sent[queue as usize][assigned.next as usize..];
        if assigned.releasing || keys.is_empty() {
            return;
        }
        let names: Vec<String> = keys.iter().map(|(key, _)| key.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let from = assigned.next;
        assigned.next += names.len() as u64;
        let number = assigned.number;
        self.rig.deliver(number, from, &names);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Deliver(queue, keys) => {
                let new = keys.iter().map(|key| (*key, false));
                self.model.of(*queue).extend(new);
                self.deliver(*queue);
            }
            Step::End(pick, acked, how) => {
                if !self.rig.calls.is_empty() {
                    self.end(pick.index(self.rig.calls.len()), *acked, *how);
                }
            }
            Step::Over(pick) => {
                if !self.unsure.is_empty() {
                    let (id, lane, _) = self.unsure.remove(pick.index(self.unsure.len()));
                    self.model.runs.remove(&lane);
                    self.rig.give(Input::CallOver { id });
                }
            }
            Step::SentBack(ok) => self.sent_back(*ok),
            Step::Wait(time) => self.wait(millis(*time)),
            Step::Lanes(lanes) => {
                self.lanes = *lanes;
                self.rig.give(Input::SetLanes(*lanes));
            }
            Step::Suspend(suspended) => {
                self.suspended = suspended.clone();
                let keys: Vec<String> = suspended.keys.iter().map(u8::to_string).collect();
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                self.rig.suspend(suspended.all, &suspended.queues, &keys);
            }
            Step::GiveAway(queue) => {
                let assigned = &mut self.assigned[*queue as usize];
                assigned.releasing = true;
                let assignment = Assignment(assigned.number);
                self.rig.give(Input::Release { assignment });
            }
            Step::Lose(queue) => self.assign(*queue),
        }
        self.judge();
    }

    /// Lets time pass as the core wants it.
    /// Lets time pass as the core wants it; calls are cut off at their timeout.
    fn wait(&mut self, time: Duration) {
        let end = self.rig.now + time;
        loop {
            let cut = |(sent, _): &(Time, u64)| *sent + BOUND - GRACE;
            let timeout = self.seen.values().map(cut).min();
            let deadline = self.rig.core.next_deadline();
            let next = deadline.into_iter().chain(timeout).min().unwrap_or(end);
            self.rig.now = next.clamp(self.rig.now, end);
            self.rig.give(Input::Tick);
            self.judge();
            let late = |call: &Call| cut(&self.seen[&call.id]) <= self.rig.now;
            if let Some(late) = self.rig.calls.iter().position(late) {
                self.end(late, 0, How::TimedOut);
                self.judge();
            } else if next >= end {
                return;
            }
        }
    }

    fn sent_back(&mut self, ok: bool) {
        if let Some(back) = self.rig.backs.first() {
            let (queue, offset) = (back.queue.id, back.message.offset);
            let ours = back.assignment.0 == self.assigned[queue as usize].number;
            if ok && ours {
                self.model.finish(queue, offset);
            }
            self.rig
                .sent_back(if ok { Ok(()) } else { Err("no".into()) });
        }
    }

    fn end(&mut self, index: usize, acked: u32, how: How) {
        let call = self.rig.calls.remove(index);
        let (sent, assignment) = self.seen.remove(&call.id).expect("it was judged");
        let queue = call.queue.id;
        let all = offsets(&call);
        let acked = match how {
            How::NotSent | How::NotTaken => 0,
            _ => acked.min(all.len() as u32 - 1),
        };
        let lane = (queue, self.model.of(queue)[all[0] as usize].0);
        let done = match how {
            How::Done => all.len(),
            _ => acked as usize,
        };
        // What ends after its queue was lost is not known to be finished, and runs again.
        if assignment == self.assigned[queue as usize].number {
            for offset in &all[..done] {
                self.model.finish(queue, *offset);
            }
            if let Some(failed) = all.get(done) {
                self.model.failed.insert((queue, *failed));
            }
        }
        let error = String::new();
        let retry_after = None;
        let bound = sent + BOUND;
        let (result, end) = match how {
            How::Done => (CallResult::Done, None),
            How::Failed => (CallResult::Failed { error, retry_after }, None),
            How::Permanent => (CallResult::Permanent { error }, None),
            How::NotTaken => (CallResult::NotTaken { error, retry_after }, None),
            How::NotSent => (CallResult::NotSent, None),
            How::TimedOut => (CallResult::TimedOut, Some(self.rig.now + GRACE)),
            How::Lost => (CallResult::Lost { error }, Some(bound)),
        };
        self.model.runs.remove(&lane);
        if let Some(end) = end {
            self.model.runs.insert(lane, end);
            self.unsure.push((call.id, lane, end));
        }
        self.rig.give(Input::CallEnded {
            id: call.id,
            acked,
            result,
        });
    }

    fn judge(&mut self) {
        let now = self.rig.now;
        for call in &self.rig.calls {
            let queue = call.queue.id;
            let assigned = self.assigned[queue as usize];
            if self.seen.contains_key(&call.id) {
                continue;
            }
            self.model.started(now, call);
            let key = self.model.of(queue)[call.message.offset as usize].0;
            assert!(!assigned.releasing, "{queue} is given away (P7)");
            assert!(!self.suspended.holds(queue, key), "{key} is suspended");
            self.seen.insert(call.id, (now, assigned.number));
        }
        self.unsure.retain(|(_, _, end)| *end > now);
        self.model.runs.retain(|_, end| *end > now);
        for queue in 0..QUEUES {
            let of = self.assigned[queue as usize];
            let watermark = self.rig.progress(of.number).watermark;
            assert_eq!(
                watermark,
                self.model.watermark(queue),
                "watermark of {queue} (P2)"
            );
            self.nobody_waits_without_need(queue);
        }
        for drained in std::mem::take(&mut self.rig.drained) {
            let queue = (0..QUEUES).find(|of| self.assigned[*of as usize].number == drained.0);
            let queue = queue.expect("drained, and still assigned");
            // What runs of an earlier assignment of the queue is named to the next owner.
            let named: Vec<u64> = self.rig.core.running(drained).collect();
            for (lane, _) in self.model.running(now, queue) {
                let key = LaneKey::Key(lane.1.to_string().as_str().into());
                let known = named.binary_search(&key.fingerprint()).is_ok();
                assert!(known, "{queue} is drained, but {lane:?} runs unknown (P7)");
                assert!(
                    self.model.held.contains_key(lane),
                    "{lane:?} runs in it (P7)"
                );
            }
            self.assign(queue);
            self.judge();
        }
    }

    /// P3: while a lane is free, no key waits whose first message has not failed, whatever others do.
    fn nobody_waits_without_need(&self, queue: u32) {
        let assigned = self.assigned[queue as usize];
        let free = (self.rig.calls.len() as u32) < self.lanes;
        if assigned.releasing || !free || !self.rig.summary().handler_available {
            return;
        }
        for key in 0..4 {
            let called =
                |call: &Call| call.queue.id == queue && *call.key.as_str() == *key.to_string();
            if self.rig.calls.iter().any(called) {
                continue;
            }
            let Some(head) = self.model.unfinished(queue, key).next() else {
                continue;
            };
            let lane = (queue, key);
            let may_wait = self.suspended.holds(queue, key)
                || self.model.failed.contains(&(queue, head))
                || self
                    .model
                    .runs
                    .get(&lane)
                    .is_some_and(|end| *end > self.rig.now)
                || self
                    .model
                    .held
                    .get(&lane)
                    .is_some_and(|until| *until > self.rig.now);
            assert!(may_wait, "key {key} of {queue} waits with a lane free (P3)");
        }
    }

    /// Everything is mended: all that is left gets done, and nothing is kept (P5).
    fn finish(&mut self) {
        self.step(&Step::Suspend(Suspended::default()));
        for _ in 0..1_000 {
            if (0..QUEUES)
                .all(|of| self.model.watermark(of) == self.model.sent[of as usize].len() as u64)
            {
                break;
            }
            while !self.rig.calls.is_empty() {
                self.end(0, 0, How::Done);
                self.judge();
            }
            while !self.rig.backs.is_empty() {
                self.sent_back(true);
                self.judge();
            }
            let next = self.rig.core.next_deadline();
            self.wait(next.map_or(secs(1), |next| next.saturating_sub(self.rig.now)));
            self.judge();
        }
        while !self.rig.calls.is_empty() {
            self.end(0, 0, How::Done);
            self.judge();
        }
        self.wait(BOUND);
        let summary = self.rig.summary();
        assert_eq!(summary.live_keys, 0, "keys that are kept (P5)");
        assert_eq!(
            summary.in_memory,
            InMemory::default(),
            "memory that is kept (P5)"
        );
        for queue in 0..QUEUES {
            assert_eq!(
                self.model.watermark(queue),
                self.model.sent[queue as usize].len() as u64
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn the_core_does_what_the_model_allows_and_all_of_it(
        steps in steps(),
        batch in 1..4u32,
        block in any::<bool>(),
    ) {
        let on_exhausted = if block { OnExhausted::Block } else { OnExhausted::DeadLetter };
        let mut check = Check::new(batch, on_exhausted);
        for step in &steps {
            check.step(step);
        }
        check.finish();
    }
}
