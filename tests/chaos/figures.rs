//! The figures of a run, and of several together. Pure.

use crate::gaps::{self, Row};
use crate::run::Outcome;
use crate::schedule::Kind;
use crate::system::System;
use crate::verdict::Verdict;
use std::collections::BTreeMap;
use std::time::Duration;

/// What replays are counted as that no event explains.
const UNEXPLAINED: &str = "unexplained";

/// The figures of one system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The seed of each run, and whether it passed.
    pub runs: Vec<(u64, bool)>,
    /// Events that happened.
    pub events: usize,
    /// Handler calls.
    pub calls: usize,
    /// Messages that the broker stored.
    pub stored: u64,
    /// Messages that were handled.
    pub handled: u64,
    /// Inversions, without calls written by frozen processes.
    pub inversions: u64,
    /// Overlaps, without calls written by frozen processes.
    pub overlaps: u64,
    /// Messages that nobody handled.
    pub lost: usize,
    /// Messages that ran again, by the kind of event that explains it.
    pub replayed_by: BTreeMap<&'static str, usize>,
    /// Calls written by frozen processes.
    pub written_frozen: usize,
    /// Inversions and overlaps that there are with them.
    pub broken_by_frozen: u64,
    /// Committed offsets that went back for too long.
    pub regressions: usize,
    /// Processes that were asked to end.
    pub exits: usize,
    /// Of those, the ones that ended with code 0.
    pub clean_exits: usize,
    /// Processes that ended by themselves.
    pub crashed: u32,
    /// Messages that were handled and not committed at the end.
    pub uncommitted: u64,
    /// How long queues stood still.
    pub gaps: BTreeMap<Kind, Row>,
    /// Such times that no event explains.
    pub unexplained: Vec<Duration>,
}

impl Figures {
    /// Of one run.
    pub fn of(system: System, seed: u64, outcome: &Outcome, verdict: &Verdict) -> Self {
        let (gaps, unexplained) = gaps::by_kind(&verdict.gaps, &outcome.events);
        let mut replayed_by = BTreeMap::new();
        for replay in &verdict.replays {
            let event = replay.event.map(|event| outcome.events[event].kind.name());
            *replayed_by.entry(event.unwrap_or(UNEXPLAINED)).or_insert(0) += 1;
        }
        let clean = outcome.exits.iter().filter(|code| system.ends_well(**code));
        Self {
            runs: vec![(seed, verdict.passes(outcome))],
            events: outcome.events.len(),
            calls: outcome.calls.len(),
            stored: verdict.stored,
            handled: verdict.order.distinct,
            inversions: verdict.order.inversions,
            overlaps: verdict.order.overlaps,
            lost: verdict.lost.len(),
            replayed_by,
            written_frozen: verdict.frozen.len(),
            broken_by_frozen: verdict.broken_by_frozen,
            regressions: verdict.regressions.len(),
            exits: outcome.exits.len(),
            clean_exits: clean.count(),
            crashed: outcome.crashed,
            uncommitted: verdict.uncommitted,
            gaps,
            unexplained,
        }
    }

    /// Of a run that came to no end.
    pub fn without_end(seed: u64) -> Self {
        Self {
            runs: vec![(seed, false)],
            ..Self::default()
        }
    }

    /// Counts what another run of the same system gave.
    pub fn add(&mut self, other: Self) {
        self.runs.extend(other.runs);
        self.events += other.events;
        self.calls += other.calls;
        self.stored += other.stored;
        self.handled += other.handled;
        self.inversions += other.inversions;
        self.overlaps += other.overlaps;
        self.lost += other.lost;
        for (event, count) in other.replayed_by {
            *self.replayed_by.entry(event).or_insert(0) += count;
        }
        self.written_frozen += other.written_frozen;
        self.broken_by_frozen += other.broken_by_frozen;
        self.regressions += other.regressions;
        self.exits += other.exits;
        self.clean_exits += other.clean_exits;
        self.crashed += other.crashed;
        self.uncommitted += other.uncommitted;
        for (kind, row) in other.gaps {
            self.gaps.entry(kind).or_default().add(row);
        }
        self.unexplained.extend(other.unexplained);
    }

    /// Whether every run passed.
    pub fn passed(&self) -> bool {
        self.runs.iter().all(|(_, passed)| *passed)
    }

    /// What is longer or more than it may be, in words: how long queues stood still, committed offsets that
    /// went back or stayed behind, messages that ran again and no event explains it. Only a machine with time
    /// to spare can be held to it.
    pub fn misses(&self) -> Vec<String> {
        let rows = self.gaps.iter().filter(|(kind, row)| !row.passes(**kind));
        let mut misses: Vec<String> = rows.map(|(kind, row)| missed(*kind, row)).collect();
        if let Some(longest) = self.unexplained.iter().max() {
            let (count, longest) = (self.unexplained.len(), longest.as_secs_f64());
            misses.push(format!(
                "no event explains {count} times that a queue stood still, the longest for {longest:.1} s"
            ));
        }
        let counts = [
            (self.regressions, "committed offsets went back for too long"),
            (
                self.replayed_unexplained(),
                "messages ran again and no event explains it",
            ),
        ];
        let counted = counts.into_iter().filter(|(count, _)| *count > 0);
        misses.extend(counted.map(|(count, what)| format!("{count} {what}")));
        if self.uncommitted > 0 {
            let count = self.uncommitted;
            misses.push(format!("{count} messages were never committed"));
        }
        misses
    }

