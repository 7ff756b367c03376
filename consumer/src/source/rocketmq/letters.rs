//! The group's dead letters: messages that were given up, in the topic `%DLQ%<group>`. The broker that has the
//! queue of a message makes it, with one queue there, and copies the message to its end; so the dead letters of
//! a key lie in one queue, in order.
//!
//! A copy has body and properties of its message, and the place of that in the commit log (property
//! `ORIGIN_MESSAGE_ID`). Where it was in the topic is known as long as the broker keeps it there.
//! Source: `AbstractSendMessageProcessor.consumerSendMsgBack` of Apache RocketMQ 5.3.3.
//!
//! Beside it lies a topic of ours with [notes](super::notes) about what was sent again.
//!
//! All requests about letters to one broker wait for each other: whoever sends them again does so one by one.

use super::answer::response;
use super::connection::Purpose;
use super::store::ToStore;
use super::{RocketmqSource, record};
use crate::message::{Message, PROPERTY_UNIQUE_KEY, Properties, QueueId};
use crate::source::SourceError;
use bytes::Bytes;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

const VIEW_MESSAGE_BY_ID: i32 = 33;
const QUERY_TOPIC_CONSUME_BY_WHO: i32 = 300;
/// A broker hands out fewer at once if it is set up so, or if they are large.
pub(super) const LETTERS_AT_ONCE: u32 = 32;

/// Property of a message that was sent again: which dead letter it was.
pub const PROPERTY_DEAD_LETTER: &str = "KEYLANE_DEAD_LETTER";
/// Property of a dead letter with the id that the broker gave its message.
const PROPERTY_ORIGIN: &str = "ORIGIN_MESSAGE_ID";
/// Properties that belong to one stay of a message in one queue: the message that is sent again is a new one.
/// Source: `MessageConst.java` of Apache RocketMQ 5.3.3.
const OF_ONE_STAY: [&str; 22] = [
    PROPERTY_ORIGIN,
    PROPERTY_DEAD_LETTER,
    "RETRY_TOPIC",
    "REAL_TOPIC",
    "REAL_QID",
    "DELAY",
    "TRAN_MSG",
    "TRANSACTION_CHECK_TIMES",
    "TRAN_PREPARED_QUEUE_OFFSET",
    "PGROUP",
    "MIN_OFFSET",
    "MAX_OFFSET",
    "CONSUME_START_TIME",
    "RECONSUME_TIME",
    "MAX_RECONSUME_TIMES",
    "DLQ_ORIGIN_TOPIC",
    "DLQ_ORIGIN_MESSAGE_ID",
    "TIMER_DELAY_SEC",
    "TIMER_DELIVER_MS",
    "TIMER_DELAY_MS",
    "POP_CK",
    "1ST_POP_TIME",
];

/// The topic of a group's dead letters, as RocketMQ names it.
pub fn dead_letter_topic(group: &str) -> String {
    format!("%DLQ%{group}")
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// What the handler was given. Offset, times and place in the commit log are those of the copy.
    pub message: Message,
    /// As it lies at the broker.
    body: Bytes,
    /// How that is compressed.
    system_flag: u32,
    /// The producer's own flag.
    flag: i32,
}

impl Letter {
    /// A letter with an uncompressed body.
    pub fn of(message: Message) -> Self {
        Self {
            body: message.body.clone(),
            message,
            system_flag: 0,
            flag: 0,
        }
    }

    /// The id that the broker gave the message that was given up: two letters with the same one are copies
    /// of the same message.
    pub fn origin(&self) -> Option<&str> {
        self.message.properties.get(PROPERTY_ORIGIN)
    }

    /// Bytes at the broker.
    pub fn size(&self) -> usize {
        self.message.properties.text().len() + self.body.len()
    }

    /// Its properties when it is sent again.
    fn properties(&self, identity: &str) -> String {
        let properties = &self.message.properties;
        let kept = properties
            .iter()
            .filter(|(name, _)| !OF_ONE_STAY.contains(name));
        let id = (PROPERTY_UNIQUE_KEY, &*self.message.id);
        let named = properties.get(PROPERTY_UNIQUE_KEY).is_none().then_some(id);
        let ours = named.into_iter().chain([(PROPERTY_DEAD_LETTER, identity)]);
        let all: Properties = kept.chain(ours).collect();
        all.text().to_owned()
    }
}

/// Dead letters from an offset on.
#[derive(Debug, Default)]
pub struct Page {
    /// Smallest offset that the broker holds.
    pub min: u64,
    /// Offset of the next letter.
    pub max: u64,
    /// Where the next page begins; what was asked for if there is nothing there.
    pub next: u64,
    /// Letters, in order.
    pub letters: Vec<Letter>,
}

/// Where a message was before it was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// Queue of the topic.
    pub queue: QueueId,
    /// Offset there.
    pub offset: u64,
}

