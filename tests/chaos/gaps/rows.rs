//! Gaps by the kind of event that explains them.

use super::Gap;
use super::causes::to_the_others;
use crate::happened::Happened;
use crate::schedule::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The gaps of one kind of event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Lengths of those that one event explains, sorted.
    pub alone: Vec<Duration>,
    /// What that event does not excuse of them, at most.
    pub late: Duration,
    /// Lengths of those that several explain, and what of it none excuses.
    pub among_others: Vec<(Duration, Duration)>,
    /// Events of this kind.
    pub events: usize,
}

impl Row {
    /// The middle one.
    pub fn median(&self) -> Option<Duration> {
        self.alone.get(self.alone.len() / 2).copied()
    }

    /// The longest one that one event explains.
    pub fn worst(&self) -> Option<Duration> {
        self.alone.last().copied()
    }

    /// The longest one that several explain.
    pub fn worst_among_others(&self) -> Option<Duration> {
        self.among_others.last().map(|(length, _)| *length)
    }

    /// Counts those of another run.
    pub fn add(&mut self, other: Self) {
        self.events += other.events;
        self.alone.extend(other.alone);
        self.alone.sort_unstable();
        self.late = self.late.max(other.late);
        self.among_others.extend(other.among_others);
        self.among_others.sort_unstable();
    }

    /// What is not excused of any of them, at most.
    pub fn too_much(&self) -> Option<Duration> {
        let others = self.among_others.iter().map(|(_, much)| *much);
        let alone = (!self.alone.is_empty()).then_some(self.late);
        others.chain(alone).max()
    }

    /// Whether none is longer than it may be.
    pub fn passes(&self, kind: Kind) -> bool {
        let alone = self.worst().is_none_or(|worst| worst <= kind.goal());
        alone && self.too_much().is_none_or(|much| much.is_zero())
    }
}

/// Gaps by kind of event, as it was to the others; those of several events stand with the one that may take longest.
/// The gaps that nothing explains come apart.
pub fn by_kind(gaps: &[Gap], events: &[Happened]) -> (BTreeMap<Kind, Row>, Vec<Duration>) {
    let mut rows: BTreeMap<Kind, Row> = BTreeMap::new();
    for event in events {
        rows.entry(event.kind).or_default().events += 1;
    }
    let mut unexplained = Vec::new();
    let seen = to_the_others(events);
    for gap in gaps {
        let kinds: Vec<Kind> = gap.events.iter().map(|event| seen[*event].kind).collect();
        let Some(heaviest) = kinds.iter().max_by_key(|kind| kind.goal()) else {
            unexplained.push(gap.length());
            continue;
        };
        let row = rows.entry(*heaviest).or_default();
        let distinct: BTreeSet<Kind> = kinds.iter().copied().collect();
        let one = distinct.len() == 1 && (kinds.len() == 1 || heaviest.is_clean());
        // That a queue changed hands in good order says nothing of how long an event takes that touches it.
        if one && (heaviest.is_clean() || !gap.clean) {
            row.alone.push(gap.length());
            row.late = row.late.max(gap.too_much);
        } else {
            row.among_others.push((gap.length(), gap.too_much));
        }
    }
    for row in rows.values_mut() {
        row.alone.sort_unstable();
        row.among_others.sort_unstable();
    }
    (rows, unexplained)
}
