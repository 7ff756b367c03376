//! What the shell does round the core, in its simplest correct form: calls, ways back, leases, and what is
//! written down.

use super::broker::QueueIndex;
use super::handler::{Fate, fate};
use super::world::{Event, InFlight, Owner, World};
use crate::lane::{Assignment, Call, CallResult, Held, HeldKeys, Input, SendBack, Time};
use rand::Rng;

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
        let faults = if self.is_calm() {
            0.0
        } else {
            self.plan.network
        };
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
        };
        let of = &self.broker.queues[queue];
        let input = Input::Assign {
            queue: of.id.clone(),
            assignment,
            start: of.committed,
            lease,
            finished: of.journal.clone(),
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

    /// Writes down what is finished of a queue, if it is still its owner's to say.
    pub(super) fn persist(&mut self, queue: QueueIndex) {
        let Owner::Pod {
            pod,
            assignment,
            lease,
            ..
        } = &self.owners[queue]
        else {
            return;
        };
        if self.now >= *lease || self.now < self.pods[*pod].frozen_until {
            return;
        }
        if let Some(finished) = self.pods[*pod].executor.finished(*assignment) {
            self.judge.claimed(queue, finished);
            let of = &mut self.broker.queues[queue];
            of.committed = finished.watermark();
            of.journal.union(finished);
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
