//! How far behind a consumer group is, as its brokers report it. A queue whose figures are missing makes
//! the sum unknown: it is never counted as 0.

pub mod groups;
pub mod letters;
mod lines;
mod secrets;

pub use lines::Lines;
pub use secrets::SecretError;

use keylane_consumer::contract::admin::{QueuePhase, QueueStats, Stats};
use keylane_consumer::contract::spec::ConsumerSpec;
use keylane_consumer::message::{QueueId, Topic};
use keylane_consumer::source::rocketmq::{Access, RocketmqSource};
use keylane_consumer::source::{Source, SourceError};
use kube::Client;
use lines::Line;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::instrument;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Secrets are not watched: that would need the right to list everybody's. They are read this often, and at
/// once when brokers refuse what they said before.
const SECRETS_EVERY: Duration = Duration::from_secs(60);

/// Offsets of one queue, as the broker has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOffsets {
    /// Oldest message kept.
    pub min: u64,
    /// Offset of the next message to be stored.
    pub max: u64,
    /// Committed by the group; none if it never did.
    pub committed: Option<u64>,
}

/// Offsets of every queue of the topic.
pub type Offsets = BTreeMap<QueueId, QueueOffsets>;

/// Why brokers cannot be asked, or do not answer.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// They do not answer.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What is to let us in does not.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// What lets us into the brokers of a consumer: what its Secrets hold now.
pub async fn access(
    client: &Client,
    namespace: &str,
    spec: &ConsumerSpec,
) -> Result<Access, SecretError> {
    let parts = secrets::read(client, namespace, &spec.rocketmq).await?;
    Ok(Access::new(&spec.rocketmq, parts)?)
}

/// Reads offsets of one consumer's topic and group.
pub struct Broker {
    line: Arc<Line>,
    source: RocketmqSource,
}

impl Broker {
    /// Over one of the lines that consumers share; unreachable brokers show at the first reading.
    pub async fn connect(
        lines: &Lines,
        client: &Client,
        namespace: &str,
        spec: &ConsumerSpec,
    ) -> Result<Self, BrokerError> {
        let line = lines.line(client, namespace, spec).await?;
        let source = line.source(spec);
        Ok(Self { line, source })
    }

    /// The offsets of every queue, with what the consumer's Secrets hold. A queue whose broker does not say is
    /// there without; an error if none of them is known. Secrets that cannot be used any more are told of, and
    /// brokers asked with what they said before.
    #[instrument(name = "offsets", level = "debug", skip_all, fields(topic = spec.topic, otel.kind = "client"))]
    pub async fn offsets(
        &self,
        client: &Client,
        namespace: &str,
        spec: &ConsumerSpec,
    ) -> Result<Reading, BrokerError> {
        let refreshed = self.line.refresh(client, namespace, spec).await;
        let mut reading = self.ask().await;
        let refused = match &reading {
            Ok(reading) => reading.error.as_ref(),
            Err(error) => Some(error),
        };
        if matches!(
            refused,
            Some(SourceError::Denied { .. } | SourceError::Untrusted { .. })
        ) {
            self.line.refused();
        }
        if let (Ok(reading), Err(problem)) = (&mut reading, refreshed) {
            reading.secret = Some(problem);
        }
        Ok(reading?)
    }

    /// Requests since this was last asked, of all consumers on the same line.
    pub fn take_requests(&self) -> u64 {
        self.source.take_requests()
    }