    /// Whether there is nothing of that.
    pub fn meets_goals(&self) -> bool {
        self.misses().is_empty()
    }

    /// Seeds of those that did not.
    pub fn failed(&self) -> Vec<u64> {
        let failed = self.runs.iter().filter(|(_, passed)| !passed);
        failed.map(|(seed, _)| *seed).collect()
    }

    /// Messages that ran again.
    pub fn replayed(&self) -> usize {
        self.replayed_by.values().sum()
    }

    /// Messages that ran again and no event explains it.
    pub fn replayed_unexplained(&self) -> usize {
        self.replayed_by.get(UNEXPLAINED).copied().unwrap_or(0)
    }
}

fn missed(kind: Kind, row: &Row) -> String {
    let longest = row.worst().max(row.worst_among_others());
    format!(
        "{}: a queue stood still for too long: the longest for {:.1} s, the goal is {} s; {:.1} s that no event excuses",
        kind.name(),
        longest.unwrap_or_default().as_secs_f64(),
        kind.goal().as_secs(),
        row.too_much().unwrap_or_default().as_secs_f64(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(alone: &[u64]) -> Row {
        Row {
            alone: alone.iter().copied().map(Duration::from_secs).collect(),
            events: 1,
            ..Row::default()
        }
    }

    fn run(seed: u64, passed: bool, kind: Kind, alone: &[u64]) -> Figures {
        Figures {
            runs: vec![(seed, passed)],
            events: 80,
            overlaps: u64::from(!passed),
            replayed_by: BTreeMap::from([(kind.name(), 3), (UNEXPLAINED, 1)]),
            gaps: BTreeMap::from([(kind, row(alone))]),
            ..Figures::default()
        }
    }

    #[test]
    fn what_is_counted_in_several_runs_is_their_sum() {
        let mut sum = run(1, true, Kind::Kill, &[4, 20]);
        sum.add(run(2, true, Kind::Kill, &[9, 21]));
        sum.add(run(3, true, Kind::Freeze, &[70]));
        assert_eq!((sum.events, sum.replayed()), (240, 12));
        assert_eq!(sum.replayed_unexplained(), 3);
        assert_eq!(sum.replayed_by["kill"], 6);
        let kill = &sum.gaps[&Kind::Kill];
        assert_eq!((kill.events, kill.alone.len()), (2, 4));
        assert_eq!(kill.median(), Some(Duration::from_secs(20)));
        assert_eq!(kill.worst(), Some(Duration::from_secs(21)));
        assert!(sum.passed());
    }

    #[test]
    fn goals_are_met_only_if_all_are() {
        let calm = Figures {
            gaps: BTreeMap::from([(Kind::Kill, row(&[20]))]),
            ..Figures::default()
        };
        assert!(calm.meets_goals());
        let long = BTreeMap::from([(Kind::Kill, row(&[20, 24]))]);
        let of_several = Row {
            among_others: vec![(Duration::from_secs(30), Duration::from_secs(1))],
            ..row(&[])
        };
        let misses = [
            Figures {
                gaps: long,
                ..calm.clone()
            },
            Figures {
                gaps: BTreeMap::from([(Kind::Kill, of_several)]),
                ..calm.clone()
            },
            Figures {
                unexplained: vec![Duration::from_secs(1)],
                ..calm.clone()
            },
            Figures {
                regressions: 1,
                ..calm.clone()
            },
            Figures {
                gaps: BTreeMap::from([(
                    Kind::Kill,
                    Row {
                        late: Duration::from_secs(1),
                        ..row(&[20])
                    },
                )]),
                ..calm.clone()
            },
            Figures {
                uncommitted: 1,
                ..calm.clone()
            },
            Figures {
                replayed_by: BTreeMap::from([(UNEXPLAINED, 1)]),
                ..calm
            },
        ];
        for miss in misses {
            assert!(!miss.meets_goals(), "{miss:?}");
            assert_eq!(miss.misses().len(), 1, "{miss:?}");
        }
    }

    #[test]
    fn one_run_that_failed_or_came_to_no_end_fails_the_sum_and_is_named() {
        let mut sum = Figures::default();
        for (seed, passed) in [(7, true), (8, false), (9, true)] {
            sum.add(run(seed, passed, Kind::Kill, &[]));
        }
        sum.add(Figures::without_end(10));
        assert!(!sum.passed());
        assert_eq!(sum.failed(), [8, 10]);
        assert_eq!((sum.overlaps, sum.events), (1, 240));
    }
}
