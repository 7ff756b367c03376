//! Deliveries and outcomes as the protocol has them.

use super::proto;
use crate::handler::{Delivery, Outcome};
use crate::lane::{CallResult, LaneKey};
use crate::message::{Message, PROPERTY_KEYS, PROPERTY_SHARDING_KEY, PROPERTY_TAGS};
use rocketmq_model::common::message::STRING_HASH_SET as PROPERTIES_OF_ROCKETMQ;
use std::time::{Duration, UNIX_EPOCH};

/// Longest reason that is kept, in bytes.
const KEPT_REASON: usize = 256;

/// A delivery as call `id`.
pub fn call(id: u64, delivery: &Delivery) -> proto::Call {
    let since = delivery.deadline.duration_since(UNIX_EPOCH);
    proto::Call {
        id,
        broker: (*delivery.queue.broker).into(),
        queue_id: delivery.queue.id,
        key: match &delivery.key {
            LaneKey::Key(key) => Some((&**key).into()),
            _ => delivery.message.key.as_deref().map(Into::into),
        },
        attempt: delivery.attempt,
        deadline_ms: since.unwrap_or_default().as_millis() as i64,
        messages: delivery.messages().map(|of| message(of)).collect(),
    }
}

fn message(message: &Message) -> proto::Message {
    let property = |name| message.properties.get(name).unwrap_or_default().into();
    let properties = message.properties.iter();
    proto::Message {
        id: (&*message.id).into(),
        offset: message.offset,
        born_at_ms: message.born_at_ms,
        stored_at_ms: message.stored_at_ms,
        tags: property(PROPERTY_TAGS),
        keys: property(PROPERTY_KEYS),
        properties: properties
            .filter(|(name, _)| {
                *name != PROPERTY_SHARDING_KEY && !PROPERTIES_OF_ROCKETMQ.contains(name)
            })
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        body: message.body.clone(),
    }
}

/// What a result says of a call with so many messages.
pub fn outcome(result: proto::Result, messages: u32) -> Outcome {
    let retry_after = result.retry_after_ms.map(Duration::from_millis);
    let said = || {
        let mut reason = result.reason.clone();
        reason.truncate(reason.floor_char_boundary(KEPT_REASON));
        reason
    };
    let failed = |error| CallResult::Failed { error, retry_after };
    let ended = match result.status() {
        proto::Status::Done => CallResult::Done,
        proto::Status::Failed => failed(said()),
        proto::Status::Permanent => CallResult::Permanent { error: said() },
        proto::Status::NotTaken => CallResult::NotTaken {
            error: said(),
            retry_after,
        },
        proto::Status::Unspecified => failed(format!(
            "the handler's result has no status that is known ({}): it must set Result.status; {}",
            result.status,
            said()
        )),
    };
    Outcome {
        // Of one that says more than there are nothing is believed.
        acked: Some(result.acked)
            .filter(|acked| *acked < messages)
            .unwrap_or_default(),
        ..ended.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::QueueId;
    use bytes::Bytes;
    use std::sync::Arc;
    use std::time::SystemTime;

    #[test]
    fn a_call_has_the_messages_with_the_producers_properties_only() {
        let properties = [
            (PROPERTY_TAGS, "PAID"),
            (PROPERTY_KEYS, "a b"),
            (PROPERTY_SHARDING_KEY, "order-7"),
            ("WAIT", "true"),
            ("traceparent", "00-1-2-03"),
        ];
        let first = Message {
            offset: 7,
            id: "id-7".into(),
            properties: properties.into_iter().collect(),
            body: Bytes::from_static(b"\xff"),
            ..Message::default()
        };
        let delivery = Delivery {
            queue: QueueId::new("broker-a", 3),
            key: LaneKey::Key("order-7".into()),
            message: Arc::new(first),
            rest: vec![Arc::new(Message::default())],
            attempt: 2,
            timeout: Duration::from_secs(1),
            deadline: SystemTime::UNIX_EPOCH + Duration::from_millis(5),
        };
        let call = call(9, &delivery);
        assert_eq!((call.id, call.queue_id, call.attempt), (9, 3, 2));
        assert_eq!((&*call.broker, call.deadline_ms), ("broker-a", 5));
        assert_eq!(call.key.as_deref(), Some("order-7"));
        let [first, second] = &call.messages[..] else {
            panic!("{call:?}")
        };
        assert_eq!((first.offset, second.offset), (7, 0));
        assert_eq!((&*first.tags, &*first.keys), ("PAID", "a b"));
        assert_eq!(first.properties.len(), 1, "{:?}", first.properties);
        assert_eq!(first.properties["traceparent"], "00-1-2-03");
        // The body is the message's own buffer.
        assert_eq!(first.body.as_ptr(), delivery.message.body.as_ptr());
    }

    #[test]
    fn a_result_is_about_the_first_message_it_does_not_acknowledge() {
        let result = |status: proto::Status, acked| proto::Result {
            status: status.into(),
            acked,
            reason: "€".repeat(100),
            retry_after_ms: Some(1_500),
            ..proto::Result::default()
        };
        let reason = "€".repeat(85);
        let wanted = Some(Duration::from_millis(1_500));
        let done = outcome(result(proto::Status::Done, 0), 3);
        assert_eq!(done, CallResult::Done.into());
        let failed = outcome(result(proto::Status::Failed, 2), 3);
        assert_eq!(failed.acked, 2);
        let (error, retry_after) = (reason.clone(), wanted);
        assert_eq!(failed.result, CallResult::Failed { error, retry_after });
        // As many as there are, or more: nothing is acknowledged.
        let permanent = outcome(result(proto::Status::Permanent, 3), 3);
        let error = reason.clone();
        assert_eq!(permanent, CallResult::Permanent { error }.into());
        let not_taken = outcome(result(proto::Status::NotTaken, 0), 1).result;
        let (error, retry_after) = (reason, wanted);
        assert_eq!(not_taken, CallResult::NotTaken { error, retry_after });
        // Nothing said is nothing done.
        let unset = outcome(proto::Result::default(), 1).result;
        assert!(
            matches!(&unset, CallResult::Failed { error, .. } if error.contains("status")),
            "{unset:?}"
        );
    }
}
