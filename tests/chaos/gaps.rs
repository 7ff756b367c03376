//! How long queues stood still while they had messages, and which events explain it.
//!
//! Pure. A *gap* of a queue lies between the starts of two calls, and begins no earlier than the oldest
//! message that was not started yet came, and than the clock of the event began (an event that takes the
//! broker away: when it serves again). A hand-over in good order may wait for calls that run. Where
//! several events explain a gap, each excuses the time from when it began until its goal is over, and the
//! rest is too much.
//!
//! The proof of a death shortens a wait only where its owner ran the queue and whoever takes it can have
//! the proof: of an executor, only its own pod has it. So where other events made a queue move as well, or
//! it stood still already, such a death excuses what any other would.

use crate::happened::Happened;
use crate::record::Call;
use crate::schedule::Kind;
use keylane_tests::judge::Micros;
use std::collections::{BTreeMap, BTreeSet};
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
    let none = BTreeMap::new();
    let mut found = Vec::new();
    for (queue, mut calls) in queues {
        calls.sort_by_key(|call| call.start);
        let arrivals = arrivals.get(queue).unwrap_or(&none);
        of_queue(&calls, arrivals, events, &mut found);
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
    let mut running_until = 0;
    for pair in calls.windows(2) {
        let [before, after] = pair else { continue };
        waiting.remove(&before.offset);
        running_until = running_until.max(before.end.unwrap_or(Micros::MAX));
        let Some(oldest) = waiting.first_key_value().map(|(_, at)| *at) else {
            continue;
        };
        let from = before.start.max(oldest);
        if after.start < from + LEAST.as_micros() as Micros {
            continue;
        }
        let members = (before.member, after.member);
        let explaining = explaining(from, after.start, members, events);
        let from = match explaining[..] {
            [only] => from.max(events[only].clock_from()),
            _ => from,
        };
        let clean = explaining
            .iter()
            .all(|event| events[*event].kind.is_clean());
        let from = if clean {
            from.max(running_until.min(after.start))
        } else {
            from
        };
        let gap = Gap {
            queue: after.queue.clone(),
            from,
            to: after.start,
            members,
            too_much: too_much(from, after.start, &explaining, events),
            events: explaining,
        };
        if gap.length() >= LEAST {
            found.push(gap);
        }
    }
}

/// The part of a gap that no event excuses.
fn too_much(from: Micros, to: Micros, explaining: &[usize], events: &[Happened]) -> Duration {
    let mut excused: Vec<(Micros, Micros)> = explaining
        .iter()
        .map(|index| {
            let event = &events[*index];
            let begins = if event.kind.is_clean() {
                event.at.max(from)
            } else {
                event.at
            };
            let goal = goal(*index, from, explaining, events).as_micros() as Micros;
            (event.at, begins.max(event.clock_from()) + goal)
        })
        .collect();
    excused.sort_unstable();
    let (mut reached, mut left) = (from, 0);
    for (begins, ends) in excused {
        left += begins.min(to).saturating_sub(reached);
        reached = reached.max(ends);
    }
    Duration::from_micros(left + to.saturating_sub(reached))
}

/// How long an event of a gap may take among those that explain it with it.
fn goal(index: usize, from: Micros, explaining: &[usize], events: &[Happened]) -> Duration {
    let event = &events[index];
    let stood = event.at > from + LEAST.as_micros() as Micros;
    let disturbs = |other: &Happened| match event.kind {
        Kind::ExecutorKilled => other.kind.moves(),
        // Whoever starts is told, and whoever ends knows it already.
        _ => other.kind.moves() && !other.kind.is_clean(),
    };
    let mut others = explaining.iter().filter(|other| **other != index);
    let disturbed = others.any(|other| disturbs(&events[*other]));
    match event.kind.is_proven() && explaining.len() > 1 && (stood || disturbed) {
        true => Kind::Kill.goal(),
        false => event.kind.goal(),
    }
}

