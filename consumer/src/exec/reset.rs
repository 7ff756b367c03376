//! Resets of offsets that were asked for, queue by queue: how far each is, and what is next.
//!
//! Pure. A reset begins with the queue suspended; when nothing of it runs any more its new position is
//! found, written to the journal and confirmed there, and only then the lanes of the queue begin anew. Up to
//! the writing it can be given up without a trace. From then on the record may lie in the journal, or come to
//! lie there, so there is no way back: it is written until it is known to be there, or until the queue is
//! somebody else's, and nothing that follows from the old position is committed meanwhile. Why it is one
//! record, and what others make of it, is said at [`crate::journal::Reset`].

use super::control::ResetError;
use crate::contract::offsets::{QueueReset, ResetOffsets, ResetReport, ResetState, ResetTo, is_id};
use crate::journal::{Epoch, Generation, Head, Reset};
use crate::lane::{Assignment, Finished, Time};
use crate::message::{QueueId, Topic};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::oneshot;

/// How often it is looked whether calls have ended: nobody tells when the last call of a queue ends.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time before something that failed at the journal is tried again.
const JOURNAL_RETRY: Duration = Duration::from_millis(300);

/// Where an answer goes.
pub type Reply = oneshot::Sender<Result<ResetReport, ResetError>>;

/// A position in a queue, and what the queue has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    pub position: u64,
    pub min: u64,
    pub max: u64,
}

/// How far the reset of a queue is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Draining {
        until: Time,
    },
    Locating,
    /// To be written from a time on; none: it is under way.
    Writing {
        at: Option<Time>,
    },
    /// It lies at this offset; that nobody claimed the queue before it is to be read from a time on.
    Confirming {
        offset: u64,
        at: Option<Time>,
    },
    /// The queue is on its way to somebody else: it will be taken from us.
    Lost,
    /// The queue goes on, the broker does not have the position yet.
    Committing,
}

/// The reset of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    pub queue: QueueId,
    pub id: String,
    pub to: ResetTo,
    stage: Stage,
    /// What is written, once that is known.
    pub reset: Option<Reset>,
}

/// What must be known of a queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// It is ours and within its lease.
    pub usable: bool,
    /// A call runs, or may still run.
    pub runs: bool,
    /// A commit or a record of it is under way.
    pub owed: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Locate,
    Write,
    Confirm,
    /// It took too long; nothing has changed.
    GiveUp,
}

impl UnderWay {
    pub fn new(queue: QueueId, request: &ResetOffsets, until: Time) -> Self {
        Self {
            queue,
            id: request.id.clone(),
            to: request.to,
            stage: Stage::Draining { until },
            reset: None,
        }
    }

    /// Goes on.
    pub fn step(&mut self, now: Time, facts: Facts) -> Option<Step> {
        match &mut self.stage {
            Stage::Draining { .. } if facts.usable && !facts.runs && !facts.owed => {
                self.stage = Stage::Locating;
                Some(Step::Locate)
            }
            Stage::Draining { until } => (now >= *until).then_some(Step::GiveUp),
            Stage::Writing { at } if facts.usable && at.is_some_and(|at| now >= at) => {
                *at = None;
                Some(Step::Write)
            }
            Stage::Confirming { at, .. } if at.is_some_and(|at| now >= at) => {
                *at = None;
                Some(Step::Confirm)
            }
            _ => None,
        }
    }

    /// What is to be written is known.
    pub fn located(&mut self, now: Time, reset: Reset) {
        self.reset = Some(reset);
        self.stage = Stage::Writing { at: Some(now) };
    }

    /// Where the record lies in the journal; none if that is not known.
    pub fn written(&mut self, now: Time, offset: Option<u64>) {
        self.stage = match offset {
            Some(offset) => Stage::Confirming {
                offset,
                at: Some(now),
            },
            None => Stage::Writing {
                at: Some(now + JOURNAL_RETRY),
            },
        };
    }

