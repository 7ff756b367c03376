//! A broker that is made up: a topic whose messages are made as they are pulled.

use bytes::Bytes;
use keylane_consumer::journal::Witness;
use keylane_consumer::message::{self, Message, Properties, QueueId, Text};
use keylane_consumer::source::journal::{Journal, Records};
use keylane_consumer::source::{Commit, Pulled, Route, Source, SourceError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

const NAME: &str = "b";

/// What the broker holds: the same number of messages in each queue, of keys in turn.
pub struct Topic {
    queues: u32,
    /// Properties of a message of each key.
    properties: Vec<Properties>,
    end: AtomicU64,
    arrived: Notify,
}

impl Topic {
    pub fn new(queues: u32, keys: u64, messages: u64) -> Arc<Self> {
        let properties = |key| {
            let key = format!("order-{key:08}");
            let pairs = [
                ("__SHARDINGKEY", key.as_str()),
                ("KEYS", key.as_str()),
                ("UNIQ_KEY", "7F000001000018B4AAC20000000000FF"),
            ];
            pairs.into_iter().collect()
        };
        Arc::new(Self {
            queues,
            properties: (0..keys).map(properties).collect(),
            end: AtomicU64::new(messages),
            arrived: Notify::new(),
        })
    }

    /// More messages arrive in every queue.
    pub fn add(&self, messages: u64) {
        self.end.fetch_add(messages, Ordering::SeqCst);
        self.arrived.notify_waiters();
    }

    fn messages(&self, queue: u32, from: u64, to: u64) -> Vec<Message> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_millis() as i64;
        // The keys of a queue are its own.
        let of_queue = (self.properties.len() as u64).div_ceil(u64::from(self.queues));
        let message = |offset: u64| {
            let pick = (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % of_queue;
            let key = (pick * u64::from(self.queues) + u64::from(queue)) as usize;
            Message {
                offset,
                born_at_ms: now,
                stored_at_ms: now,
                id: Text::from_static("7F000001000018B4AAC20000000000FF"),
                properties: self.properties[key % self.properties.len()].clone(),
                body: Bytes::from_static(b"{}"),
                ..Message::default()
            }
        };
        (from..to).map(message).collect()
    }
}

/// The broker of a topic.
pub struct Broker(pub Arc<Topic>);

impl Source for Broker {
    async fn route(&self) -> Result<Route, SourceError> {
        let queues = (0..self.0.queues).map(|id| QueueId::new(NAME, id));
        Ok(Route {
            masters: BTreeMap::from([(Arc::from(NAME), "b:1".to_owned())]),
            queues: queues.collect(),
        })
    }

    async fn heartbeat(&self, _: &str) -> Result<(), SourceError> {
        Ok(())
    }

    async fn members(&self, _: &str) -> Result<BTreeSet<String>, SourceError> {
        Ok(BTreeSet::new())
    }

    async fn retire(&self, _: &str) -> Result<(), SourceError> {
        Ok(())
    }

    async fn started_at(&self, _: &str) -> Option<u64> {
        None
    }

    async fn leave(&self, _: &str) -> Result<(), SourceError> {
        Ok(())
    }

    async fn lock(
        &self,
        _: &str,
        queues: &BTreeSet<QueueId>,
    ) -> Result<BTreeSet<QueueId>, SourceError> {
        Ok(queues.clone())
    }

    async fn unlock(&self, _: &str, _: &BTreeSet<QueueId>) -> Result<(), SourceError> {
        Ok(())
    }

    async fn committed(&self, _: &QueueId) -> Result<Option<u64>, SourceError> {
        Ok(None)
    }

    async fn committed_of_all(&self, _: &str, _: message::Topic) -> BTreeMap<u32, u64> {
        BTreeMap::new()
    }

    async fn commit(&self, _: &QueueId, _: u64) -> Result<Commit, SourceError> {
        Ok(Commit::Stored)
    }

    async fn bounds(&self, _: &QueueId) -> Result<(u64, u64), SourceError> {
        Ok((0, self.0.end.load(Ordering::SeqCst)))
    }

    async fn offset_at(&self, _: &QueueId, _: i64) -> Result<u64, SourceError> {
        Ok(0)
    }

    async fn pull(
        &self,
        queue: &QueueId,
        offset: u64,
        max_messages: u32,
        wait: Duration,
    ) -> Result<Pulled, SourceError> {
        let arrived = self.0.arrived.notified();
        tokio::pin!(arrived);
        // From here on an arrival is not missed.
        arrived.as_mut().enable();
        if self.0.end.load(Ordering::SeqCst) <= offset
            && tokio::time::timeout(wait, arrived).await.is_err()
        {
            return Ok(Pulled::NoNew);
        }
        let next = self
            .0
            .end
            .load(Ordering::SeqCst)
            .min(offset + u64::from(max_messages));
        Ok(Pulled::Found {
            messages: self.0.messages(queue.id, offset, next),
            next,
        })
    }

    async fn send_back(&self, _: &QueueId, _: &Message, _: i32) -> Result<(), SourceError> {
        Ok(())
    }
}

/// Nothing is owned in consumption Broadcasting, so the journal stays empty.
impl Journal for Broker {
    async fn append(&self, _: &QueueId, _: Vec<u8>) -> Result<u64, SourceError> {
        Ok(0)
    }

    async fn records(&self, _: &QueueId, _: u64) -> Result<Records, SourceError> {
        Ok(Records::default())
    }

    async fn ends(&self, _: &str, _: message::Topic) -> BTreeMap<u32, (u64, u64)> {
        BTreeMap::new()
    }

    async fn witness(&self, _: &QueueId, _: u64) -> Result<Option<Witness>, SourceError> {
        Ok(None)
    }

    async fn unlock_for(&self, _: &str, _: &BTreeSet<QueueId>, _: &str) -> Result<(), SourceError> {
        Ok(())
    }
}
