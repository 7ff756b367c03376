//! The journal in RocketMQ: a topic on the same brokers, written to and read from queue by queue.
//!
//! Requests go to the broker itself, so neither needs a route of the topic.

use super::answer::{Answer, response};
use super::connection::{Purpose, Share};
use super::store::ToStore;
use super::together::{All, Ends};
use super::{RocketmqSource, record, request};
use crate::journal::Witness;
use crate::message::{QueueId, Topic};
use crate::source::SourceError;
use crate::source::journal::{Journal, Records};
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const RECORDS_AT_ONCE: u32 = 64;

/// The journal's topics: queue ids of the main and of the retry topic would collide in one.
pub struct Journals {
    main: String,
    retry: String,
    made: Mutex<HashMap<At, Arc<Made>>>,
}

/// A broker, and which of the journal's topics.
type At = (Arc<str>, Topic);

/// How many queues of one journal are known to be there, at one broker. Held by whoever makes them: all
/// queues of a process ask at once, and a broker takes long to make a topic.
type Made = tokio::sync::Mutex<u32>;

impl Journals {
    pub fn new(group: &str) -> Self {
        Self {
            main: crate::journal::topic(group),
            retry: crate::journal::retry_topic(group),
            made: Mutex::default(),
        }
    }

    fn topic(&self, topic: Topic) -> &str {
        match topic {
            Topic::Main => &self.main,
            Topic::Retry => &self.retry,
        }
    }

    fn made(&self, queue: &QueueId) -> Arc<Made> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let of = (queue.broker.clone(), queue.topic);
        made.entry(of).or_default().clone()
    }
}

impl RocketmqSource {
    async fn ask_journal(
        &self,
        queue: &QueueId,
        what: &'static str,
        request: RemotingCommand,
    ) -> Result<Answer, SourceError> {
        let purpose = Purpose::Journal(Share::of(queue));
        self.ask(&queue.broker, purpose, what, request, Duration::ZERO)
            .await
    }

    /// Sees to it that the journal has a queue for every queue of the topic at this broker.
    async fn make_journal(&self, queue: &QueueId) -> Result<(), SourceError> {
        let wanted = self.queues_of(queue).max(queue.id + 1);
        let made = self.journals.made(queue);
        let mut made = made.lock().await;
        if *made >= wanted {
            return Ok(());
        }
        let topic = self.journals.topic(queue.topic);
        let purpose = Purpose::Journal(Share::of(queue));
        let there = self
            .make_topic(&queue.broker, purpose, topic, wanted)
            .await?;
        *made = wanted.max(there);
        Ok(())
    }

    /// How many queues the topic of this queue has at its broker, by the last route.
    fn queues_of(&self, queue: &QueueId) -> u32 {
        let route = self.route.read().unwrap_or_else(PoisonError::into_inner);
        let of_broker = route
            .queues
            .iter()
            .filter(|other| other.broker == queue.broker && other.topic == queue.topic);
        of_broker.map(|other| other.id + 1).max().unwrap_or(0)
    }

    /// The journal is not as it was known to be.
    async fn forget_journal(&self, queue: &QueueId) {
        *self.journals.made(queue).lock().await = 0;
    }
}

impl Journal for RocketmqSource {
    async fn append(&self, queue: &QueueId, record: Vec<u8>) -> Result<u64, SourceError> {
        self.make_journal(queue).await?;
        let record = ToStore {
            topic: self.journals.topic(queue.topic),
            queue: queue.id,
            flag: 0,
            system_flag: 0,
            properties: String::new(),
            body: record.into(),
        };
        let purpose = Purpose::Journal(Share::of(queue));
        let stored = self
            .store(&queue.broker, purpose, "a journal record", record)
            .await;
        if matches!(stored, Err(SourceError::Refused { .. })) {
            self.forget_journal(queue).await;
        }
        stored
    }

    async fn records(&self, queue: &QueueId, from: u64) -> Result<Records, SourceError> {
        self.make_journal(queue).await?;
        let topic = self.journals.topic(queue.topic);
        let request = self.pull_at_once(topic, queue, from, RECORDS_AT_ONCE);
        let mut answer = self.ask_journal(queue, "for the journal", request).await?;
        let found = match answer.code() {
            response::SUCCESS => {
                let body = answer.command.take_body().unwrap_or_default();
                record::messages(&body).map_err(|reason| answer.malformed(reason))?
            }
            response::PULL_NOT_FOUND
            | response::PULL_RETRY_IMMEDIATELY
            | response::PULL_OFFSET_MOVED => Vec::new(),
            _ => {
                self.forget_journal(queue).await;
                return Err(answer.refused());
            }
        };
        Ok(Records {
            min: answer.number("minOffset")?,
            max: answer.number("maxOffset")?,
            found: found
                .into_iter()
                .map(|message| (message.offset, message.body))
                .collect(),
        })
    }

    async fn ends(&self, broker: &str, topic: Topic) -> BTreeMap<u32, (u64, u64)> {
        let topic = self.journals.topic(topic);
        let all: BTreeMap<u32, Ends> = self.all(All::Ends, broker, topic).await;
        let ends = all.into_iter();
        ends.map(|(id, ends)| (id, (ends.min_offset, ends.max_offset)))
            .collect()
    }

    async fn witness(&self, queue: &QueueId, offset: u64) -> Result<Option<Witness>, SourceError> {
        let request = self.pull_at_once(self.topic_of(queue.topic), queue, offset, 1);
        let what = "for the highest finished message";
        let mut answer = self.ask_journal(queue, what, request).await?;
        match answer.code() {
            response::SUCCESS => {
                let body = answer.command.take_body().unwrap_or_default();
                let found = record::messages(&body).map_err(|reason| answer.malformed(reason))?;
                let message = found.iter().find(|message| message.offset == offset);
                Ok(message.map(|message| Witness {
                    offset,
                    stored_at_ms: message.stored_at_ms,
                    physical_offset: message.physical_offset,
                }))
            }
            response::PULL_NOT_FOUND
            | response::PULL_RETRY_IMMEDIATELY
            | response::PULL_OFFSET_MOVED => Ok(None),
            _ => Err(answer.refused()),
        }
    }

    async fn unlock_for(
        &self,
        broker: &str,
        queues: &BTreeSet<QueueId>,
        holder: &str,
    ) -> Result<(), SourceError> {
        let request = RemotingCommand::create_remoting_command(request::UNLOCK_BATCH_MQ)
            .set_body(self.lock_body(queues, holder));
        let what = "to unlock the queues of an absent member";
        self.ask(broker, Purpose::Lock, what, request, Duration::ZERO)
            .await?
            .success()?;
        Ok(())
    }
}