/// Events that happened to those who ran the queue, or to all; where there are none, or not
/// enough, those that moved queues between others too.
fn explaining(
    from: Micros,
    to: Micros,
    members: (usize, usize),
    events: &[Happened],
) -> Vec<usize> {
    let fits = |event: &&(usize, &Happened)| event.1.may_explain(from, to);
    let concerned = |event: &Happened| match event.member {
        None => true,
        Some(member) => {
            // Whoever starts takes over, whoever ends gives away.
            (member == members.0 && event.kind != Kind::Start) || member == members.1
        }
    };
    let listed: Vec<(usize, &Happened)> = events.iter().enumerate().collect();
    let direct: Vec<usize> = listed
        .iter()
        .filter(fits)
        .filter(|(_, event)| concerned(event))
        .map(|(index, _)| *index)
        .collect();
    // An executor that died alone does not explain why its queue went to another.
    let moved = |index: &usize| {
        let event = &events[*index];
        event.kind == Kind::ExecutorKilled && event.member != Some(members.1)
    };
    if !direct.is_empty() && !direct.iter().any(moved) {
        return direct;
    }
    listed
        .iter()
        .filter(fits)
        .filter(|(_, event)| concerned(event) || event.kind.moves())
        .map(|(index, _)| *index)
        .collect()
}

/// The gaps of one kind of event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Lengths of those that one event explains, sorted.
    pub alone: Vec<Duration>,
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

    /// What is not excused of those that several explain, at most.
    pub fn too_much(&self) -> Option<Duration> {
        self.among_others.iter().map(|(_, much)| *much).max()
    }

    /// Whether none is longer than it may be.
    pub fn passes(&self, kind: Kind) -> bool {
        let alone = self.worst().is_none_or(|worst| worst <= kind.goal());
        alone && self.too_much().is_none_or(|much| much.is_zero())
    }
}

