//! Which events explain a gap, and how much of it they excuse.
//!
//! Each event excuses the time from when it began until its goal is over, and the rest is too much.
//!
//! An event has its own goal only where it may have *touched* whoever had the queue: it happened to all, or to
//! the member that ran it, or to one that can have been given it meanwhile, which takes another event before.
//! Any other one that moves queues can have caused a hand-over in good order, and excuses no more than that.
//!
//! Whoever has to be waited for, lease and call bound, is waited for anew when broker or name server were away
//! meanwhile for longer than what may be left of a lease: the locks of those who waited end, and so do their claims.
//! So is who is frozen where the broker restarts and forgets its lock: until then nobody could wait for it, and
//! whether it comes back is not known before all who live had time to.
//!
//! The proof of a death shortens a wait only where its owner ran the queue and whoever takes it can have
//! the proof: of what is started again in its pod, only that pod has it. So where other events made a queue
//! move before that goal was over, or it stood still already, such a death excuses what any other would.

#[cfg(test)]
mod tests;

use super::LEAST;
use crate::happened::Happened;
use crate::schedule::Kind;
use crate::settings::{BROKER_FREES, LEASE, RENEW};
use keylane_tests::judge::Micros;
use std::time::Duration;

/// Who died may have run, or be given, a queue for so long: until it is dead, and the others miss it.
const NOTICED: Micros = 3_000_000;

fn micros(time: Duration) -> Micros {
    time.as_micros() as Micros
}

/// A queue that stands still.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    /// When the last call before it started.
    pub(super) last: Micros,
    /// Until when calls of that member run, at most until `to`.
    pub(super) running: Micros,
    /// From when.
    pub(super) from: Micros,
    /// Until when.
    pub(super) to: Micros,
    /// Who ran it before, and after.
    pub(super) members: (usize, usize),
}

/// Why a queue stood still.
#[derive(Debug)]
pub(super) struct Explained {
    /// The events, by their place in the list.
    pub(super) events: Vec<usize>,
    /// Whether it was a hand-over in good order: there are events, and none touched whoever had the queue.
    pub(super) clean: bool,
    /// How much of it none of them excuses.
    pub(super) too_much: Duration,
}

/// What happened, as it was to the others. Who is told to end while the broker is away for longer than what is left
/// of a lease can give nothing back, and nobody hears of it before the broker serves again: that is a kill. Who ends
/// and is listed on is to them as one that is silent. Who is well again about when the broker goes is back with it.
pub(super) fn to_the_others(events: &[Happened]) -> Vec<Happened> {
    let outages = events
        .iter()
        .filter(|event| event.kind == Kind::BrokerKilled);
    let outages: Vec<&Happened> = outages.collect();
    let during = |at: Micros, before: Micros| {
        let fits = |outage: &&&Happened| {
            (outage.at..outage.clock_from() + before).contains(&(at + before))
        };
        outages.iter().find(fits)
    };
    let seen = |event: &Happened| {
        let (kind, until) = match (event.kind, event.listed) {
            (_, Some(until)) => (Kind::Silence, until),
            (Kind::Terminate | Kind::PodDeleted, None) => {
                let outage = during(event.at, 0).filter(|outage| ends_waits(outage));
                outage.map_or((event.kind, event.until), |outage| {
                    (Kind::Kill, outage.clock_from())
                })
            }
            (kind, None) if kind.isolates() => {
                let outage = during(event.until, NOTICED);
                (
                    kind,
                    outage.map_or(event.until, |outage| outage.clock_from()),
                )
            }
            (kind, None) => (kind, event.until),
        };
        Happened {
            kind,
            until,
            ..event.clone()
        }
    };
    events.iter().map(seen).collect()
}