    async fn ask(&self) -> Result<Reading, SourceError> {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        let late = || SourceError::Unreachable {
            peer: "the brokers of the topic".to_owned(),
            what: "for the offsets of all queues",
            reason: format!("not all answered within {TIMEOUT:?}"),
        };
        let route = tokio::time::timeout_at(deadline, self.source.route());
        let route = route.await.unwrap_or_else(|_| Err(late()))?;
        let mut reading = Reading::default();
        let mut told = BTreeMap::new();
        for broker in route.masters.keys() {
            let standings = tokio::time::timeout_at(deadline, self.source.standings(broker));
            told.insert(broker.clone(), standings.await.unwrap_or_default());
        }
        for queue in &route.queues {
            let told = told
                .get(&queue.broker)
                .filter(|_| queue.topic == Topic::Main);
            let read = async {
                if let Some(standing) = told.and_then(|told| told.get(&queue.id)) {
                    return Ok(QueueOffsets {
                        min: standing.min,
                        max: standing.max,
                        committed: standing.committed,
                    });
                }
                let (min, max) = self.source.bounds(queue).await?;
                let committed = self.source.committed(queue).await?;
                Ok(QueueOffsets {
                    min,
                    max,
                    committed,
                })
            };
            let read = tokio::time::timeout_at(deadline, read).await;
            match read.unwrap_or_else(|_| Err(late())) {
                Ok(offsets) => {
                    reading.queues.insert(queue.clone(), Some(offsets));
                }
                Err(error) => {
                    reading.queues.insert(queue.clone(), None);
                    reading.error.get_or_insert(error);
                }
            }
        }
        if reading.queues.values().all(Option::is_none)
            && let Some(error) = reading.error
        {
            return Err(error);
        }
        Ok(reading)
    }
}

/// What brokers said of the queues of a topic.
#[derive(Debug, Default)]
pub struct Reading {
    /// Every queue of the route; none where its broker did not say.
    pub queues: BTreeMap<QueueId, Option<QueueOffsets>>,
    /// Why the first of those is missing.
    pub error: Option<SourceError>,
    /// Why the Secrets that are named cannot be used as they are now.
    pub secret: Option<SecretError>,
}

impl Reading {
    /// The offsets, if all are known.
    pub fn complete(&self) -> Option<Offsets> {
        let queues = self.queues.iter();
        queues
            .map(|(id, offsets)| Some((id.clone(), (*offsets)?)))
            .collect()
    }
}

/// How far behind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lag {
    /// Sum of the end offsets; grows by what arrives.
    pub max_offsets: u64,
    /// Messages after the committed offsets.
    pub messages: u64,
    /// Messages that are not finished.
    pub unfinished: u64,
    /// Seconds since the broker stored the oldest of them; none if that of some queue is not known.
    pub oldest: Option<f64>,
}

/// Messages beyond what was pulled that may have come since the pod was asked.
const JUST_CAME: u64 = 64;

/// What pods know of each queue of the topic: the offset below which everything is finished, and how many are above it.
pub fn reported(pods: &[Stats]) -> BTreeMap<QueueId, (u64, u64)> {
    let queues = pods.iter().flat_map(|pod| &pod.queues);
    queues
        .filter(|queue| !queue.retry)
        .filter_map(|queue| {
            let known = (queue.watermark?, queue.finished_above_watermark);
            Some((QueueId::new(queue.broker.as_str(), queue.id), known))
        })
        .collect()
}

/// Messages of a queue that are not finished, with what its pod says if one does.
pub fn unfinished(known: &QueueOffsets, reported: Option<&(u64, u64)>) -> u64 {
    let committed = known.start();
    let (watermark, finished_above) = reported.copied().unwrap_or((committed, 0));
    let after = known.max.saturating_sub(watermark.max(committed));
    after.saturating_sub(finished_above)
}

/// The lag of a group. What pods finished beyond the committed offsets is not unfinished.
pub fn lag(offsets: &Offsets, pods: &[Stats]) -> Lag {
    let reported = reported(pods);
    let owned = owned(pods);
    let mut lag = Lag {
        max_offsets: 0,
        messages: 0,
        unfinished: 0,
        oldest: Some(0.0),
    };
    for (queue, known) in offsets {
        let left = unfinished(known, reported.get(queue));
        lag.max_offsets += known.max;
        lag.messages += known.max.saturating_sub(known.start());
        lag.unfinished += left;
        if left > 0 {
            let here = owned.get(queue).and_then(|queue| oldest(known, queue));
            lag.oldest = lag.oldest.zip(here).map(|(one, other)| one.max(other));
        }
    }
    lag
}

