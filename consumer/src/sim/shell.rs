//! What the shell does round the core, in its simplest correct form: calls, ways back, leases, and what is
//! written down.

use super::broker::QueueIndex;
use super::handler::{Fate, fate};
use super::world::{Event, InFlight, Owner, World};
use crate::exec::commits::{Answer, Due};
use crate::journal::{self, Known};
use crate::lane::{Assignment, Call, CallResult, Finished, Held, HeldKeys, Input, SendBack, Time};
use rand::Rng;
use std::time::Duration;

impl World {
    pub(super) fn dispatch(&mut self, pod: usize, call: Call) {
        let of = &self.pods[pod];
        let queue = self.broker.index(&call.queue);
        assert!(self.now < call.lease, "dispatched past the lease");
        assert!(of.calls.len() < of.lanes as usize, "more calls than lanes");
        let owned = matches!(&self.owners[queue], Owner::Pod { pod: owner, leaving: None, .. } if *owner == pod);
        assert!(
            owned,
            "dispatched from a queue that is not its own, or is given away"
        );
        let messages: Vec<_> = std::iter::once(&call.message).chain(&call.rest).collect();
        let suspension = &of.suspension;
        let suspended = suspension.all
            || suspension.queues.contains(&call.queue)
            || messages.iter().any(|of| {
                of.key
                    .as_deref()
                    .is_some_and(|key| suspension.keys.contains(key))
            });
        assert!(!suspended, "dispatched though it is suspended");
        let poison = self
            .broker
            .sent(queue, call.message.offset)
            .is_some_and(|sent| sent.poison);
        let Fate {
            ends,
            reported,
            acked,
            result,
            over,
            late,
            kills,
        } = fate(
            &mut self.rng,
            &self.plan,
            self.now,
            messages.len() as u32,
            poison,
        );
        let offsets: Vec<u64> = messages.iter().map(|message| message.offset).collect();
        self.judge
            .started(self.now, queue, &offsets, self.now + ends);
        let (life, id, offset) = (of.life, call.id, offsets[0]);
        if self.traced {
            let (now, key) = (self.now, &call.key);
            println!("{now:?} pod {pod} calls {id:?}: {key:?} {offsets:?}, to end as {result:?}");
        }
        self.pods[pod].calls.insert(id, InFlight { queue, offset });
        let done = offsets[..acked as usize].to_vec();
        self.after(ends, Event::Truth((pod, life, id), queue, done));
        if kills {
            return self.after(reported, Event::Die(pod, life));
        }
        let twice = self.rng.random_bool(self.plan.network);
        for _ in 0..1 + usize::from(twice) {
            let result = result.clone();
            self.after(
                reported,
                Event::Input(pod, life, Input::CallEnded { id, acked, result }),
            );
        }
        if late {
            let result = CallResult::Done;
            self.after(
                ends,
                Event::Input(pod, life, Input::CallEnded { id, acked, result }),
            );
        }
        if over {
            self.after(ends, Event::Input(pod, life, Input::CallOver { id }));
        }
    }

    pub(super) fn back(&mut self, pod: usize, life: u64, back: &SendBack) {
        let faults = self.network();
        let queue = self.broker.index(&back.queue);
        let (stored, answered) = match self.rng.random_bool(faults) {
            // Lost on the way there, or on the way back.
            true => (self.rng.random(), false),
            false => (true, true),
        };
        if stored {
            let offset = back.message.offset;
            let again = self
                .broker
                .take_back(self.now, queue, offset, back.delay_level);
            if let Some((queue, offset, lane)) = again {
                self.judge.sent(queue, offset, lane);
            }
            self.judge.finished(queue, offset);
        }
        let result = if answered {
            Ok(())
        } else {
            Err("lost".to_owned())
        };
        self.input(
            pod,
            life,
            Input::SentBack {
                id: back.id,
                result,
            },
        );
    }

    /// Gives free queues to processes.
    pub(super) fn allocate(&mut self) {
        for queue in 0..self.owners.len() {
            let Owner::Free { at, held } = &self.owners[queue] else {
                continue;
            };
            let pod = self.rng.random_range(0..self.pods.len());
            if *at > self.now || self.now < self.pods[pod].frozen_until {
                continue;
            }
            let held = held.clone();
            self.assign(pod, queue, held);
        }
    }

