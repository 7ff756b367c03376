//! The verdict on order and completeness, from the handlers' side: pure, given what the handlers saw.
//!
//! Order is judged per key of one queue, over the calls of all handler processes together; they must
//! share a clock (one machine). A call whose end is not known may have been over as soon as it
//! began: it is counted, and never accuses another call.

mod recorder;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use recorder::{Recorder, now_micros};

/// Violations that are told in words; the others are only counted.
const EXAMPLES: usize = 5;

/// One call of a handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The message queue, such as `broker-a/ORDERS/3`.
    pub queue: Arc<str>,
    /// The message's key.
    pub key: Arc<str>,
    /// Its queue offset.
    pub offset: i64,
    /// When the handler was called, in microseconds of Unix time.
    pub start: i64,
    /// When the handler was done, if that is known.
    pub end: Option<i64>,
    /// Whether it succeeded; `false` while `end` is not known.
    pub ok: bool,
}

/// What the calls say about order and completeness.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Calls, of any outcome.
    pub received: u64,
    /// Messages that were handled successfully, each counted once.
    pub distinct: u64,
    /// Successful calls beyond the first of their message.
    pub duplicates: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Calls whose end is not known: running, or cut off with their process.
    pub unknown_ends: u64,
    /// Calls that started while an earlier message of their key had never been handled.
    pub inversions: u64,
    /// Calls that started while another call of their key ran.
    pub overlaps: u64,
    /// Expected messages without a call that succeeded or may have; only when a number was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// Keys, each counted in each of its queues.
    pub keys: u64,
    /// The first start, in microseconds of Unix time.
    pub first_at: Option<i64>,
    /// The last known end, in microseconds of Unix time.
    pub last_at: Option<i64>,
    /// Messages handled per second between these two.
    pub per_second: f64,
    /// The first violations, in words.
    pub examples: Vec<String>,
}

impl Verdict {
    /// The same with what is missing of `expected` messages.
    #[must_use]
    pub fn expecting(mut self, expected: u64, calls: &[Call]) -> Self {
        let handled = calls
            .iter()
            .filter(|call| call.ok || call.end.is_none())
            .map(|call| (&call.queue, call.offset))
            .collect::<std::collections::HashSet<_>>()
            .len() as u64;
        self.lost = Some(expected.saturating_sub(handled));
        self
    }

    /// Whether order was kept.
    #[must_use]
    pub fn in_order(&self) -> bool {
        self.inversions == 0 && self.overlaps == 0
    }
}

/// Judges all calls of all handler processes, in any order.
#[must_use]
pub fn judge(calls: &[Call]) -> Verdict {
    let mut lanes: HashMap<(&str, &str), Vec<&Call>> = HashMap::new();
    for call in calls {
        let lane = (call.queue.as_ref(), call.key.as_ref());
        lanes.entry(lane).or_default().push(call);
    }
    let mut verdict = Verdict {
        received: calls.len() as u64,
        keys: lanes.len() as u64,
        first_at: calls.iter().map(|call| call.start).min(),
        last_at: calls.iter().filter_map(|call| call.end).max(),
        ..Verdict::default()
    };
    for lane in lanes.values_mut() {
        judge_lane(lane, &mut verdict);
    }
    if let (Some(first), Some(last)) = (verdict.first_at, verdict.last_at)
        && last > first
    {
        verdict.per_second = verdict.distinct as f64 * 1e6 / (last - first) as f64;
    }
    verdict
}

fn judge_lane(lane: &mut [&Call], verdict: &mut Verdict) {
    lane.sort_by_key(|call| (call.start, call.offset));
    let mut messages: BTreeMap<i64, Message> = BTreeMap::new();
    for call in lane.iter() {
        let message = messages.entry(call.offset).or_default();
        match call.end {
            None => {
                verdict.unknown_ends += 1;
                message.done_by(call.start);
            }
            Some(end) if call.ok => {
                message.successes += 1;
                message.done_by(end);
            }
            Some(_) => verdict.failures += 1,
        }
    }
    for message in messages.values() {
        verdict.distinct += u64::from(message.successes > 0);
        verdict.duplicates += message.successes.saturating_sub(1);
    }
    count_inversions(lane, &messages, verdict);
    count_overlaps(lane, verdict);
}

fn count_inversions(lane: &[&Call], messages: &BTreeMap<i64, Message>, verdict: &mut Verdict) {
    // For each offset the earlier one that was done last, or never.
    let mut latest: Option<(i64, i64)> = None;
    let mut before: HashMap<i64, (i64, i64)> = HashMap::new();
    for (&offset, message) in messages {
        if let Some(latest) = latest {
            before.insert(offset, latest);
        }
        let done = message.done.unwrap_or(i64::MAX);
        if latest.is_none_or(|(_, at)| done > at) {
            latest = Some((offset, done));
        }
    }
    for call in lane {
        let Some(&(earlier, done)) = before.get(&call.offset) else {
            continue;
        };
        if done > call.start {
            verdict.inversions += 1;
            let state = if done == i64::MAX {
                "was never handled".to_owned()
            } else {
                format!("was not handled until {} µs later", done - call.start)
            };
            verdict.tell(call, &format!("started while offset {earlier} {state}"));
        }
    }
}

fn count_overlaps(lane: &[&Call], verdict: &mut Verdict) {
    let mut running: Option<(i64, i64)> = None;
    for call in lane {
        if let Some((other, end)) = running
            && call.start < end
        {
            verdict.overlaps += 1;
            let left = end - call.start;
            verdict.tell(
                call,
                &format!("started {left} µs before offset {other} ended"),
            );
        }
        let end = call.end.unwrap_or(call.start);
        if running.is_none_or(|(_, latest)| end > latest) {
            running = Some((call.offset, end));
        }
    }
}

impl Verdict {
    fn tell(&mut self, call: &Call, what: &str) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!(
                "{} key {}: offset {} {what}",
                call.queue, call.key, call.offset
            ));
        }
    }
}

/// What is known of one message.
#[derive(Default)]
struct Message {
    successes: u64,
    /// The first moment at which it may have been done; `None` is never.
    done: Option<i64>,
}

impl Message {
    fn done_by(&mut self, at: i64) {
        self.done = Some(self.done.map_or(at, |done| done.min(at)));
    }
}

#[cfg(test)]
mod tests;
