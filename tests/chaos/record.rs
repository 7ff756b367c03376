//! The record of handler calls, as the recording process keeps it and hands it out.

use keylane_tests::judge::Micros;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// One handler call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Broker and queue id, as `broker/id`.
    pub queue: String,
    /// The key.
    pub key: String,
    /// Queue offset.
    pub offset: u64,
    /// The member that called.
    pub member: usize,
    /// When it decided to: the deadline it told less the timeout.
    pub decided: Micros,
    /// When the call arrived.
    pub start: Micros,
    /// When it ended, none while it runs.
    pub end: Option<Micros>,
    /// Whether the message was handled.
    pub ok: bool,
}

#[cfg(test)]
impl Call {
    /// A call of key `k` in queue `b/0` that handled its message.
    pub fn sample(offset: u64, member: usize, start: Micros, end: Micros) -> Self {
        Self {
            queue: "b/0".into(),
            key: "k".into(),
            offset,
            member,
            decided: start,
            start,
            end: Some(end),
            ok: true,
        }
    }
}

impl Call {
    /// When it handled its message, if it did.
    pub fn handled(&self) -> Option<Micros> {
        self.end.filter(|_| self.ok)
    }
}

/// Where the recording process listens; the first line it prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ports {
    /// For questions and changes.
    pub control: u16,
    /// The handler of each process.
    pub handlers: Vec<u16>,
    /// What the handlers of pods hand on, if there are to be pods.
    pub pods: Option<u16>,
}

/// How a handler treats its calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manner {
    /// Milliseconds, all well.
    #[default]
    Well,
    /// Seconds; every fifth longer than its timeout, but over within the call bound.
    Slow,
    /// Answered with 500.
    Failing,
}

/// How far everything is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Calls.
    pub calls: u64,
    /// Messages handled.
    pub handled: u64,
    /// Calls that run.
    pub running: u64,
}

/// Now, on the clock that all processes of a machine share.
pub fn now() -> Micros {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
