//! What the executor reads from the journal and writes to it.

use super::{Assigned, Executor, READINGS_AT_ONCE};
use crate::exec::ledger::{self, Messages, Reading};
use crate::exec::recorded::{Reached, Recorded};
use crate::exec::tasks::{self, Event, ToRead};
use crate::exec::together;
use crate::handler::Handler;
use crate::journal::{Body, Finished, Keys, Progress, Record};
use crate::lane::{self, Assignment, HeldKeys, Input, Time};
use crate::message::QueueId;
use crate::ownership::{self, Held, Ticket};
use crate::source::{Source, SourceError};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tracing::info;

impl<S: Source, H: Handler> Executor<S, H> {
    /// Reads where the group stands in a queue; what of it is finished only if it does not run here.
    pub(super) fn read(&mut self, queue: QueueId, ticket: Ticket) {
        let runs = self.assigned.values().any(|of| of.queue == queue);
        let reading = match (self.owner.is_clustering(), runs) {
            (false, _) => Reading::Start,
            (true, true) => Reading::Head,
            (true, false) => Reading::Everything,
        };
        let to_read = ToRead {
            log: self.ledger.log(&queue),
            queue,
            ticket,
            reading,
        };
        match reading {
            Reading::Head => self.heads.push(to_read),
            Reading::Start | Reading::Everything => self.read_alone(to_read),
        }
    }

    /// Begins the readings of queues that run here: renewals of many are granted, and confirmed, together.
    pub(super) fn read_heads(&mut self) {
        if self.heads.is_empty() {
            return;
        }
        let heads = std::mem::take(&mut self.heads);
        let (together, alone) = together::split(heads, |one| &one.queue, &self.queues);
        for to_read in alone {
            self.read_alone(to_read);
        }
        for (at, to_read) in together {
            let turns = self.turns(&at.0);
            self.tasks.spawn(together::read_heads(
                self.source.clone(),
                self.starts.clone(),
                turns,
                self.queues.clone(),
                at,
                to_read,
                self.events.clone(),
            ));
        }
    }

    /// Whose turn it is to read at a broker.
    fn turns(&mut self, broker: &Arc<str>) -> Arc<Semaphore> {
        let turns = || Arc::new(Semaphore::new(READINGS_AT_ONCE));
        let readings = self.readings.entry(broker.clone());
        readings.or_insert_with(turns).clone()
    }

    fn read_alone(&mut self, to_read: ToRead) {
        let turns = self.turns(&to_read.queue.broker);
        self.tasks.spawn(tasks::read(
            self.source.clone(),
            self.starts.clone(),
            turns,
            self.queues.clone(),
            to_read,
            self.events.clone(),
        ));
    }

    /// Writes what ownership wants written.
    pub(super) fn append(&mut self, queue: QueueId, ticket: Ticket, record: ownership::Record) {
        let here = self.assigned.iter().find(|(_, of)| of.queue == queue);
        let body = match record {
            ownership::Record::Claim { predecessor } => Body::Claim { predecessor },
            ownership::Record::Progress { epoch, waiting } => {
                let progress = here.and_then(|(assignment, _)| self.progress(*assignment, waiting));
                Body::Progress {
                    epoch,
                    progress: progress.unwrap_or_default(),
                }
            }
            ownership::Record::Released { epoch, waiting } => {
                let released = match here {
                    Some((_, of)) => of.recorded.released.clone(),
                    None => self.ledger.again(&queue),
                };
                let mut progress = released.unwrap_or_default();
                progress.keys = progress.keys.union(&waiting);
                if !self.queues.contains(&queue) {
                    // Of a queue that the topic has no more nothing can be read, not even a witness. What is
                    // finished stands in the committed offset and in earlier records.
                    progress.finished = Finished::default();
                }
                Body::Released { epoch, progress }
            }
            ownership::Record::Withdrawn {
                epoch,
                former,
                waiting,
            } => Body::Withdrawn {
                epoch,
                former,
                waiting,
            },
        };
        let of = queue.clone();
        self.write(queue, body, move |offset| Event::Appended {
            queue: of,
            ticket,
            offset,
        });
    }

    /// Writes a record of this process; where it lies is reported by the event.
    pub(super) fn write(
        &mut self,
        queue: QueueId,
        body: Body,
        event: impl FnOnce(Result<u64, SourceError>) -> Event + Send + 'static,
    ) {
        let record = self.record(body);
        self.tasks.spawn(tasks::append(
            self.source.clone(),
            queue,
            record,
            event,
            self.events.clone(),
        ));
    }

