//! The judgement of a run.

use crate::gaps::{self, Gap};
use crate::happened::Happened;
use crate::load::{LOOK_EVERY, Regression};
use crate::order::{self, Replay};
use crate::record::Call;
use crate::run::Outcome;
use crate::schedule::Kind;
use crate::settings::{LEASE, PERSIST};
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

/// Those that lasted too long while somebody ran the queue.
fn regressions(outcome: &Outcome) -> Vec<(Regression, Duration)> {
    let all = outcome.regressions.iter();
    all.map(|regression| (regression.clone(), lasted(regression, outcome)))
        .filter(|(_, lasted)| *lasted > PERSIST + 2 * LOOK_EVERY)
        .collect()
}

/// A process: the place it has, and how many ended there before it.
type Process = (usize, usize);

/// A call of a queue, and the process that made it.
#[derive(Clone, Copy)]
struct Made<'a> {
    call: &'a Call,
    by: Process,
}

/// How long of it somebody ran the queue at a stretch, from when the broker served.
fn lasted(regression: &Regression, outcome: &Outcome) -> Duration {
    let ends = outcome.calls.iter().filter_map(|call| call.end);
    let last = ends.max().unwrap_or_default();
    let until = regression.until.unwrap_or(last);
    let killed = outcome.events.iter().filter(|event| {
        event.kind == Kind::BrokerKilled && event.at <= until && event.until >= regression.since
    });
    let served = killed.map(|event| event.until).max().unwrap_or(0);
    let from = regression.since.max(served);
    let suffix = format!("/{}", regression.queue);
    let calls = outcome.calls.iter();
    let made = |call| Made {
        call,
        by: (call.member, ended_before(call, &outcome.events)),
    };
    let of_queue = calls.filter(|call| call.queue.ends_with(&suffix)).map(made);
    let of_queue: Vec<Made<'_>> = of_queue.collect();
    let behind = behind(regression, &of_queue);
    let knows = |made: &&Made<'_>| behind.get(&made.by).is_none_or(|at| made.call.start >= *at);
    let starts = of_queue.iter().filter(knows);
    let starts = starts.map(|made| (made.call.start, made.by));
    let mut starts: Vec<(Micros, Process)> = starts
        .filter(|(at, _)| (from..=until).contains(at))
        .collect();
    starts.sort_unstable();
    Duration::from_micros(stretch(&starts, until, &outcome.events))
}

/// How many processes had ended in the place of the one that made it.
fn ended_before(call: &Call, events: &[Happened]) -> usize {
    let ended = events.iter().filter(|event| {
        event.member == Some(call.member) && event.kind.ends_process() && event.at <= call.start
    });
    ended.count()
}

/// Processes that took the queue over since, from where the broker stood then, and until when they are not as far as
/// the offset was: what they have not handled again they must not commit. Who ran it until then, and goes on within
/// its lease, knows how far it was. What a process handled when it had the queue at another time is no knowledge of
/// this one.
fn behind(regression: &Regression, of_queue: &[Made<'_>]) -> BTreeMap<Process, Micros> {
    let mut handled: BTreeMap<(Process, u64), Micros> = BTreeMap::new();
    for Made { call, by } in of_queue {
        let again = call.start >= regression.since;
        if again && (regression.to..regression.from).contains(&call.offset) {
            let first = handled.entry((*by, call.offset)).or_insert(Micros::MAX);
            *first = (*first).min(call.handled().unwrap_or(Micros::MAX));
        }
    }
    let mut behind: BTreeMap<Process, Micros> = BTreeMap::new();
    for ((process, _), at) in handled {
        let until = behind.entry(process).or_default();
        *until = (*until).max(at);
    }
    let before = of_queue
        .iter()
        .filter(|made| made.call.start < regression.since);
    if let Some(last) = before.max_by_key(|made| made.call.start) {
        let lease = last.call.start + LEASE.as_micros() as Micros;
        let goes_on = |made: &Made<'_>| {
            made.by == last.by && (regression.since..=lease).contains(&made.call.start)
        };
        if of_queue.iter().any(goes_on) {
            behind.remove(&last.by);
        }
    }
    behind
}

