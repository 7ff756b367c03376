//! Reads the messages of a pull's answer, to the last byte or not at all.

use crate::message::Message;
use bytes::Bytes;
use rocketmq_protocol::common::message::message_decoder;

const UNIQUE_KEY: &str = "UNIQ_KEY";

/// Every message in `body`; an error if anything in it cannot be read. A message that is left out here
/// would count as finished.
pub fn messages(mut body: Bytes) -> Result<Vec<Message>, String> {
    let total = body.len();
    let mut messages = Vec::new();
    while !body.is_empty() {
        let left = body.len();
        let at = total - left;
        let message = message_decoder::decode(&mut body, true, true, false, false, false)
            .ok_or_else(|| format!("the message at byte {at} of {total} cannot be decoded"))?;
        let used = left - body.len();
        if used == 0 || i32::try_from(used) != Ok(message.store_size()) {
            return Err(format!(
                "the message at byte {at} of {total} claims {} bytes",
                message.store_size()
            ));
        }
        let offset = u64::try_from(message.queue_offset()).map_err(|_| {
            format!(
                "the message at byte {at} has the offset {}",
                message.queue_offset()
            )
        })?;
        let properties: std::collections::HashMap<String, String> = message
            .properties()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        messages.push(Message {
            offset,
            id: properties
                .get(UNIQUE_KEY)
                .cloned()
                .unwrap_or_else(|| message.msg_id().to_string()),
            stored_at_ms: message.store_timestamp(),
            body: message.body().unwrap_or_default(),
            properties,
        });
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_and_half_a_message_are_errors_and_nothing_is_nothing() {
        assert_eq!(messages(Bytes::new()), Ok(Vec::new()));
        assert!(messages(Bytes::from_static(&[0; 40])).is_err());
        assert!(messages(Bytes::from_static(&[0, 0, 1, 0, 0xda])).is_err());
    }
}
