//! Sending messages: to the queue of their key, in the order given, fast enough for backlogs.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use futures::stream::{FuturesUnordered, StreamExt, TryStreamExt};

use super::admin::{self, Master};
use super::door::Door;
use super::error::{Result, RocketMqError};
use super::message::Message;
use super::offsets;
use super::remoting::{Answer, Connection, Fields};
use crate::wait;

const SEND: i32 = 310;
const SEND_BATCH: i32 = 320;
const SYSTEM_BUSY: i32 = 2;
const BUSY_LIMIT: Duration = Duration::from_secs(30);
const GROUP: &str = "keylane-tests-producer";
const BATCH_MESSAGES: usize = 256;
const BATCH_BYTES: usize = 512 * 1024;
/// Queues that are sent to at once; more would only wait in the broker.
const QUEUES_AT_ONCE: usize = 16;

/// Where a message has gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The broker's name.
    pub broker: String,
    /// The queue's id on that broker.
    pub queue: u32,
    /// Its offset in the queue.
    pub offset: i64,
}

#[derive(Debug)]
struct Queue {
    broker: String,
    id: u32,
    connection: usize,
}

/// Sends to one topic. It belongs to the runtime it was made in.
#[derive(Debug)]
pub struct Producer {
    topic: String,
    connections: Vec<Connection>,
    queues: Vec<Queue>,
}

impl Producer {
    /// Connects to every master that has queues of this topic.
    ///
    /// # Errors
    /// When the name server does not know the topic, or a broker cannot be reached.
    pub async fn connect(name_server: &str, topic: &str) -> Result<Self> {
        Self::connect_through(&Door::default(), name_server, topic).await
    }

    /// The same of servers that do not let everybody in.
    pub(super) async fn connect_through(
        door: &Door,
        name_server: &str,
        topic: &str,
    ) -> Result<Self> {
        let masters = admin::masters(door, name_server, topic).await?;
        let mut connections = Vec::with_capacity(masters.len());
        let mut queues = Vec::new();
        for Master {
            broker,
            address,
            queues: count,
        } in masters
        {
            queues.extend((0..count).map(|id| Queue {
                broker: broker.clone(),
                id,
                connection: connections.len(),
            }));
            connections.push(Connection::open(&address, door).await?);
        }
        Ok(Self {
            topic: topic.to_owned(),
            connections,
            queues,
        })
    }

    /// How many queues the topic has on all brokers. Queue numbers here count them in the order of
    /// broker names and ids; with one broker, the number is the id.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// The number of the queue that a key's messages go to: its hash code as Java computes it, modulo
    /// the number of queues, which is what RocketMQ's own selector by hash does.
    #[must_use]
    pub fn queue_of(&self, key: &str) -> usize {
        let hash = key.encode_utf16().fold(0_i32, |hash, unit| {
            hash.wrapping_mul(31).wrapping_add(i32::from(unit))
        });
        (hash % i32::try_from(self.queues.len()).unwrap_or(i32::MAX)).unsigned_abs() as usize
    }

    /// Sends one message to the queue of its key, without a key to queue 0.
    pub async fn send(&self, message: &Message) -> Result<Sent> {
        self.send_to(self.queue_for(message), message).await
    }

    /// Sends one message to the queue of this number, whatever its key.
    pub async fn send_to(&self, queue: usize, message: &Message) -> Result<Sent> {
        let queue = self.queue(queue)?;
        if message.body().is_empty() {
            // The broker fails on a send without a body, yet takes it as a batch of one.
            let mut batch = BytesMut::new();
            message.encode_into(&mut batch);
            return self.send_batch(queue, &batch).await;
        }
        let mut fields = self.fields(queue);
        fields.insert("i", message.encoded_properties());
        fields.insert("f", message.flag().to_string());
        self.request(SEND, queue, &fields, message.body()).await
    }

    /// Sends all messages in batches, each to the queue of its key (without one, in turn), keeping
    /// their order within a queue. Gives how many each queue got.
    pub async fn send_all(&self, messages: impl IntoIterator<Item = Message>) -> Result<Vec<u64>> {
        let mut lists: BTreeMap<usize, Vec<Message>> = BTreeMap::new();
        for (number, message) in messages.into_iter().enumerate() {
            let queue = match message.key() {
                Some(key) => self.queue_of(key),
                None => number % self.queues.len(),
            };
            lists.entry(queue).or_default().push(message);
        }
        let mut counts = vec![0; self.queues.len()];
        for (queue, list) in &lists {
            counts[*queue] = list.len() as u64;
        }
        let sends: Vec<_> = lists
            .iter()
            .map(|(queue, list)| self.send_list(*queue, list))
            .collect();
        let mut waiting = sends.into_iter();
        let mut running: FuturesUnordered<_> = waiting.by_ref().take(QUEUES_AT_ONCE).collect();
        while running.next().await.transpose()?.is_some() {
            running.extend(waiting.next());
        }
        running.try_for_each(|()| async { Ok(()) }).await?;
        Ok(counts)
    }

