//! Obeys requests to reset offsets.

use super::{Assigned, Executor};
use crate::contract::offsets::{ResetOffsets, ResetReport, ResetState};
use crate::exec::control::ResetError;
use crate::exec::live;
use crate::exec::recorded::{Reached, Recorded};
use crate::exec::reset::{self, Facts, Located, Reply, Step, UnderWay};
use crate::exec::tasks::{self, Event};
use crate::handler::Handler;
use crate::journal::{self, Body, Head, Progress, Reset};
use crate::lane::{Assignment, Finished, Held, Input, LaneState, Time};
use crate::message::QueueId;
use crate::source::{Source, SourceError};
use tracing::{info, warn};

/// Keys that an answer names.
const LISTED: usize = 32;

impl<S: Source, H: Handler> Executor<S, H> {
    /// Takes in a request.
    pub(super) fn reset_offsets(&mut self, request: ResetOffsets, reply: Reply) {
        if let Err(error) = self.begin_reset(&request) {
            let _ = reply.send(Err(error));
        } else if request.wait {
            self.resets.wait(request, reply);
        } else {
            let report = self.reset_report(&request);
            self.resets.told(&report);
            let _ = reply.send(Ok(report));
        }
    }

    fn begin_reset(&mut self, request: &ResetOffsets) -> Result<(), ResetError> {
        reset::check(request)?;
        if !self.owner.is_clustering() {
            return Err(ResetError::Broadcasting);
        }
        if self.draining.is_some() {
            return Err(ResetError::Draining);
        }
        if let Some(other) = self.resets.other(&request.id) {
            return Err(ResetError::Busy(other.to_owned()));
        }
        let phases = self.owner.phases();
        let is_here = |queue: &str| phases.iter().any(|(of, ..)| of.to_string() == queue);
        if let Some(queue) = request.queue.as_ref().filter(|queue| !is_here(queue)) {
            return Err(ResetError::NotHeld(queue.clone()));
        }
        let until = self.clock.now() + self.spec.drain.timeout.get();
        for (assignment, assigned) in &self.assigned {
            let queue = &assigned.queue;
            let obeyed = assigned
                .reset
                .as_ref()
                .is_some_and(|of| of.obeyed(&request.id));
            let leaves = assigned.give_up_at.is_some() || assigned.discard;
            // Who does not wait is told of a refusal before it is tried again.
            let untold = !request.wait && self.resets.refusal(queue, &request.id).is_some();
            let begun = self.resets.get(*assignment).is_some();
            if reset::concerns(request, queue) && !(obeyed || leaves || untold || begun) {
                info!(
                    "queue {queue}: its offsets are to be reset to {} ({}); running calls finish within {:?}",
                    request.to,
                    request.id,
                    self.spec.drain.timeout.get()
                );
                let of = UnderWay::new(queue.clone(), request, until);
                self.resets.begin(*assignment, of);
            }
        }
        self.suspend();
        Ok(())
    }

    /// Holds back what the spec suspends, and queues that are being reset.
    pub(super) fn suspend(&self) {
        let mut suspension = live::suspension(&self.spec.suspend);
        suspension.queues.extend(self.resets.suspended().cloned());
        self.calls.suspend(suspension);
    }

    fn reset_report(&self, request: &ResetOffsets) -> ResetReport {
        let phases = self.owner.phases().into_iter();
        let queues: Vec<_> = phases
            .filter(|(queue, ..)| reset::concerns(request, queue))
            .map(|(queue, _, assignment)| {
                let assigned = assignment.and_then(|of| self.assigned.get(&of));
                let last = assigned.and_then(|of| of.reset.as_ref());
                self.resets.of_queue(&request.id, &queue, assignment, last)
            })
            .collect();
        let done = || queues.iter().filter(|of| of.state == ResetState::Done);
        ResetReport {
            id: request.id.clone(),
            to: request.to,
            skipped: done().map(|of| of.skipped).sum(),
            replayed: done().map(|of| of.replayed).sum(),
            queues,
        }
    }

    /// Does what is due, and answers whom nothing keeps waiting.
    pub(super) fn advance_resets(&mut self, now: Time) {
        for assignment in self.resets.assignments() {
            self.advance_reset(now, assignment);
        }
        for (request, reply) in self.resets.answerable() {
            let report = self.reset_report(&request);
            self.resets.told(&report);
            let _ = reply.send(Ok(report));
        }
    }

