//! A broker's answer and what is read from it.

use crate::message::QueueId;
use crate::source::{Route, SourceError};
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use rocketmq_protocol::protocol::route::topic_route_data::TopicRouteData;
use serde_json::Value;
use std::sync::Arc;

/// Response codes (`ResponseCode.java`, `RemotingSysResponseCode.java`).
pub mod response {
    pub const SUCCESS: i32 = 0;
    pub const SYSTEM_ERROR: i32 = 1;
    pub const SYSTEM_BUSY: i32 = 2;
    pub const NO_PERMISSION: i32 = 16;
    pub const PULL_NOT_FOUND: i32 = 19;
    pub const PULL_RETRY_IMMEDIATELY: i32 = 20;
    pub const PULL_OFFSET_MOVED: i32 = 21;
    pub const QUERY_NOT_FOUND: i32 = 22;
    pub const SUBSCRIPTION_PARSE_FAILED: i32 = 23;
}

const PERMISSION_READ: u32 = 0b0100;
/// Id of the master among the brokers of one name.
pub const MASTER: u64 = 0;
/// Words of the ACL (`org.apache.rocketmq.auth` of RocketMQ 5.3.3).
const DENIALS: [&str; 6] = [
    "check signature failed",
    "User:",
    "username cannot be null",
    "has no permission to access",
    "Authentication failed",
    "Authorization failed",
];

/// Most queues of a topic that are believed.
const MOST_QUEUES: u64 = 1 << 16;

/// A broker's answer and whom it came from.
pub struct Answer {
    pub command: RemotingCommand,
    pub peer: String,
    pub what: &'static str,
}

impl Answer {
    pub fn code(&self) -> i32 {
        self.command.code()
    }

    pub fn remark(&self) -> &str {
        self.command.remark().map_or("", |remark| remark.as_str())
    }

    /// Whether the broker's ACL refused. It has the code for other refusals too: a topic or a group that
    /// nobody may read.
    pub fn is_denied(&self) -> bool {
        self.code() == response::NO_PERMISSION
            && DENIALS.iter().any(|words| self.remark().contains(words))
    }

    /// `field` is where it is said who we are.
    pub fn denied(self, who: String, field: &'static str) -> SourceError {
        let remark = self.remark().to_owned();
        SourceError::Denied {
            peer: self.peer,
            what: self.what,
            who,
            field,
            remark,
        }
    }

    pub fn success(self) -> Result<Self, SourceError> {
        if self.code() == response::SUCCESS {
            Ok(self)
        } else {
            Err(self.refused())
        }
    }

    pub fn refused(self) -> SourceError {
        let (code, remark) = (self.code(), self.remark().to_owned());
        SourceError::Refused {
            peer: self.peer,
            what: self.what,
            code,
            remark,
        }
    }

    pub fn malformed(&self, reason: String) -> SourceError {
        SourceError::Malformed {
            peer: self.peer.clone(),
            what: self.what,
            reason,
        }
    }

    pub fn number(&self, field: &'static str) -> Result<u64, SourceError> {
        let fields = self.command.ext_fields();
        let text = fields
            .and_then(|fields| fields.get(field))
            .map_or("", |text| text.as_str());
        text.parse()
            .map_err(|_| self.malformed(format!("field {field} is {text:?}, not an offset")))
    }

    pub fn json(&mut self) -> Result<Value, SourceError> {
        let body = self.command.take_body().unwrap_or_default();
        serde_json::from_slice(&body)
            .map_err(|error| self.malformed(format!("the body is not JSON: {error}")))
    }
}

/// In words why a route cannot be followed: each queue gets a name of its own, and a few bytes can speak of
/// billions.
pub fn followable(data: &TopicRouteData) -> Result<(), String> {
    let queues = data.queue_datas.iter();
    let number: u64 = queues.map(|of| u64::from(of.read_queue_nums())).sum();
    if number <= MOST_QUEUES {
        return Ok(());
    }
    Err(format!(
        "it speaks of {number} queues of the topic, and more than {MOST_QUEUES} are not believed"
    ))
}

/// The masters and readable queues of a topic; `queue` makes a queue's name from broker and id.
pub fn route(data: &TopicRouteData, queue: impl Fn(Arc<str>, u32) -> QueueId) -> Route {
    let mut route = Route::default();
    for broker in &data.broker_datas {
        if let Some(address) = broker.broker_addrs().get(&MASTER) {
            route.masters.insert(
                Arc::from(broker.broker_name().as_str()),
                address.to_string(),
            );
        }
    }
    for queues in &data.queue_datas {
        let broker: Arc<str> = Arc::from(queues.broker_name().as_str());
        if queues.perm() & PERMISSION_READ != 0 && route.masters.contains_key(&broker) {
            route
                .queues
                .extend((0..queues.read_queue_nums()).map(|id| queue(broker.clone(), id)));
        }
    }
    // Masters of other topics' queues are of no use.
    route
        .masters
        .retain(|broker, _| route.queues.iter().any(|queue| queue.broker == *broker));
    route
}

#[cfg(test)]
mod tests {
    use super::*;
    use cheetah_string::CheetahString;
    use rocketmq_protocol::protocol::route::route_data_view::QueueData;

    #[test]
    fn a_route_of_more_queues_than_there_can_be_is_not_followed() {
        let of = |numbers: &[u32]| {
            let queues = numbers
                .iter()
                .map(|number| QueueData::new(CheetahString::from_slice("b"), *number, 8, 6, 0));
            followable(&TopicRouteData {
                queue_datas: queues.collect(),
                ..TopicRouteData::default()
            })
        };
        assert_eq!(of(&[8, 1_024]), Ok(()));
        for wrong in [&[u32::MAX][..], &[40_000, 40_000]] {
            let reason = of(wrong).unwrap_err();
            assert!(reason.contains("are not believed"), "{reason}");
        }
    }
}
