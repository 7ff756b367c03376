//! Topics of our own: made where they are missing, written to, and read without waiting for more.

use super::answer::response;
use super::connection::Purpose;
use super::{RocketmqSource, request};
use crate::message::QueueId;
use crate::source::SourceError;
use bytes::Bytes;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::sleep;

const SEND_MESSAGE: i32 = 10;
const UPDATE_AND_CREATE_TOPIC: i32 = 17;
const GET_TOPIC_CONFIG: i32 = 351;
pub const TOPIC_NOT_EXIST: i32 = 17;
/// The message is stored; how safely is up to how the broker is set up (`SendMessageProcessor.java`).
const STORED: [i32; 4] = [response::SUCCESS, 10, 11, 12];

/// A pull that does not wait at the broker, and carries its subscription with it.
const PULL_AT_ONCE: u32 = 0b0100;
const PERMISSION_READ_WRITE: u32 = 0b0110;

/// How often something is offered again to a busy broker.
const BUSY_TIMES: u32 = 6;
/// Before it is, the first time; twice as long each time after that.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// A message that is to be stored.
#[derive(Clone)]
pub struct ToStore<'t> {
    pub topic: &'t str,
    pub queue: u32,
    /// The producer's own flag.
    pub flag: i32,
    pub system_flag: u32,
    /// In RocketMQ's own form.
    pub properties: String,
    pub body: Bytes,
}

impl RocketmqSource {
    /// Sees to it that a topic has so many queues at a broker; returns how many there were.
    pub(super) async fn make_topic(
        &self,
        broker: &str,
        purpose: Purpose,
        topic: &str,
        wanted: u32,
    ) -> Result<u32, SourceError> {
        let mut request = RemotingCommand::create_remoting_command(GET_TOPIC_CONFIG);
        request.add_ext_field("topic", topic);
        let what = "for the configuration of a topic of ours";
        let mut answer = self
            .ask(broker, purpose.clone(), what, request, Duration::ZERO)
            .await?;
        let there = if answer.code() == TOPIC_NOT_EXIST {
            0
        } else {
            answer = answer.success()?;
            let config = answer.json()?;
            let queues = |field: &str| config[field].as_u64().unwrap_or(0) as u32;
            queues("readQueueNums").min(queues("writeQueueNums"))
        };
        if there < wanted {
            let mut request = RemotingCommand::create_remoting_command(UPDATE_AND_CREATE_TOPIC);
            for (field, value) in [
                ("topic", topic.to_owned()),
                ("defaultTopic", "TBW102".to_owned()),
                ("readQueueNums", wanted.to_string()),
                ("writeQueueNums", wanted.to_string()),
                ("perm", PERMISSION_READ_WRITE.to_string()),
                ("topicFilterType", "SINGLE_TAG".to_owned()),
                ("topicSysFlag", "0".to_owned()),
                ("order", "false".to_owned()),
            ] {
                request.add_ext_field(field, value);
            }
            let what = "to make a topic of ours";
            self.ask(broker, purpose, what, request, Duration::ZERO)
                .await?
                .success()?;
        }
        Ok(there)
    }

    /// Stores a message in a queue; returns its offset once the broker acknowledged it. After an error that
    /// is no refusal it may be there, or come to be there.
    pub(super) async fn store(
        &self,
        broker: &str,
        purpose: Purpose,
        what: &'static str,
        message: ToStore<'_>,
    ) -> Result<u64, SourceError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut request = RemotingCommand::create_remoting_command(SEND_MESSAGE);
        for (field, value) in [
            ("producerGroup", self.group.clone()),
            ("topic", message.topic.to_owned()),
            ("defaultTopic", "TBW102".to_owned()),
            ("defaultTopicQueueNums", "4".to_owned()),
            ("queueId", message.queue.to_string()),
            ("sysFlag", message.system_flag.to_string()),
            ("bornTimestamp", now.as_millis().to_string()),
            ("flag", message.flag.to_string()),
            ("properties", message.properties),
            ("reconsumeTimes", "0".to_owned()),
            ("unitMode", "false".to_owned()),
            ("batch", "false".to_owned()),
            ("bname", broker.to_owned()),
        ] {
            request.add_ext_field(field, value);
        }
        let request = request.set_body(message.body);
        let answer = self
            .ask(broker, purpose, what, request, Duration::ZERO)
            .await?;
        if !STORED.contains(&answer.code()) {
            return Err(answer.refused());
        }
        answer.number("queueOffset")
    }

    /// The same for what nobody's lease waits for: offered again, for some seconds, to a broker that is busy.
    pub(super) async fn store_patiently(
        &self,
        broker: &str,
        purpose: Purpose,
        what: &'static str,
        message: ToStore<'_>,
    ) -> Result<u64, SourceError> {
        let mut pauses = pauses();
        loop {
            let sent = self.store(broker, purpose.clone(), what, message.clone());
            match Box::pin(sent).await {
                Err(error) if is_busy(&error) => match pauses.next() {
                    Some(pause) => sleep(pause).await,
                    None => return Err(error),
                },
                sent => return sent,
            }
        }
    }

    /// A pull of a topic that is answered at once, whether there is something or not.
    pub(super) fn pull_at_once(
        &self,
        topic: &str,
        queue: &QueueId,
        from: u64,
        most: u32,
    ) -> RemotingCommand {
        let mut request = RemotingCommand::create_remoting_command(request::PULL_MESSAGE);
        for (field, value) in [
            ("consumerGroup", self.group.clone()),
            ("topic", topic.to_owned()),
            ("queueId", queue.id.to_string()),
            ("queueOffset", from.to_string()),
            ("maxMsgNums", most.to_string()),
            ("sysFlag", PULL_AT_ONCE.to_string()),
            ("commitOffset", "0".to_owned()),
            ("suspendTimeoutMillis", "0".to_owned()),
            ("subscription", "*".to_owned()),
            ("subVersion", "0".to_owned()),
            ("expressionType", "TAG".to_owned()),
            ("bname", queue.broker.to_string()),
        ] {
            request.add_ext_field(field, value);
        }
        request
    }
}

/// Whether the broker was too busy to look at a request. It has done nothing then: it says so of what it takes out
/// of its queue unseen (`BrokerFastFailure.java` of Apache RocketMQ 5.3.3), and RocketMQ's own producer sends that
/// again, too.
fn is_busy(error: &SourceError) -> bool {
    matches!(error, SourceError::Refused { code, .. } if *code == response::SYSTEM_BUSY)
}

/// How long to wait before a busy broker is asked again, each time.
fn pauses() -> impl Iterator<Item = Duration> + Send {
    (0..BUSY_TIMES).map(|times| BUSY_PAUSE * 2_u32.pow(times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_broker_is_asked_again_for_some_seconds_and_no_other() {
        let refused = |code| SourceError::Refused {
            peer: "b".to_owned(),
            what: "a message",
            code,
            remark: "[TIMEOUT_CLEAN_QUEUE]broker busy".to_owned(),
        };
        assert!(is_busy(&refused(response::SYSTEM_BUSY)));
        // It may have stored it.
        assert!(!is_busy(&refused(response::SYSTEM_ERROR)));
        let all: Duration = pauses().sum();
        assert!((3..=5).contains(&all.as_secs()), "{all:?}");
        assert!(pauses().is_sorted());
    }
}