    fn advance_reset(&mut self, now: Time, assignment: Assignment) {
        let facts = self.reset_facts(now, assignment);
        let committed = self.commits.get(assignment);
        let committed = committed.is_some_and(|of| of.acknowledged.is_some());
        let Some(of) = self.resets.get_mut(assignment) else {
            return;
        };
        let queue = of.queue.clone();
        if of.is_in_force() {
            if committed {
                self.resets.remove(assignment);
            }
            return;
        }
        match of.step(now, facts) {
            None => {}
            Some(Step::Locate) => {
                let (to, source, events) = (of.to, self.source.clone(), self.events.clone());
                self.tasks
                    .spawn(tasks::locate(source, queue, to, assignment, events));
            }
            Some(Step::Write) => {
                if let Some(reset) = of.reset.clone() {
                    self.write_reset(assignment, queue, reset);
                }
            }
            Some(Step::Confirm) => {
                let (source, events) = (self.source.clone(), self.events.clone());
                self.tasks
                    .spawn(tasks::confirm(source, queue, assignment, events));
            }
            Some(Step::GiveUp) => {
                let keys = self.keys_in_hand(&queue);
                let timeout = self.spec.drain.timeout.get();
                let reason = if facts.runs && keys.is_empty() {
                    format!(
                        "calls of a former owner may still run after drain.timeout ({timeout:?}); ask again"
                    )
                } else if facts.runs {
                    format!(
                        "its calls did not end within drain.timeout ({timeout:?}): keys {}; let them end or raise \
                         drain.timeout, and ask again",
                        keys.join(", ")
                    )
                } else {
                    format!(
                        "its broker did not answer within drain.timeout ({timeout:?}); ask again when it does"
                    )
                };
                self.refuse_reset(assignment, reason, keys);
            }
        }
    }

    fn reset_facts(&self, now: Time, assignment: Assignment) -> Facts {
        let Some(assigned) = self.assigned.get(&assignment) else {
            return Facts::default();
        };
        let recordable = self.owner.recordable(now, &assigned.queue);
        let progress = self.calls.with(|lanes| lanes.progress(assignment));
        // Calls of this assignment, those of one before it here, and those of a former owner.
        let orphans = || {
            self.calls
                .with(|lanes| lanes.running(assignment).next().is_some())
        };
        let inherited = recordable
            .as_ref()
            .is_some_and(|(_, keys)| !keys.is_empty());
        let commit = self.commits.get(assignment);
        Facts {
            usable: recordable.is_some() && now < assigned.lease && assigned.give_up_at.is_none(),
            runs: progress.is_none_or(|of| of.running > 0) || inherited || orphans(),
            owed: assigned.recorded.under_way || commit.is_none_or(|of| of.under_way),
        }
    }

    /// Keys of a queue whose calls run, or may still run.
    fn keys_in_hand(&self, queue: &QueueId) -> Vec<String> {
        let redact = self.redact();
        self.calls.with(|lanes| {
            let views = lanes.lane_views();
            views
                .filter(|view| view.queue == *queue)
                .filter(|view| matches!(view.state, LaneState::Running | LaneState::SendingBack))
                .take(LISTED)
                .map(|view| match view.key.as_str() {
                    "" => "(none)".to_owned(),
                    key => redact.key(key),
                })
                .collect()
        })
    }

    /// Nothing has changed: the queue runs on.
    fn refuse_reset(&mut self, assignment: Assignment, reason: String, keys: Vec<String>) {
        if let Some(of) = self.resets.get(assignment) {
            warn!(
                "queue {}: its offsets are not reset to {} ({}): {reason}",
                of.queue, of.to, of.id
            );
        }
        self.resets.refuse(assignment, reason, keys);
        self.suspend();
    }

    /// Gives up the reset of a queue that is given away, unless it may be written already: then whoever
    /// takes it finds it in the journal, or not.
    pub(super) fn leave_reset(&mut self, assignment: Assignment) {
        let written = self.resets.is_written(assignment);
        if !written && self.resets.remove(assignment).is_some() {
            self.suspend();
        }
    }

    /// The queue is not here any more.
    pub(super) fn drop_reset(&mut self, assignment: Assignment) {
        if self.resets.remove(assignment).is_some() {
            self.suspend();
        }
    }