/// Events that happened to those who ran the queue, or to all; where there are none, or not
/// enough, those that moved queues between others too.
pub(super) fn explain(stand: &Stand, events: &[Happened]) -> Explained {
    let fits = |index: &usize| events[*index].may_explain(stand.from, stand.to);
    let fitting: Vec<usize> = (0..events.len()).filter(fits).collect();
    let concerned = |index: &usize| {
        let event = &events[*index];
        match event.member {
            None => true,
            Some(member) => {
                // Whoever starts takes over, whoever ends gives away.
                (member == stand.members.0 && event.kind != Kind::Start)
                    || member == stand.members.1
            }
        }
    };
    let among = |wanted: &dyn Fn(&usize) -> bool| -> Explained {
        let chosen = fitting.iter().copied().filter(wanted);
        explained_by(chosen.collect(), stand, events)
    };
    let direct = among(&concerned);
    // An executor that died and is started again in its pod does not explain why its queue went to another.
    let moved = |index: &usize| {
        let event = &events[*index];
        event.kind.is_known_in_its_pod_only() && event.member != Some(stand.members.1)
    };
    let moves = |index: &usize| events[*index].kind.moves();
    let any = direct.events.is_empty() || direct.events.iter().any(moved);
    let direct = match any {
        true => among(&|index| concerned(index) || moves(index)),
        false => direct,
    };
    if direct.too_much.is_zero() {
        return direct;
    }
    // Whoever was given the queue in between, and started no call of it, may have died with it; or given it on, where
    // all of it was in good order; or had a handler that took no calls.
    let orderly = direct.clean;
    let touched = |index: &usize| moves(index) && !only_moves(*index, stand, events);
    let in_order = |index: &usize| orderly && moves(index) && only_moves(*index, stand, events);
    let handlers = |index: &usize| had_meanwhile(*index, &fitting, events);
    let wider: [&dyn Fn(&usize) -> bool; 3] = [&touched, &in_order, &handlers];
    let wider =
        wider.map(|more| among(&|index| concerned(index) || any && moves(index) || more(index)));
    let mut excusing = wider.into_iter().filter(|wide| wide.too_much.is_zero());
    excusing.next().unwrap_or(direct)
}

/// Whether it happened to the handler of one that can have been given the queue, and have given it on: two other
/// events may have moved it, the first of them before that handler was well again.
fn had_meanwhile(index: usize, fitting: &[usize], events: &[Happened]) -> bool {
    let event = &events[index];
    let moves = fitting.iter().map(|other| &events[*other]);
    let moves: Vec<&Happened> = moves.filter(|other| other.kind.moves()).collect();
    event.kind.is_handler() && moves.len() > 1 && moves.iter().any(|other| other.at <= event.until)
}

fn explained_by(explaining: Vec<usize>, stand: &Stand, events: &[Happened]) -> Explained {
    let mut all = explaining.iter();
    let clean = !explaining.is_empty() && all.all(|index| only_moves(*index, stand, events));
    Explained {
        too_much: too_much(stand, &explaining, clean, events),
        clean,
        events: explaining,
    }
}

/// Whether it can have made the queue change hands in good order, and nothing else.
fn only_moves(index: usize, stand: &Stand, events: &[Happened]) -> bool {
    events[index].kind.is_clean() || !touches(index, stand, events)
}

/// Whether it may have happened to whoever had the queue, or was to have it.
fn touches(index: usize, stand: &Stand, events: &[Happened]) -> bool {
    let event = &events[index];
    let Some(member) = event.member else {
        return true;
    };
    if event.kind.is_handler() {
        return true;
    }
    if member == stand.members.0 {
        // What runs it later is another process, or well again.
        return stand.last <= runs_until(event);
    }
    let given_until = match event.kind.isolates() {
        true => event.until + NOTICED,
        false => event.at + NOTICED,
    };
    // It did not run it when the last call was started, so something else moved it there.
    let brings = |(other, cause): (usize, &Happened)| {
        let fits = cause.may_explain(stand.from, stand.to);
        other != index && cause.kind.moves() && fits && cause.at <= given_until
    };
    stand.last <= given_until && events.iter().enumerate().any(brings)
}

/// Until when the member it happens to may still start calls that say nothing about its end.
fn runs_until(event: &Happened) -> Micros {
    let until = match event.kind {
        // It goes on until its lease is over, and a moment after it is well again.
        kind if kind.isolates() => event.until.max(event.at + micros(LEASE)),
        kind if kind.is_handler() => event.until,
        _ => event.at,
    };
    until + NOTICED
}

