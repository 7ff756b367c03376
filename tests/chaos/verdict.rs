//! The judgement of a run.

use crate::gaps::{self, Gap};
use crate::load::{LOOK_EVERY, Regression};
use crate::order::{self, Replay};
use crate::record::Call;
use crate::run::Outcome;
use crate::schedule::Kind;
use crate::settings::PERSIST;
use keylane_tests::judge::{self, Micros};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What is said of a run.
pub struct Verdict {
    /// Messages that the broker stored.
    pub stored: u64,
    /// Order, without calls written by frozen processes.
    pub order: judge::Verdict,
    /// Calls written by frozen processes, by their place in the record.
    pub frozen: BTreeSet<usize>,
    /// Inversions and overlaps that there are with them.
    pub broken_by_frozen: u64,
    /// Messages that nobody handled, by queue and offset.
    pub lost: Vec<(String, u64)>,
    /// Messages that ran again.
    pub replays: Vec<Replay>,
    /// Queues that stood still.
    pub gaps: Vec<Gap>,
    /// Committed offsets that went back for longer than one interval while the queue was run, and for how
    /// long.
    pub regressions: Vec<(Regression, Duration)>,
    /// Messages that were handled and not committed at the end.
    pub uncommitted: u64,
}

impl Verdict {
    /// Of a run.
    pub fn of(outcome: &Outcome) -> Self {
        let frozen = order::written_frozen(&outcome.calls, &outcome.events);
        let order = order::judge(&outcome.calls, &frozen);
        let all = order::judge(&outcome.calls, &BTreeSet::new());
        let broken = |verdict: &judge::Verdict| verdict.inversions + verdict.overlaps;
        let committed = outcome.queues.values();
        let replays = order::replays(&outcome.calls, &frozen, &outcome.events);
        Self {
            stored: outcome.queues.values().map(|(end, _)| end).sum(),
            broken_by_frozen: broken(&all).saturating_sub(broken(&order)),
            order,
            frozen,
            lost: lost(outcome),
            replays,
            gaps: gaps::gaps(&outcome.calls, &outcome.arrivals, &outcome.events),
            regressions: regressions(outcome),
            uncommitted: committed
                .map(|(end, committed)| end.saturating_sub(committed.unwrap_or(0)))
                .sum(),
        }
    }

    /// Whether order was kept and nothing lost, and every process did as it was told.
    pub fn passes(&self, outcome: &Outcome) -> bool {
        self.order.inversions == 0
            && self.order.overlaps == 0
            && self.lost.is_empty()
            && outcome.crashed == 0
    }
}

fn lost(outcome: &Outcome) -> Vec<(String, u64)> {
    let mut handled: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for call in outcome.calls.iter().filter(|call| call.handled().is_some()) {
        handled.entry(&call.queue).or_default().insert(call.offset);
    }
    let none = BTreeSet::new();
    let queues = outcome.queues.iter();
    queues
        .flat_map(|(queue, (end, _))| {
            let handled = handled.get(queue.as_str()).unwrap_or(&none);
            let missing = (0..*end).filter(|offset| !handled.contains(offset));
            missing.map(|offset| (queue.clone(), offset))
        })
        .collect()
}

/// Those that lasted, from when the broker served and somebody ran the queue.
fn regressions(outcome: &Outcome) -> Vec<(Regression, Duration)> {
    let ends = outcome.calls.iter().filter_map(|call| call.end);
    let last = ends.max().unwrap_or_default();
    let lasted = |regression: &Regression| {
        let until = regression.until.unwrap_or(last);
        let killed = outcome.events.iter().filter(|event| {
            event.kind == Kind::BrokerKilled && event.at <= until && event.until >= regression.since
        });
        let served = killed.map(|event| event.until).max().unwrap_or(0);
        let from = regression.since.max(served);
        let run = first_call(&outcome.calls, regression.queue, from).unwrap_or(until);
        Duration::from_micros(until.saturating_sub(from.max(run)))
    };
    let all = outcome.regressions.iter();
    all.map(|regression| (regression.clone(), lasted(regression)))
        .filter(|(_, lasted)| *lasted > PERSIST + 2 * LOOK_EVERY)
        .collect()
}

fn first_call(calls: &[Call], queue: u32, from: Micros) -> Option<Micros> {
    let suffix = format!("/{queue}");
    let mut calls = calls.iter();
    calls
        .find(|call| call.start >= from && call.queue.ends_with(&suffix))
        .map(|call| call.start)
}
