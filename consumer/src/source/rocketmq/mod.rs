//! The adapter to RocketMQ 5 by its remoting protocol.
//!
//! Every request of the data path is built here and its answer read here: the client library's own
//! helpers hide what matters (a commit that is answered with success and stored nothing, a batch whose
//! decoding stops half way). Request codes and fields are those of RocketMQ 5.3.3's remoting protocol
//! (`RequestCode.java`, `header/*RequestHeader.java`).

mod access;
mod answer;
mod connection;
pub mod groups;
mod journal;
mod kind;
pub mod letters;
mod member;
pub mod notes;
mod pulled;
pub mod record;
mod relay;
pub mod sql;
mod store;
pub mod subscription;
mod together;

pub use access::{Access, AccessError, Files, FilesError, Part, Parts, wanted};
pub use together::Standing;

use super::{Commit, Pulled, Route, Source, SourceError};
use crate::contract::spec::{ConsumerSpec, Consumption, Mode};
use crate::message::{Message, QueueId, Topic};
use answer::{Answer, response};
use connection::{Connection, Purpose, Share};
use journal::Journals;
use kind::Kinds;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use subscription::Subscription;
use together::{All, Unanswered};
use tracing::warn;

mod request {
    pub const PULL_MESSAGE: i32 = 11;
    pub const QUERY_CONSUMER_OFFSET: i32 = 14;
    pub const UPDATE_CONSUMER_OFFSET: i32 = 15;
    pub const GET_BROKER_RUNTIME_INFO: i32 = 28;
    pub const SEARCH_OFFSET_BY_TIMESTAMP: i32 = 29;
    pub const GET_MAX_OFFSET: i32 = 30;
    pub const GET_MIN_OFFSET: i32 = 31;
    pub const HEART_BEAT: i32 = 34;
    pub const UNREGISTER_CLIENT: i32 = 35;
    pub const CONSUMER_SEND_MSG_BACK: i32 = 36;
    pub const GET_CONSUMER_LIST_BY_GROUP: i32 = 38;
    pub const LOCK_BATCH_MQ: i32 = 41;
    pub const UNLOCK_BATCH_MQ: i32 = 42;
    pub const CHECK_CLIENT_CONFIG: i32 = 46;
    pub const GET_SUBSCRIPTION_GROUP_CONFIG: i32 = 352;
}

/// A pull may wait at the broker, and carries its subscription with it.
const PULL_SYS_FLAG: u32 = 0b0110;
const PULL_BYTES: u32 = 4 << 20;
/// The broker keeps its own count of how often a message was sent back; ours decides.
const NO_LIMIT: u32 = 1_000_000;

/// RocketMQ, for one topic and one consumer group.
pub struct RocketmqSource {
    connection: Arc<Connection>,
    topic: String,
    group: String,
    client_id: String,
    /// See [`Source::retire`].
    retired: AtomicBool,
    subscription: Subscription,
    /// Mode None: the retry topic is consumed too.
    retry_topic: Option<String>,
    broadcasting: bool,
    /// Brokers that took the expression of the filter.
    filter_taken: RwLock<BTreeSet<Arc<str>>>,
    kinds: Kinds,
    journals: Journals,
    unanswered: Unanswered,
    route: RwLock<Route>,
}

impl RocketmqSource {
    /// Prepares connections to a cluster that lets everybody in; see
    /// [`connect_with`](RocketmqSource::connect_with).
    pub async fn connect(spec: &ConsumerSpec, client_id: &str) -> Result<Self, SourceError> {
        let access = Access::open(&spec.rocketmq)?;
        Self::connect_with(spec, client_id, access).await
    }

    /// Prepares connections; nothing is sent yet, so unreachable brokers show at the first call. The access
    /// is that of the same spec, and may be replaced while this is used.
    pub async fn connect_with(
        spec: &ConsumerSpec,
        client_id: &str,
        access: Access,
    ) -> Result<Self, SourceError> {
        let name_servers = spec.rocketmq.name_servers.join(";");
        let connection = Connection::new(name_servers, client_id.to_owned(), access)?;
        Ok(Self::over(Arc::new(connection), spec, client_id))
    }

    /// The topic and group of another spec, over the same connections: each costs megabytes. Its `rocketmq`
    /// must be the same; nothing is sent yet.
    pub fn beside(&self, spec: &ConsumerSpec) -> Self {
        Self::over(self.connection.clone(), spec, &self.client_id)
    }

    /// Requests to name servers and brokers since this was last asked, of all who share these connections.
    pub fn take_requests(&self) -> u64 {
        self.connection.take_requests()
    }

