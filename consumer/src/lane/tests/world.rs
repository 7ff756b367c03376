//! A random world round the executor.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};

/// What the world knows of one queue: the key of each offset (none: filtered out).
struct Topic {
    id: QueueId,
    offsets: Vec<Option<LaneKey>>,
    assignment: Option<Assignment>,
    /// Offsets the handler accepted, over all assignments.
    done: BTreeSet<u64>,
    committed: u64,
}

/// A world around the executor, with a handler that fails in every way there is.
pub struct World {
    rng: StdRng,
    now: Time,
    executor: LaneExecutor,
    queues: Vec<Topic>,
    assignments: u64,
    calls: HashMap<CallId, (Call, usize, Assignment)>,
    /// Until when a call of the key may still run in the handler.
    may_run_until: BTreeMap<(usize, LaneKey), Time>,
    pulls: Vec<(Assignment, usize, u64, u32)>,
    failures: f64,
    lanes: u32,
}

impl World {
    pub fn new(
        seed: u64,
        queues: usize,
        keys: u64,
        messages: usize,
        lanes: u32,
        failures: f64,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let queues = (0..queues)
            .map(|id| Topic {
                id: QueueId::new("b", id as u32),
                offsets: (0..messages)
                    .map(|_| match rng.random_range(0..keys + 2) {
                        0 => None,
                        1 => Some(None),
                        key => Some(Some(Arc::from(key.to_string()))),
                    })
                    .collect(),
                assignment: None,
                done: BTreeSet::new(),
                committed: 0,
            })
            .collect();
        let executor = LaneExecutor::new(settings(lanes), seed);
        Self {
            rng,
            now: Time::ZERO,
            executor,
            queues,
            assignments: 0,
            calls: HashMap::new(),
            may_run_until: BTreeMap::new(),
            pulls: Vec::new(),
            failures,
            lanes,
        }
    }

    fn input(&mut self, input: Input) {
        self.executor.handle(self.now, input);
        while let Some(output) = self.executor.poll_output() {
            match output {
                Output::Dispatch(call) => self.started(call),
                Output::Pull {
                    assignment,
                    queue,
                    offset,
                    max_messages,
                } => {
                    self.pulls
                        .push((assignment, queue.id as usize, offset, max_messages));
                }
                Output::Drained { assignment } => {
                    assert!(
                        self.calls.values().all(|(.., of)| *of != assignment),
                        "drained with a call running"
                    );
                    let queue = self
                        .queues
                        .iter()
                        .position(|queue| queue.assignment == Some(assignment))
                        .unwrap();
                    self.lose(queue);
                }
            }
        }
        self.check();
    }

    fn started(&mut self, call: Call) {
        let index = call.queue.id as usize;
        let queue = &self.queues[index];
        let assignment = queue
            .assignment
            .expect("dispatched from a queue that is not assigned");
        let until = self
            .may_run_until
            .get(&(index, call.key.clone()))
            .copied()
            .unwrap_or_default();
        assert!(
            self.now >= until,
            "{:?} of {} overlaps a call that may run",
            call.key,
            call.queue
        );
        let earlier = (0..call.message.offset).find(|offset| {
            queue.offsets[*offset as usize].as_ref() == Some(&call.key)
                && !queue.done.contains(offset)
        });
        assert_eq!(
            earlier, None,
            "{:?} at {} overtakes",
            call.key, call.message.offset
        );
        assert!(self.now < call.lease, "dispatched past the lease");
        self.may_run_until
            .insert((index, call.key.clone()), self.now + TIMEOUT + GRACE);
        self.calls.insert(call.id, (call, index, assignment));
        assert!(
            self.calls.len() <= self.lanes as usize,
            "more calls than lanes"
        );
    }

    fn check(&self) {
        for queue in &self.queues {
            let Some(progress) = queue
                .assignment
                .and_then(|assignment| self.executor.progress(assignment))
            else {
                continue;
            };
            let unfinished = (0..queue.offsets.len() as u64).find(|offset| {
                queue.offsets[*offset as usize].is_some() && !queue.done.contains(offset)
            });
            assert!(
                progress.watermark <= unfinished.unwrap_or(u64::MAX),
                "the watermark passed an unfinished message"
            );
            assert!(
                progress.buffered <= 40,
                "{} messages in memory",
                progress.buffered
            );
        }
    }

    pub fn assign(&mut self, index: usize) {
        self.assignments += 1;
        let assignment = Assignment(self.assignments);
        let queue = &mut self.queues[index];
        queue.assignment = Some(assignment);
        // The former calls of this queue are over: that is what the wait of the owner is for.
        self.may_run_until
            .retain(|(of, _), until| *of != index || *until > self.now + GRACE * 100);
        let (queue, start) = (queue.id.clone(), queue.committed);
        self.input(Input::Assign {
            queue,
            assignment,
            start,
            lease: self.now + Duration::from_secs(20),
        });
    }

