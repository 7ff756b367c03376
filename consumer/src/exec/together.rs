//! What is asked again and again of every queue, asked of a broker in one question where a process has many
//! of its queues. Such an answer only ever says that nothing has changed: whatever differs from what is
//! known, or is missing, is asked for by itself before anything follows from it.

use super::commits::{Answer, Due};
use super::ledger::{self, Standing};
use super::start::Starts;
use super::tasks::{self, Event, Events, ToRead};
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

/// Checks what a broker has as committed.
pub async fn verify<S: Source>(source: Arc<S>, (broker, topic): At, due: Vec<Due>, events: Events) {
    let committed = source.committed_of_all(&broker, topic).await;
    let mut differ = Vec::new();
    for due in due {
        if committed.get(&due.queue.id) == Some(&due.offset) {
            let answer = Ok(Answer::Has(due.offset));
            let _ = events.send(Event::Committed { due, answer });
        } else {
            differ.push(due);
        }
    }
    let check = |due| tasks::verify(source.clone(), due, events.clone());
    futures::future::join_all(differ.into_iter().map(check)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

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
