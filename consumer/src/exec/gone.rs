//! Queues that the topic has no more, because somebody made it smaller, with messages nobody consumes.
//!
//! The broker keeps them and what was committed of them, and tells when asked for their numbers. So they
//! are found by whoever looks, however long ago the topic was made smaller.

use super::tasks::{Event, Events};
use crate::lane::Time;
use crate::message::{QueueId, Topic};
use crate::source::{Source, SourceError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Messages that are not consumed, by queue.
pub type Stranded = BTreeMap<QueueId, u64>;

/// What is known of the queues that are gone. One member looks at each broker: whose the broker's first
/// queue is.
#[derive(Debug, Default)]
pub struct Gone {
    brokers: BTreeMap<Arc<str>, Stranded>,
    looked: Option<(Time, Arc<BTreeSet<QueueId>>)>,
}

impl Gone {
    /// Brokers to look at now, each with the number of queues it has.
    pub fn due(
        &mut self,
        now: Time,
        queues: &Arc<BTreeSet<QueueId>>,
        ours: &BTreeSet<QueueId>,
    ) -> Vec<(Arc<str>, u32)> {
        let looks = |broker: &Arc<str>| ours.contains(&QueueId::new(broker.clone(), 0));
        self.brokers.retain(|broker, _| looks(broker));
        let known =
            |(at, of): &(Time, Arc<BTreeSet<QueueId>>)| now < *at + LOOK_EVERY && of == queues;
        if self.looked.as_ref().is_some_and(known) {
            return Vec::new();
        }
        self.looked = Some((now, queues.clone()));
        let mut counts: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        let main = queues.iter().filter(|queue| queue.topic == Topic::Main);
        for queue in main.filter(|queue| looks(&queue.broker)) {
            let count = counts.entry(queue.broker.clone()).or_default();
            *count = (*count).max(queue.id + 1);
        }
        counts.into_iter().collect()
    }

    /// What was found at a broker. Returns those that are new.
    pub fn found(&mut self, broker: Arc<str>, stranded: Stranded) -> Stranded {
        let before = self.brokers.insert(broker.clone(), stranded);
        let before = before.unwrap_or_default();
        let now = self.brokers[&broker].iter();
        now.filter(|(queue, _)| !before.contains_key(queue))
            .map(|(queue, count)| (queue.clone(), *count))
            .collect()
    }

    /// All of them.
    pub fn stranded(&self) -> impl Iterator<Item = (&QueueId, u64)> {
        let all = self.brokers.values().flatten();
        all.map(|(queue, count)| (queue, *count))
    }
}

/// Asks a broker for the queues from this number on.
pub async fn look<S: Source>(source: Arc<S>, broker: Arc<str>, from: u32, events: Events) {
    let found = find(&*source, &broker, from).await;
    let _ = events.send(Event::Gone { broker, found });
}

async fn find<S: Source>(
    source: &S,
    broker: &Arc<str>,
    from: u32,
) -> Result<Stranded, SourceError> {
    let mut stranded = Stranded::new();
    for id in from.. {
        let queue = QueueId::new(broker.clone(), id);
        // Every queue that was ever consumed has an offset.
        let Some(committed) = source.committed(&queue).await? else {
            break;
        };
        let (min, max) = source.bounds(&queue).await?;
        let left = max.saturating_sub(committed.max(min));
        if left > 0 {
            stranded.insert(queue, left);
        }
    }
    Ok(stranded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(of: &[(&str, u32)]) -> BTreeSet<QueueId> {
        let each = of.iter();
        each.flat_map(|(broker, count)| (0..*count).map(|id| QueueId::new(*broker, id)))
            .collect()
    }

    #[test]
    fn one_member_looks_at_each_broker_now_and_then_and_when_the_topic_changes() {
        let mut gone = Gone::default();
        let all = Arc::new(queues(&[("a", 4), ("b", 2)]));
        let ours = BTreeSet::from([QueueId::new("a", 0), QueueId::new("b", 1)]);
        let second = Duration::from_secs(1);
        assert_eq!(gone.due(second, &all, &ours), [("a".into(), 4)]);
        assert_eq!(gone.due(second * 2, &all, &ours), []);
        let fewer = Arc::new(queues(&[("a", 2), ("b", 2)]));
        assert_eq!(gone.due(second * 3, &fewer, &ours), [("a".into(), 2)]);
        assert_eq!(gone.due(second * 33, &fewer, &ours), [("a".into(), 2)]);
        let stranded = Stranded::from([(QueueId::new("a", 3), 7)]);
        assert_eq!(gone.found("a".into(), stranded.clone()), stranded);
        assert_eq!(gone.found("a".into(), stranded), Stranded::new());
        assert_eq!(gone.stranded().count(), 1);
        // Whoever has the first queue now says it.
        gone.due(second * 34, &fewer, &BTreeSet::new());
        assert_eq!(gone.stranded().count(), 0);
    }
}
