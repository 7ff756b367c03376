//! A consumer group as its brokers see it, whoever its members are: for whoever wants to take it over.
//!
//! Source: `ConsumerConnection.java`, `Connection.java` and `SubscriptionData.java` of Apache RocketMQ 5.3.3.

use super::answer::response;
use super::connection::Purpose;
use super::together::{Key, offset_table};
use super::{RocketmqSource, answer};
use crate::message::QueueId;
use crate::source::{Route, SourceError};
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

const GET_CONSUMER_CONNECTION_LIST: i32 = 203;
const GET_CONSUME_STATS: i32 = 208;
const CONSUMER_NOT_ONLINE: i32 = 206;

/// Members and subscriptions of a group, as one broker has them from heartbeats.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Connected {
    /// Its members.
    pub connection_set: Vec<Member>,
    /// What they subscribe, by topic.
    pub subscription_table: BTreeMap<String, Subscribed>,
    /// CLUSTERING or BROADCASTING.
    pub message_model: String,
}

/// A member of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Member {
    /// Its client id.
    pub client_id: String,
    /// Its address, as the broker sees it.
    pub client_addr: String,
    /// What its client is written in.
    pub language: String,
}

/// What of a topic a group subscribes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subscribed {
    /// The expression; `*` for everything.
    pub sub_string: String,
    /// TAG or SQL92.
    pub expression_type: String,
}

/// Where a group is in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// Offset of the next message to be stored.
    pub broker_offset: i64,
    /// Committed offset; 0 also if there is none.
    pub consumer_offset: i64,
}

impl Position {
    /// Where the group is in every queue that a broker's answer tells of, by topic and queue id; in words what
    /// cannot be read.
    pub fn all(answer: &[u8]) -> Result<BTreeMap<(String, u32), Self>, String> {
        let table: Vec<(Key, Self)> = offset_table(answer)?;
        let table = table.into_iter();
        Ok(table
            .map(|(key, position)| ((key.topic, key.queue_id), position))
            .collect())
    }
}

impl RocketmqSource {
    /// The brokers that know the group: each makes a retry topic at the first heartbeat of a member. None if it
    /// never had one, or only such that get every message (Broadcasting).
    pub async fn group_route(&self) -> Result<Option<Route>, SourceError> {
        let retry = format!("%RETRY%{}", self.group);
        let found = Box::pin(self.connection.route(&retry)).await?;
        let route = found.map(|data| answer::route(&data, QueueId::retry));
        if let Some(route) = &route {
            let mut known = self.route.write().unwrap_or_else(PoisonError::into_inner);
            known.masters.extend(route.masters.clone());
        }
        Ok(route)
    }

    /// Members and subscriptions at a broker; none of either if no member is connected.
    pub async fn connected(&self, broker: &str) -> Result<Connected, SourceError> {
        let mut request = RemotingCommand::create_remoting_command(GET_CONSUMER_CONNECTION_LIST);
        request.add_ext_field("consumerGroup", self.group.as_str());
        let what = "for the members of the group";
        let purpose = Purpose::Group;
        let asked = self.ask(broker, purpose, what, request, Duration::ZERO);
        let mut answer = Box::pin(asked).await?;
        let nobody = answer.code() == CONSUMER_NOT_ONLINE
            || (answer.code() == response::SYSTEM_ERROR && answer.remark().contains("not online"));
        if nobody {
            return Ok(Connected::default());
        }
        answer = answer.success()?;
        let body = answer.command.take_body().unwrap_or_default();
        serde_json::from_slice(&body).map_err(|error| answer.malformed(error.to_string()))
    }

    /// Where the group is in every queue of a broker that it ever committed, by topic and queue id.
    pub async fn positions(
        &self,
        broker: &str,
    ) -> Result<BTreeMap<(String, u32), Position>, SourceError> {
        let mut request = RemotingCommand::create_remoting_command(GET_CONSUME_STATS);
        request.add_ext_field("consumerGroup", self.group.as_str());
        let what = "for the offsets of the group";
        let asked = self.ask(broker, Purpose::All, what, request, Duration::ZERO);
        let mut answer = Box::pin(asked).await?.success()?;
        let body = answer.command.take_body().unwrap_or_default();
        Position::all(&body).map_err(|reason| answer.malformed(reason))
    }
}