/// The queues of the topic that are dispatched from, as their pods see them.
fn owned(pods: &[Stats]) -> BTreeMap<QueueId, &QueueStats> {
    let queues = pods.iter().flat_map(|pod| &pod.queues);
    let owned = queues.filter(|queue| !queue.retry && queue.phase == QueuePhase::Owned);
    owned
        .map(|queue| (QueueId::new(queue.broker.as_str(), queue.id), queue))
        .collect()
}

/// Seconds since the broker stored the oldest message of a queue that is not finished. A pod knows it of
/// messages in memory. With none there the queue holds what has only just come, if its pod keeps up.
fn oldest(known: &QueueOffsets, queue: &QueueStats) -> Option<f64> {
    queue.oldest_age_seconds.or_else(|| {
        let beyond = known.max.saturating_sub(queue.pulled?);
        let keeps_up = queue.finished > 0 && !queue.suspended && !queue.stopped_by_limit;
        (keeps_up && beyond <= JUST_CAME).then_some(0.0)
    })
}

impl QueueOffsets {
    /// The first message the group has not committed.
    fn start(&self) -> u64 {
        self.committed
            .map_or(self.min, |committed| committed.max(self.min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(queues: Vec<QueueStats>) -> Stats {
        Stats {
            incarnation: "i".into(),
            queues,
            ..Stats::default()
        }
    }

    fn queue(id: u32, watermark: Option<u64>, finished_above_watermark: u64) -> QueueStats {
        let (broker, phase) = ("b".to_owned(), QueuePhase::Owned);
        QueueStats {
            broker,
            id,
            phase,
            watermark,
            finished_above_watermark,
            ..QueueStats::default()
        }
    }

    #[test]
    fn what_pods_finished_is_not_unfinished() {
        let offsets = Offsets::from([
            (
                QueueId::new("b", 0),
                QueueOffsets {
                    min: 0,
                    max: 100,
                    committed: Some(10),
                },
            ),
            (
                QueueId::new("b", 1),
                QueueOffsets {
                    min: 5,
                    max: 50,
                    committed: None,
                },
            ),
        ]);
        let nobody = lag(&offsets, &[]);
        assert_eq!(
            nobody,
            Lag {
                max_offsets: 150,
                messages: 90 + 45,
                unfinished: 90 + 45,
                oldest: None,
            }
        );
        let owned = lag(
            &offsets,
            &[pod(vec![queue(0, Some(20), 30), queue(1, None, 0)])],
        );
        assert_eq!(
            owned,
            Lag {
                max_offsets: 150,
                messages: 135,
                unfinished: 50 + 45,
                oldest: None,
            }
        );
    }

    #[test]
    fn the_oldest_message_is_as_old_as_pods_say_and_unknown_where_one_does_not() {
        let of = |id, oldest_age_seconds| QueueStats {
            oldest_age_seconds,
            pulled: Some(60),
            finished: 1,
            ..queue(id, Some(50), 0)
        };
        let known = |max| QueueOffsets {
            min: 0,
            max,
            committed: Some(40),
        };
        let offsets = |max| {
            let queues = [(0, 100), (1, max)];
            let queues = queues.map(|(id, max)| (QueueId::new("b", id), known(max)));
            Offsets::from(queues)
        };
        let age = |max, queues| lag(&offsets(max), &[pod(queues)]).oldest;
        assert_eq!(
            age(100, vec![of(0, Some(3.0)), of(1, Some(7.5))]),
            Some(7.5)
        );
        // Nothing of it in memory: what is there has just come, or nobody has pulled it yet.
        assert_eq!(age(62, vec![of(0, Some(3.0)), of(1, None)]), Some(3.0));
        assert_eq!(age(6_200, vec![of(0, Some(3.0)), of(1, None)]), None);
        let suspended = QueueStats {
            suspended: true,
            ..of(1, None)
        };
        assert_eq!(age(62, vec![of(0, Some(3.0)), suspended]), None);
        // Nobody dispatches from it; nothing is left in it.
        assert_eq!(age(100, vec![of(0, Some(3.0))]), None);
        assert_eq!(age(40, vec![of(0, Some(3.0))]), Some(3.0));
    }
}
