//! `POST /v1/offsets/reset` of the admin API: the group goes on from another position in the queues that
//! this executor holds.
//!
//! Backwards, messages are handled again, each key in its order; forwards, messages are skipped. The calls
//! of a queue finish first, at most `drain.timeout`: if one does not, nothing changes, and the answer names
//! the keys that run. A request is known by its id and obeyed once in each queue, whichever executor holds
//! it and however often it is asked: the journal remembers the last eight ids of a queue. Queues of the
//! retry topic keep their offsets.
//!
//! | status | means |
//! |---|---|
//! | 200 | every queue asked for that this executor holds is reset |
//! | 202 | some are not yet: ask again, with the same id |
//! | 409 | some cannot be, or another request is under way; nothing has changed in these. Asked again, it is tried again |
//! | 404 | this executor does not hold the queue asked for |
//! | 422 | the request cannot be obeyed; it says why |
//!
//! Every executor of the group must know this request: one of an older version that takes over a queue
//! begins at the committed offset, or at what its journal says from before.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Body of `POST /v1/offsets/reset`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResetOffsets {
    /// Names the request: 1 to 63 letters, digits, `.`, `_` and `-`.
    pub id: String,
    /// Where to go on.
    pub to: ResetTo,
    /// One queue, as broker name/queue id; none: all queues of the topic that this executor holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Whether to answer only when nothing is under way any more; that may take `drain.timeout` and a
    /// moment. Default: true.
    #[serde(default = "yes")]
    pub wait: bool,
}

fn yes() -> bool {
    true
}

/// The longest id of a request, in bytes.
pub const LONGEST_ID: usize = 63;

/// Whether a text can be the id of a request.
pub fn is_id(text: &str) -> bool {
    let of_these = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=LONGEST_ID).contains(&text.len()) && text.bytes().all(of_these)
}

/// Where a group goes on: `earliest`, `latest`, an RFC 3339 time, or an offset of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetTo {
    /// At the oldest message.
    Earliest,
    /// Behind the last message.
    Latest,
    /// At the first message that the broker stored at this time or later.
    Time(jiff::Timestamp),
    /// At this offset.
    Offset(u64),
}

/// A text that names no position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no position: write earliest, latest, a time such as 2026-11-11T00:00:00+08:00, or, for one queue, \
     an offset"
)]
pub struct NotAPosition(String);

impl FromStr for ResetTo {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let offset = text.parse().ok();
            // The broker's offsets are signed.
            let offset = offset.filter(|offset| i64::try_from(*offset).is_ok());
            return offset
                .map(Self::Offset)
                .ok_or_else(|| NotAPosition(text.to_owned()));
        }
        text.parse()
            .map(Self::Time)
            .map_err(|_| NotAPosition(text.to_owned()))
    }
}

impl fmt::Display for ResetTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::Time(time) => write!(f, "{time}"),
            Self::Offset(offset) => write!(f, "{offset}"),
        }
    }
}

impl Serialize for ResetTo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text, or an offset as a number.
impl<'de> Deserialize<'de> for ResetTo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "to is a text, or an offset as a number")]
        enum Written {
            Offset(u64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Offset(offset) => offset.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What has become of a request in the queues of one executor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResetReport {
    /// Id of the request.
    pub id: String,
    /// Where to go on.
    pub to: ResetTo,
    /// Offsets that were skipped, in the queues that are done.
    pub skipped: u64,
    /// Offsets that are consumed again, in the queues that are done.
    pub replayed: u64,
    /// The queues asked for that this executor holds, or waits for.
    pub queues: Vec<QueueReset>,
}

impl ResetReport {
    /// Whether every queue is done.
    pub fn is_done(&self) -> bool {
        self.queues.iter().all(|of| of.state == ResetState::Done)
    }

    /// The queues in which nothing has changed, because it cannot.
    pub fn refused(&self) -> impl Iterator<Item = &QueueReset> {
        let refused = |of: &&QueueReset| of.state == ResetState::Refused;
        self.queues.iter().filter(refused)
    }
}

/// What has become of a request in one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueReset {
    /// The queue, as broker name/queue id.
    pub queue: String,
    /// How far it is.
    pub state: ResetState,
    /// First offset that was not finished before; none until done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Offset it went on from; none until done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Offsets that were not finished and are skipped.
    pub skipped: u64,
    /// Offsets that were finished and are consumed again: those of messages that a filter leaves out, too.
    pub replayed: u64,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Keys whose calls do not end, at most 32.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

/// How far a reset of a queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetState {
    /// This executor does not run the queue yet, or not any more.
    #[default]
    Waiting,
    /// Nothing new is dispatched; running calls finish.
    Draining,
    /// The new position is being written down.
    Writing,
    /// The queue goes on from the new position, and the broker has it as committed.
    Done,
    /// Nothing has changed, and it runs as before.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_people_write_it() {
        let read = |text: &str| serde_json::from_str::<ResetOffsets>(text);
        let all = read(r#"{"id": "a-1", "to": "earliest"}"#).unwrap();
        assert_eq!(
            (all.to, all.queue, all.wait),
            (ResetTo::Earliest, None, true)
        );
        let one = read(r#"{"id": "a", "to": 7, "queue": "b/1", "wait": false}"#).unwrap();
        assert_eq!((one.to, one.wait), (ResetTo::Offset(7), false));
        assert_eq!(one.queue.as_deref(), Some("b/1"));
        let time = read(r#"{"id": "a", "to": "2026-11-11T00:00:00+08:00"}"#).unwrap();
        assert_eq!(time.to.to_string(), "2026-11-10T16:00:00Z");
        assert_eq!(
            serde_json::to_value(&time).unwrap()["to"],
            "2026-11-10T16:00:00Z"
        );
        for text in [
            r#"{"id": "a", "to": "yesterday"}"#,
            r#"{"id": "a", "to": "2026-11-11"}"#,
            r#"{"id": "a", "to": -1}"#,
            r#"{"id": "a", "to": "99999999999999999999"}"#,
            r#"{"id": "a", "to": ""}"#,
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(
                error.contains("earliest") || error.contains("offset"),
                "{text}: {error}"
            );
        }
        assert!(
            read(r#"{"id": "a"}"#)
                .unwrap_err()
                .to_string()
                .contains("to")
        );
        let misspelt = r#"{"id": "a", "to": "latest", "queues": "b/1"}"#;
        assert!(read(misspelt).is_err());
    }

    #[test]
    fn an_id_is_short_and_needs_no_quoting() {
        assert!(is_id("2026-11-26.a_b") && is_id(&"a".repeat(63)));
        for text in ["", "a b", "a:b", "ä", "a\n", &"a".repeat(64)] {
            assert!(!is_id(text), "{text:?}");
        }
    }
}
