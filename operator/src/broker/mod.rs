//! How far behind a consumer group is, as its brokers report it. A queue whose figures are missing makes
//! the sum unknown: it is never counted as 0.

use keylane_consumer::contract::admin::Stats;
use keylane_consumer::contract::spec::ConsumerSpec;
use keylane_consumer::message::QueueId;
use keylane_consumer::source::rocketmq::RocketmqSource;
use keylane_consumer::source::{Source, SourceError};
use std::collections::BTreeMap;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

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

/// Reads offsets of one consumer's topic and group.
pub struct Broker(RocketmqSource);

impl Broker {
    /// Prepares connections; unreachable brokers show at the first reading.
    pub async fn connect(spec: &ConsumerSpec) -> Result<Self, SourceError> {
        // Not a member of the group: it never sends a heartbeat.
        let id = format!("keylane-operator:{:016x}", rand::random::<u64>());
        RocketmqSource::connect(spec, &id).await.map(Self)
    }

    /// The offsets of every queue, or the first error.
    pub async fn offsets(&self) -> Result<Offsets, SourceError> {
        let read = async {
            let route = self.0.route().await?;
            let mut offsets = Offsets::new();
            for queue in &route.queues {
                let (min, max) = self.0.bounds(queue).await?;
                let committed = self.0.committed(queue).await?;
                offsets.insert(
                    queue.clone(),
                    QueueOffsets {
                        min,
                        max,
                        committed,
                    },
                );
            }
            Ok(offsets)
        };
        tokio::time::timeout(TIMEOUT, read)
            .await
            .unwrap_or_else(|_| {
                Err(SourceError::Unreachable {
                    peer: "the brokers of the topic".to_owned(),
                    what: "for the offsets of all queues",
                    reason: format!("not all answered within {TIMEOUT:?}"),
                })
            })
    }
}

/// How far behind, in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Sum of the end offsets; grows by what arrives.
    pub max_offsets: u64,
    /// Messages after the committed offsets.
    pub messages: u64,
    /// Messages that are not finished.
    pub unfinished: u64,
}

/// The lag of a group. What pods finished beyond the committed offsets is not unfinished.
pub fn lag(offsets: &Offsets, pods: &[Stats]) -> Lag {
    let mut lag = Lag {
        max_offsets: 0,
        messages: 0,
        unfinished: 0,
    };
    for (queue, known) in offsets {
        let committed = known
            .committed
            .map_or(known.min, |committed| committed.max(known.min));
        let reported = pods
            .iter()
            .flat_map(|pod| &pod.queues)
            .find_map(|reported| {
                let same =
                    !reported.retry && *queue.broker == *reported.broker && queue.id == reported.id;
                same.then_some((reported.watermark?, reported.finished_above_watermark))
            });
        lag.max_offsets += known.max;
        lag.messages += known.max.saturating_sub(committed);
        let (watermark, finished_above) = reported.unwrap_or((committed, 0));
        lag.unfinished += known
            .max
            .saturating_sub(watermark.max(committed))
            .saturating_sub(finished_above);
    }
    lag
}

#[cfg(test)]
mod tests {
    use super::*;
    use keylane_consumer::contract::admin::{QueuePhase, QueueStats};

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
                unfinished: 90 + 45
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
                unfinished: 50 + 45
            }
        );
    }
}
