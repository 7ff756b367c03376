//! Who sends [dead letters](super::letters) again, and notes about which were: a lock at the broker that has them,
//! and a topic of ours beside them, with one queue for each of theirs.

use super::answer::response;
use super::connection::Purpose;
use super::letters::LETTERS_AT_ONCE;
use super::store::{TOPIC_NOT_EXIST, ToStore};
use super::{Answer, RocketmqSource, record, request};
use crate::message::QueueId;
use crate::source::SourceError;
use bytes::Bytes;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use serde_json::json;

/// The topic with notes about dead letters: no group's [journal](crate::journal::topic) is called so.
pub fn notes_topic(group: &str) -> String {
    format!("KEYLANE-{group}")
}

impl RocketmqSource {
    /// Takes the broker's lock of a queue of dead letters, which lives for 60 s, or renews it; false if
    /// somebody else has it.
    pub async fn lock_letters(&self, queue: &QueueId) -> Result<bool, SourceError> {
        let what = "the lock of the dead letters";
        let mut answer = self
            .about_lock(queue, request::LOCK_BATCH_MQ, what)
            .await?
            .success()?;
        let body = answer.json()?;
        Ok(body["lockOKMQSet"]
            .as_array()
            .is_some_and(|locked| !locked.is_empty()))
    }

    /// Gives it back.
    pub async fn unlock_letters(&self, queue: &QueueId) -> Result<(), SourceError> {
        let what = "to unlock the dead letters";
        self.about_lock(queue, request::UNLOCK_BATCH_MQ, what)
            .await?
            .success()?;
        Ok(())
    }

    async fn about_lock(
        &self,
        queue: &QueueId,
        code: i32,
        what: &'static str,
    ) -> Result<Answer, SourceError> {
        let set = json!([{
            "topic": self.letter_topic(), "brokerName": &*queue.broker, "queueId": queue.id,
        }]);
        let body = json!({
            "consumerGroup": self.group, "clientId": self.client_id, "onlyThisBroker": false, "mqSet": set,
        });
        let request =
            RemotingCommand::create_remoting_command(code).set_body(body.to_string().into_bytes());
        self.ask_letters(&queue.broker, what, request).await
    }

    /// The last note about a queue of dead letters, and the offset that the next one will have.
    pub async fn last_note(&self, queue: &QueueId) -> Result<(Option<Bytes>, u64), SourceError> {
        let topic = notes_topic(&self.group);
        let what = "for what was sent again";
        let mut from = 0;
        // The first answer tells where the end is.
        loop {
            let request = self.pull_at_once(&topic, queue, from, LETTERS_AT_ONCE);
            let mut answer = self.ask_letters(&queue.broker, what, request).await?;
            if answer.code() == TOPIC_NOT_EXIST {
                return Ok((None, 0));
            }
            let max = answer.number("maxOffset")?;
            if answer.number("minOffset")? >= max {
                return Ok((None, max));
            }
            if answer.code() == response::SUCCESS {
                let body = answer.command.take_body().unwrap_or_default();
                let notes = record::messages(&body).map_err(|reason| answer.malformed(reason))?;
                let last = notes.into_iter().find(|note| note.offset + 1 == max);
                if let Some(last) = last {
                    return Ok((Some(last.body), max));
                }
            }
            if from + 1 == max {
                return Err(answer.malformed(format!("there is nothing at {from}")));
            }
            from = max - 1;
        }
    }

    /// Sees to it that notes about a queue of dead letters can be written.
    pub async fn make_notes(&self, queue: &QueueId) -> Result<(), SourceError> {
        let topic = notes_topic(&self.group);
        let purpose = Purpose::SendBack;
        Box::pin(self.make_topic(&queue.broker, purpose, &topic, queue.id + 1)).await?;
        Ok(())
    }

    /// Writes a note about a queue of dead letters; returns its offset once the broker acknowledged it.
    pub async fn note(&self, queue: &QueueId, note: Vec<u8>) -> Result<u64, SourceError> {
        let note = ToStore {
            topic: &notes_topic(&self.group),
            queue: queue.id,
            flag: 0,
            system_flag: 0,
            properties: String::new(),
            body: note.into(),
        };
        let what = "a note of what was sent again";
        Box::pin(self.store_patiently(&queue.broker, Purpose::SendBack, what, note)).await
    }
}
