//! Which events explain a gap, and how much of it they excuse.
//!
//! Where several events explain a gap, each excuses the time from when it began until its goal is over,
//! and the rest is too much.
//!
//! Whoever has to be waited for, lease and call bound, is waited for anew when broker or name server were away
//! for longer than a lease meanwhile: the locks of those who waited end, and so do their claims.
//!
//! The proof of a death shortens a wait only where its owner ran the queue and whoever takes it can have
//! the proof: of what is started again in its pod, only that pod has it. So where other events made a queue move as well, or
//! it stood still already, such a death excuses what any other would.

use super::LEAST;
use crate::happened::Happened;
use crate::schedule::Kind;
use crate::settings::LEASE;
use keylane_tests::judge::Micros;
use std::time::Duration;

/// The part of a gap that no event excuses.
pub(super) fn too_much(
    from: Micros,
    to: Micros,
    explaining: &[usize],
    events: &[Happened],
) -> Duration {
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
            let ends = begins.max(event.clock_from()) + goal;
            let again = waited_for_again(event, ends, explaining, events);
            (event.at, again.map_or(ends, |again| ends.max(again)))
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

/// Until when those are waited for once more who have to be since an event that may take until `ends`.
fn waited_for_again(
    event: &Happened,
    ends: Micros,
    explaining: &[usize],
    events: &[Happened],
) -> Option<Micros> {
    let wait = Kind::Kill.goal();
    let outages = explaining.iter().map(|index| &events[*index]);
    let outages = outages
        .filter(|other| other.kind.is_of_servers())
        .map(|other| (other.at, other.clock_from()))
        .filter(|(away, back)| *away < ends && event.at < *back)
        .filter(|(away, back)| back.saturating_sub(*away) >= LEASE.as_micros() as Micros);
    let back = outages.map(|(_, back)| back).max()?;
    (event.kind.goal() >= wait).then(|| back + wait.as_micros() as Micros)
}

/// How long an event of a gap may take among those that explain it with it.
fn goal(index: usize, from: Micros, explaining: &[usize], events: &[Happened]) -> Duration {
    let event = &events[index];
    let stood = event.at > from + LEAST.as_micros() as Micros;
    let disturbs = |other: &Happened| {
        // Of a pod that is gone whoever starts is told, and whoever ends knows it already.
        other.kind.moves() && (event.kind.is_known_in_its_pod_only() || !other.kind.is_clean())
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
pub(super) fn explaining(
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
    // An executor that died and is started again in its pod does not explain why its queue went to another.
    let moved = |index: &usize| {
        let event = &events[*index];
        event.kind.is_known_in_its_pod_only() && event.member != Some(members.1)
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