/// The longest time in which one call followed the other before nobody is known to have run the queue any
/// more: an owner with messages waits for none of them as long as it may take to commit. Who follows one that was
/// killed has its own time for it.
fn stretch(starts: &[(Micros, Process)], until: Micros, events: &[Happened]) -> Micros {
    let (mut began, mut longest) = (None, 0);
    for (index, (start, process)) in starts.iter().enumerate() {
        let next = starts.get(index + 1).map_or(until, |(next, _)| *next);
        let since = *began.get_or_insert(*start);
        let killed = events.iter().any(|event| {
            event.member == Some(process.0)
                && event.kind.ends_process()
                && !event.kind.is_clean()
                && (*start..next).contains(&event.at)
        });
        let goes_on = !killed && next.saturating_sub(*start) <= PERSIST.as_micros() as Micros;
        let ends = if goes_on { next } else { *start };
        longest = longest.max(ends.saturating_sub(since));
        if !goes_on {
            began = None;
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Micros = 1_000_000;

    /// One that nothing ended; somebody starts a call each second in these times.
    fn found(run: &[(Micros, Micros)], events: Vec<Happened>) -> Vec<Duration> {
        let seconds = run.iter().flat_map(|(from, to)| *from..*to);
        let call = |at: Micros| Call::sample(at, 0, at * S, at * S + 1);
        found_of(seconds.map(call).collect(), events)
    }

    fn found_of(calls: Vec<Call>, events: Vec<Happened>) -> Vec<Duration> {
        let outcome = Outcome {
            calls,
            arrivals: BTreeMap::new(),
            events,
            regressions: vec![Regression {
                queue: 0,
                from: 20,
                to: 12,
                since: 10 * S,
                until: Some(40 * S),
            }],
            queues: BTreeMap::new(),
            exits: Vec::new(),
            crashed: 0,
        };
        let found = regressions(&outcome);
        found.into_iter().map(|(_, lasted)| lasted).collect()
    }

    #[test]
    fn an_offset_may_be_lower_while_nobody_runs_the_queue_and_no_longer_than_it_takes_to_commit() {
        let none: [Duration; 0] = [];
        assert_eq!(found(&[(0, 10)], Vec::new()), none);
        assert_eq!(found(&[(0, 10), (38, 60)], Vec::new()), none);
        // Whoever put it right was killed before, and the next one had to wait.
        assert_eq!(found(&[(0, 12), (38, 60)], Vec::new()), none);
        let long = [Duration::from_secs(15)];
        assert_eq!(found(&[(0, 12), (25, 60)], Vec::new()), long);
        let served = Happened {
            kind: Kind::BrokerKilled,
            member: None,
            at: 9 * S,
            until: 38 * S,
            listed: None,
        };
        assert_eq!(found(&[(0, 60)], vec![served]), none);
        assert_eq!(found(&[(0, 60)], Vec::new()), [Duration::from_secs(30)]);
    }

    #[test]
    fn who_takes_over_where_a_broker_forgot_commits_what_it_has_handled_again_and_no_more() {
        // It takes over at the 14th second, from offset 12, and each message succeeds at its second call. It had run
        // the queue before, up to offset 19, and so did another since.
        let calls = |again: Micros| {
            let before = (0..20).map(|at| {
                let start = at * S / 2;
                Call::sample(at, usize::from(at < 19), start, start + 1)
            });
            let failing = (12..20).map(|at| Call {
                ok: false,
                ..Call::sample(at, 1, (at + 2) * S, (at + 2) * S + 1)
            });
            let later = (0..).zip((again..40).step_by(1));
            let later =
                later.map(|(at, second)| Call::sample(12 + at, 1, second * S, second * S + 1));
            before.chain(failing).chain(later).collect::<Vec<Call>>()
        };
        let none: [Duration; 0] = [];
        assert_eq!(found_of(calls(31), Vec::new()), none);
        // At second 27 it has handled 19.
        let late = found_of(calls(20), Vec::new());
        assert_eq!(late, [Duration::from_secs(12)]);
    }

    #[test]
    fn another_process_in_the_place_of_who_ran_the_queue_does_not_know_how_far_it_was() {
        // It goes on within the lease, and one of the messages that run again is never done.
        let before = (0..20).map(|at| Call::sample(at, 0, at * S / 2, at * S / 2 + 1));
        let later = (11..50).map(|at| Call {
            ok: at > 11,
            ..Call::sample(if at == 11 { 15 } else { 100 + at }, 0, at * S, at * S + 1)
        });
        let calls: Vec<Call> = before.chain(later).collect();
        let killed = Happened {
            kind: Kind::ExecutorKilled,
            member: Some(0),
            at: 10 * S - 1,
            until: 10 * S - 1,
            listed: None,
        };
        let long = [Duration::from_secs(29)];
        assert_eq!(found_of(calls.clone(), Vec::new()), long);
        assert_eq!(found_of(calls.clone(), vec![killed.clone()]).len(), 0);
        // Each has its own time to commit: one has the first half, the next one the other.
        let again = Happened {
            at: 25 * S + S / 2,
            ..killed
        };
        let halves = [Duration::from_secs(14)];
        assert_eq!(found_of(calls, vec![again]), halves);
    }
}
