//! The judgement of one lane.

use super::{EXAMPLES, Ended, Example, Kind, Micros, Verdict};
use std::collections::BTreeMap;

/// One call. There may be hundreds of thousands: keep it small.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) offset: u64,
    pub(super) start: Micros,
    pub(super) handler: usize,
    pub(super) end: Option<Ended>,
}

/// The calls of one key of one queue, in no particular order.
#[derive(Debug)]
pub(super) struct Lane {
    queue: String,
    key: Option<String>,
    pub(super) calls: Vec<Call>,
}

impl Lane {
    pub(super) fn new(queue: String, key: Option<String>) -> Self {
        Self {
            queue,
            key,
            calls: Vec::new(),
        }
    }

    /// Adds what this lane's calls say. `alive` is the last sign of life of each handler.
    pub(super) fn judge(&self, alive: &[Micros], verdict: &mut Verdict) {
        let mut calls: Vec<&Call> = self.calls.iter().collect();
        calls.sort_by_key(|call| (call.start, call.offset));
        self.count(&calls, verdict);
        self.inversions(&calls, verdict);
        self.overlaps(&calls, alive, verdict);
    }

    fn count(&self, calls: &[&Call], verdict: &mut Verdict) {
        let mut handled = 0;
        for call in calls {
            match call.end {
                Some(Ended { ok: true, .. }) => handled += 1,
                Some(_) => verdict.failed += 1,
                None => verdict.unfinished += 1,
            }
            let last = call.end.map_or(call.start, |end| end.at).max(call.start) / 1000;
            verdict.last_at = verdict.last_at.max(Some(last));
            let first = call.start / 1000;
            verdict.first_at = Some(verdict.first_at.map_or(first, |known| known.min(first)));
        }
        let mut offsets: Vec<u64> = calls
            .iter()
            .filter(|call| call.end.is_some_and(|end| end.ok))
            .map(|call| call.offset)
            .collect();
        offsets.sort_unstable();
        offsets.dedup();
        let distinct = offsets.len() as u64;
        verdict.received += calls.len() as u64;
        verdict.distinct += distinct;
        verdict.duplicates += handled - distinct;
    }

    fn inversions(&self, calls: &[&Call], verdict: &mut Verdict) {
        /// Not handled to the end of the record.
        const NEVER: Micros = Micros::MAX;
        // When each message was handled first.
        let mut handled: BTreeMap<u64, Micros> = BTreeMap::new();
        for call in calls {
            let at = match call.end {
                Some(Ended { at, ok: true }) => at,
                _ => NEVER,
            };
            let first = handled.entry(call.offset).or_insert(NEVER);
            *first = at.min(*first);
        }
        // For each message, which of those before it was handled last, and when.
        let mut before: BTreeMap<u64, (Micros, u64)> = BTreeMap::new();
        let mut last = (0, 0);
        for (&offset, &at) in &handled {
            before.insert(offset, last);
            last = last.max((at, offset));
        }
        for call in calls {
            let (at, other) = before[&call.offset];
            if call.start < at {
                verdict.inversions += 1;
                self.example(Kind::Inversion, call, other, verdict);
            }
        }
    }

    fn overlaps(&self, calls: &[&Call], alive: &[Micros], verdict: &mut Verdict) {
        let mut running = (0, 0);
        for call in calls {
            let (until, other) = running;
            if call.start < until {
                verdict.overlaps += 1;
                self.example(Kind::Overlap, call, other, verdict);
            }
            let until = call.end.map_or(alive[call.handler], |end| end.at);
            running = running.max((until, call.offset));
        }
    }

    fn example(&self, kind: Kind, call: &Call, other: u64, verdict: &mut Verdict) {
        // Kept in excess and cut when all lanes are judged: the first in time are told.
        if verdict.examples.len() >= 100 * EXAMPLES {
            verdict.examples.sort_by_key(|example| example.start);
            verdict.examples.truncate(EXAMPLES);
        }
        verdict.examples.push(Example {
            kind,
            queue: self.queue.clone(),
            key: self.key.clone(),
            offset: call.offset,
            start: call.start,
            other,
        });
    }
}