    fn over(connection: Arc<Connection>, spec: &ConsumerSpec, client_id: &str) -> Self {
        let subscription = Subscription::new(&spec.filter);
        if let Some(unread) = subscription.unread() {
            warn!(
                "spec.filter.sql is not read here ({unread}): the broker alone decides what matches {}",
                subscription.expression()
            );
        }
        if !subscription.ignored().is_empty() {
            warn!(
                "spec.filter.sql: brokers ignore {:?} at its end, which is no SQL92 of theirs; rewrite it: {}",
                subscription.ignored(),
                subscription.expression()
            );
        }
        Self {
            connection,
            topic: spec.topic.clone(),
            group: spec.consumer_group.clone(),
            client_id: client_id.to_owned(),
            retired: AtomicBool::new(false),
            subscription,
            retry_topic: (spec.ordering.mode == Mode::None)
                .then(|| format!("%RETRY%{}", spec.consumer_group)),
            broadcasting: spec.consumption == Consumption::Broadcasting,
            filter_taken: RwLock::default(),
            kinds: Kinds::default(),
            journals: Journals::new(&spec.consumer_group),
            unanswered: Unanswered::default(),
            route: RwLock::default(),
        }
    }

    /// The name of a queue's topic; that of the main one where the group has no other.
    fn topic_of(&self, topic: Topic) -> &str {
        match (topic, &self.retry_topic) {
            (Topic::Retry, Some(retry)) => retry,
            _ => &self.topic,
        }
    }

    fn address(&self, broker: &str) -> Result<String, SourceError> {
        let route = self
            .route
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        route
            .masters
            .get(broker)
            .cloned()
            .ok_or_else(|| SourceError::Unreachable {
                peer: broker.to_owned(),
                what: "anything",
                reason: "the name server names no master of this broker".into(),
            })
    }

    async fn ask(
        &self,
        broker: &str,
        purpose: Purpose,
        what: &'static str,
        request: RemotingCommand,
        wait: Duration,
    ) -> Result<Answer, SourceError> {
        let address = self.address(broker)?;
        let command = self
            .connection
            .invoke(&address, purpose, what, request, wait)
            .await?;
        let answer = Answer {
            command,
            peer: address,
            what,
        };
        if answer.is_denied() {
            let (who, field) = self.connection.who();
            return Err(answer.denied(who, field));
        }
        Ok(answer)
    }

    /// A request about one queue; RocketMQ names its fields the same everywhere.
    fn about(&self, code: i32, queue: &QueueId) -> RemotingCommand {
        let mut request = RemotingCommand::create_remoting_command(code);
        request.add_ext_field("topic", self.topic_of(queue.topic));
        request.add_ext_field("queueId", queue.id.to_string());
        request.add_ext_field("consumerGroup", self.group.as_str());
        request.add_ext_field("bname", &*queue.broker);
        request
    }

    async fn offset(
        &self,
        queue: &QueueId,
        what: &'static str,
        request: RemotingCommand,
    ) -> Result<u64, SourceError> {
        let answer = self
            .ask(
                &queue.broker,
                Purpose::Offsets(Share::of(queue)),
                what,
                request,
                Duration::ZERO,
            )
            .await?;
        answer.success()?.number("offset")
    }

    /// Has the broker check an expression before the first pull: one that it cannot read lets everything
    /// pass there.
    async fn check_filter(&self, broker: &Arc<str>) -> Result<(), SourceError> {
        let poisoned = std::sync::PoisonError::into_inner;
        if self.subscription.kind() == "TAG"
            || self
                .filter_taken
                .read()
                .unwrap_or_else(poisoned)
                .contains(broker)
        {
            return Ok(());
        }
        let body = json!({
            "clientId": self.client_id, "group": self.group,
            "subscriptionData": self.subscription.data(&self.topic),
        });
        let request = RemotingCommand::create_remoting_command(request::CHECK_CLIENT_CONFIG)
            .set_body(body.to_string().into_bytes());
        let what = "a check of the filter";
        let answer = self
            .ask(broker, Purpose::Group, what, request, Duration::ZERO)
            .await?;
        if answer.code() != response::SUCCESS {
            return Err(pulled::refused(answer));
        }
        self.filter_taken
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(broker.clone());
        Ok(())
    }

