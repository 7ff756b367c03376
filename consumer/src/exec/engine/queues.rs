//! What happens to the queues that run here: pulled, committed, given back.

use super::Executor;
use crate::contract::spec::Mode;
use crate::exec::commits::{Answer, Due};
use crate::exec::measures;
use crate::exec::tasks::{self, Batch};
use crate::exec::together;
use crate::handler::Handler;
use crate::lane::{Assignment, Input, Output, Time};
use crate::message::QueueId;
use crate::ownership::Action;
use crate::source::{Source, SourceError};
use std::time::Duration;
use tracing::{error, info, warn};

/// How long to wait after the broker refused an offset.
const REFUSED_AGAIN: Duration = Duration::from_secs(1);

impl<S: Source, H: Handler> Executor<S, H> {
    pub(super) fn pulled(
        &mut self,
        now: Time,
        assignment: Assignment,
        queue: &QueueId,
        from: u64,
        pulled: Result<Batch, SourceError>,
    ) {
        let failed = |at| Input::PullFailed {
            assignment,
            retry_at: at,
        };
        let nothing_until = |next| Input::Pulled {
            assignment,
            from,
            next,
            messages: Vec::new(),
        };
        self.measures
            .pulls
            .with_label_values(&[result_of(&pulled, from)])
            .inc();
        let input = match self.known("a pull", pulled) {
            None => failed(tasks::pull_retry(now)),
            Some(Batch::NoNew) => failed(now),
            Some(Batch::Messages { next, messages }) => {
                let ordered = self.spec.ordering.mode == Mode::Key;
                if ordered
                    && !self.unkeyed_reported
                    && messages.iter().any(|one| one.message.key.is_none())
                {
                    self.unkeyed_reported = true;
                    warn!(
                        "queue {queue} has messages without a key ({:?}), treated as spec.ordering.unkeyed says ({:?}); \
                         let producers set the key, or change spec.ordering.key",
                        self.spec.ordering.key.from, self.spec.ordering.unkeyed
                    );
                }
                Input::Pulled {
                    assignment,
                    from,
                    next,
                    messages,
                }
            }
            Some(Batch::Removed { next }) => {
                self.lost(queue, from, next);
                nothing_until(next)
            }
            Some(Batch::OutOfRange { min, .. }) if from < min => {
                self.lost(queue, from, min);
                nothing_until(min)
            }
            Some(Batch::OutOfRange { max, .. }) if from > max => {
                error!(
                    "queue {queue}: offset {from} is beyond the broker's end {max}: the topic was recreated or its \
                     log cut off; what is in memory of it is discarded and it is begun anew"
                );
                if let Some(assigned) = self.assigned.get_mut(&assignment) {
                    assigned.discard = true;
                    self.start_over.insert(queue.clone());
                }
                failed(now + REFUSED_AGAIN)
            }
            Some(Batch::OutOfRange { .. }) => {
                warn!(
                    "queue {queue}: the broker refuses offset {from} because a reset of the group's offsets is \
                     pending; it is not obeyed while the group consumes"
                );
                failed(now + REFUSED_AGAIN)
            }
        };
        self.calls.handle(input);
    }

    fn lost(&mut self, queue: &QueueId, from: u64, next: u64) {
        let count = next - from;
        self.expired += count;
        error!(
            "queue {queue}: offsets {from} to {next} have expired at the broker; {count} are lost"
        );
    }

    pub(super) fn committed(&mut self, due: Due, answer: Result<Answer, SourceError>) {
        if let Ok(Answer::Unasked) = answer {
            self.commits.answered(&due, Answer::Unasked);
            return;
        }
        let label = match &answer {
            Ok(Answer::Has(offset)) if *offset == due.offset => "stored",
            Ok(Answer::Has(_)) => "different",
            Ok(Answer::Unknown | Answer::Unasked) => "not_stored",
            Err(error) => measures::label(error),
        };
        self.measures.commits.with_label_values(&[label]).inc();
        let answer = self.known("a commit", answer).unwrap_or(Answer::Unknown);
        if self.commits.answered(&due, answer) {
            let had = match answer {
                Answer::Has(u64::MAX) => "nothing".to_owned(),
                Answer::Has(offset) => format!("offset {offset}"),
                Answer::Unknown | Answer::Unasked => "something".to_owned(),
            };
            warn!(
                "queue {}: the broker had {had} instead of offset {} as committed; it is put right (to have the group \
                 go on from elsewhere, ask Keylane for a reset)",
                due.queue,
                due.look_for.unwrap_or(due.offset)
            );
            // The broker is to have it at once.
            self.next_persist = Time::ZERO;
        }
    }

