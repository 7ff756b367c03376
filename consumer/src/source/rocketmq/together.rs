//! What a broker tells about all queues of a topic in one answer.
//!
//! The bodies have objects for keys (`{"offsetTable":{{"queueId":0,…}:{…},…}}`), as fastjson writes maps:
//! that is no JSON, so keys and values are read one by one. A broker may refuse these requests, for its
//! ACL asks for rights of their own for them: it is not asked again for a while then, and said once.

use super::connection::Purpose;
use super::{Answer, RocketmqSource};
use crate::source::SourceError;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::warn;

/// For how long a broker that did not answer is asked for each queue by itself.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// A request of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum All {
    /// First and next offset of every queue (`GET_TOPIC_STATS_INFO`).
    Ends,
    /// The committed offset of every queue (`GET_CONSUME_STATS`).
    Committed,
}

impl All {
    fn code(self) -> i32 {
        match self {
            Self::Ends => 202,
            Self::Committed => 208,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Ends => "for the ends of all queues",
            Self::Committed => "for the committed offsets of all queues",
        }
    }
}

/// The ends of a queue, as an answer has them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ends {
    pub min_offset: u64,
    pub max_offset: u64,
}

/// What the group committed of a queue; 0 also if it never did.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Committed {
    pub consumer_offset: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    pub topic: String,
    broker_name: String,
    pub queue_id: u32,
}

/// Which brokers did not answer which request, and until when they are not asked.
#[derive(Debug, Default)]
pub struct Unanswered(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    until: BTreeMap<(All, Arc<str>), Instant>,
    said: BTreeSet<(All, Arc<str>)>,
}

impl Unanswered {
    fn is_asked(&self, all: All, broker: &str) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = state.until.get(&(all, Arc::from(broker)));
        until.is_none_or(|until| Instant::now() >= *until)
    }

    fn failed(&self, all: All, broker: &str, error: &SourceError) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = (all, Arc::from(broker));
        state.until.insert(of.clone(), Instant::now() + ASK_AGAIN);
        if !matches!(error, SourceError::Unreachable { .. }) && state.said.insert(of) {
            warn!(
                "each queue is asked for by itself, which costs more when many are idle: {error}"
            );
        }
    }
}

/// Where a queue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Oldest message kept.
    pub min: u64,
    /// Offset of the next message to be stored.
    pub max: u64,
    /// Committed by the group; none if it never did, or nothing yet.
    pub committed: Option<u64>,
}

impl RocketmqSource {
    /// Where the queues of the topic at this broker stand, by queue id: two questions. Those that it does not
    /// tell of are missing, and have to be asked for one by one.
    pub async fn standings(&self, broker: &str) -> BTreeMap<u32, Standing> {
        let topic = self.topic.as_str();
        let ends = self.all::<Ends>(All::Ends, broker, topic).await;
        if ends.is_empty() {
            return BTreeMap::new();
        }
        let committed = self.all::<Committed>(All::Committed, broker, topic).await;
        let known = committed.into_iter().filter_map(|(queue, committed)| {
            let ends = ends.get(&queue)?;
            let standing = Standing {
                min: ends.min_offset,
                max: ends.max_offset,
                committed: Some(committed.consumer_offset).filter(|offset| *offset > 0),
            };
            Some((queue, standing))
        });
        known.collect()
    }

    /// What a broker tells about the queues of a topic, by queue id; those it does not tell are missing.
    pub(super) async fn all<V: DeserializeOwned>(
        &self,
        all: All,
        broker: &str,
        topic: &str,
    ) -> BTreeMap<u32, V> {
        if !self.unanswered.is_asked(all, broker) {
            return BTreeMap::new();
        }
        let mut request = RemotingCommand::create_remoting_command(all.code());
        request.add_ext_field("topic", topic);
        if all == All::Committed {
            request.add_ext_field("consumerGroup", self.group.as_str());
        }
        let purpose = Purpose::All;
        let told = async {
            let answer = self
                .ask(broker, purpose, all.what(), request, Duration::ZERO)
                .await?;
            told(answer.success()?, broker, topic)
        };
        told.await.unwrap_or_else(|error| {
            self.unanswered.failed(all, broker, &error);
            BTreeMap::new()
        })
    }
}

fn told<V: DeserializeOwned>(
    mut answer: Answer,
    broker: &str,
    topic: &str,
) -> Result<BTreeMap<u32, V>, SourceError> {
    let body = answer.command.take_body().unwrap_or_default();
    let table = offset_table::<V>(&body).map_err(|reason| answer.malformed(reason))?;
    let ours = table
        .into_iter()
        .filter(|(key, _)| key.topic == topic && key.broker_name == broker);
    Ok(ours.map(|(key, value)| (key.queue_id, value)).collect())
}

