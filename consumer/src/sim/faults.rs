//! What goes wrong with processes, and how their queues change hands.

use super::broker::QueueIndex;
use super::world::{Event, Owner, World};
use crate::exec::reset::{Located, reset};
use crate::lane::{Assignment, CallResult, Finished, Held, HeldKeys, Input, Suspension};
use crate::message::Topic;
use rand::Rng;
use std::time::Duration;

/// How long running calls may take when a queue is given away.
const DRAIN: Duration = Duration::from_millis(1_500);

impl World {
    pub(super) fn fault(&mut self) {
        let pod = self.rng.random_range(0..self.pods.len());
        let queue = self.rng.random_range(0..self.owners.len());
        match self.rng.random_range(0..10) {
            0 | 1 => self.give_away(queue),
            2 => self.crash(pod),
            3 => {
                let frozen = self.plan.lease.mul_f64(self.rng.random_range(0.1..4.0));
                let until = &mut self.pods[pod].frozen_until;
                *until = (self.now + frozen).max(*until);
            }
            4 => self.lose_and_regain(queue),
            5 => self.retarget(pod),
            6 => self.suspend(pod),
            7 => {
                // Somebody else commits, or the broker crashed before it had written down what it has.
                let committed = &mut self.broker.queues[queue].committed;
                *committed = self.rng.random_range(0..*committed + 1);
            }
            8 => self.handler_dies(pod, self.pods[pod].life),
            _ => self.reset(queue),
        }
    }

    /// Somebody wants a queue to go on from elsewhere, and nothing of it runs. That it waits for calls and
    /// answers, and is one record, is the shell's part; what follows is the core's.
    fn reset(&mut self, queue: QueueIndex) {
        let Owner::Pod {
            pod,
            assignment,
            lease,
            held,
            leaving: None,
            ..
        } = &self.owners[queue]
        else {
            return;
        };
        let (pod, assignment) = (*pod, *assignment);
        let inherited = !matches!(&held.keys, HeldKeys::Some(keys) if keys.is_empty());
        let of = &self.pods[pod];
        let progress = of.executor.progress(assignment);
        let runs = progress.is_none_or(|progress| progress.running > 0)
            || of.executor.running(assignment).next().is_some()
            || (inherited && self.now < held.until);
        let owed = of.commits.get(assignment).is_none_or(|of| of.under_way);
        let usable = self.now < *lease && self.now >= of.frozen_until;
        let main = self.broker.queues[queue].id.topic == Topic::Main;
        let Some(finished) = of.executor.finished(assignment) else {
            return;
        };
        if runs || owed || !usable || !main {
            return;
        }
        assert!(!self.judge.runs(self.now, queue), "reset while a call runs");
        let broker = &mut self.broker.queues[queue];
        let max = broker.offsets.len() as u64;
        let position = self.rng.random_range(0..max + 1);
        let located = Located {
            position,
            min: 0,
            max,
        };
        let reset = reset("r", assignment.0, broker.reset.as_ref(), finished, located);
        broker.reset = Some(reset.followed());
        broker.journal = Finished::new(position);
        self.judge.reset(queue, position);
        self.pods[pod].commits.dropped(assignment);
        self.input(pod, self.pods[pod].life, Input::Drop { assignment });
        self.assign(pod, queue, Held::default());
    }

    fn give_away(&mut self, queue: QueueIndex) {
        if let Owner::Pod {
            pod,
            assignment,
            leaving,
            ..
        } = &mut self.owners[queue]
            && leaving.is_none()
            && self.now >= self.pods[*pod].frozen_until
        {
            *leaving = Some(self.now + DRAIN);
            let (pod, assignment) = (*pod, *assignment);
            self.input(pod, self.pods[pod].life, Input::Release { assignment });
        }
    }

    /// A queue that is given away has no call any more, but for what was running before it came.
    pub(super) fn drained(&mut self, assignment: Assignment) {
        let is =
            |owner: &Owner| matches!(owner, Owner::Pod { assignment: of, .. } if *of == assignment);
        let Some(queue) = self.owners.iter().position(is) else {
            return;
        };
        let held = self.still_running(queue);
        let nothing = matches!(&held.keys, HeldKeys::Some(keys) if keys.is_empty());
        assert!(
            !nothing || !self.judge.runs(self.now, queue),
            "drained while a call runs (P7)"
        );
        if let Owner::Pod { drained, .. } = &mut self.owners[queue] {
            *drained = true;
        }
        self.persist(queue);
        self.hand_over(queue);
    }

    /// Gives up a queue that is drained once what is finished is committed.
    pub(super) fn hand_over(&mut self, queue: QueueIndex) {
        if let Owner::Pod {
            pod,
            assignment,
            drained: true,
            ..
        } = self.owners[queue]
        {
            let of = &self.pods[pod];
            let progress = of.executor.progress(assignment);
            if progress
                .is_some_and(|of_queue| of.commits.is_committed(assignment, of_queue.watermark))
            {
                let held = self.still_running(queue);
                self.free(queue, held);
            }
        }
    }