    fn record(&self, body: Body) -> Record {
        Record {
            by: self.options.incarnation.as_str().into(),
            body,
        }
    }

    fn progress(&self, assignment: Assignment, keys: Keys) -> Option<Progress> {
        let progress = self
            .calls
            .with(|lanes| ledger::progress(lanes, assignment))?;
        let reset = self.assigned.get(&assignment)?.reset.clone();
        Some(Progress {
            keys,
            reset,
            ..progress
        })
    }

    /// A queue is ours: it runs from where the last reading says.
    pub(super) fn assign(
        &mut self,
        queue: QueueId,
        assignment: Assignment,
        lease: Time,
        held: Held,
    ) {
        let Messages {
            finished,
            suspects,
            reset,
        } = self.ledger.messages(&queue);
        let start = finished.watermark();
        info!(
            "queue {queue} is ours from offset {start}, {} finished above it",
            finished.finished_above()
        );
        // Ownership writes the first record.
        let reached = Reached {
            watermark: start,
            above: finished.finished_above(),
        };
        let assigned = Assigned {
            queue: queue.clone(),
            lease,
            drained: false,
            discard: false,
            give_up_at: None,
            recorded: Recorded::new(self.clock.now(), reached),
            reset,
        };
        self.assigned.insert(assignment, assigned);
        if self.owner.is_clustering() {
            self.commits.assigned(assignment, queue.clone());
        }
        let keys = match held.keys {
            Keys::Some(list) => HeldKeys::Some(list),
            Keys::All => HeldKeys::All,
        };
        self.calls.handle(Input::Assign {
            queue,
            assignment,
            start,
            lease,
            finished,
            held: lane::Held {
                keys,
                until: held.until,
            },
        });
        if !suspects.is_empty() {
            self.calls.handle(Input::Suspects {
                assignment,
                suspects,
            });
        }
    }

    /// A queue has stopped: what is finished and what still runs goes into its last record.
    pub(super) fn stopped(&mut self, assignment: Assignment) {
        let running = self
            .calls
            .with(|lanes| Keys::new(lanes.running(assignment)));
        let progress = self.progress(assignment, running);
        if let Some(assigned) = self.assigned.get_mut(&assignment) {
            // Of a topic that was recreated nothing is known to be finished.
            let progress = progress.filter(|_| !assigned.discard);
            assigned.recorded.released = Some(progress.unwrap_or_default());
        }
    }

    /// Writes down how far queues are, where the committed offset does not tell it.
    pub(super) fn write_down(&mut self, now: Time) {
        let mut due = Vec::new();
        for (assignment, assigned) in &self.assigned {
            let stops = assigned.give_up_at.is_some() || assigned.discard;
            let frozen = self.resets.is_frozen(*assignment);
            if stops || frozen || now >= assigned.lease {
                continue;
            }
            let Some(progress) = self.calls.with(|lanes| lanes.progress(*assignment)) else {
                continue;
            };
            let reached = Reached {
                watermark: progress.watermark,
                above: progress.finished_above,
            };
            let suspects = self.calls.with(|lanes| lanes.suspects(*assignment));
            let reset = assigned.reset.as_ref();
            let behind = |watermark| reset.is_some_and(|of| of.is_behind(watermark));
            let recorded = &assigned.recorded;
            if recorded.is_due(now, reached, behind, &suspects) {
                due.push((*assignment, reached));
            }
        }
        for (assignment, reached) in due {
            let Some(queue) = self.assigned.get(&assignment).map(|of| of.queue.clone()) else {
                continue;
            };
            let Some((epoch, waiting)) = self.owner.recordable(now, &queue) else {
                continue;
            };
            let Some(progress) = self.progress(assignment, waiting) else {
                continue;
            };
            if let Some(assigned) = self.assigned.get_mut(&assignment) {
                let suspects = progress.suspects.clone();
                assigned.recorded.begin(now, reached, suspects);
            }
            let body = Body::Progress { epoch, progress };
            self.write(queue, body, move |offset| Event::Recorded {
                assignment,
                offset,
            });
        }
    }

    pub(super) fn recorded(&mut self, assignment: Assignment, offset: Result<u64, SourceError>) {
        let written = self.known("a journal record", offset).is_some();
        let Some(assigned) = self.assigned.get_mut(&assignment) else {
            return;
        };
        if let Some(suspects) = assigned.recorded.end(written) {
            self.calls.handle(Input::Recorded {
                assignment,
                suspects,
            });
            // Others became suspects meanwhile.
            if self.calls.with(|lanes| lanes.is_unrecorded(assignment)) {
                self.next_persist = Time::ZERO;
            }
        }
    }
}
