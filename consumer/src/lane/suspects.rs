//! Messages that may be what killed their handler: they were in flight when its connection was lost.
//!
//! Promises: suspects of all queues run one at a time, so that the one that kills is found; each runs only
//! after its failed attempts were written to the journal, so that a message that takes this process down
//! with its handler uses up its attempts all the same.
//!
//! Invariants: `suspects` of a queue has the first messages of lanes whose head is a suspect, and those of
//! former owners that were not called here yet; a lane in `unrecorded` has a head that is a suspect and not
//! recorded.

use super::executor::LaneExecutor;
use super::store::State;
use super::{Assignment, Output};

impl LaneExecutor {
    /// Failed attempts of the suspects of a queue, by offset.
    pub fn suspects(&self, assignment: Assignment) -> Vec<(u64, u32)> {
        let slot = self.slot(assignment);
        let suspects = slot.map(|slot| &self.queues[slot].suspects);
        let each = suspects.into_iter().flatten();
        each.map(|(offset, attempts)| (*offset, *attempts))
            .collect()
    }

    /// Whether a suspect of a queue waits for the journal.
    pub fn is_unrecorded(&self, assignment: Assignment) -> bool {
        let slot = self.slot(assignment);
        slot.is_some_and(|slot| !self.queues[slot].unrecorded.is_empty())
    }

    /// See [`super::Input::Suspects`].
    pub(super) fn inherit_suspects(&mut self, assignment: Assignment, suspects: Vec<(u64, u32)>) {
        if let Some(slot) = self.slot(assignment) {
            let queue = &mut self.queues[slot];
            let unfinished = suspects.into_iter();
            let unfinished = unfinished.filter(|(offset, _)| !queue.finished.contains(*offset));
            queue.suspects.extend(unfinished);
        }
    }

    /// The first message of a lane failed so often as a suspect; none if it is none any more.
    pub(super) fn suspect(&mut self, slot: u32, lane: u32, attempts: Option<u32>) {
        let suspects = &mut self.queues[slot].suspects;
        if attempts.is_none() && suspects.is_empty() {
            return;
        }
        let offset = self.store.first(lane).offset;
        match attempts {
            Some(attempts) => suspects.insert(offset, attempts),
            None => suspects.remove(&offset),
        };
    }

    /// Makes a head a suspect that was one of a former owner's. Returns false if that used up its attempts:
    /// it is not called now.
    pub(super) fn recognise_suspect(&mut self, slot: u32, lane: u32, head: u32) -> bool {
        if self.queues[slot].suspects.is_empty() || self.store.heads[head].attempts > 0 {
            return true;
        }
        let offset = self.store.first(lane).offset;
        let Some(attempts) = self.queues[slot].suspects.get(&offset) else {
            return true;
        };
        let of = &mut self.store.heads[head];
        (of.attempts, of.suspect) = (*attempts, true);
        of.first_failed = Some(self.now);
        of.error = Some("a former owner lost its calls".into());
        let used_up = *attempts >= self.settings.retry.max_attempts;
        if used_up {
            let at = self.decide(slot, lane, head, None, false);
            self.wait(head, at);
        }
        !used_up
    }

    /// Whether a suspect can be called now; if not its lane waits in the line for what it needs.
    pub(super) fn may_suspect_run(&mut self, slot: u32, lane: u32, head: u32) -> bool {
        let queue = &mut self.queues[slot];
        if !self.store.heads[head].recorded {
            let assignment = queue.assignment;
            self.store.join_line(queue, lane, State::Unrecorded);
            self.outputs.push_back(Output::Record { assignment });
            return false;
        }
        if std::mem::replace(&mut self.suspect_runs, true) {
            self.store.join_line(queue, lane, State::Suspect);
            return false;
        }
        true
    }

    /// See [`super::Input::Recorded`].
    pub(super) fn recorded(&mut self, assignment: Assignment, suspects: &[(u64, u32)]) {
        let Some(slot) = self.slot(assignment) else {
            return;
        };
        let waiting: Vec<u32> = {
            let queue = &self.queues[slot];
            queue.unrecorded.iter(&self.store.lanes).collect()
        };
        for lane in waiting {
            let offset = self.store.first(lane).offset;
            let head = self.store.lanes[lane].head;
            let of = &mut self.store.heads[head];
            if suspects.contains(&(offset, of.attempts)) {
                of.recorded = true;
                self.store.leave_line(&mut self.queues[slot], lane);
                self.make_ready(lane);
            }
        }
    }

    /// Lets a suspect have its turn that had to wait for another.
    pub(super) fn next_suspect(&mut self) {
        if self.suspect_runs {
            return;
        }
        if let Some(lane) = self.store.suspects.first() {
            let slot = self.store.lanes[lane].queue;
            self.store.leave_line(&mut self.queues[slot], lane);
            self.make_ready(lane);
        }
    }
}