/// Keys and values of the map `offsetTable`, to its end.
pub fn offset_table<V: DeserializeOwned>(body: &[u8]) -> Result<Vec<(Key, V)>, String> {
    const NAME: &[u8] = b"\"offsetTable\":{";
    let begin = body.windows(NAME.len()).position(|part| part == NAME);
    let mut rest = &body[begin.ok_or("it has no offsetTable")? + NAME.len()..];
    let mut table = Vec::new();
    if rest.first() == Some(&b'}') {
        return Ok(table);
    }
    loop {
        let key = value(&mut rest)?;
        if punctuation(&mut rest)? != b':' {
            return Err("a key of its offsetTable has no value".into());
        }
        table.push((key, value(&mut rest)?));
        match punctuation(&mut rest)? {
            b',' => {}
            b'}' => return Ok(table),
            _ => return Err("its offsetTable does not go on as a map".into()),
        }
    }
}

/// Takes a value off the front.
fn value<V: DeserializeOwned>(rest: &mut &[u8]) -> Result<V, String> {
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter();
    let value = values.next().ok_or("its offsetTable is cut off")?;
    let value = value.map_err(|error| format!("its offsetTable cannot be read: {error}"))?;
    *rest = &rest[values.byte_offset()..];
    Ok(value)
}

fn punctuation(rest: &mut &[u8]) -> Result<u8, String> {
    let (first, after) = rest.split_first().ok_or("its offsetTable is cut off")?;
    *rest = after;
    Ok(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As RocketMQ 5.3.3 answered.
    const ENDS: &str = r#"{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"KEYLANE_G_together"}:{"lastUpdateTimestamp":0,"maxOffset":0,"minOffset":0},{"brokerName":"broker-a","queueId":2,"topic":"KEYLANE_G_together"}:{"lastUpdateTimestamp":1795671370496,"maxOffset":70,"minOffset":0},{"brokerName":"broker-a","queueId":1,"topic":"KEYLANE_G_together"}:{"lastUpdateTimestamp":1795671369478,"maxOffset":1,"minOffset":0}},"topicPutTps":0.0}"#;
    const COMMITTED: &str = r#"{"consumeTps":0.0,"offsetTable":{{"brokerName":"broker-a","queueId":2,"topic":"T_together"}:{"brokerOffset":0,"consumerOffset":5,"lastTimestamp":0,"pullOffset":5},{"brokerName":"broker-a","queueId":0,"topic":"T_together"}:{"brokerOffset":0,"consumerOffset":0,"lastTimestamp":0,"pullOffset":0},{"brokerName":"broker-a","queueId":1,"topic":"T_together"}:{"brokerOffset":0,"consumerOffset":0,"lastTimestamp":0,"pullOffset":0}}}"#;

    #[test]
    fn every_queue_of_an_answer_is_read() {
        let ends = offset_table::<Ends>(ENDS.as_bytes()).unwrap();
        let ends = ends
            .iter()
            .map(|(key, ends)| (key.queue_id, ends.min_offset, ends.max_offset));
        assert_eq!(ends.collect::<Vec<_>>(), [(0, 0, 0), (2, 0, 70), (1, 0, 1)]);
        let committed = offset_table::<Committed>(COMMITTED.as_bytes()).unwrap();
        assert_eq!(committed[0].0.topic, "T_together");
        assert_eq!(committed[0].0.broker_name, "broker-a");
        let committed = committed
            .iter()
            .map(|(key, of)| (key.queue_id, of.consumer_offset));
        assert_eq!(committed.collect::<Vec<_>>(), [(2, 5), (0, 0), (1, 0)]);
        assert!(
            offset_table::<Ends>(br#"{"offsetTable":{}}"#)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn an_answer_that_is_cut_off_anywhere_is_no_answer() {
        let table_ends = ENDS.find(",\"topicPutTps").unwrap();
        for end in 0..table_ends {
            assert!(
                offset_table::<Ends>(&ENDS.as_bytes()[..end]).is_err(),
                "{}",
                &ENDS[..end]
            );
        }
    }

    #[test]
    fn a_negative_offset_or_another_shape_is_no_answer() {
        let negative = ENDS.replace("\"maxOffset\":70", "\"maxOffset\":-1");
        for body in [negative.as_str(), r#"{"offsetTable":{"a":1}}"#, "{}", ""] {
            assert!(offset_table::<Ends>(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_broker_that_refuses_is_not_asked_again_at_once() {
        let unanswered = Unanswered::default();
        let error = SourceError::Refused {
            peer: "b:1".into(),
            what: All::Ends.what(),
            code: 16,
            remark: "no permission".into(),
        };
        unanswered.failed(All::Ends, "b", &error);
        assert!(!unanswered.is_asked(All::Ends, "b"));
        assert!(unanswered.is_asked(All::Committed, "b"));
        assert!(unanswered.is_asked(All::Ends, "c"));
    }
}
