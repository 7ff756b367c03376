//! What the record says of order and of messages that ran again.
//!
//! Pure. A call *written by a frozen process* is one that was decided on before the process was stopped
//! and arrived after it woke: no client can exclude it, and a handler that obeys the deadline it is told
//! refuses it. Such calls are judged apart.

use crate::happened::Happened;
use crate::record::Call;
use crate::schedule::Kind;
use crate::settings::{CALL_BOUND, LEASE, PERSIST};
use keylane_tests::judge::{Ended, Judge, Micros, Report, Reported, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A process that is killed has written down what finished so long before.
const WRITTEN: Duration = PERSIST.saturating_add(Duration::from_millis(500));
/// How long the broker takes at most to store committed offsets; a kill loses those it has not.
const BROKER_STORES: Duration = Duration::from_secs(5);
/// A process is frozen a moment after the signal was sent.
const STOPS_WITHIN: Duration = Duration::from_millis(100);
/// An answer is with its caller so soon.
const ANSWERED: Duration = Duration::from_millis(100);

/// A message that was handled and ran again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Queue and offset.
    pub message: (String, u64),
    /// When it had been handled last, by whom.
    pub handled: (Micros, usize),
    /// When it ran again, with whom.
    pub again: (Micros, usize),
    /// The event that explains it, by its place in the list.
    pub event: Option<usize>,
}

/// The calls that a frozen process wrote when it woke, by their place in the record.
pub fn written_frozen(calls: &[Call], events: &[Happened]) -> BTreeSet<usize> {
    let freezes: Vec<&Happened> = events
        .iter()
        .filter(|event| event.kind == Kind::Freeze)
        .collect();
    let is_frozen = |call: &Call| {
        freezes.iter().any(|freeze| {
            let stopped = freeze.at + STOPS_WITHIN.as_micros() as Micros;
            freeze.member == Some(call.member)
                && call.decided <= stopped
                && call.start >= freeze.until
        })
    };
    let frozen = calls.iter().enumerate().filter(|(_, call)| is_frozen(call));
    frozen.map(|(index, _)| index).collect()
}

/// Judges all calls but those.
pub fn judge(calls: &[Call], without: &BTreeSet<usize>) -> Verdict {
    let mut judge = Judge::default();
    let kept = calls
        .iter()
        .enumerate()
        .filter(|(index, _)| !without.contains(index));
    let reported = kept.map(|(index, call)| Reported {
        id: index as u64,
        queue: call.queue.clone(),
        key: Some(call.key.clone()),
        offset: call.offset,
        start: call.start,
        end: call.end.map(|at| Ended { at, ok: call.ok }),
    });
    judge.take(Report {
        handler: "all".into(),
        sequence: 1,
        at: calls.iter().filter_map(|call| call.end).max().unwrap_or(0),
        calls: reported.collect(),
    });
    judge.verdict()
}

/// Messages that ran again after they had been handled, in the order of time. Each is judged by the last
/// time it had been handled, so that an event explains once what it lost; calls in `without` are no replays.
pub fn replays(calls: &[Call], without: &BTreeSet<usize>, events: &[Happened]) -> Vec<Replay> {
    let mut handled: BTreeMap<(&str, u64), BTreeSet<(Micros, usize)>> = BTreeMap::new();
    for call in calls {
        let Some(at) = call.handled() else { continue };
        let message = (call.queue.as_str(), call.offset);
        handled
            .entry(message)
            .or_default()
            .insert((at, call.member));
    }
    let again = |(index, call): (usize, &Call)| {
        if without.contains(&index) {
            return None;
        }
        let all = handled.get(&(call.queue.as_str(), call.offset))?;
        let handled = *all.range(..=(call.start, usize::MAX)).next_back()?;
        Some(Replay {
            message: (call.queue.clone(), call.offset),
            handled,
            again: (call.start, call.member),
            event: explaining(handled, call.start, events),
        })
    };
    let mut found: Vec<Replay> = calls.iter().enumerate().filter_map(again).collect();
    found.sort_by_key(|replay| replay.again);
    found
}