    fn lose(&mut self, index: usize) {
        let Some(assignment) = self.queues[index].assignment else {
            return;
        };
        if let Some(progress) = self.executor.progress(assignment) {
            self.queues[index].committed = progress.watermark;
        }
        self.queues[index].assignment = None;
        self.executor.handle(self.now, Input::Drop { assignment });
    }

    fn answer_pull(&mut self) {
        let picked = self.rng.random_range(0..self.pulls.len());
        let (assignment, index, from, max) = self.pulls.swap_remove(picked);
        let queue = &self.queues[index];
        let end = queue.offsets.len() as u64;
        let next = (from + u64::from(max)).min(end);
        if from == end || self.rng.random_bool(self.failures / 4.0) {
            let retry_at = self.now + Duration::from_millis(500);
            return self.input(Input::PullFailed {
                assignment,
                retry_at,
            });
        }
        let messages = (from..next)
            .filter_map(|offset| {
                let key = queue.offsets[offset as usize].clone()?;
                Some(Keyed {
                    key,
                    message: message(offset),
                })
            })
            .collect();
        self.input(Input::Pulled {
            assignment,
            from,
            next,
            messages,
        });
    }

    fn end_call(&mut self) {
        let mut ids: Vec<_> = self.calls.keys().copied().collect();
        ids.sort();
        let id = ids[self.rng.random_range(0..ids.len())];
        let (call, index, _) = self.calls.remove(&id).unwrap();
        let error = || "no".to_owned();
        let result = if !self.rng.random_bool(self.failures) {
            CallResult::Done
        } else {
            match self.rng.random_range(0..7) {
                0 => CallResult::Failed {
                    error: error(),
                    retry_after: None,
                },
                1 => CallResult::Failed {
                    error: error(),
                    retry_after: Some(Duration::from_millis(10)),
                },
                2 => CallResult::Permanent { error: error() },
                3 => CallResult::TimedOut,
                4 => CallResult::Lost { error: error() },
                5 => CallResult::NotTaken {
                    error: error(),
                    retry_after: None,
                },
                _ => CallResult::NotSent,
            }
        };
        let slot = (index, call.key.clone());
        match &result {
            CallResult::TimedOut => drop(self.may_run_until.insert(slot, self.now + GRACE)),
            CallResult::Lost { .. } => {}
            _ => drop(self.may_run_until.remove(&slot)),
        }
        if result == CallResult::Done {
            self.queues[index].done.insert(call.message.offset);
        }
        self.input(Input::CallEnded { id, result });
    }

    fn renew(&mut self) {
        for index in 0..self.queues.len() {
            if let Some(assignment) = self.queues[index].assignment {
                self.input(Input::Renew {
                    assignment,
                    lease: self.now + Duration::from_secs(20),
                });
            }
        }
    }

    pub fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0 => {
                let index = self.rng.random_range(0..self.queues.len());
                let quiet = self.calls.values().all(|(_, of, _)| *of != index);
                match self.queues[index].assignment {
                    None if quiet => self.assign(index),
                    None => {}
                    Some(assignment) if self.rng.random_bool(0.5) => {
                        self.input(Input::Release { assignment })
                    }
                    Some(_) => self.lose(index),
                }
            }
            1 => {
                self.lanes = self.rng.random_range(1..8);
                self.lanes = self.lanes.max(self.calls.len() as u32);
                self.input(Input::SetLanes(self.lanes));
            }
            2..30 if !self.pulls.is_empty() => self.answer_pull(),
            30..90 if !self.calls.is_empty() => self.end_call(),
            _ => {
                let step = Duration::from_millis(self.rng.random_range(1..400));
                let deadline = self.executor.next_deadline().unwrap_or(self.now + step);
                self.now = (self.now + step).min(deadline.max(self.now + Duration::from_millis(1)));
                if self.rng.random_bool(0.8) {
                    self.renew();
                }
                self.input(Input::Tick);
            }
        }
    }

    /// Ends all faults and runs until everything is finished.
    pub fn settle(&mut self) {
        self.failures = 0.0;
        for _ in 0..200_000 {
            for index in 0..self.queues.len() {
                if self.queues[index].assignment.is_none()
                    && self.calls.values().all(|(_, of, _)| *of != index)
                {
                    self.assign(index);
                }
            }
            let finished = self.queues.iter().all(|queue| {
                queue
                    .assignment
                    .and_then(|assignment| self.executor.progress(assignment))
                    .is_some_and(|progress| progress.watermark == queue.offsets.len() as u64)
            });
            if finished {
                let summary = self.executor.summary();
                assert_eq!(
                    (
                        summary.live_keys,
                        summary.busy,
                        summary.waiting,
                        summary.blocked
                    ),
                    (0, 0, 0, 0)
                );
                return;
            }
            if !self.calls.is_empty() {
                self.end_call();
            } else if !self.pulls.is_empty() {
                self.answer_pull();
            } else {
                let deadline = self
                    .executor
                    .next_deadline()
                    .expect("nothing to wait for, and not finished");
                self.now = self.now.max(deadline);
                self.renew();
                self.input(Input::Tick);
            }
        }
        panic!("not finished: {:?}", self.executor.summary());
    }
}