impl RocketmqSource {
    /// Boxed: whoever asks for letters asks often and in depth, and the client's futures are large.
    pub(super) async fn ask_letters(
        &self,
        broker: &str,
        what: &'static str,
        request: RemotingCommand,
    ) -> Result<super::Answer, SourceError> {
        let purpose = Purpose::SendBack;
        Box::pin(self.ask(broker, purpose, what, request, Duration::ZERO)).await
    }

    pub(super) fn letter_topic(&self) -> String {
        dead_letter_topic(&self.group)
    }

    /// Every queue with dead letters; none if no message was ever given up.
    pub async fn letter_queues(&self) -> Result<Vec<QueueId>, SourceError> {
        let Some(data) = Box::pin(self.connection.route(&self.letter_topic())).await? else {
            return Ok(Vec::new());
        };
        let mut queues = Vec::new();
        let mut route = self.route.write().unwrap_or_else(PoisonError::into_inner);
        for of in &data.queue_datas {
            let broker: Arc<str> = Arc::from(of.broker_name().as_str());
            let found = data.broker_datas.iter().find_map(|broker| {
                let same = broker.broker_name() == of.broker_name();
                same.then(|| broker.broker_addrs().get(&super::answer::MASTER))
            });
            if let Some(Some(address)) = found {
                let masters = &mut route.masters;
                masters.entry(broker.clone()).or_insert(address.to_string());
            }
            queues.extend((0..of.read_queue_nums()).map(|id| QueueId::new(broker.clone(), id)));
        }
        queues.sort();
        Ok(queues)
    }

    /// Dead letters of a queue from an offset on, as many as come at once.
    pub async fn letters(&self, queue: &QueueId, from: u64) -> Result<Page, SourceError> {
        self.letters_at_most(queue, from, LETTERS_AT_ONCE).await
    }

    /// The dead letter at an offset, if there is one.
    pub async fn letter(
        &self,
        queue: &QueueId,
        offset: u64,
    ) -> Result<Option<Letter>, SourceError> {
        let page = self.letters_at_most(queue, offset, 1).await?;
        let mut letters = page.letters.into_iter();
        Ok(letters.find(|letter| letter.message.offset == offset))
    }

    async fn letters_at_most(
        &self,
        queue: &QueueId,
        from: u64,
        most: u32,
    ) -> Result<Page, SourceError> {
        let request = self.pull_at_once(&self.letter_topic(), queue, from, most);
        let what = "for dead letters";
        let mut answer = self.ask_letters(&queue.broker, what, request).await?;
        let letters = match answer.code() {
            response::SUCCESS => {
                let body = answer.command.take_body().unwrap_or_default();
                record::each(&body, letter).map_err(|reason| answer.malformed(reason))?
            }
            response::PULL_NOT_FOUND
            | response::PULL_RETRY_IMMEDIATELY
            | response::PULL_OFFSET_MOVED => Vec::new(),
            _ => return Err(answer.refused()),
        };
        // A broker that does not find what it should have goes on at the next file: nothing says that there
        // is nothing in between.
        let jumps = answer.code() == response::PULL_RETRY_IMMEDIATELY
            && answer.remark() != "MESSAGE_WAS_REMOVING";
        Ok(Page {
            min: answer.number("minOffset")?,
            max: answer.number("maxOffset")?,
            next: if jumps {
                from
            } else {
                answer.number("nextBeginOffset")?
            },
            letters,
        })
    }

    /// Where the message of a letter was; none if its broker does not keep it any more.
    pub async fn original(
        &self,
        broker: &Arc<str>,
        letter: &Letter,
    ) -> Result<Option<Original>, SourceError> {
        let Some(physical) = letter.origin().and_then(physical_offset) else {
            return Ok(None);
        };
        let mut request = RemotingCommand::create_remoting_command(VIEW_MESSAGE_BY_ID);
        request.add_ext_field("offset", physical.to_string());
        request.add_ext_field("topic", self.topic.as_str());
        let what = "for the message of a dead letter";
        let mut answer = self.ask_letters(broker, what, request).await?;
        // It is an error to the broker that there is nothing.
        if answer.code() == response::SYSTEM_ERROR {
            return Ok(None);
        }
        answer = answer.success()?;
        let body = answer.command.take_body().unwrap_or_default();
        let place = |record: &[u8]| {
            let parts = record::parts(record)?;
            let id = record::message(&parts)?.id;
            let ours = parts.topic == self.topic.as_bytes() && id == letter.message.id;
            Ok(ours.then(|| Original {
                queue: QueueId::new(broker.clone(), parts.queue),
                offset: parts.offset,
            }))
        };
        let found = record::each(&body, place).map_err(|reason| answer.malformed(reason))?;
        Ok(found.into_iter().flatten().next())
    }