    pub(super) fn assign(&mut self, pod: usize, queue: QueueIndex, held: Held) {
        self.assignments += 1;
        let (assignment, lease) = (Assignment(self.assignments), self.now + self.plan.lease);
        self.owners[queue] = Owner::Pod {
            pod,
            assignment,
            lease,
            held: held.clone(),
            leaving: None,
            drained: false,
        };
        let of = &self.broker.queues[queue];
        // What is committed and what is journalled say together what is finished, unless the former is older
        // than a reset.
        let known = Known {
            finished: journal::Finished::below(of.journal.watermark()),
            reset: of.reset.clone(),
            ..Known::default()
        };
        let believed = known.believes(of.committed);
        let mut finished = Finished::new(if believed { of.committed } else { 0 });
        finished.finish_range(0, of.journal.watermark());
        for range in of.journal.ranges() {
            finished.finish_range(range.start, range.end);
        }
        self.pods[pod].commits.assigned(assignment, of.id.clone());
        let input = Input::Assign {
            queue: of.id.clone(),
            assignment,
            start: finished.watermark(),
            lease,
            finished,
            held,
        };
        self.input(pod, self.pods[pod].life, input);
    }

    pub(super) fn renew(&mut self) {
        for queue in 0..self.owners.len() {
            let miss = !self.is_calm() && self.rng.random_bool(self.plan.network);
            let Owner::Pod {
                pod,
                assignment,
                lease,
                ..
            } = &mut self.owners[queue]
            else {
                continue;
            };
            if self.now < *lease && self.now >= self.pods[*pod].frozen_until && !miss {
                *lease = self.now + self.plan.lease;
                let (pod, assignment, lease) = (*pod, *assignment, *lease);
                self.input(pod, self.pods[pod].life, Input::Renew { assignment, lease });
            }
        }
        self.expire();
    }

    /// Writes down what is finished of a queue, and commits it, if it is still its owner's to say.
    pub(super) fn persist(&mut self, queue: QueueIndex) {
        self.write_down(queue);
        let Some((pod, assignment)) = self.speaks_for(queue) else {
            return;
        };
        let of = &mut self.pods[pod];
        let Some(progress) = of.executor.progress(assignment) else {
            return;
        };
        if let Some(due) = of.commits.due(assignment, progress.watermark, true) {
            let life = of.life;
            self.shortly(Event::Commit(pod, life, due));
        }
    }

    /// Journals what is finished of a queue.
    pub(super) fn write_down(&mut self, queue: QueueIndex) {
        if let Some((pod, assignment)) = self.speaks_for(queue)
            && let Some(finished) = self.pods[pod].executor.finished(assignment)
        {
            self.judge.claimed(queue, finished);
            self.broker.queues[queue].journal.union(finished);
        }
    }

    /// The owner of a queue, while it has its lease and is awake.
    fn speaks_for(&self, queue: QueueIndex) -> Option<(usize, Assignment)> {
        match self.owners[queue] {
            Owner::Pod {
                pod,
                assignment,
                lease,
                ..
            } if self.now < lease && self.now >= self.pods[pod].frozen_until => {
                Some((pod, assignment))
            }
            _ => None,
        }
    }

    /// What is committed is stored whoever owns the queue by now; request or answer may be lost.
    pub(super) fn commit_arrives(&mut self, pod: usize, life: u64, due: Due) {
        let faults = self.network();
        let arrives = !self.rng.random_bool(faults);
        let answered = arrives && !self.rng.random_bool(faults);
        let queue = self.broker.index(&due.queue);
        let committed = &mut self.broker.queues[queue].committed;
        let right = [Some(*committed), None].contains(&due.look_for) || *committed == due.offset;
        if arrives && !due.verify_only && right {
            *committed = due.offset;
        }
        let answer = if answered {
            Answer::Has(*committed)
        } else {
            Answer::Unknown
        };
        self.shortly(Event::Committed(pod, life, due, answer));
    }

    pub(super) fn committed(&mut self, pod: usize, life: u64, due: Due, answer: Answer) {
        let of = &mut self.pods[pod];
        if of.life != life {
            return;
        }
        if self.now < of.frozen_until {
            let wait = of.frozen_until - self.now;
            return self.after(wait, Event::Committed(pod, life, due, answer));
        }
        of.commits.answered(&due, answer);
        let queue = self.broker.index(&due.queue);
        self.hand_over(queue);
    }

    fn shortly(&mut self, event: Event) {
        let wait = Duration::from_micros(self.rng.random_range(100..5_000));
        self.after(wait, event);
    }

    /// Share of what is sent that is lost now.
    pub(super) fn network(&self) -> f64 {
        if self.is_calm() {
            0.0
        } else {
            self.plan.network
        }
    }

    /// Until when calls may run that are sent before a lease ends.
    pub(super) fn hold_all(&self, lease: Time) -> Held {
        Held {
            keys: HeldKeys::All,
            until: lease + self.plan.timeout + self.plan.cancel_grace,
        }
    }
}