    /// With no retry queues the broker answers success to what is sent back, and stores nothing.
    async fn check_retry_queues(&self, broker: &str) -> Result<(), SourceError> {
        let mut request =
            RemotingCommand::create_remoting_command(request::GET_SUBSCRIPTION_GROUP_CONFIG);
        request.add_ext_field("group", self.group.as_str());
        let what = "for the configuration of the group";
        let mut answer = self
            .ask(broker, Purpose::SendBack, what, request, Duration::ZERO)
            .await?
            .success()?;
        match answer.json()?["retryQueueNums"].as_i64() {
            Some(1..) => Ok(()),
            number => Err(SourceError::NoRetryQueues {
                peer: answer.peer.clone(),
                group: self.group.clone(),
                number: number.unwrap_or_default(),
            }),
        }
    }

    fn lock_body(&self, queues: &BTreeSet<QueueId>, holder: &str) -> Vec<u8> {
        let set: Vec<Value> = queues
            .iter()
            .map(|queue| json!({
                "topic": self.topic_of(queue.topic), "brokerName": &*queue.broker, "queueId": queue.id,
            }))
            .collect();
        json!({"consumerGroup": self.group, "clientId": holder, "onlyThisBroker": false, "mqSet": set})
            .to_string()
            .into_bytes()
    }
}

impl Source for RocketmqSource {
    async fn route(&self) -> Result<Route, SourceError> {
        let data =
            self.connection
                .route(&self.topic)
                .await?
                .ok_or_else(|| SourceError::UnknownTopic {
                    topic: self.topic.clone(),
                    name_servers: self.connection.name_servers().to_owned(),
                })?;
        let mut route = answer::route(&data, QueueId::new);
        if let Some(retry) = &self.retry_topic {
            // The broker makes it at the first heartbeat of the group.
            if let Some(data) = self.connection.route(retry).await? {
                let retry = answer::route(&data, QueueId::retry);
                route.masters.extend(retry.masters);
                route.queues.extend(retry.queues);
            }
        }
        *self
            .route
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = route.clone();
        Ok(route)
    }

    async fn heartbeat(&self, broker: &str) -> Result<(), SourceError> {
        self.join_group(broker).await
    }

    async fn members(&self, broker: &str) -> Result<BTreeSet<String>, SourceError> {
        self.list_group(broker).await
    }

    async fn retire(&self, broker: &str) -> Result<(), SourceError> {
        self.retire_from_group(broker).await
    }

    async fn started_at(&self, broker: &str) -> Option<u64> {
        let request = RemotingCommand::create_remoting_command(request::GET_BROKER_RUNTIME_INFO);
        let what = "since when it runs";
        let answer = self.ask(broker, Purpose::Group, what, request, Duration::ZERO);
        // Who may not ask an administrator's question lives without.
        let mut answer = answer.await.ok()?.success().ok()?;
        let table = answer.json().ok()?;
        table["table"]["bootTimestamp"].as_str()?.parse().ok()
    }

    async fn leave(&self, broker: &str) -> Result<(), SourceError> {
        self.leave_group(broker).await
    }

