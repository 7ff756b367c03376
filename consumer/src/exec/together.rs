//! What is asked again and again of every queue, asked of a broker in one question where a process has many
//! of its queues. Such an answer only ever says that nothing has changed: whatever differs from what is
//! known, or is missing, is asked for by itself before anything follows from it.

use super::clock::Clock;
use super::commits::{Answer, Due};
use super::ledger::{self, Standing};
use super::start::Starts;
use super::tasks::{self, Event, Events, ToRead};
use crate::lane::Time;
use crate::message::{QueueId, Topic};
use crate::source::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Fewer are asked for one by one.
const MANY: usize = 8;
/// An answer tells of every queue of its broker, also of those of other processes: at least one in this
/// many must be of use.
const ONE_IN: usize = 8;

/// A broker and a topic of it.
pub type At = (Arc<str>, Topic);

/// Those that are worth a question about all queues of their broker, and those that are not.
pub fn split<T>(
    asked: Vec<T>,
    queue: impl Fn(&T) -> &QueueId,
    all: &BTreeSet<QueueId>,
) -> (BTreeMap<At, Vec<T>>, Vec<T>) {
    let mut together: BTreeMap<At, Vec<T>> = BTreeMap::new();
    for one in asked {
        let of = queue(&one);
        let at = (of.broker.clone(), of.topic);
        together.entry(at).or_default().push(one);
    }
    let mut alone = Vec::new();
    together.retain(|(broker, topic), asked| {
        let here = |of: &&QueueId| of.broker == *broker && of.topic == *topic;
        let worth = asked.len() >= MANY && asked.len() * ONE_IN >= all.iter().filter(here).count();
        if !worth {
            alone.append(asked);
        }
        worth
    });
    (together, alone)
}

/// Reads who may run in queues that run here: of those whose journal ends where it was read to, that is known.
pub async fn read_heads<S: Source>(
    source: Arc<S>,
    starts: Arc<Starts<S>>,
    turns: Arc<Semaphore>,
    queues: Arc<BTreeSet<QueueId>>,
    (broker, topic): At,
    to_read: Vec<ToRead>,
    events: Events,
) {
    ledger::until_visible().await;
    let ends = source.ends(&broker, topic).await;
    let mut changed = Vec::new();
    for one in to_read {
        match ends.get(&one.queue.id) {
            Some((min, max)) if one.log.is_whole(*min, *max) => {
                let _ = events.send(Event::Read {
                    queue: one.queue,
                    ticket: one.ticket,
                    standing: Ok(Standing::unchanged(one.log)),
                });
            }
            _ => changed.push(one),
        }
    }
    let read = |one| {
        let (source, starts, turns) = (source.clone(), starts.clone(), turns.clone());
        tasks::read(source, starts, turns, queues.clone(), one, events.clone())
    };
    futures::future::join_all(changed.into_iter().map(read)).await;
}

/// Looks at what a broker has as committed, and commits what is new, while each queue's lease lasts.
pub async fn settle<S: Source>(
    source: Arc<S>,
    clock: Arc<Clock>,
    (broker, topic): At,
    due: Vec<(Due, Time)>,
    events: Events,
) {
    let committed = source.committed_of_all(&broker, topic).await;
    let mut open = Vec::new();
    for (mut due, lease) in due {
        match by_all(committed.get(&due.queue.id).copied(), &due) {
            Some(answer) if due.verify_only => {
                let answer = Ok(answer);
                let _ = events.send(Event::Committed { due, answer });
            }
            told => {
                due.look_for = due.look_for.filter(|_| told.is_none());
                open.push((due, lease));
            }
        }
    }
    let settle = |(due, lease)| {
        let (source, clock) = (source.clone(), clock.clone());
        tasks::settle(source, clock, due, lease, events.clone())
    };
    futures::future::join_all(open.into_iter().map(settle)).await;
}

/// What a queue's answer is by the one about all queues; none if it is to be asked for by itself now.
fn by_all(told: Option<u64>, due: &Due) -> Option<Answer> {
    match told {
        Some(offset) if due.look_for != Some(offset) => None,
        Some(offset) if offset > 0 => Some(Answer::Has(offset)),
        // Nothing was told, or 0, which is also what a queue reads as that was never committed.
        _ if due.alone => None,
        _ => Some(Answer::Unasked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::Assignment;

    #[test]
    fn what_differs_is_asked_for_at_once_and_what_is_not_told_in_its_turn() {
        let due = |offset, alone| Due {
            assignment: Assignment(1),
            queue: QueueId::new("b", 0),
            offset,
            look_for: Some(offset),
            verify_only: true,
            alone,
        };
        for alone in [false, true] {
            assert_eq!(by_all(Some(7), &due(7, alone)), Some(Answer::Has(7)));
            assert_eq!(by_all(Some(0), &due(7, alone)), None, "moved back");
            assert_eq!(by_all(Some(7), &due(0, alone)), None, "moved on");
            let open = (!alone).then_some(Answer::Unasked);
            assert_eq!(by_all(None, &due(7, alone)), open);
            assert_eq!(by_all(Some(0), &due(0, alone)), open);
        }
    }

    #[test]
    fn only_many_queues_of_one_broker_are_asked_for_together() {
        let queues = |broker: &str, number: u32| -> Vec<QueueId> {
            (0..number).map(|id| QueueId::new(broker, id)).collect()
        };
        let all: BTreeSet<QueueId> = [("a", 8), ("b", 7), ("c", 65)]
            .into_iter()
            .flat_map(|(broker, number)| queues(broker, number))
            .collect();
        let asked = [queues("a", 8), queues("b", 7), queues("c", 8)].concat();
        let (together, alone) = split(asked, |queue| queue, &all);
        let together: Vec<_> = together.into_iter().collect();
        assert_eq!(together, [((Arc::from("a"), Topic::Main), queues("a", 8))]);
        assert_eq!(alone, [queues("b", 7), queues("c", 8)].concat());
    }
}
