//! A broker: queues of messages, pulls that fail, repeat themselves and deliver out of order, what is
//! committed and journalled, and messages that come back.

use crate::journal::Reset;
use crate::lane::{Finished, Incoming, Place, Time};
use crate::message::{Message, QueueId};
use rand::Rng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;

/// Queues are numbered; the last one is the retry topic's.
pub type QueueIndex = usize;

/// The lane that a message belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    Key(String),
    Shared,
    Own(u64),
}

#[derive(Debug)]
pub struct Sent {
    place: Place,
    pub message: Arc<Message>,
    /// The handler fails it every time.
    pub poison: bool,
    /// Not delivered before this time.
    visible: Time,
}

#[derive(Debug)]
pub struct Queue {
    pub id: QueueId,
    /// None for what a filter leaves out.
    pub offsets: Vec<Option<Sent>>,
    pub committed: u64,
    pub journal: Finished,
    /// The last reset, which the journal tells too.
    pub reset: Option<Reset>,
}

#[derive(Debug)]
pub struct Broker {
    pub queues: Vec<Queue>,
    pub dead_letters: u64,
}

/// A reply to a pull.
#[derive(Debug)]
pub enum Reply {
    Failed,
    NoNew,
    Messages(u64, Vec<Incoming>),
}

impl Broker {
    /// A broker with so many queues and a retry topic.
    pub fn new(queues: usize) -> Self {
        let main = (0..queues as u32).map(|id| QueueId::new("b", id));
        let ids = main.chain([QueueId::retry("b", 0)]);
        let queues = ids.map(|id| Queue {
            id,
            offsets: Vec::new(),
            committed: 0,
            journal: Finished::default(),
            reset: None,
        });
        Self {
            queues: queues.collect(),
            dead_letters: 0,
        }
    }

    pub fn index(&self, id: &QueueId) -> QueueIndex {
        let found = self.queues.iter().position(|queue| queue.id == *id);
        found.expect("a queue that exists")
    }

    /// Stores a message.
    pub fn send(
        &mut self,
        queue: QueueIndex,
        place: Place,
        key: Option<&str>,
        poison: bool,
    ) -> (u64, Lane) {
        let message = Message {
            key: key.map(Into::into),
            ..Message::default()
        };
        self.store(queue, place, message, poison, Time::ZERO)
    }

    fn store(
        &mut self,
        queue: QueueIndex,
        place: Place,
        message: Message,
        poison: bool,
        visible: Time,
    ) -> (u64, Lane) {
        let offsets = &mut self.queues[queue].offsets;
        let offset = offsets.len() as u64;
        let lane = match (place, &message.key) {
            (Place::Key, Some(key)) => Lane::Key(key.to_string()),
            (Place::Own, _) => Lane::Own(offset),
            (Place::Shared | Place::Key, _) => Lane::Shared,
        };
        let message = Arc::new(Message { offset, ..message });
        offsets.push(Some(Sent {
            place,
            message,
            poison,
            visible,
        }));
        (offset, lane)
    }

    /// A message of the queue that the filter leaves out.
    pub fn send_filtered(&mut self, queue: QueueIndex) {
        self.queues[queue].offsets.push(None);
    }

    /// Takes a message back: to the dead letters, or to the retry topic, where its new place is returned.
    pub fn take_back(
        &mut self,
        now: Time,
        queue: QueueIndex,
        offset: u64,
        level: i32,
    ) -> Option<(QueueIndex, u64, Lane)> {
        if level < 0 {
            self.dead_letters += 1;
            return None;
        }
        let sent = self.queues[queue].offsets[offset as usize].as_ref()?;
        let (poison, mut message) = (sent.poison, (*sent.message).clone());
        message.reconsume_times += 1;
        let retry = self.queues.len() - 1;
        let visible = now + Duration::from_millis(100 * level as u64);
        let (offset, lane) = self.store(retry, Place::Own, message, poison, visible);
        Some((retry, offset, lane))
    }

    pub fn sent(&self, queue: QueueIndex, offset: u64) -> Option<&Sent> {
        self.queues[queue].offsets.get(offset as usize)?.as_ref()
    }

    /// Answers a pull, as badly as `faults` allows.
    pub fn pull(
        &self,
        rng: &mut StdRng,
        now: Time,
        queue: QueueIndex,
        from: u64,
        most: u32,
        faults: f64,
    ) -> Reply {
        if rng.random_bool(faults) {
            return Reply::Failed;
        }
        let offsets = &self.queues[queue].offsets;
        let rest = offsets.iter().enumerate().skip(from as usize);
        let visible =
            rest.take_while(|(_, sent)| sent.as_ref().is_none_or(|sent| sent.visible <= now));
        let (mut next, mut messages) = (from, Vec::new());
        for (offset, sent) in visible {
            if messages.len() == most as usize {
                break;
            }
            next = offset as u64 + 1;
            messages.extend(sent.as_ref().map(incoming));
        }
        if next == from {
            return Reply::NoNew;
        }
        if rng.random_bool(faults) && !messages.is_empty() {
            // One twice, one that was not asked for, and not in order.
            let twice = rng.random_range(0..messages.len());
            messages.push(messages[twice].clone());
            messages.extend(
                offsets[..from as usize]
                    .iter()
                    .flatten()
                    .next()
                    .map(incoming),
            );
            messages.rotate_left(1);
        }
        Reply::Messages(next, messages)
    }
}

fn incoming(sent: &Sent) -> Incoming {
    Incoming {
        place: sent.place,
        message: sent.message.clone(),
    }
}