    async fn lock(
        &self,
        broker: &str,
        queues: &BTreeSet<QueueId>,
    ) -> Result<BTreeSet<QueueId>, SourceError> {
        self.check_kind(broker).await?;
        let request = RemotingCommand::create_remoting_command(request::LOCK_BATCH_MQ)
            .set_body(self.lock_body(queues, &self.client_id));
        let mut answer = self
            .ask(
                broker,
                Purpose::Lock,
                "queue locks",
                request,
                Duration::ZERO,
            )
            .await?
            .success()?;
        let body = answer.json()?;
        let locked = body["lockOKMQSet"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let locked = locked.iter().filter_map(|queue| {
            let topic = match queue["topic"].as_str()? {
                topic if topic == self.topic => Topic::Main,
                topic if Some(topic) == self.retry_topic.as_deref() => Topic::Retry,
                _ => return None,
            };
            Some(QueueId {
                topic,
                broker: Arc::from(queue["brokerName"].as_str()?),
                id: u32::try_from(queue["queueId"].as_u64()?).ok()?,
            })
        });
        Ok(locked.filter(|queue| queues.contains(queue)).collect())
    }

    async fn unlock(&self, broker: &str, queues: &BTreeSet<QueueId>) -> Result<(), SourceError> {
        let request = RemotingCommand::create_remoting_command(request::UNLOCK_BATCH_MQ)
            .set_body(self.lock_body(queues, &self.client_id));
        self.ask(
            broker,
            Purpose::Lock,
            "to unlock queues",
            request,
            Duration::ZERO,
        )
        .await?
        .success()?;
        Ok(())
    }

    async fn committed(&self, queue: &QueueId) -> Result<Option<u64>, SourceError> {
        let mut request = self.about(request::QUERY_CONSUMER_OFFSET, queue);
        // Otherwise a group that never committed reads as 0.
        request.add_ext_field("setZeroIfNotFound", "false");
        let what = "for the committed offset";
        let answer = self
            .ask(
                &queue.broker,
                Purpose::Offsets(Share::of(queue)),
                what,
                request,
                Duration::ZERO,
            )
            .await?;
        if answer.code() == response::QUERY_NOT_FOUND {
            return Ok(None);
        }
        answer.success()?.number("offset").map(Some)
    }

    async fn committed_of_all(&self, broker: &str, topic: Topic) -> BTreeMap<u32, u64> {
        let all = self.all(All::Committed, broker, self.topic_of(topic)).await;
        all.into_iter()
            .map(|(id, of): (u32, together::Committed)| (id, of.consumer_offset))
            .collect()
    }

    async fn commit(&self, queue: &QueueId, offset: u64) -> Result<Commit, SourceError> {
        let mut request = self.about(request::UPDATE_CONSUMER_OFFSET, queue);
        request.add_ext_field("commitOffset", offset.to_string());
        let answer = self
            .ask(
                &queue.broker,
                Purpose::Offsets(Share::of(queue)),
                "a commit",
                request,
                Duration::ZERO,
            )
            .await?
            .success()?;
        // While a reset is pending the broker answers success with a remark, and stores nothing.
        Ok(if answer.remark().is_empty() {
            Commit::Stored
        } else {
            Commit::ResetPending
        })
    }

    async fn bounds(&self, queue: &QueueId) -> Result<(u64, u64), SourceError> {
        // Where a queue begins that was never locked, as in Broadcasting.
        self.check_kind(&queue.broker).await?;
        let min = self
            .offset(
                queue,
                "for the smallest offset",
                self.about(request::GET_MIN_OFFSET, queue),
            )
            .await?;
        let max = self
            .offset(
                queue,
                "for the largest offset",
                self.about(request::GET_MAX_OFFSET, queue),
            )
            .await?;
        Ok((min, max))
    }

    async fn offset_at(&self, queue: &QueueId, timestamp_ms: i64) -> Result<u64, SourceError> {
        let mut request = self.about(request::SEARCH_OFFSET_BY_TIMESTAMP, queue);
        request.add_ext_field("timestamp", timestamp_ms.to_string());
        self.offset(queue, "for the offset of a time", request)
            .await
    }

    async fn pull(
        &self,
        queue: &QueueId,
        offset: u64,
        max_messages: u32,
        wait: Duration,
    ) -> Result<Pulled, SourceError> {
        self.check_filter(&queue.broker).await?;
        let mut request = self.about(request::PULL_MESSAGE, queue);
        for (field, value) in [
            ("queueOffset", offset),
            ("maxMsgNums", max_messages.into()),
            ("sysFlag", PULL_SYS_FLAG.into()),
            ("commitOffset", 0),
            ("suspendTimeoutMillis", wait.as_millis() as u64),
            ("subVersion", 0),
            ("maxMsgBytes", PULL_BYTES.into()),
        ] {
            request.add_ext_field(field, value.to_string());
        }
        let everything = Subscription::all();
        let subscription = match queue.topic {
            Topic::Main => &self.subscription,
            Topic::Retry => &everything,
        };
        request.add_ext_field("subscription", subscription.expression());
        request.add_ext_field("expressionType", subscription.kind());
        let answer = self
            .ask(
                &queue.broker,
                Purpose::Pull(queue.topic, queue.id),
                "a pull",
                request,
                wait,
            )
            .await?;
        pulled::read(answer, offset, subscription)
    }

    async fn send_back(
        &self,
        queue: &QueueId,
        message: &Message,
        delay_level: i32,
    ) -> Result<(), SourceError> {
        self.check_retry_queues(&queue.broker).await?;
        let mut request = RemotingCommand::create_remoting_command(request::CONSUMER_SEND_MSG_BACK);
        for (field, value) in [
            ("offset", message.physical_offset.to_string()),
            ("group", self.group.clone()),
            ("delayLevel", delay_level.to_string()),
            ("originMsgId", message.id.to_string()),
            ("originTopic", self.topic_of(queue.topic).to_owned()),
            ("unitMode", "false".to_owned()),
            ("maxReconsumeTimes", NO_LIMIT.to_string()),
            ("bname", queue.broker.to_string()),
        ] {
            request.add_ext_field(field, value);
        }
        self.ask(
            &queue.broker,
            Purpose::SendBack,
            "a message that is sent back",
            request,
            Duration::ZERO,
        )
        .await?
        .success()?;
        Ok(())
    }
}