    /// What the journal says after that; none if it could not be read. Returns the reset if it is in force
    /// here. The lanes of a queue that is given away meanwhile do not begin anew: its next owner's do.
    pub fn confirmed(&mut self, now: Time, head: Option<&Head>, leaves: bool) -> Option<Reset> {
        let Stage::Confirming { offset, .. } = self.stage else {
            return None;
        };
        let reset = self.reset.clone()?;
        match head.filter(|head| head.end > offset) {
            Some(head) => {
                let newest = head.newest.as_ref().map(|newest| newest.epoch);
                let ours = newest == Some(reset.generation.epoch) && !leaves;
                self.stage = if ours { Stage::Committing } else { Stage::Lost };
                ours.then_some(reset)
            }
            // It cannot be seen yet.
            None => {
                let at = Some(now + JOURNAL_RETRY);
                self.stage = Stage::Confirming { offset, at };
                None
            }
        }
    }

    /// Whether the lanes have begun anew.
    pub fn is_in_force(&self) -> bool {
        self.stage == Stage::Committing
    }

    /// Whether the record lies in the journal or may come to lie there, and the lanes do not know.
    pub fn is_written(&self) -> bool {
        matches!(
            self.stage,
            Stage::Writing { .. } | Stage::Confirming { .. } | Stage::Lost
        )
    }

    /// Whether nothing of the old position may be committed or written down.
    fn is_frozen(&self) -> bool {
        self.stage == Stage::Locating || self.is_written()
    }

    fn state(&self) -> ResetState {
        match self.stage {
            Stage::Draining { .. } => ResetState::Draining,
            _ => ResetState::Writing,
        }
    }

    fn next(&self, now: Time) -> Option<Time> {
        match &self.stage {
            Stage::Draining { .. } => Some(now + LOOK_EVERY),
            // What is due and not possible waits for a renewal.
            Stage::Writing { at } | Stage::Confirming { at, .. } => {
                at.map(|at| at.max(now + LOOK_EVERY))
            }
            _ => None,
        }
    }
}

/// Why a queue was not reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    pub id: String,
    pub reason: String,
    pub keys: Vec<String>,
}

/// The resets of this executor.
#[derive(Debug, Default)]
pub struct Resets {
    under_way: BTreeMap<Assignment, UnderWay>,
    /// What was refused and not told yet.
    refused: BTreeMap<QueueId, Refusal>,
    waiting: Vec<(ResetOffsets, Reply)>,
    /// Offsets skipped and consumed again since the start.
    pub skipped: u64,
    pub replayed: u64,
}

impl Resets {
    pub fn begin(&mut self, assignment: Assignment, of: UnderWay) {
        self.refused.remove(&of.queue);
        self.under_way.insert(assignment, of);
    }

    pub fn get(&self, assignment: Assignment) -> Option<&UnderWay> {
        self.under_way.get(&assignment)
    }

    pub fn get_mut(&mut self, assignment: Assignment) -> Option<&mut UnderWay> {
        self.under_way.get_mut(&assignment)
    }

    pub fn assignments(&self) -> Vec<Assignment> {
        self.under_way.keys().copied().collect()
    }

    pub fn remove(&mut self, assignment: Assignment) -> Option<UnderWay> {
        self.under_way.remove(&assignment)
    }

    pub fn refuse(&mut self, assignment: Assignment, reason: String, keys: Vec<String>) {
        if let Some(of) = self.under_way.remove(&assignment) {
            let id = of.id;
            self.refused.insert(of.queue, Refusal { id, reason, keys });
        }
    }

    /// What was refused of this request.
    pub fn refusal(&self, queue: &QueueId, id: &str) -> Option<&Refusal> {
        self.refused.get(queue).filter(|of| of.id == id)
    }

    /// Refusals that were told are forgotten: whoever asks again wants it tried again.
    pub fn told(&mut self, report: &ResetReport) {
        let told: BTreeSet<&str> = report.refused().map(|of| of.queue.as_str()).collect();
        self.refused
            .retain(|queue, _| !told.contains(queue.to_string().as_str()));
    }

    /// The id of another request that is under way.
    pub fn other(&self, id: &str) -> Option<&str> {
        let mut ids = self.under_way.values().map(|of| of.id.as_str());
        ids.find(|of| *of != id)
    }

    pub fn is_frozen(&self, assignment: Assignment) -> bool {
        self.get(assignment).is_some_and(UnderWay::is_frozen)
    }

