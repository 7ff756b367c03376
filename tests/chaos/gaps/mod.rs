//! How long queues stood still while they had messages, and which events explain it.
//!
//! Pure. A *gap* of a queue lies between the starts of two calls, and begins no earlier than a message could
//! have been started, which had come and whose key had no call that ran, and than the clock of the event began
//! (an event that takes the broker away: when it serves again). A hand-over in good order may wait for calls that run where the queue
//! was. Time before the event is no part of its gap, but it is too much.

mod causes;
mod rows;
#[cfg(test)]
mod tests;

pub use rows::{Row, by_kind};

use crate::happened::Happened;
use crate::record::Call;
use causes::{Stand, explain, to_the_others};
use keylane_tests::judge::Micros;
use std::collections::BTreeMap;
use std::time::Duration;

/// Shorter ones are not looked at: messages come so seldom that nothing else is to be expected.
const LEAST: Duration = Duration::from_millis(500);

/// A queue stood still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The queue.
    pub queue: String,
    /// From when.
    pub from: Micros,
    /// Until when.
    pub to: Micros,
    /// Who ran it before, and after.
    pub members: (usize, usize),
    /// The events that explain it, by their place in the list.
    pub events: Vec<usize>,
    /// Whether none of them can have done more than make the queue change hands in good order.
    pub clean: bool,
    /// How much of it none of them excuses.
    pub too_much: Duration,
}

impl Gap {
    /// How long.
    pub fn length(&self) -> Duration {
        Duration::from_micros(self.to.saturating_sub(self.from))
    }
}

/// When each message of each queue was known to be stored, by offset.
pub type Arrivals = BTreeMap<String, BTreeMap<u64, Micros>>;

/// The gaps of all queues.
pub fn gaps(calls: &[Call], arrivals: &Arrivals, events: &[Happened]) -> Vec<Gap> {
    let mut queues: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        queues.entry(&call.queue).or_default().push(call);
    }
    let (none, events) = (BTreeMap::new(), to_the_others(events));
    let mut found = Vec::new();
    for (queue, mut calls) in queues {
        calls.sort_by_key(|call| call.start);
        let arrivals = arrivals.get(queue).unwrap_or(&none);
        of_queue(&calls, arrivals, &events, &mut found);
    }
    found.sort_by_key(|gap| gap.from);
    found
}

fn of_queue(
    calls: &[&Call],
    arrivals: &BTreeMap<u64, Micros>,
    events: &[Happened],
    found: &mut Vec<Gap>,
) {
    let mut waiting: BTreeMap<u64, Micros> = arrivals.clone();
    let keys: BTreeMap<u64, &str> = calls.iter().map(|call| (call.offset, &*call.key)).collect();
    // Until when the last call of each key ran.
    let mut ended: BTreeMap<&str, Micros> = BTreeMap::new();
    // Until when calls of each member run.
    let mut running: BTreeMap<usize, Micros> = BTreeMap::new();
    for pair in calls.windows(2) {
        let [before, after] = pair else { continue };
        waiting.remove(&before.offset);
        ended.insert(&before.key, before.end.unwrap_or_default());
        let running = running.entry(before.member).or_default();
        *running = (*running).max(before.end.unwrap_or(Micros::MAX));
        let least = LEAST.as_micros() as Micros;
        if after.start < before.start + least {
            continue;
        }
        let could_start = |(offset, came): (&u64, &Micros)| {
            let ended = keys.get(offset).and_then(|key| ended.get(key));
            ended.map_or(*came, |ended| *came.max(ended))
        };
        let Some(oldest) = waiting.iter().map(could_start).min() else {
            continue;
        };
        let stand = Stand {
            last: before.start,
            running: after.start.min(*running),
            from: before.start.max(oldest),
            to: after.start,
            members: (before.member, after.member),
        };
        if stand.to < stand.from + least {
            continue;
        }
        let explained = explain(&stand, events);
        let from = match explained.events[..] {
            [only] => stand.from.max(events[only].clock_from()),
            _ => stand.from,
        };
        let gap = Gap {
            queue: after.queue.clone(),
            from: match explained.clean {
                true => from.max(stand.running),
                false => from,
            },
            to: stand.to,
            members: stand.members,
            events: explained.events,
            clean: explained.clean,
            too_much: explained.too_much,
        };
        if gap.length() >= LEAST || !gap.too_much.is_zero() {
            found.push(gap);
        }
    }
}
