//! What the broker has acknowledged, per queue, and what is to be sent next.
//!
//! Pure. An offset counts as committed only once the broker acknowledged it; whatever is not is sent
//! again at the next interval. At each interval the broker's own view is read, before something new is sent
//! too, and differences are reported and sent again: that repairs a flush lost in a broker's crash and a
//! commit from somebody else.

use crate::lane::Assignment;
use crate::message::QueueId;
use std::collections::BTreeMap;

/// Where one answer about many queues says nothing of one, that one is asked for by itself at every so
/// many checks: a thousand questions at each interval would cost more than all other waiting.
const ALONE_EVERY: u64 = 5;

/// One queue whose offsets we commit.
#[derive(Debug)]
pub struct Committed {
    /// The queue.
    pub queue: QueueId,
    /// Highest acknowledged offset that is known to be the broker's.
    pub acknowledged: Option<u64>,
    /// What the broker has unless somebody else changed it: not known while a commit may have arrived or not.
    has: Option<u64>,
    /// A commit or a check is under way.
    pub under_way: bool,
    checks: u64,
}

/// A commit or a check to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub assignment: Assignment,
    pub queue: QueueId,
    pub offset: u64,
    /// It is time to look whether the broker has this, which it should have until then.
    pub look_for: Option<u64>,
    /// Nothing new to commit: read what the broker has.
    pub verify_only: bool,
    /// It is the turn of this queue to be asked for by itself, if that cannot be known otherwise.
    pub alone: bool,
}

/// How a commit or a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The broker has this offset.
    Has(u64),
    /// Not known.
    Unknown,
    /// Nobody asked: it was not the turn of this queue.
    Unasked,
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
            has: None,
            under_way: false,
            // So that not all have their turn at once.
            checks: assignment.0,
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

    /// What to send for a queue now, if anything. `check`: it is time to read what the broker has.
    pub fn due(&mut self, assignment: Assignment, watermark: u64, check: bool) -> Option<Due> {
        let known = self.queues.get_mut(&assignment)?;
        if known.under_way {
            return None;
        }
        let verify_only = known.acknowledged == Some(watermark);
        if verify_only && !check {
            return None;
        }
        known.checks += u64::from(check);
        known.under_way = true;
        Some(Due {
            assignment,
            queue: known.queue.clone(),
            offset: watermark,
            look_for: known.has.filter(|_| check),
            verify_only,
            alone: known.checks.is_multiple_of(ALONE_EVERY),
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
                known.has = Some(offset);
                false
            }
            Answer::Has(_) => {
                known.acknowledged = None;
                known.has = None;
                true
            }
            Answer::Unknown => {
                if !due.verify_only {
                    known.has = None;
                }
                false
            }
            Answer::Unasked => false,
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
        let due = commits.due(ONE, 7, false).unwrap();
        assert_eq!(commits.due(ONE, 7, true), None, "one at a time");
        commits.answered(&due, Answer::Unknown);
        assert!(!commits.is_committed(ONE, 7));
        let due = commits.due(ONE, 9, false).unwrap();
        assert_eq!(due.offset, 9);
        commits.answered(&due, Answer::Has(9));
        assert!(commits.is_committed(ONE, 9));
    }

    /// A RocketMQ broker stores any offset, whoever sends it.
    #[test]
    fn offset_goes_backwards_or_a_foreign_client_commits() {
        let mut commits = commits();
        let due = commits.due(ONE, 7, false).unwrap();
        commits.answered(&due, Answer::Has(7));
        assert_eq!(commits.due(ONE, 7, false), None, "it is not time to look");
        let due = commits.due(ONE, 7, true).unwrap();
        assert!(due.verify_only);
        assert!(commits.answered(&due, Answer::Has(3)));
        assert!(!commits.is_committed(ONE, 7));
        let due = commits.due(ONE, 7, false).unwrap();
        assert_eq!((due.offset, due.verify_only), (7, false));
        commits.answered(&due, Answer::Has(7));
    }

    /// While something new is committed at each interval, too.
    #[test]
    fn the_broker_is_looked_at_before_it_is_sent_something_new() {
        let mut commits = commits();
        let first = commits.due(ONE, 7, true).unwrap();
        assert_eq!(first.look_for, None, "nothing is known of it");
        commits.answered(&first, Answer::Has(7));
        let between = commits.due(ONE, 8, false).unwrap();
        assert_eq!(between.look_for, None, "it is not time to look");
        commits.answered(&between, Answer::Has(8));
        let moved = commits.due(ONE, 9, true).unwrap();
        assert_eq!((moved.offset, moved.look_for), (9, Some(8)));
        assert!(commits.answered(&moved, Answer::Has(3)));
        let lost = commits.due(ONE, 9, false).unwrap();
        assert_eq!((lost.offset, lost.look_for), (9, None));
        // Whether it arrived is not known, so that neither 8 nor 9 is somebody else's.
        commits.answered(&lost, Answer::Unknown);
        let next = commits.due(ONE, 10, true).unwrap();
        assert_eq!((next.offset, next.look_for), (10, None));
    }

    #[test]
    fn a_queue_is_checked_at_each_interval_and_queues_take_turns_at_being_asked_for_alone() {
        let mut commits = Commits::default();
        let all = (0..ALONE_EVERY).map(Assignment);
        for one in all.clone() {
            commits.assigned(one, QueueId::new("b", one.0 as u32));
            let due = commits.due(one, 7, false).unwrap();
            commits.answered(&due, Answer::Has(7));
        }
        for _ in 0..2 * ALONE_EVERY {
            let mut alone = 0;
            for one in all.clone() {
                let due = commits.due(one, 7, true).unwrap();
                alone += u32::from(due.alone);
                assert!(!commits.answered(&due, Answer::Unasked));
                assert!(commits.is_committed(one, 7));
            }
            assert_eq!(alone, 1);
        }
    }
}
