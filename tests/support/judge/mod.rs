//! Judges from a record of handler calls whether the order promise was kept (P1). Pure: no clock, no
//! I/O; times are microseconds of one clock, such as Unix time on one machine.
//!
//! A *lane* is one key of one queue. Over the whole record of a lane:
//! - an *overlap* is a call that starts while another call of the lane runs;
//! - an *inversion* is a call that starts at a time when some message of the lane with a smaller offset
//!   has no call that has ended in success. What is known only later counts too: a message whose first
//!   call comes last makes every call of its successors before that an inversion.
//!
//! A message that was handled and is delivered again, followed by its successors again, is neither.
//!
//! A call whose end is unknown (its process was killed) has not succeeded. It counts as running until
//! the last sign of life of its process and not longer, so that an overlap is only what certainly was
//! one.

mod lane;
#[cfg(test)]
mod tests;

use lane::{Call, Lane};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Microseconds of the clock that all handlers share.
pub type Micros = u64;

/// How many inversions and overlaps a verdict tells in full.
const EXAMPLES: usize = 10;

/// What one handler process reports: calls that began or ended since its last report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The process.
    pub handler: String,
    /// Counts the reports of that process from 1: a report sent again is ignored.
    pub sequence: u64,
    /// When the report was made.
    pub at: Micros,
    /// The calls. A call that was reported as running is reported again when it has ended.
    pub calls: Vec<Reported>,
}

/// A call, as its handler reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// Number of the call in its process.
    pub id: u64,
    /// The queue, whatever names it everywhere alike.
    pub queue: String,
    /// The key; messages without one share a lane of their queue.
    pub key: Option<String>,
    /// Queue offset of the message.
    pub offset: u64,
    /// When the call began.
    pub start: Micros,
    /// When and how it ended, none while it runs.
    pub end: Option<Ended>,
}

/// The end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: Micros,
    /// Whether the message was handled.
    pub ok: bool,
}

/// What the record says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Calls.
    pub received: u64,
    /// Messages handled at least once.
    pub distinct: u64,
    /// Calls that handled a message which had been handled before.
    pub duplicates: u64,
    /// Calls that ended without handling their message.
    pub failed: u64,
    /// Calls whose end is not known (yet).
    pub unfinished: u64,
    /// Calls that started before an earlier message of their lane was handled.
    pub inversions: u64,
    /// Calls that started while another call of their lane ran.
    pub overlaps: u64,
    /// Lanes: keys, counted once a queue.
    pub keys: u64,
    /// Start of the first call, milliseconds.
    pub first_at: Option<u64>,
    /// Latest start or end of a call, milliseconds.
    pub last_at: Option<u64>,
    /// The first few inversions and overlaps.
    pub examples: Vec<Example>,
}

/// One call that broke the promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Example {
    /// What it is.
    pub kind: Kind,
    /// The queue.
    pub queue: String,
    /// The key.
    pub key: Option<String>,
    /// Offset of the message whose call started.
    pub offset: u64,
    /// When it started, microseconds.
    pub start: Micros,
    /// Offset of the message that was not handled yet, or that was running.
    pub other: u64,
}

/// The ways to break the order promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A message started before an earlier one was handled.
    Inversion,
    /// Two calls of one lane ran at once.
    Overlap,
}

/// The record of every call.
#[derive(Debug, Default)]
pub struct Judge {
    lanes: Vec<Lane>,
    /// Queue, then key, to the index of the lane.
    index: HashMap<String, HashMap<Option<String>, usize>>,
    handlers: HashMap<String, usize>,
    seen: Vec<Seen>,
    /// Calls that run: their handler and number, to their lane and place in it.
    running: HashMap<(usize, u64), (usize, usize)>,
}

#[derive(Debug, Default)]
struct Seen {
    at: Micros,
    sequence: u64,
}

impl Judge {
    /// Adds a report to the record, unless it is known already.
    pub fn take(&mut self, report: Report) {
        let handler = self.handler(&report.handler);
        let seen = &mut self.seen[handler];
        if report.sequence <= seen.sequence {
            return;
        }
        seen.sequence = report.sequence;
        seen.at = seen.at.max(report.at);
        for call in report.calls {
            self.call(handler, call);
        }
    }

    fn handler(&mut self, name: &str) -> usize {
        if let Some(&known) = self.handlers.get(name) {
            return known;
        }
        let new = self.seen.len();
        self.handlers.insert(name.to_owned(), new);
        self.seen.push(Seen::default());
        new
    }

    fn call(&mut self, handler: usize, reported: Reported) {
        let id = (handler, reported.id);
        let (lane, place) = match self.running.get(&id) {
            Some(&known) => known,
            None => {
                let lane = self.lane(reported.queue, reported.key);
                self.lanes[lane].calls.push(Call {
                    offset: reported.offset,
                    start: reported.start,
                    handler,
                    end: None,
                });
                (lane, self.lanes[lane].calls.len() - 1)
            }
        };
        match reported.end {
            Some(end) => {
                self.lanes[lane].calls[place].end = Some(end);
                self.running.remove(&id);
            }
            None => {
                self.running.insert(id, (lane, place));
            }
        }
    }

    fn lane(&mut self, queue: String, key: Option<String>) -> usize {
        let known = self.index.get(&queue).and_then(|keys| keys.get(&key));
        if let Some(&known) = known {
            return known;
        }
        let new = self.lanes.len();
        self.lanes.push(Lane::new(queue.clone(), key.clone()));
        self.index.entry(queue).or_default().insert(key, new);
        new
    }

    /// Forgets every call. Reports taken before stay known, so none of them comes back; a call that runs
    /// now is recorded when it ends.
    pub fn forget(&mut self) {
        self.lanes.clear();
        self.index.clear();
        self.running.clear();
    }

    /// Judges everything recorded so far.
    pub fn verdict(&self) -> Verdict {
        let alive: Vec<Micros> = self.seen.iter().map(|seen| seen.at).collect();
        let mut verdict = Verdict {
            keys: self.lanes.len() as u64,
            ..Verdict::default()
        };
        for lane in &self.lanes {
            lane.judge(&alive, &mut verdict);
        }
        verdict.examples.sort_by_key(|example| example.start);
        verdict.examples.truncate(EXAMPLES);
        verdict
    }
}