    /// What the next owner of a queue has to wait for.
    fn still_running(&self, queue: QueueIndex) -> Held {
        let all = self.hold_all(self.now);
        match &self.owners[queue] {
            Owner::Pod { held, .. }
                if matches!(held.keys, HeldKeys::All) && self.now < held.until =>
            {
                all
            }
            Owner::Pod {
                pod, assignment, ..
            } => Held {
                keys: HeldKeys::Some(self.pods[*pod].executor.running(*assignment).collect()),
                ..all
            },
            Owner::Free { held, .. } => held.clone(),
        }
    }

    /// Takes a queue from its owner, who knows.
    fn free(&mut self, queue: QueueIndex, held: Held) {
        self.write_down(queue);
        if let Owner::Pod {
            pod, assignment, ..
        } = self.owners[queue]
        {
            self.owners[queue] = Owner::Free { at: self.now, held };
            self.pods[pod].commits.dropped(assignment);
            self.input(pod, self.pods[pod].life, Input::Drop { assignment });
        }
    }

    /// Ends what has taken too long: hand-overs whose calls do not end, and leases.
    pub(super) fn expire(&mut self) {
        for queue in 0..self.owners.len() {
            let Owner::Pod {
                pod,
                assignment,
                lease,
                leaving,
                ..
            } = self.owners[queue]
            else {
                continue;
            };
            let frozen = self.now < self.pods[pod].frozen_until;
            if self.now >= lease {
                self.owners[queue] = Owner::Free {
                    at: self.now,
                    held: self.hold_all(lease),
                };
                // It hears of it when it can.
                let wait = Duration::from_millis(self.rng.random_range(0..500));
                let drop = Event::Input(pod, self.pods[pod].life, Input::Drop { assignment });
                self.after(wait, drop);
            } else if leaving.is_some_and(|at| self.now >= at) && !frozen {
                let held = self.still_running(queue);
                self.free(queue, held);
            }
        }
    }

    /// A process ends; its handler does not.
    fn crash(&mut self, pod: usize) {
        let life = self.pods[pod].life + self.pods.len() as u64;
        self.pods[pod] = self.new_pod(life);
        for queue in 0..self.owners.len() {
            if let Owner::Pod { pod: of, lease, .. } = self.owners[queue]
                && of == pod
            {
                let held = self.hold_all(lease);
                // Either way of waiting for calls that still run has to do.
                let at = if self.rng.random() {
                    lease.max(self.now)
                } else {
                    held.until
                };
                self.owners[queue] = Owner::Free { at, held };
            }
        }
    }

    /// The lock of a queue is lost and got back by the same process, whose calls still run.
    fn lose_and_regain(&mut self, queue: QueueIndex) {
        if let Owner::Pod {
            pod,
            assignment,
            leaving: None,
            lease,
            ..
        } = self.owners[queue]
            && self.now < lease
            && self.now >= self.pods[pod].frozen_until
        {
            self.write_down(queue);
            let held = match &self.owners[queue] {
                Owner::Pod { held, .. } => held.clone(),
                Owner::Free { .. } => Held::default(),
            };
            if self.rng.random() {
                self.input(pod, self.pods[pod].life, Input::Drop { assignment });
            }
            self.assign(pod, queue, held);
        }
    }

    fn retarget(&mut self, pod: usize) {
        let lanes = self.rng.random_range(1..8);
        if self.now >= self.pods[pod].frozen_until {
            self.pods[pod].lanes = lanes;
            self.input(pod, self.pods[pod].life, Input::SetLanes(lanes));
        }
    }

    fn suspend(&mut self, pod: usize) {
        if self.now < self.pods[pod].frozen_until {
            return;
        }
        let queue = self.rng.random_range(0..self.owners.len());
        let queue = self.broker.queues[queue].id.clone();
        let key = self.rng.random_range(1..self.plan.keys + 1).to_string();
        let suspension = match self.rng.random_range(0..5) {
            0 => Suspension {
                all: true,
                ..Suspension::default()
            },
            1 => Suspension {
                queues: [queue].into(),
                ..Suspension::default()
            },
            2 => Suspension {
                keys: [key].into(),
                ..Suspension::default()
            },
            _ => Suspension::default(),
        };
        self.suspended(pod, suspension);
        // Nobody is suspended for ever.
        let (wait, life) = (
            self.plan.faults_until.saturating_sub(self.now),
            self.pods[pod].life,
        );
        self.after(wait, Event::Resume(pod, life));
    }

    pub(super) fn suspended(&mut self, pod: usize, suspension: Suspension) {
        self.pods[pod].suspension = suspension.clone();
        self.input(pod, self.pods[pod].life, Input::Suspend(suspension));
    }

    /// The handler of a process dies with all its calls.
    pub(super) fn handler_dies(&mut self, pod: usize, life: u64) {
        if self.pods[pod].life != life {
            return;
        }
        let calls = self.pods[pod].calls.iter();
        let calls: Vec<_> = calls
            .map(|(id, call)| (*id, call.queue, call.offset))
            .collect();
        for (id, queue, offset) in calls {
            self.killed.insert((pod, life, id));
            self.judge.ended(self.now, queue, offset);
            let result = CallResult::Lost {
                error: "connection reset".to_owned(),
            };
            self.after(
                Duration::ZERO,
                Event::Input(
                    pod,
                    life,
                    Input::CallEnded {
                        id,
                        acked: 0,
                        result,
                    },
                ),
            );
        }
    }
}
