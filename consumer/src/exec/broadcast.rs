//! Queues in consumption Broadcasting: this process has all of them, whatever others do.
//!
//! Pure. No locks and no commits: a process begins every queue at `startFrom` and forgets how far it was
//! when it ends. A queue that appears later begins at `startFrom` too.

use crate::contract::admin::QueuePhase;
use crate::lane::{Assignment, Time};
use crate::message::QueueId;
use crate::ownership::{Action, Held, Ticket};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const START_RETRY: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Finds where to begin; asks (again) at this time.
    Starting(Option<Time>),
    Owned(Assignment),
    Releasing(Assignment),
}

/// The queues and how far each is.
#[derive(Debug, Default)]
pub struct Broadcast {
    queues: BTreeMap<QueueId, Phase>,
    assignments: u64,
    actions: Vec<Action>,
}

impl Broadcast {
    pub fn allocate(&mut self, now: Time, queues: &BTreeSet<QueueId>) {
        for queue in queues {
            self.queues
                .entry(queue.clone())
                .or_insert(Phase::Starting(Some(now)));
        }
        self.queues.retain(|queue, phase| {
            if queues.contains(queue) {
                return true;
            }
            if let Phase::Owned(assignment) = *phase {
                *phase = Phase::Releasing(assignment);
                self.actions.push(Action::Release { assignment });
            }
            matches!(phase, Phase::Releasing(_))
        });
    }

    pub fn start_found(&mut self, queue: &QueueId) {
        if let Some(phase @ Phase::Starting(None)) = self.queues.get_mut(queue) {
            self.assignments += 1;
            let assignment = Assignment(self.assignments);
            *phase = Phase::Owned(assignment);
            self.actions.push(Action::Assign {
                queue: queue.clone(),
                assignment,
                lease: Time::MAX,
                held: Held::default(),
            });
        }
    }

    pub fn start_failed(&mut self, now: Time, queue: &QueueId) {
        if let Some(Phase::Starting(next)) = self.queues.get_mut(queue) {
            *next = Some(now + START_RETRY);
        }
    }

    pub fn released(&mut self, queue: &QueueId) {
        if let Some(Phase::Releasing(assignment)) = self.queues.get(queue).copied() {
            self.queues.remove(queue);
            self.actions.push(Action::Drop {
                queue: queue.clone(),
                assignment,
                released: true,
            });
        }
    }

    pub fn poll(&mut self, now: Time) -> Vec<Action> {
        for (queue, phase) in &mut self.queues {
            if let Phase::Starting(next) = phase
                && next.is_some_and(|at| now >= at)
            {
                *next = None;
                self.actions.push(Action::Read {
                    queue: queue.clone(),
                    ticket: Ticket::default(),
                });
            }
        }
        std::mem::take(&mut self.actions)
    }

    pub fn next_deadline(&self) -> Option<Time> {
        let next = self.queues.values().filter_map(|phase| match phase {
            Phase::Starting(next) => *next,
            _ => None,
        });
        next.min()
    }

    pub fn phases(&self) -> impl Iterator<Item = (QueueId, QueuePhase, Option<Assignment>)> + '_ {
        self.queues.iter().map(|(queue, phase)| {
            let (shown, assignment) = match *phase {
                Phase::Starting(_) => (QueuePhase::Waiting, None),
                Phase::Owned(assignment) => (QueuePhase::Owned, Some(assignment)),
                Phase::Releasing(assignment) => (QueuePhase::Releasing, Some(assignment)),
            };
            (queue.clone(), shown, assignment)
        })
    }

    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(1);

    #[test]
    fn every_queue_is_begun_without_a_lock_and_given_up_without_one() {
        let mut broadcast = Broadcast::default();
        let queue = QueueId::new("b", 0);
        broadcast.allocate(NOW, &BTreeSet::from([queue.clone()]));
        let find = Action::Read {
            queue: queue.clone(),
            ticket: Ticket::default(),
        };
        assert_eq!(broadcast.poll(NOW), std::slice::from_ref(&find));
        assert_eq!(broadcast.poll(NOW), []);
        broadcast.start_failed(NOW, &queue);
        assert_eq!(broadcast.next_deadline(), Some(NOW + START_RETRY));
        assert_eq!(broadcast.poll(NOW + START_RETRY), [find]);
        broadcast.start_found(&queue);
        let assignment = Assignment(1);
        assert_eq!(
            broadcast.poll(NOW),
            [Action::Assign {
                queue: queue.clone(),
                assignment,
                lease: Time::MAX,
                held: Held::default(),
            }]
        );
        broadcast.allocate(NOW, &BTreeSet::new());
        assert_eq!(broadcast.poll(NOW), [Action::Release { assignment }]);
        assert!(!broadcast.is_empty());
        broadcast.released(&queue);
        let released = true;
        let drop = Action::Drop {
            queue,
            assignment,
            released,
        };
        assert_eq!(broadcast.poll(NOW), [drop]);
        assert!(broadcast.is_empty());
    }
}