    /// Sends a dead letter to the end of a queue of the topic, with its identity as a property; returns its
    /// offset there once the broker acknowledged it. After an error that is no refusal it may be there.
    pub async fn send_again(
        &self,
        queue: &QueueId,
        letter: &Letter,
        identity: &str,
    ) -> Result<u64, SourceError> {
        let message = ToStore {
            topic: &self.topic,
            queue: queue.id,
            flag: letter.flag,
            system_flag: letter.system_flag,
            properties: letter.properties(identity),
            body: letter.body.clone(),
        };
        let what = "a dead letter that is sent again";
        Box::pin(self.store_patiently(&queue.broker, Purpose::SendBack, what, message)).await
    }

    /// Groups that consume the topic at a broker: those that have members there and those with committed offsets,
    /// ours among them perhaps. Of a group that gets every message (Broadcasting) a broker tells while it has
    /// members, RocketMQ 5.3.3 not even then.
    pub async fn groups_of_topic(&self, broker: &str) -> Result<BTreeSet<String>, SourceError> {
        let mut request = RemotingCommand::create_remoting_command(QUERY_TOPIC_CONSUME_BY_WHO);
        request.add_ext_field("topic", self.topic.as_str());
        let what = "for the groups that consume the topic";
        let mut answer = self.ask_letters(broker, what, request).await?.success()?;
        let body = answer.json()?;
        let groups = body["groupList"].as_array().map_or(&[][..], Vec::as_slice);
        let groups = groups.iter().filter_map(|group| group.as_str());
        let mut groups: BTreeSet<String> = groups.map(str::to_owned).collect();
        // Where a member registers, RocketMQ 5.3.3 notes the topic's own name in place of the member's group
        // (`ConsumerManager.registerConsumer`).
        if groups.contains(self.topic.as_str()) && !self.had_members(&self.topic).await? {
            groups.remove(self.topic.as_str());
        }
        Ok(groups)
    }

    /// Whether a group of this name is there or was: a broker makes a retry topic when its first member registers.
    async fn had_members(&self, group: &str) -> Result<bool, SourceError> {
        let retry = format!("%RETRY%{group}");
        Ok(Box::pin(self.connection.route(&retry)).await?.is_some())
    }
}

fn letter(record: &[u8]) -> Result<Letter, String> {
    let parts = record::parts(record)?;
    Ok(Letter {
        message: record::message(&parts)?,
        body: Bytes::copy_from_slice(parts.body),
        system_flag: parts.system_flag & record::BODY_FLAGS,
        flag: parts.flag,
    })
}

/// The offset in the commit log that ends the id a broker gave a message.
fn physical_offset(id: &str) -> Option<u64> {
    let digits = id.len().checked_sub(16).and_then(|at| id.get(at..))?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn what_is_sent_again_is_the_message_with_its_id_and_which_letter_it_was() {
        let stored = |properties: &str| {
            let mut record = record();
            record.properties = properties.as_bytes().to_vec();
            letter(&record.bytes()).unwrap()
        };
        let sent = |properties: &str| {
            let properties = stored(properties).properties("b/0/7@2000");
            let sent = Properties::new(properties.into());
            let sent = sent.iter();
            sent.map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
        };
        let all = "__SHARDINGKEY\x01k\x02ORIGIN_MESSAGE_ID\x01A\x02RETRY_TOPIC\x01T\x02UNIQ_KEY\x01I\x02a\x01b\x02";
        assert_eq!(
            sent(all),
            [
                "__SHARDINGKEY=k",
                "UNIQ_KEY=I",
                "a=b",
                "KEYLANE_DEAD_LETTER=b/0/7@2000"
            ]
        );
        // Given up again: it is another letter now.
        let again = "UNIQ_KEY\x01I\x02KEYLANE_DEAD_LETTER\x01b/0/3@1\x02DELAY\x013\x02";
        assert_eq!(
            sent(again),
            ["UNIQ_KEY=I", "KEYLANE_DEAD_LETTER=b/0/7@2000"]
        );
        // Whatever has no id of its own is known by the broker's: handlers that know the message by it do so again.
        let nameless = stored("a\x01b\x02");
        let id = format!("UNIQ_KEY={}", nameless.message.id);
        assert_eq!(sent("a\x01b\x02")[1], id);
    }

    #[test]
    fn a_body_is_kept_as_it_lies_there_even_if_it_cannot_be_read() {
        let mut garbled = record();
        (garbled.flag, garbled.body) = (0x1 | 0x10, b"no zlib".to_vec());
        let letter = letter(&garbled.bytes()).unwrap();
        assert!(letter.message.defect.is_some());
        assert_eq!(
            (&letter.body[..], letter.system_flag),
            (&b"no zlib"[..], 0x1)
        );
    }

    #[test]
    fn the_place_in_the_log_is_the_end_of_an_id() {
        assert_eq!(
            physical_offset("7F00000100002A9F0000000000000ABC"),
            Some(0xABC)
        );
        for none in [
            "",
            "ABC",
            "7F00000100002A9F00000000000é0ABC",
            "zzzzzzzzzzzzzzzz",
        ] {
            assert_eq!(physical_offset(none), None, "{none}");
        }
    }
}
