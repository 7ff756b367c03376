//! Offsets of a topic and a group, and the group's members, as the broker holds them, asked for so often that
//! RocketMQ's own tool would be too slow.

use super::door::Door;
use super::error::{Result, RocketMqError};
use super::remoting::{Answer, Connection, Fields};
use serde::Deserialize;

const QUERY_CONSUMER_OFFSET: i32 = 14;
const GET_MAX_OFFSET: i32 = 30;
const GET_CONSUMER_LIST_BY_GROUP: i32 = 38;
const SYSTEM_ERROR: i32 = 1;
const QUERY_NOT_FOUND: i32 = 22;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    consumer_id_list: Vec<String>,
}

/// A connection to one broker, about one topic and one group. It belongs to the runtime it was made in.
#[derive(Debug)]
pub struct Offsets {
    broker: Connection,
    topic: String,
    group: String,
}

impl Offsets {
    /// Connects to the broker at this address.
    ///
    /// # Errors
    /// When it does not answer within 3 s.
    pub async fn connect(address: &str, topic: &str, group: &str) -> Result<Self> {
        Ok(Self {
            broker: Connection::open(address, &Door::default()).await?,
            topic: topic.to_owned(),
            group: group.to_owned(),
        })
    }

    /// What the group has committed in a queue; none if it never has.
    pub async fn committed(&self, queue: u32) -> Result<Option<u64>> {
        let mut fields = of_queue(&self.topic, queue);
        fields.insert("consumerGroup", self.group.clone());
        // Otherwise a group that never committed reads as 0.
        fields.insert("setZeroIfNotFound", "false".to_owned());
        let answer = self.broker.ask(QUERY_CONSUMER_OFFSET, &fields, b"").await?;
        match answer.code {
            0 => offset(&self.broker, &answer).map(Some),
            QUERY_NOT_FOUND => Ok(None),
            _ => Err(self.refused(QUERY_CONSUMER_OFFSET, answer)),
        }
    }

    /// Client ids of the group's members.
    pub async fn members(&self) -> Result<Vec<String>> {
        let fields = Fields::from([("consumerGroup", self.group.clone())]);
        let request = GET_CONSUMER_LIST_BY_GROUP;
        let answer = self.broker.ask(request, &fields, b"").await?;
        match answer.code {
            0 => serde_json::from_slice(&answer.body)
                .map(|members: Members| members.consumer_id_list)
                .map_err(|error| RocketMqError::Unreadable {
                    from: self.broker.address().to_owned(),
                    reason: error.to_string(),
                    text: String::from_utf8_lossy(&answer.body).into_owned(),
                }),
            // Its word for a group without members.
            SYSTEM_ERROR => Ok(Vec::new()),
            _ => Err(self.refused(request, answer)),
        }
    }

    fn refused(&self, request: i32, answer: Answer) -> RocketMqError {
        RocketMqError::Refused {
            address: self.broker.address().to_owned(),
            request,
            code: answer.code,
            remark: answer.remark,
        }
    }

    /// The offset after the last message of a queue.
    pub async fn end(&self, queue: u32) -> Result<u64> {
        end(&self.broker, &self.topic, queue).await
    }
}

/// The offset after the last message of a queue that its broker shows to consumers.
pub(super) async fn end(broker: &Connection, topic: &str, queue: u32) -> Result<u64> {
    let fields = of_queue(topic, queue);
    let answer = broker.request(GET_MAX_OFFSET, &fields, b"").await?;
    offset(broker, &answer)
}

fn of_queue(topic: &str, queue: u32) -> Fields {
    Fields::from([("topic", topic.to_owned()), ("queueId", queue.to_string())])
}

fn offset(broker: &Connection, answer: &Answer) -> Result<u64> {
    let offset = answer.fields.get("offset").map(String::as_str);
    offset
        .and_then(|offset| offset.parse().ok())
        .ok_or_else(|| RocketMqError::Unreadable {
            from: broker.address().to_owned(),
            reason: "no offset in its answer".to_owned(),
            text: format!("{:?}", answer.fields),
        })
}