    /// Carries out what the pure parts ask for, until they ask for nothing more.
    pub(super) fn act(&mut self) {
        let now = self.clock.now();
        self.calls.handle(Input::Tick);
        self.persist(now);
        self.advance_resets(now);
        if let Some(by) = self.drained_by().filter(|by| now >= *by) {
            self.owner.stop_waiting(now, by);
        }
        loop {
            let actions = self.owner.poll(now);
            let idle = actions.is_empty();
            for action in actions {
                self.carry_out(now, action);
            }
            self.give_back(now);
            if idle {
                break;
            }
        }
        self.read_heads();
    }

    fn carry_out(&mut self, now: Time, action: Action) {
        match action {
            // It would not count here, and keep those from the queues where it would: for a minute after our end too.
            Action::Lock { broker, queues } if !self.route_is_young(now) => {
                self.owner.lock_reply(now, &broker, &queues, None);
            }
            Action::Lock { broker, queues } => {
                let (source, events) = (self.source.clone(), self.events.clone());
                self.tasks
                    .spawn(tasks::lock(source, broker, queues, events));
            }
            Action::Read { queue, ticket } => self.read(queue, ticket),
            Action::Append {
                queue,
                ticket,
                record,
            } => self.append(queue, ticket, record),
            Action::Assign {
                queue,
                assignment,
                lease,
                held,
            } => self.assign(queue, assignment, lease, held),
            Action::Renew { assignment, lease } => {
                if let Some(assigned) = self.assigned.get_mut(&assignment) {
                    assigned.lease = lease;
                }
                self.calls.handle(Input::Renew { assignment, lease });
            }
            Action::Release { assignment } => {
                if let Some(assigned) = self.assigned.get_mut(&assignment) {
                    info!(
                        "queue {} is to be given away: what runs of it finishes first",
                        assigned.queue
                    );
                    assigned.give_up_at = Some(now + self.spec.drain.timeout.get());
                }
                self.leave_reset(assignment);
                self.calls.handle(Input::Release { assignment });
            }
            Action::Drop {
                queue,
                assignment,
                released,
            } => {
                self.assigned.remove(&assignment);
                if !released {
                    warn!(
                        "queue {queue} is lost; what was not written down runs again with its next owner"
                    );
                }
                self.drop_reset(assignment);
                self.commits.dropped(assignment);
                self.calls.handle(Input::Drop { assignment });
                // Decided on before, and not begun.
                self.calls.withdraw(|call| call.queue == queue);
            }
            Action::Free { broker, holder } => {
                info!(
                    "{holder} left broker {broker}: locks that it may have left there are given back"
                );
                let (source, queues) = (self.source.clone(), self.queues.clone());
                self.tasks
                    .spawn(tasks::free(source, broker, queues, holder));
            }
            Action::Unlock { queue, holder } => {
                match &holder {
                    None => info!("queue {queue} is given back"),
                    Some(holder) => info!(
                        "queue {queue} is taken from {holder}, which its broker does not list any more"
                    ),
                }
                self.unlocking += 1;
                self.tasks.spawn(tasks::unlock(
                    self.source.clone(),
                    queue,
                    holder,
                    self.events.clone(),
                ));
            }
        }
    }

