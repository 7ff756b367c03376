//! The port to RocketMQ: what the executor needs of a broker, and nothing more. The one adapter is
//! [`rocketmq`].
//!
//! Every call is bounded in time by the adapter. An error means that the outcome is unknown; callers
//! repeat the call, which all of these allow.

pub mod journal;
pub mod rocketmq;

use crate::message::{Message, QueueId, Topic};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// The master brokers of the topic and their queues, as the name server reports them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Address of the master of each broker name, as host:port.
    pub masters: BTreeMap<Arc<str>, String>,
    /// Every readable queue of the topic.
    pub queues: BTreeSet<QueueId>,
}

/// Answer to a pull. `next` is where the next pull begins; everything in `[asked, next)` that is not
/// among the messages was filtered out or does not exist, and is therefore finished, unless it says otherwise.
#[derive(Debug)]
pub enum Pulled {
    /// Messages, in offset order, decoded to the last byte of the reply.
    Found {
        /// The messages.
        messages: Vec<Message>,
        /// Where the next pull begins.
        next: u64,
    },
    /// Nothing in `[asked, next)` matched.
    NoMatch {
        /// Where the next pull begins.
        next: u64,
    },
    /// The broker has removed what was in `[asked, next)`, because it expired: it is lost.
    Removed {
        /// Where the next pull begins.
        next: u64,
    },
    /// There is nothing new; pull again at the same offset.
    NoNew,
    /// The offset is not one the broker accepts. It says nothing about what is finished.
    OutOfRange {
        /// Smallest offset the broker holds.
        min: u64,
        /// Offset of the next message to be stored.
        max: u64,
    },
}

/// Answer to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// The broker stored the offset.
    Stored,
    /// The broker answered success but stored nothing, because an offset reset of the group is pending.
    ResetPending,
}

/// Why a call failed. Everything is worth repeating but [`SourceError::is_permanent`] ones.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The name server does not know the topic.
    #[error(
        "topic {topic:?} is not known to name server {name_servers}: create it (mqadmin updateTopic) or correct spec.topic"
    )]
    UnknownTopic {
        /// The topic.
        topic: String,
        /// Name server addresses, separated by semicolons.
        name_servers: String,
    },
    /// No answer came in time or the connection failed.
    #[error(
        "{peer} did not answer {what}: {reason}; check that the address is right and reachable from here, and whether it wants TLS (spec.rocketmq.tls)"
    )]
    Unreachable {
        /// Address or name of the peer.
        peer: String,
        /// What was asked.
        what: &'static str,
        /// What the client library reported.
        reason: String,
    },
    /// There is no TLS connection that both sides trust.
    #[error("{peer} was not asked {what}, for want of a TLS connection: {reason}")]
    Untrusted {
        /// Address of the peer.
        peer: String,
        /// What was to be asked.
        what: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// The broker does not let us do this.
    #[error(
        "broker {peer} refuses {what} to {who}: {remark}; check {field} and the rights of that user (mqadmin getUser, getAcl)"
    )]
    Denied {
        /// Address of the broker.
        peer: String,
        /// What was asked.
        what: &'static str,
        /// Who we are to it.
        who: String,
        /// Where that is said.
        field: &'static str,
        /// The broker's words.
        remark: String,
    },
    /// The broker refused.
    #[error("broker {peer} refused {what} with code {code}: {remark}")]
    Refused {
        /// Address or name of the broker.
        peer: String,
        /// What was asked.
        what: &'static str,
        /// RocketMQ response code.
        code: i32,
        /// The broker's words.
        remark: String,
    },
    /// The broker does not filter as it is asked to.
    #[error("broker {peer} refuses the filter: {reason}")]
    Filter {
        /// Address of the broker.
        peer: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The topic's records hold several messages each.
    #[error(
        "topic {topic:?} is of queue.type BatchCQ at broker {peer}, which is not supported: several messages lie in \
         one record there; consume a topic of queue.type SimpleCQ"
    )]
    BatchTopic {
        /// Address of the broker.
        peer: String,
        /// The topic.
        topic: String,
    },
    /// The broker would drop what is sent back.
    #[error(
        "broker {peer} has group {group:?} with retryQueueNums {number} and would drop what is sent back: \
         set it to 1 (mqadmin updateSubGroup -q 1)"
    )]
    NoRetryQueues {
        /// Address of the broker.
        peer: String,
        /// The group.
        group: String,
        /// Retry queues it has.
        number: i64,
    },
    /// What is to let us into the cluster cannot be used.
    #[error(transparent)]
    Access(#[from] rocketmq::AccessError),
    /// The reply could not be read to its end.
    #[error("the reply of {peer} to {what} cannot be read: {reason}")]
    Malformed {
        /// Address or name of the broker.
        peer: String,
        /// What was asked.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl SourceError {
    /// True if repeating the call cannot help until a person changes something.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::UnknownTopic { .. }
                | Self::Filter { .. }
                | Self::BatchTopic { .. }
                | Self::NoRetryQueues { .. }
                | Self::Access(_)
        )
    }
}