    /// Where the queue is to go on.
    pub(super) fn located(
        &mut self,
        now: Time,
        assignment: Assignment,
        located: Result<Located, SourceError>,
    ) {
        let Some(of) = self.resets.get(assignment) else {
            return;
        };
        let (id, to) = (of.id.clone(), of.to);
        let planned = match located {
            Err(error) => Err(format!("its position is not known: {error}")),
            Ok(of) if !(of.min..=of.max).contains(&of.position) => Err(format!(
                "to is {to}, and the broker has offsets {} to {}",
                of.min, of.max
            )),
            Ok(located) => self
                .planned(now, assignment, &id, located)
                .ok_or_else(|| "it is being given away".to_owned()),
        };
        match planned {
            Err(reason) => self.refuse_reset(assignment, reason, Vec::new()),
            Ok(reset) => {
                if let Some(of) = self.resets.get_mut(assignment) {
                    of.located(now, reset);
                }
            }
        }
    }

    fn planned(
        &self,
        now: Time,
        assignment: Assignment,
        id: &str,
        located: Located,
    ) -> Option<Reset> {
        let assigned = self.assigned.get(&assignment)?;
        let (epoch, _) = self.owner.recordable(now, &assigned.queue)?;
        let former = assigned.reset.as_ref();
        self.calls.with(|lanes| {
            let finished = lanes.finished(assignment)?;
            Some(reset::reset(id, epoch, former, finished, located))
        })
    }

    fn write_reset(&mut self, assignment: Assignment, queue: QueueId, reset: Reset) {
        let epoch = reset.generation.epoch;
        let progress = Progress {
            finished: journal::Finished::below(reset.position),
            reset: Some(reset),
            ..Progress::default()
        };
        let body = Body::Progress { epoch, progress };
        self.write(queue, body, move |offset| Event::ResetWritten {
            assignment,
            offset,
        });
    }

    pub(super) fn reset_written(
        &mut self,
        now: Time,
        assignment: Assignment,
        offset: Result<u64, SourceError>,
    ) {
        let offset = self.known("the journal record of a reset", offset);
        if let Some(of) = self.resets.get_mut(assignment) {
            of.written(now, offset);
        }
    }

    /// Whose the queue is by the journal, after the record was there.
    pub(super) fn reset_confirmed(
        &mut self,
        now: Time,
        assignment: Assignment,
        head: Result<Head, SourceError>,
    ) {
        let head = self.known("the journal after a reset", head);
        let leaves = |of: &Assigned| of.give_up_at.is_some();
        let leaves = self.assigned.get(&assignment).is_none_or(leaves);
        let Some(of) = self.resets.get_mut(assignment) else {
            return;
        };
        let queue = of.queue.clone();
        if let Some(reset) = of.confirmed(now, head.as_ref(), leaves) {
            self.begin_anew(now, assignment, &queue, reset);
        }
    }

    /// The lanes of a queue begin anew, at the position that was written down.
    fn begin_anew(&mut self, now: Time, before: Assignment, queue: &QueueId, reset: Reset) {
        let (Some(assignment), Some(of)) = (self.owner.reassign(queue), self.resets.remove(before))
        else {
            return;
        };
        let Some(assigned) = self.assigned.remove(&before) else {
            return;
        };
        let position = reset.position;
        warn!(
            "queue {queue}: its offsets were reset to {} ({}): it goes on from offset {position} instead of {}, {} \
             offsets are skipped, {} are consumed again",
            of.to, of.id, reset.from, reset.skipped, reset.replayed
        );
        self.resets.skipped += reset.skipped;
        self.resets.replayed += reset.replayed;
        self.commits.dropped(before);
        self.calls.handle(Input::Drop { assignment: before });
        let reached = Reached {
            watermark: position,
            above: 0,
        };
        let assigned = Assigned {
            recorded: Recorded::new(now, reached),
            reset: Some(reset.followed()),
            ..assigned
        };
        self.commits.assigned(assignment, queue.clone());
        self.calls.handle(Input::Assign {
            queue: queue.clone(),
            assignment,
            start: position,
            lease: assigned.lease,
            finished: Finished::new(position),
            held: Held::default(),
        });
        self.assigned.insert(assignment, assigned);
        self.resets.begin(assignment, of);
        self.suspend();
        // The broker is to have it at once.
        self.next_persist = Time::ZERO;
    }
}