/// The part of a gap that no event excuses.
fn too_much(stand: &Stand, explaining: &[usize], clean: bool, events: &[Happened]) -> Duration {
    let excuse = |index: &usize| {
        let event = &events[*index];
        let begins = event.at.max(stand.from);
        let running = if clean { stand.running } else { 0 };
        // What moves queues may move this one in good order.
        let handed_over = begins.max(running) + micros(Kind::Start.goal());
        if only_moves(*index, stand, events) {
            return (event.at, handed_over);
        }
        let ends = ends(*index, stand, explaining, events);
        let again = waited_for_again(event, ends, explaining, events);
        let ends = again.map_or(ends, |again| ends.max(again));
        match event.kind.moves() {
            true => (event.at, ends.max(handed_over)),
            false => (event.at, ends),
        }
    };
    let mut excused: Vec<(Micros, Micros)> = explaining.iter().map(excuse).collect();
    excused.sort_unstable();
    let (mut reached, mut left) = (stand.from, 0);
    for (begins, ends) in excused {
        let before = begins.min(stand.to).saturating_sub(reached);
        // A queue that stands still so shortly before the first one is not looked at.
        if reached > stand.from || before >= micros(LEAST) {
            left += before;
        }
        reached = reached.max(ends);
    }
    Duration::from_micros(left + stand.to.saturating_sub(reached))
}

/// Until when an event that touched whoever had the queue excuses that it stands still.
fn ends(index: usize, stand: &Stand, explaining: &[usize], events: &[Happened]) -> Micros {
    let event = &events[index];
    // Who is well again and has lost its queues waits for them as after a kill.
    let over = event.kind.isolates() && stand.from > event.until;
    let (clock, goal) = match over {
        true => (event.until, event.kind.goal().min(Kind::Kill.goal())),
        false => (event.clock_from(), goal(index, stand, explaining, events)),
    };
    // A single one is counted from the last call: what had been decided on still started.
    let counted = match explaining.len() == 1 && !event.kind.is_of_servers() {
        true => clock.max(stand.from.min(runs_until(event))),
        false => clock,
    };
    counted + micros(goal)
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
        .filter(|other| other.at < ends && event.at < other.clock_from())
        .filter(|other| ends_waits(other) || forgets_lock(event, other));
    // Before those who live had time to be back nobody can tell who died meanwhile.
    let all_back = outages.map(|other| other.clock_from() + micros(other.kind.goal()));
    let all_back = all_back.max()?;
    (event.kind.goal() >= wait).then(|| all_back + micros(wait))
}

/// Whether locks and claims of those who wait can end meanwhile.
fn ends_waits(outage: &Happened) -> bool {
    outage.clock_from().saturating_sub(outage.at) >= micros(LEASE - RENEW)
}

/// Whether the broker restarted while it still had the lock of one that was frozen, which is missed only from then on;
/// or when that one was back, who can have the lock then before whoever stood in for it.
fn forgets_lock(frozen: &Happened, outage: &Happened) -> bool {
    let holds = frozen.kind.goal() > BROKER_FREES && outage.kind == Kind::BrokerKilled;
    let missed = outage.at < frozen.at + micros(BROKER_FREES);
    holds && (missed || frozen.until <= outage.clock_from())
}

/// How long an event of a gap may take among those that explain it with it.
fn goal(index: usize, stand: &Stand, explaining: &[usize], events: &[Happened]) -> Duration {
    let event = &events[index];
    let own = event.kind.goal();
    let stood = event.at > stand.from + micros(LEAST);
    let over = event.clock_from() + micros(own);
    let disturbs = |other: &usize| {
        // Of a pod that is gone whoever starts is told, and whoever ends knows it already.
        let elsewhere = event.kind.is_known_in_its_pod_only() || !only_moves(*other, stand, events);
        let cause = &events[*other];
        // What came later than it may take has not delayed it.
        *other != index && cause.kind.moves() && elsewhere && cause.at <= over
    };
    let disturbed = explaining.iter().any(disturbs);
    match event.kind.is_proven() && explaining.len() > 1 && (stood || disturbed) {
        true => Kind::Kill.goal(),
        false => own,
    }
}
