//! What the broker has acknowledged, per queue, and what is to be sent next.
//!
//! Pure. An offset counts as committed only once the broker acknowledged it; whatever is not is sent
//! again at the next interval. Now and then the broker's own view is read and differences are sent
//! again: that repairs a flush lost in a broker's crash and a commit from somebody else.

use crate::lane::Assignment;
use crate::message::QueueId;
use std::collections::BTreeMap;

/// Every how many intervals the broker's view is read.
const VERIFY_EVERY: u32 = 5;

/// One queue whose offsets we commit.
#[derive(Debug)]
pub struct Committed {
    /// The queue.
    pub queue: QueueId,
    /// Highest acknowledged offset that is known to be the broker's.
    pub acknowledged: Option<u64>,
    /// A commit or a check is under way.
    pub under_way: bool,
    since_verified: u32,
}

/// A commit or a check to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub assignment: Assignment,
    pub queue: QueueId,
    pub offset: u64,
    /// Nothing new to commit: read what the broker has.
    pub verify_only: bool,
}

/// How a commit or a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The broker has this offset.
    Has(u64),
    /// Not known.
    Unknown,
}

/// The commits of all queues.
#[derive(Debug, Default)]
pub struct Commits {
    queues: BTreeMap<Assignment, Committed>,
}

impl Commits {
    pub fn assigned(&mut self, assignment: Assignment, queue: QueueId) {
        let committed = Committed {
            queue,
            acknowledged: None,
            under_way: false,
            since_verified: 0,
        };
        self.queues.insert(assignment, committed);
    }

    pub fn dropped(&mut self, assignment: Assignment) {
        self.queues.remove(&assignment);
    }

    pub fn get(&self, assignment: Assignment) -> Option<&Committed> {
        self.queues.get(&assignment)
    }

    /// Whether the broker acknowledged this watermark.
    pub fn is_committed(&self, assignment: Assignment, watermark: u64) -> bool {
        self.queues
            .get(&assignment)
            .is_some_and(|known| known.acknowledged == Some(watermark))
    }

    /// What to send for a queue now, if anything.
    pub fn due(&mut self, assignment: Assignment, watermark: u64) -> Option<Due> {
        let known = self.queues.get_mut(&assignment)?;
        if known.under_way {
            return None;
        }
        let verify_only = known.acknowledged == Some(watermark);
        if verify_only {
            known.since_verified += 1;
            if known.since_verified < VERIFY_EVERY {
                return None;
            }
        }
        known.since_verified = 0;
        known.under_way = true;
        Some(Due {
            assignment,
            queue: known.queue.clone(),
            offset: watermark,
            verify_only,
        })
    }

    /// Takes in an answer. Returns true if the broker turned out to have another offset than it
    /// acknowledged.
    pub fn answered(&mut self, due: &Due, answer: Answer) -> bool {
        let Some(known) = self.queues.get_mut(&due.assignment) else {
            return false;
        };
        known.under_way = false;
        match answer {
            Answer::Has(offset) if offset == due.offset => {
                known.acknowledged = Some(offset);
                false
            }
            Answer::Has(_) => {
                known.acknowledged = None;
                true
            }
            Answer::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Assignment = Assignment(1);

    fn commits() -> Commits {
        let mut commits = Commits::default();
        commits.assigned(ONE, QueueId::new("b", 0));
        commits
    }

    /// confluentinc/parallel-consumer with asynchronous commits; the one-way commits of rocketmq-rust.
    #[test]
    fn a_commit_that_failed_is_counted_as_done() {
        let mut commits = commits();
        let due = commits.due(ONE, 7).unwrap();
        assert_eq!(commits.due(ONE, 7), None, "one at a time");
        commits.answered(&due, Answer::Unknown);
        assert!(!commits.is_committed(ONE, 7));
        let due = commits.due(ONE, 9).unwrap();
        assert_eq!(due.offset, 9);
        commits.answered(&due, Answer::Has(9));
        assert!(commits.is_committed(ONE, 9));
    }

    /// A RocketMQ broker stores any offset, whoever sends it.
    #[test]
    fn offset_goes_backwards_or_a_foreign_client_commits() {
        let mut commits = commits();
        let due = commits.due(ONE, 7).unwrap();
        commits.answered(&due, Answer::Has(7));
        let due = (0..VERIFY_EVERY).find_map(|_| commits.due(ONE, 7)).unwrap();
        assert!(due.verify_only);
        assert!(commits.answered(&due, Answer::Has(3)));
        let due = commits.due(ONE, 7).unwrap();
        assert_eq!((due.offset, due.verify_only), (7, false));
        commits.answered(&due, Answer::Has(7));
        // A watermark that has moved on is what is sent, whatever the broker was made to have.
        assert_eq!(commits.due(ONE, 8).unwrap().offset, 8);
    }
}
