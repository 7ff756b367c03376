//! A member of the group, as brokers list them: by its id, and by a second one while it only drains.

use super::answer::response;
use super::connection::Purpose;
use super::subscription::Subscription;
use super::{RocketmqSource, request};
use crate::ownership::membership::DRAINING;
use crate::source::SourceError;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl RocketmqSource {
    pub(super) async fn join_group(&self, broker: &str) -> Result<(), SourceError> {
        self.beat(broker, Purpose::Group, &self.client_id).await
    }

    pub(super) async fn list_group(&self, broker: &str) -> Result<BTreeSet<String>, SourceError> {
        let mut request =
            RemotingCommand::create_remoting_command(request::GET_CONSUMER_LIST_BY_GROUP);
        request.add_ext_field("consumerGroup", self.group.as_str());
        let what = "for the members of the group";
        let mut answer = self
            .ask(broker, Purpose::Group, what, request, Duration::ZERO)
            .await?;
        // A group without members is an error to the broker.
        if answer.code() == response::SYSTEM_ERROR
            && answer.remark().contains("no consumer for this group")
        {
            self.connection.forgotten(&answer.peer).await;
            return Ok(BTreeSet::new());
        }
        answer = answer.success()?;
        let body = answer.json()?;
        let list = body["consumerIdList"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let list = list
            .iter()
            .filter_map(|member| member.as_str().map(str::to_owned));
        let members: BTreeSet<String> = list.collect();
        // A heartbeat went before: it was on a connection that broke since.
        if !members.contains(&self.client_id) {
            self.connection.forgotten(&answer.peer).await;
        }
        Ok(members)
    }

    pub(super) async fn retire_from_group(&self, broker: &str) -> Result<(), SourceError> {
        self.retired.store(true, Ordering::Relaxed);
        self.beat(broker, Purpose::Draining, &self.draining_id())
            .await
    }

    pub(super) async fn leave_group(&self, broker: &str) -> Result<(), SourceError> {
        let left = self
            .unregister(broker, Purpose::Group, &self.client_id)
            .await;
        if self.retired.load(Ordering::Relaxed) {
            self.unregister(broker, Purpose::Draining, &self.draining_id())
                .await?;
        }
        left
    }

    /// Our second id in lists of members.
    fn draining_id(&self) -> String {
        format!("{}{DRAINING}", self.client_id)
    }

    /// Says that a member of this id is there.
    async fn beat(&self, broker: &str, purpose: Purpose, id: &str) -> Result<(), SourceError> {
        let mut subscriptions = vec![self.subscription.data(&self.topic)];
        if let Some(retry) = &self.retry_topic {
            subscriptions.push(Subscription::all().data(retry));
        }
        let model = if self.broadcasting {
            "BROADCASTING"
        } else {
            "CLUSTERING"
        };
        let consumer = json!({
            "groupName": self.group, "consumeType": "CONSUME_PASSIVELY", "messageModel": model,
            "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "subscriptionDataSet": subscriptions,
            "unitMode": false,
        });
        let body = json!({"clientID": id, "producerDataSet": [], "consumerDataSet": [consumer]});
        let request = RemotingCommand::create_remoting_command(request::HEART_BEAT);
        let request = request.set_body(body.to_string().into_bytes());
        self.ask(broker, purpose, "a heartbeat", request, Duration::ZERO)
            .await?
            .success()?;
        Ok(())
    }

    async fn unregister(
        &self,
        broker: &str,
        purpose: Purpose,
        id: &str,
    ) -> Result<(), SourceError> {
        let mut request = RemotingCommand::create_remoting_command(request::UNREGISTER_CLIENT);
        request.add_ext_field("clientID", id);
        request.add_ext_field("consumerGroup", self.group.as_str());
        let what = "to leave the group";
        self.ask(broker, purpose, what, request, Duration::ZERO)
            .await?
            .success()?;
        Ok(())
    }
}