/// What the executor needs of RocketMQ, for one topic and one consumer group.
///
/// Calls for different queues may run at the same time; a pull waits at the broker for new messages
/// (long polling) and must not delay any other call.
pub trait Source: journal::Journal {
    /// Fetches the route afresh from the name server.
    fn route(&self) -> impl Future<Output = Result<Route, SourceError>> + Send;

    /// Tells the broker that this client is a member of the group.
    fn heartbeat(&self, broker: &str) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Client ids of the group's members as this broker sees them.
    fn members(
        &self,
        broker: &str,
    ) -> impl Future<Output = Result<BTreeSet<String>, SourceError>> + Send;

    /// Tells the broker that this client, which is a member, gives all of its queues away and takes no others: lists
    /// of members then have a second id of it, which ends with
    /// [`DRAINING`](crate::ownership::membership::DRAINING). As a heartbeat this is to be repeated.
    fn retire(&self, broker: &str) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// When the broker's process was started, in its own time, if it tells us.
    fn started_at(&self, broker: &str) -> impl Future<Output = Option<u64>> + Send;

    /// Tells the broker that this client leaves the group.
    fn leave(&self, broker: &str) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Locks or renews queues of one broker for this client; returns those now locked by it.
    fn lock(
        &self,
        broker: &str,
        queues: &BTreeSet<QueueId>,
    ) -> impl Future<Output = Result<BTreeSet<QueueId>, SourceError>> + Send;

    /// Gives back queues of one broker.
    fn unlock(
        &self,
        broker: &str,
        queues: &BTreeSet<QueueId>,
    ) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Offset the group committed, none if it never did.
    fn committed(
        &self,
        queue: &QueueId,
    ) -> impl Future<Output = Result<Option<u64>, SourceError>> + Send;

    /// Offsets that the group committed, of every queue of a topic at this broker, by queue id: one question.
    /// 0 also where it never did. A broker may not answer it, and tells nothing of some or all of them then.
    fn committed_of_all(
        &self,
        broker: &str,
        topic: Topic,
    ) -> impl Future<Output = BTreeMap<u32, u64>> + Send;

    /// Commits an offset; `Ok` only once the broker acknowledged it.
    fn commit(
        &self,
        queue: &QueueId,
        offset: u64,
    ) -> impl Future<Output = Result<Commit, SourceError>> + Send;

    /// Smallest offset of the queue, and the offset of the next message to be stored.
    fn bounds(
        &self,
        queue: &QueueId,
    ) -> impl Future<Output = Result<(u64, u64), SourceError>> + Send;

    /// First offset stored at this time (milliseconds since the Unix epoch) or later.
    fn offset_at(
        &self,
        queue: &QueueId,
        timestamp_ms: i64,
    ) -> impl Future<Output = Result<u64, SourceError>> + Send;

    /// Pulls up to `max_messages` from `offset`, waiting up to `wait` at the broker if there are none.
    fn pull(
        &self,
        queue: &QueueId,
        offset: u64,
        max_messages: u32,
        wait: Duration,
    ) -> impl Future<Output = Result<Pulled, SourceError>> + Send;

    /// Has the broker copy a message to the dead letter queue (`delay_level` -1) or, after the time of
    /// that delay level, to the retry topic; `Ok` only once it acknowledged that. If the answer is lost
    /// the copy may be there all the same.
    fn send_back(
        &self,
        queue: &QueueId,
        message: &Message,
        delay_level: i32,
    ) -> impl Future<Output = Result<(), SourceError>> + Send;
}