/// Gaps by kind of event; those of several events stand with the one that may take longest. The gaps
/// that nothing explains come apart.
pub fn by_kind(gaps: &[Gap], events: &[Happened]) -> (BTreeMap<Kind, Row>, Vec<Duration>) {
    let mut rows: BTreeMap<Kind, Row> = BTreeMap::new();
    for event in events {
        rows.entry(event.kind).or_default().events += 1;
    }
    let mut unexplained = Vec::new();
    for gap in gaps {
        let kinds: Vec<Kind> = gap.events.iter().map(|event| events[*event].kind).collect();
        let Some(heaviest) = kinds.iter().max_by_key(|kind| kind.goal()) else {
            unexplained.push(gap.length());
            continue;
        };
        let row = rows.entry(*heaviest).or_default();
        let distinct: BTreeSet<Kind> = kinds.iter().copied().collect();
        if distinct.len() == 1 && (kinds.len() == 1 || heaviest.is_clean()) {
            row.alone.push(gap.length());
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

#[cfg(test)]
mod tests {
    use super::*;

    const S: Micros = 1_000_000;

    fn call(offset: u64, member: usize, start: Micros) -> Call {
        Call::sample(offset, member, start, start + 1000)
    }

    fn event(kind: Kind, member: Option<usize>, at: Micros, until: Micros) -> Happened {
        Happened {
            kind,
            member,
            at,
            until,
        }
    }

    /// Messages come each tenth of a second.
    fn steady(count: u64) -> Arrivals {
        let each = (0..count).map(|offset| (offset, offset * S / 10));
        Arrivals::from([("b/0".into(), each.collect())])
    }

    #[test]
    fn a_kill_explains_the_gap_until_another_goes_on() {
        let calls = [call(0, 0, 0), call(1, 0, S / 10), call(2, 1, 20 * S)];
        let events = [
            event(Kind::Kill, Some(0), S / 10, S / 10),
            event(Kind::Kill, Some(2), S, S),
        ];
        let found = gaps(&calls, &steady(300), &events);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].events, [0]);
        assert_eq!(found[0].length(), Duration::from_millis(19_800));
        let (rows, unexplained) = by_kind(&found, &events);
        assert!(rows[&Kind::Kill].passes(Kind::Kill) && unexplained.is_empty());
        assert_eq!(rows[&Kind::Kill].events, 2);
    }

    #[test]
    fn the_clock_of_a_broker_that_was_away_begins_when_it_serves() {
        let calls = [call(0, 0, 0), call(1, 0, 30 * S)];
        let events = [event(Kind::BrokerKilled, None, S, 23 * S)];
        let found = gaps(&calls, &steady(2), &events);
        assert_eq!(found[0].length(), Duration::from_secs(7));
        let (rows, _) = by_kind(&found, &events);
        assert!(!rows[&Kind::BrokerKilled].passes(Kind::BrokerKilled));
    }

    #[test]
    fn a_queue_without_messages_does_not_stand_still() {
        let calls = [call(0, 0, 0), call(1, 0, 50 * S), call(2, 0, 60 * S)];
        let mut arrivals = steady(1);
        let queue = arrivals.get_mut("b/0").unwrap();
        queue.extend([(1, 50 * S - 1), (2, 51 * S)]);
        let found = gaps(&calls, &arrivals, &[]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].from, found[0].to), (51 * S, 60 * S));
        let (_, unexplained) = by_kind(&found, &[]);
        assert_eq!(unexplained, [Duration::from_secs(9)]);
    }

    #[test]
    fn a_hand_over_in_good_order_may_wait_for_calls_that_run() {
        let mut slow = call(0, 0, 0);
        slow.end = Some(4 * S);
        let calls = [slow, call(1, 1, 5 * S)];
        let events = [event(Kind::Start, Some(1), S, S)];
        let found = gaps(&calls, &steady(2), &events);
        assert_eq!(found[0].length(), Duration::from_secs(1));
    }

    #[test]
    fn several_events_excuse_what_each_may_take_from_when_it_happened() {
        let calls = [call(0, 0, 0), call(1, 1, 35 * S)];
        let broker = event(Kind::BrokerKilled, None, S, 8 * S);
        let kill = |at| event(Kind::Kill, Some(1), at, at);
        let much = |events: &[Happened]| {
            let found = gaps(&calls, &steady(2), events);
            let (rows, _) = by_kind(&found, events);
            let row = &rows[&Kind::Kill];
            assert!(row.alone.is_empty());
            assert_eq!(row.passes(Kind::Kill), found[0].too_much.is_zero());
            found[0].too_much
        };
        // Until 13 s the broker, from then on the kill.
        assert_eq!(
            much(&[broker.clone(), kill(12 * S)]),
            Duration::from_millis(900)
        );
        assert_eq!(
            much(&[broker.clone(), kill(15 * S)]),
            Duration::from_millis(2_900)
        );
        assert_eq!(much(&[broker, kill(2 * S)]), Duration::from_millis(10_900));
    }

    #[test]
    fn a_proven_death_alone_may_take_less_than_one_that_nobody_knows_of() {
        let calls = [call(0, 0, 0), call(1, 0, 7 * S)];
        for kind in [Kind::ExecutorKilled, Kind::PodGone] {
            let events = [event(kind, Some(0), S, S)];
            let found = gaps(&calls, &steady(2), &events);
            assert_eq!(found[0].length(), Duration::from_secs(6));
            let (rows, _) = by_kind(&found, &events);
            assert!(!rows[&kind].passes(kind));
        }
    }

    #[test]
    fn a_proven_death_while_the_queue_stood_still_may_take_as_long_as_a_kill() {
        let calls = [call(0, 0, 0), call(1, 1, 35 * S)];
        let broker = event(Kind::BrokerKilled, None, S, 8 * S);
        let gone = |at| event(Kind::PodGone, Some(1), at, at);
        // The message came before the broker was away.
        let found = gaps(&calls, &steady(2), &[broker.clone(), gone(13 * S)]);
        assert_eq!(found[0].too_much, Duration::from_millis(900));
        let found = gaps(&calls, &steady(2), &[broker, gone(10 * S)]);
        assert_eq!(found[0].too_much, Duration::from_millis(2_900));
    }

    #[test]
    fn only_its_own_pod_knows_that_an_executor_died() {
        let calls = [call(0, 0, 0), call(1, 1, 20 * S)];
        let killed = event(Kind::ExecutorKilled, Some(0), S / 10, S / 10);
        let only = std::slice::from_ref(&killed);
        let (rows, _) = by_kind(&gaps(&calls, &steady(2), only), only);
        assert!(!rows[&Kind::ExecutorKilled].passes(Kind::ExecutorKilled));
        // Another moved the queue at that time.
        let events = [killed, event(Kind::Start, Some(2), S, S)];
        let moved = gaps(&calls, &steady(2), &events);
        assert_eq!(moved[0].events, [0, 1]);
        assert_eq!(moved[0].too_much, Duration::ZERO);
        // It came back to its pod: that is not the other's doing.
        let stayed = gaps(&[call(0, 0, 0), call(1, 0, 20 * S)], &steady(2), &events);
        assert_eq!(stayed[0].events, [0]);
    }

    #[test]
    fn a_start_beside_a_pod_that_is_gone_excuses_nothing_of_it() {
        let calls = [call(0, 0, 0), call(1, 1, 8 * S)];
        let gone = event(Kind::PodGone, Some(0), S / 10, S / 10);
        let start = event(Kind::Start, Some(1), S / 10, S / 10);
        let found = gaps(&calls, &steady(2), &[gone, start]);
        assert_eq!(found[0].too_much, Duration::from_millis(2_900));
    }
}
