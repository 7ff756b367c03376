//! Dead letters as they are told.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Names a dead letter: broker name, queue id and offset in the topic of dead letters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterId {
    /// Broker name.
    pub broker: String,
    /// Queue id.
    pub queue: u32,
    /// Offset.
    pub offset: u64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.broker, self.queue, self.offset)
    }
}

/// A text that names no dead letter.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no dead letter: write broker name/queue id/offset, such as broker-a/0/17, as dlq list shows it"
)]
pub struct NotALetter(String);

impl FromStr for LetterId {
    type Err = NotALetter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.rsplitn(3, '/');
        let id = || {
            let offset = parts.next()?.parse().ok()?;
            let queue = parts.next()?.parse().ok()?;
            let broker = parts.next().filter(|broker| !broker.is_empty())?;
            Some(Self {
                broker: broker.to_owned(),
                queue,
                offset,
            })
        };
        let id: Option<Self> = { id }();
        id.ok_or_else(|| NotALetter(text.to_owned()))
    }
}

/// A dead letter. What is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeadLetter {
    /// Broker name/queue id/offset in the topic of dead letters.
    pub id: String,
    /// The key that orders it; a hash of it with redactKeys. Absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Queue of the topic that it came from, as broker name/queue id. Absent if the broker does not keep the
    /// message there any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Offset there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Id of the message.
    pub message_id: String,
    /// When it was given up, RFC 3339.
    pub given_up_at: String,
    /// When its producer made it, RFC 3339.
    pub born_at: String,
    /// Failed attempts. Absent if no pod remembers: each tells of its last 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// The last failure, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Bytes of its body and properties at the broker.
    pub bytes: u64,
    /// Whether it was sent again.
    pub replayed: bool,
}

/// What a broker does not tell, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unknown {
    /// Broker name/queue id of dead letters.
    pub queue: String,
    /// Why.
    pub reason: String,
}

/// Dead letters, in the order in which each broker's were given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listing {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// The last letter that was looked at, if there may be more behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// What is not known. Those of a broker that is down are not listed.
    pub unknown: Vec<Unknown>,
}

/// A dead letter with what is in it; nothing of that with redactKeys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Content {
    /// The letter.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// Its properties, those of the broker among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<BTreeMap<String, String>>,
    /// Its body, decompressed, if that is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its body in base64, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Why its body cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defect: Option<String>,
}

/// What is to be sent again. No keys are all letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Replay {
    /// Only letters with these keys, as they are or as they are shown.
    pub keys: Vec<String>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// A letter that was sent again, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sent {
    /// The letter.
    pub id: String,
    /// Its key, as it is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Queue of the topic that it came from and goes to.
    pub queue: String,
    /// Its offset there. Absent if it was not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// A letter that is not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Held {
    /// The letter.
    pub id: String,
    /// Its key, as it is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Why.
    pub reason: String,
}

/// What came of sending letters again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Replayed {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Letters that were sent, or would be, in order.
    pub sent: Vec<Sent>,
    /// Letters that the broker had copied twice, and that count as sent with their first copy.
    pub copies: u64,
    /// Letters that are not sent, at most 100.
    pub held: Vec<Held>,
    /// How many there are.
    pub held_count: u64,
    /// Whether there may be more to send: ask again. After a dry run: this is not all.
    pub more: bool,
    /// Letters that were sent and could not be noted as sent: sending again sends them twice.
    pub unnoted: Vec<String>,
    /// Other groups that consume the topic: they get what is sent again, too. Absent if no broker told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_groups: Option<Vec<String>>,
    /// What is not known.
    pub unknown: Vec<Unknown>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_named_as_it_is_shown() {
        let id: LetterId = "broker-a/0/17".parse().unwrap();
        assert_eq!(
            (id.queue, id.offset, id.to_string().as_str()),
            (0, 17, "broker-a/0/17")
        );
        for none in [
            "",
            "17",
            "0/17",
            "/0/17",
            "broker-a/0/",
            "broker-a/x/1",
            "broker-a/0/-1",
        ] {
            let error = none.parse::<LetterId>().unwrap_err().to_string();
            assert!(error.contains("such as broker-a/0/17"), "{error}");
        }
    }
}