/// The event that kept `handled` from being written down or known before it ran again.
fn explaining((handled, by): (Micros, usize), again: Micros, events: &[Happened]) -> Option<usize> {
    let micros = |time: Duration| time.as_micros() as Micros;
    let is_so = |event: &Happened| {
        if event.at > again || event.member.is_some_and(|member| member != by) {
            return false;
        }
        let (before, after) = match event.kind {
            // What a process wrote may lie in a broker that forgets it.
            Kind::BrokerKilled => (WRITTEN + BROKER_STORES, LEASE),
            // Calls that ran when it was killed went on.
            Kind::Kill
            | Kind::ForcedDeletion
            | Kind::ExecutorKilled
            | Kind::ExecutorKilledUnprobed => (WRITTEN, CALL_BOUND),
            // They died with it.
            Kind::ContainersKilled | Kind::PodGone => (WRITTEN, Duration::ZERO),
            // The answer died with it.
            Kind::HandlerDead => (ANSWERED, Duration::ZERO),
            // It could write nothing down, and its lease ended.
            Kind::Freeze | Kind::Cut | Kind::Silence | Kind::NameServerLost => (WRITTEN, LEASE),
            // The caller did not learn that it was handled.
            Kind::HandlerSlow | Kind::HandlerCut => (CALL_BOUND, CALL_BOUND),
            Kind::HandlerFailing
            | Kind::Start
            | Kind::Terminate
            | Kind::PodDeleted
            | Kind::OperatorKilled => return false,
        };
        handled + micros(before) >= event.at && handled <= event.until + micros(after)
    };
    // The last one before it ran again.
    let listed = events.iter().enumerate();
    let fitting = listed.filter(|(_, event)| is_so(event));
    fitting
        .max_by_key(|(_, event)| event.at)
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Micros = 1_000_000;
    const NONE: BTreeSet<usize> = BTreeSet::new();

    fn event(kind: Kind, member: usize, at: Micros, until: Micros) -> Happened {
        Happened {
            kind,
            member: Some(member),
            at,
            until,
            listed: None,
        }
    }

    #[test]
    fn only_what_was_decided_before_the_freeze_and_came_after_it_is_judged_apart() {
        let events = [event(Kind::Freeze, 0, 10 * S, 90 * S)];
        let mut late = Call::sample(1, 0, 90 * S, 90 * S + 1);
        late.decided = 10 * S;
        let calls = [
            Call::sample(1, 1, 89 * S, 91 * S),
            late.clone(),
            Call {
                decided: 90 * S,
                ..late.clone()
            },
            Call { member: 1, ..late },
        ];
        let frozen = written_frozen(&calls, &events);
        assert_eq!(frozen, BTreeSet::from([1]));
        assert_eq!(judge(&calls[..2], &frozen).overlaps, 0);
        assert_eq!(judge(&calls[..2], &BTreeSet::new()).overlaps, 1);
    }

    #[test]
    fn a_kill_explains_what_finished_in_its_last_moments_only() {
        let calls = [
            Call::sample(1, 0, S, S + 1),
            Call::sample(2, 0, 9 * S, 9 * S + 1),
            Call::sample(1, 1, 30 * S, 30 * S + 1),
            Call::sample(2, 1, 31 * S, 31 * S + 1),
        ];
        let found = replays(&calls, &NONE, &[event(Kind::Kill, 0, 10 * S, 10 * S)]);
        let told: Vec<_> = found.iter().map(|one| (one.message.1, one.event)).collect();
        assert_eq!(told, [(1, None), (2, Some(0))]);
        let executor = replays(
            &calls,
            &NONE,
            &[event(Kind::ExecutorKilled, 0, 10 * S, 10 * S)],
        );
        assert_eq!(executor[1].event, Some(0));
        let clean = replays(&calls, &NONE, &[event(Kind::Terminate, 0, 10 * S, 10 * S)]);
        assert!(clean.iter().all(|replay| replay.event.is_none()));
    }

    #[test]
    fn calls_go_on_when_their_executor_dies_alone_and_end_with_their_pod() {
        let calls = [
            Call::sample(1, 0, 9 * S, 13 * S),
            Call::sample(1, 1, 30 * S, 30 * S + 1),
        ];
        let explained = |kind| {
            let found = replays(&calls, &NONE, &[event(kind, 0, 10 * S, 10 * S + 1)]);
            found[0].event.is_some()
        };
        assert!(explained(Kind::Kill) && explained(Kind::ExecutorKilled));
        assert!(!explained(Kind::PodGone));
    }

    #[test]
    fn a_call_that_failed_and_ran_again_is_no_replay() {
        let mut failed = Call::sample(1, 0, S, 2 * S);
        failed.ok = false;
        assert_eq!(
            replays(&[failed, Call::sample(1, 0, 3 * S, 4 * S)], &NONE, &[]),
            []
        );
    }

    #[test]
    fn a_kill_explains_one_replay_of_a_message_and_not_the_next() {
        let kill = event(Kind::Kill, 0, 10 * S, 10 * S);
        let call = |member, at| Call::sample(2, member, at, at + 1);
        let calls = [call(0, 9 * S), call(1, 30 * S), call(2, 60 * S)];
        let explained = |events: &[Happened]| {
            let found = replays(&calls, &NONE, events);
            found.iter().map(|one| one.event).collect::<Vec<_>>()
        };
        assert_eq!(explained(std::slice::from_ref(&kill)), [Some(0), None]);
        let clean = event(Kind::Terminate, 1, 31 * S, 31 * S);
        assert_eq!(explained(&[kill.clone(), clean]), [Some(0), None]);
        let again = event(Kind::Kill, 1, 31 * S, 31 * S);
        assert_eq!(explained(&[kill, again]), [Some(0), Some(1)]);
    }

    #[test]
    fn what_a_frozen_process_wrote_is_counted_apart_and_is_no_replay() {
        let events = [event(Kind::Freeze, 0, 10 * S, 90 * S)];
        let mut late = Call::sample(1, 0, 90 * S, 90 * S + 1);
        late.decided = 10 * S;
        let calls = [Call::sample(1, 1, 50 * S, 50 * S + 1), late];
        let frozen = written_frozen(&calls, &events);
        assert_eq!(replays(&calls, &frozen, &events), []);
        assert_eq!(replays(&calls, &NONE, &events).len(), 1);
    }
}
