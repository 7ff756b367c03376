//! The messages that were given up last, and why: the copy in the dead letter queue does not tell it.
//!
//! Pure, and as forgetful as the process: who asks later is told that it is not known.

use crate::contract::admin::DeadLetter;
use crate::exec::redact::Redact;
use crate::lane::SendBack;
use crate::lane::retry::DEAD_LETTER;
use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

/// So many are remembered.
const MOST: usize = 64;
/// A reason is cut off here, in characters.
const LONGEST_REASON: usize = 500;

/// What was given up last, the latest at the end. Keys are as they are.
#[derive(Debug, Default)]
pub struct GivenUp(VecDeque<DeadLetter>);

impl GivenUp {
    /// The broker took a message back.
    pub fn sent_back(&mut self, back: &SendBack, now: SystemTime) {
        if back.delay_level != DEAD_LETTER {
            return;
        }
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.push_back(DeadLetter {
            id: back.message.id.to_string(),
            key: back.key.as_str().to_owned(),
            queue: back.queue.to_string(),
            offset: back.message.offset,
            attempts: back.attempts,
            last_error: back.reason.chars().take(LONGEST_REASON).collect(),
            at_ms: since.as_millis() as u64,
        });
    }

    /// The same for others.
    pub fn told(&self, redact: Redact<'_>) -> Vec<DeadLetter> {
        let told = self.0.iter().cloned();
        told.map(|of| DeadLetter {
            key: redact.key(&of.key),
            ..of
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::{Assignment, LaneKey, SendBackId};
    use crate::message::{Message, QueueId};
    use std::sync::Arc;
    use std::time::Duration;

    fn back(offset: u64, delay_level: i32) -> SendBack {
        SendBack {
            id: SendBackId(offset),
            assignment: Assignment(1),
            queue: QueueId::new("b", 3),
            key: LaneKey::Key("k".into()),
            message: Arc::new(Message {
                offset,
                id: "I".into(),
                ..Message::default()
            }),
            delay_level,
            attempts: 16,
            reason: "é".repeat(2 * LONGEST_REASON),
        }
    }

    #[test]
    fn the_last_ones_are_remembered_with_why_and_what_only_comes_later_is_not_given_up() {
        let (mut given_up, now) = (GivenUp::default(), UNIX_EPOCH + Duration::from_secs(2));
        given_up.sent_back(&back(0, 3), now);
        let plain = Redact { group: None };
        assert_eq!(given_up.told(plain), []);
        for offset in 0..=MOST as u64 {
            given_up.sent_back(&back(offset, DEAD_LETTER), now);
        }
        let told = given_up.told(plain);
        let last = DeadLetter {
            id: "I".into(),
            key: "k".into(),
            queue: "b/3".into(),
            offset: MOST as u64,
            attempts: 16,
            last_error: "é".repeat(LONGEST_REASON),
            at_ms: 2_000,
        };
        assert_eq!(
            (told.len(), told[0].offset, told.last()),
            (MOST, 1, Some(&last))
        );
        let hashed = given_up.told(Redact { group: Some("g") });
        assert!(hashed[0].key.starts_with("sha256:"));
    }
}