    /// Waits until every queue ends at its count or later for consumers too: a broker shows what it has
    /// stored a moment after it said so, and what shows late looks like an arrival.
    ///
    /// # Errors
    /// When that takes half a minute, or a broker does not answer.
    pub async fn until_visible(&self, counts: &[u64]) -> Result<()> {
        for (queue, count) in self.queues.iter().zip(counts) {
            let connection = &self.connections[queue.connection];
            let what = format!("{count} messages of {} visible", self.topic);
            wait::until(BUSY_LIMIT, what, async || {
                match offsets::end(connection, &self.topic, queue.id).await {
                    Ok(end) if end < *count => Err(end),
                    answer => Ok(answer.map(drop)),
                }
            })
            .await??;
        }
        Ok(())
    }

    /// Sends messages to the queue of this number in batches, in order. One batch is on its way at a
    /// time: the broker works on requests of one connection in parallel.
    pub async fn send_all_to(&self, queue: usize, messages: &[Message]) -> Result<()> {
        self.send_list(queue, messages).await
    }

    async fn send_list(&self, queue: usize, messages: &[Message]) -> Result<()> {
        let queue = self.queue(queue)?;
        let mut rest = messages;
        while !rest.is_empty() {
            let mut batch = BytesMut::new();
            let mut taken = 0;
            for message in rest.iter().take(BATCH_MESSAGES) {
                if taken > 0 && batch.len() + message.size() > BATCH_BYTES {
                    break;
                }
                message.encode_into(&mut batch);
                taken += 1;
            }
            self.send_batch(queue, &batch).await?;
            rest = &rest[taken..];
        }
        Ok(())
    }

    async fn send_batch(&self, queue: &Queue, batch: &[u8]) -> Result<Sent> {
        let mut fields = self.fields(queue);
        fields.insert("i", String::new());
        fields.insert("m", "true".to_owned());
        self.request(SEND_BATCH, queue, &fields, batch).await
    }

    /// Sends, and sends again what a busy broker refused before it stored anything.
    async fn request(
        &self,
        code: i32,
        queue: &Queue,
        fields: &Fields,
        body: &[u8],
    ) -> Result<Sent> {
        let connection = &self.connections[queue.connection];
        let what = format!("a send to {} taken", self.topic);
        let answer = wait::until(BUSY_LIMIT, what, async || {
            match connection.request(code, fields, body).await {
                Err(RocketMqError::Refused {
                    code: SYSTEM_BUSY,
                    remark,
                    ..
                }) => Err(remark),
                answer => Ok(answer),
            }
        })
        .await??;
        sent(connection, queue, &answer)
    }

    fn queue_for(&self, message: &Message) -> usize {
        message.key().map_or(0, |key| self.queue_of(key))
    }

    fn queue(&self, number: usize) -> Result<&Queue> {
        self.queues
            .get(number)
            .ok_or_else(|| RocketMqError::NoSuchQueue {
                topic: self.topic.clone(),
                queues: self.queues.len(),
                queue: number,
            })
    }

    /// The short names of a send request's header. Source: `SendMessageRequestHeaderV2`.
    fn fields(&self, queue: &Queue) -> Fields {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| now.as_millis());
        Fields::from([
            ("a", GROUP.to_owned()),
            ("b", self.topic.clone()),
            ("c", "TBW102".to_owned()),
            ("d", "4".to_owned()),
            ("e", queue.id.to_string()),
            ("f", "0".to_owned()),
            ("g", now.to_string()),
            ("h", "0".to_owned()),
            ("j", "0".to_owned()),
            ("k", "false".to_owned()),
            ("l", "0".to_owned()),
            ("m", "false".to_owned()),
            ("n", queue.broker.clone()),
        ])
    }
}

fn sent(connection: &Connection, queue: &Queue, answer: &Answer) -> Result<Sent> {
    let offset = answer.fields.get("queueOffset").map(String::as_str);
    offset
        .and_then(|offset| offset.parse().ok())
        .map(|offset| Sent {
            broker: queue.broker.clone(),
            queue: queue.id,
            offset,
        })
        .ok_or_else(|| RocketMqError::Unreadable {
            from: connection.address().to_owned(),
            reason: "no queueOffset in the answer to a send".to_owned(),
            text: format!("{:?}", answer.fields),
        })
}
