//! A topic whose records hold several messages is refused before any of its queues is taken.
//!
//! In one of `queue.type` BatchCQ a record is what a producer sent at once, with as many queue offsets as it
//! has messages; what is finished could not be told from it. A broker says which type a topic is of with its
//! configuration. One that does not say, or not to us, shows it with the first such record (`record`).
//!
//! Source: `TopicAttributes.java`, `QueueTypeUtils.java` and `AdminBrokerProcessor.getTopicConfig` of Apache
//! RocketMQ 5.3.3.

use super::RocketmqSource;
use super::answer::response;
use super::connection::Purpose;
use crate::source::SourceError;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;

const GET_TOPIC_CONFIG: i32 = 351;

/// Brokers that were asked, each once for all queues that begin together.
#[derive(Default)]
pub struct Kinds(Mutex<HashMap<Box<str>, Arc<OnceCell<()>>>>);

impl Kinds {
    fn of(&self, broker: &str) -> Arc<OnceCell<()>> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.entry(broker.into()).or_default().clone()
    }
}

impl RocketmqSource {
    /// An error if the topic is one that cannot be consumed.
    pub(super) async fn check_kind(&self, broker: &str) -> Result<(), SourceError> {
        let asked = self.kinds.of(broker);
        asked.get_or_try_init(|| self.ask_kind(broker)).await?;
        Ok(())
    }

    async fn ask_kind(&self, broker: &str) -> Result<(), SourceError> {
        let mut request = RemotingCommand::create_remoting_command(GET_TOPIC_CONFIG);
        request.add_ext_field("topic", self.topic.as_str());
        let what = "for the configuration of the topic";
        let answer = self
            .ask(broker, Purpose::All, what, request, Duration::ZERO)
            .await;
        let mut answer = match answer {
            Ok(answer) if answer.code() == response::SUCCESS => answer,
            Ok(_) | Err(SourceError::Denied { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let config = answer.json().unwrap_or_default();
        match config["attributes"]["queue.type"].as_str() {
            Some("BatchCQ") => Err(SourceError::BatchTopic {
                peer: answer.peer,
                topic: self.topic.clone(),
            }),
            _ => Ok(()),
        }
    }
}
