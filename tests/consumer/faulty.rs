//! A broker whose answers can be lost: the real one, behind a source that loses them.

use keylane_consumer::journal::Witness;
use keylane_consumer::message::{Message, QueueId, Topic};
use keylane_consumer::source::journal::{Journal, Records};
use keylane_consumer::source::rocketmq::RocketmqSource;
use keylane_consumer::source::{Commit, Pulled, Route, Source, SourceError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// What goes wrong from now on.
#[derive(Debug, Default)]
pub struct Faults {
    /// Commits never reach the broker.
    pub commits: AtomicBool,
    /// So many records are stored without their writer hearing of it.
    pub records: AtomicU32,
    /// No name server answers.
    pub routes: AtomicBool,
    /// Heartbeats take a while to arrive.
    pub beats: AtomicBool,
    /// Not a fault: how often locks were asked for.
    pub locks: AtomicU32,
    /// Not a fault: how many heartbeats are under way.
    pub beating: AtomicU32,
    /// Not a fault: how often it left the group, and how often while a heartbeat was under way.
    pub leaves: (AtomicU32, AtomicU32),
}

/// The source with these faults.
pub struct Faulty {
    pub source: RocketmqSource,
    pub faults: Arc<Faults>,
}

impl Faulty {
    /// Puts these faults before a source.
    pub fn with(faults: &Arc<Faults>) -> impl FnOnce(RocketmqSource) -> Self {
        let faults = faults.clone();
        |source| Self { source, faults }
    }
}

fn lost(what: &'static str) -> SourceError {
    SourceError::Unreachable {
        peer: "the broker".into(),
        what,
        reason: "the test lost it".into(),
    }
}

impl Source for Faulty {
    async fn route(&self) -> Result<Route, SourceError> {
        if self.faults.routes.load(Ordering::Relaxed) {
            return Err(lost("the route of the topic"));
        }
        self.source.route().await
    }

    async fn heartbeat(&self, broker: &str) -> Result<(), SourceError> {
        self.faults.beating.fetch_add(1, Ordering::Relaxed);
        if self.faults.beats.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let beat = self.source.heartbeat(broker).await;
        self.faults.beating.fetch_sub(1, Ordering::Relaxed);
        beat
    }

    async fn members(&self, broker: &str) -> Result<BTreeSet<String>, SourceError> {
        self.source.members(broker).await
    }

    async fn retire(&self, broker: &str) -> Result<(), SourceError> {
        self.source.retire(broker).await
    }

    async fn started_at(&self, broker: &str) -> Option<u64> {
        self.source.started_at(broker).await
    }

    async fn leave(&self, broker: &str) -> Result<(), SourceError> {
        let (leaves, between) = &self.faults.leaves;
        leaves.fetch_add(1, Ordering::Relaxed);
        between.fetch_add(
            self.faults.beating.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        self.source.leave(broker).await
    }

    async fn lock(
        &self,
        broker: &str,
        queues: &BTreeSet<QueueId>,
    ) -> Result<BTreeSet<QueueId>, SourceError> {
        self.faults.locks.fetch_add(1, Ordering::Relaxed);
        self.source.lock(broker, queues).await
    }

    async fn unlock(&self, broker: &str, queues: &BTreeSet<QueueId>) -> Result<(), SourceError> {
        self.source.unlock(broker, queues).await
    }

    async fn committed(&self, queue: &QueueId) -> Result<Option<u64>, SourceError> {
        self.source.committed(queue).await
    }

    async fn committed_of_all(&self, broker: &str, topic: Topic) -> BTreeMap<u32, u64> {
        self.source.committed_of_all(broker, topic).await
    }

    async fn commit(&self, queue: &QueueId, offset: u64) -> Result<Commit, SourceError> {
        if self.faults.commits.load(Ordering::SeqCst) {
            return Err(lost("a commit"));
        }
        self.source.commit(queue, offset).await
    }

    async fn bounds(&self, queue: &QueueId) -> Result<(u64, u64), SourceError> {
        self.source.bounds(queue).await
    }

    async fn offset_at(&self, queue: &QueueId, timestamp_ms: i64) -> Result<u64, SourceError> {
        self.source.offset_at(queue, timestamp_ms).await
    }

    async fn pull(
        &self,
        queue: &QueueId,
        offset: u64,
        max_messages: u32,
        wait: Duration,
    ) -> Result<Pulled, SourceError> {
        self.source.pull(queue, offset, max_messages, wait).await
    }

    async fn send_back(
        &self,
        queue: &QueueId,
        message: &Message,
        delay_level: i32,
    ) -> Result<(), SourceError> {
        self.source.send_back(queue, message, delay_level).await
    }
}

impl Journal for Faulty {
    async fn append(&self, queue: &QueueId, record: Vec<u8>) -> Result<u64, SourceError> {
        let stored = self.source.append(queue, record).await;
        let records = &self.faults.records;
        let loses = records.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        });
        match loses {
            Ok(_) => Err(lost("a journal record")),
            Err(_) => stored,
        }
    }

    async fn records(&self, queue: &QueueId, from: u64) -> Result<Records, SourceError> {
        self.source.records(queue, from).await
    }

    async fn ends(&self, broker: &str, topic: Topic) -> BTreeMap<u32, (u64, u64)> {
        self.source.ends(broker, topic).await
    }

    async fn witness(&self, queue: &QueueId, offset: u64) -> Result<Option<Witness>, SourceError> {
        self.source.witness(queue, offset).await
    }

    async fn unlock_for(
        &self,
        broker: &str,
        queues: &BTreeSet<QueueId>,
        holder: &str,
    ) -> Result<(), SourceError> {
        self.source.unlock_for(broker, queues, holder).await
    }
}