    pub(super) fn put_out(&mut self, output: Output) {
        match output {
            // Calls never come here: the thread that gets them from the core begins them.
            Output::Dispatch(_) => {}
            Output::SendBack(back) => {
                let (source, events) = (self.source.clone(), self.events.clone());
                self.tasks.spawn(tasks::send_back(source, back, events));
            }
            Output::Pull {
                assignment,
                queue,
                offset,
                max_messages,
            } => {
                let (source, events) = (self.source.clone(), self.events.clone());
                let pull = tasks::pull(
                    source,
                    self.placing.clone(),
                    assignment,
                    queue,
                    offset,
                    max_messages,
                    events,
                );
                self.tasks.spawn_on(pull, &self.outside);
            }
            Output::Record { assignment } if self.owner.is_clustering() => {
                if let Some(assigned) = self.assigned.get(&assignment) {
                    // Perhaps it was written while the call could still run.
                    let suspects = assigned.recorded.suspects().to_vec();
                    self.calls.handle(Input::Recorded {
                        assignment,
                        suspects,
                    });
                    self.next_persist = Time::ZERO;
                }
            }
            // Without a journal nobody comes after us who could read it.
            Output::Record { assignment } => {
                let suspects = self.calls.with(|lanes| lanes.suspects(assignment));
                self.calls.handle(Input::Recorded {
                    assignment,
                    suspects,
                });
            }
            Output::Drained { assignment } => {
                if let Some(assigned) = self.assigned.get_mut(&assignment) {
                    assigned.drained = true;
                    // Its last commit is due now, not at the next interval.
                    self.next_persist = Time::ZERO;
                }
            }
        }
    }

    /// Sends what is due to be committed.
    fn persist(&mut self, now: Time) {
        if now < self.next_persist {
            return;
        }
        // What the broker has is looked at once in an interval, however often something is persisted.
        let check = now >= self.next_check;
        if check {
            self.next_check = now + self.options.persist_interval;
        }
        self.next_persist = self.next_check;
        self.write_down(now);
        let (mut to_look, mut at_once) = (Vec::new(), Vec::new());
        for (assignment, assigned) in &self.assigned {
            let progress = self.calls.with(|lanes| lanes.progress(*assignment));
            let frozen = assigned.discard || self.resets.is_frozen(*assignment);
            let Some(progress) = progress.filter(|_| !frozen) else {
                continue;
            };
            let Some(due) = self.commits.due(*assignment, progress.watermark, check) else {
                continue;
            };
            if due.look_for.is_some() {
                to_look.push((due, assigned.lease));
            } else {
                at_once.push((due, assigned.lease));
            }
        }
        let (together, alone) = together::split(to_look, |(due, _)| &due.queue, &self.queues);
        let parts = || (self.source.clone(), self.clock.clone(), self.events.clone());
        for (due, lease) in alone.into_iter().chain(at_once) {
            let (source, clock, events) = parts();
            self.tasks
                .spawn(tasks::settle(source, clock, due, lease, events));
        }
        for (at, due) in together {
            let (source, clock, events) = parts();
            self.tasks
                .spawn(together::settle(source, clock, at, due, events));
        }
    }

    /// Gives back queues that are drained and committed, or that took too long.
    fn give_back(&mut self, now: Time) {
        let mut done = Vec::new();
        for (assignment, assigned) in &self.assigned {
            let Some(give_up_at) = assigned.give_up_at else {
                continue;
            };
            if assigned.recorded.released.is_some() {
                continue;
            }
            let progress = self.calls.with(|lanes| lanes.progress(*assignment));
            let committed = assigned.discard
                || !self.owner.is_clustering()
                || self.resets.is_written(*assignment)
                || progress.is_some_and(|progress| {
                    self.commits.is_committed(*assignment, progress.watermark)
                });
            if assigned.drained && committed {
                done.push((*assignment, assigned.queue.clone()));
            } else if now >= give_up_at {
                let what = if assigned.drained {
                    "its last commit"
                } else {
                    "running calls"
                };
                warn!(
                    "queue {} is given away without waiting longer for {what}",
                    assigned.queue
                );
                done.push((*assignment, assigned.queue.clone()));
            } else if assigned.drained {
                // Commits that failed are sent again soon.
                self.next_persist = self.next_persist.min(now + Duration::from_millis(100));
            }
        }
        for (assignment, queue) in done {
            self.stopped(assignment);
            self.owner.drained(&queue);
        }
    }
}

/// The result of a pull as a label.
fn result_of(pulled: &Result<Batch, SourceError>, from: u64) -> &'static str {
    match pulled {
        Ok(Batch::Messages { messages, .. }) if messages.is_empty() => "none_matched",
        Ok(Batch::Messages { .. }) => "found",
        Ok(Batch::NoNew) => "none_new",
        Ok(Batch::Removed { .. }) => "expired",
        Ok(Batch::OutOfRange { min, .. }) if from < *min => "expired",
        Ok(Batch::OutOfRange { max, .. }) if from > *max => "beyond_end",
        Ok(Batch::OutOfRange { .. }) => "reset_pending",
        Err(error) => measures::label(error),
    }
}