    pub fn is_written(&self, assignment: Assignment) -> bool {
        self.get(assignment).is_some_and(UnderWay::is_written)
    }

    /// Queues of which nothing may be dispatched.
    pub fn suspended(&self) -> impl Iterator<Item = &QueueId> {
        let stopped = self.under_way.values().filter(|of| !of.is_in_force());
        stopped.map(|of| &of.queue)
    }

    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        self.under_way.values().filter_map(|of| of.next(now)).min()
    }

    /// Answers once nothing of the request is under way.
    pub fn wait(&mut self, request: ResetOffsets, reply: Reply) {
        self.waiting.push((request, reply));
    }

    /// Requests whose answer is due.
    pub fn answerable(&mut self) -> Vec<(ResetOffsets, Reply)> {
        let under_way = &self.under_way;
        let is_due = |(request, reply): &mut (ResetOffsets, Reply)| {
            let of_it = |of: &UnderWay| of.id == request.id && concerns(request, &of.queue);
            reply.is_closed() || !under_way.values().any(of_it)
        };
        self.waiting.extract_if(.., is_due).collect()
    }

    /// What has become of a request in a queue that this executor holds, or waits for.
    pub fn of_queue(
        &self,
        id: &str,
        queue: &QueueId,
        assignment: Option<Assignment>,
        last: Option<&Reset>,
    ) -> QueueReset {
        let mut told = QueueReset {
            queue: queue.to_string(),
            ..QueueReset::default()
        };
        if let Some(of) = assignment.and_then(|of| self.get(of)) {
            told.state = of.state();
        } else if let Some(last) = last.filter(|last| last.obeyed(id)) {
            told.state = ResetState::Done;
            if last.requests.first().is_some_and(|of| **of == *id) {
                (told.from, told.position) = (Some(last.from), Some(last.position));
                (told.skipped, told.replayed) = (last.skipped, last.replayed);
            }
        } else if let Some(refusal) = self.refusal(queue, id) {
            told.state = ResetState::Refused;
            told.reason = Some(refusal.reason.clone());
            told.keys.clone_from(&refusal.keys);
        }
        told
    }
}

/// Whether a request is about a queue.
pub fn concerns(request: &ResetOffsets, queue: &QueueId) -> bool {
    let named = request.queue.as_ref();
    queue.topic == Topic::Main && named.is_none_or(|named| *named == queue.to_string())
}

/// Whether a request can be obeyed at all.
pub fn check(request: &ResetOffsets) -> Result<(), ResetError> {
    if !is_id(&request.id) {
        return Err(ResetError::Id(request.id.clone()));
    }
    match (&request.queue, request.to) {
        (Some(queue), _) if queue.parse::<QueueId>().is_err() => {
            Err(ResetError::Queue(queue.clone()))
        }
        (None, ResetTo::Offset(offset)) => Err(ResetError::OffsetOfAll(offset)),
        _ => Ok(()),
    }
}

/// What is to be written: the reset of a queue of which this is finished.
pub fn reset(
    id: &str,
    epoch: Epoch,
    former: Option<&Reset>,
    finished: &Finished,
    located: Located,
) -> Reset {
    let before = former.map(|former| former.generation);
    let number = before.filter(|before| before.epoch == epoch);
    let position = located.position;
    let from = finished.watermark();
    // What has expired is neither skipped nor consumed again.
    let least = from.max(located.min);
    let ranges = || finished.ranges();
    let below: u64 = ranges()
        .map(|range| {
            range
                .end
                .min(position)
                .saturating_sub(range.start.max(least))
        })
        .sum();
    let beyond: u64 = ranges()
        .map(|range| range.end.saturating_sub(range.start.max(position)))
        .sum();
    Reset {
        generation: Generation {
            epoch,
            number: number.map_or(0, |before| before.number + 1),
        },
        begins: true,
        // An earlier reset may not have come that far.
        until: former.map_or(0, |former| former.until).max(located.max),
        from,
        position,
        skipped: position.saturating_sub(least).saturating_sub(below),
        replayed: from.saturating_sub(position) + beyond,
        requests: Reset::requests(id, former),
    }
}

#[cfg(test)]
mod tests;
