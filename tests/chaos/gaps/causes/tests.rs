//! Made-up records: a gap passes with its true cause up to the bound of that cause, and fails beyond it or with
//! a cause that is none.

use crate::gaps::tests::{S, call, event, steady};
use crate::gaps::{Gap, by_kind, gaps};
use crate::happened::Happened;
use crate::record::Call;
use crate::schedule::Kind;

/// The first message that waits comes then.
const WAITS: u64 = S / 10;

fn found(calls: &[Call], events: &[Happened]) -> Vec<Gap> {
    gaps(calls, &steady(1_000), events)
}

/// Whether no gap is longer than it may be.
fn met(calls: &[Call], events: &[Happened]) -> bool {
    let (rows, unexplained) = by_kind(&found(calls, events), events);
    unexplained.is_empty() && rows.iter().all(|(kind, row)| row.passes(*kind))
}

fn at_once(kind: Kind, member: usize, at: u64) -> Happened {
    event(kind, Some(member), at, at)
}

#[test]
fn every_figure_passes_up_to_its_bound_and_fails_beyond_it() {
    // Whom it happens to, who goes on; seconds: how long it lasts, when its time begins, how much it may be.
    let figures = [
        (Kind::Start, Some(1), 1, [0, 0, 1]),
        (Kind::Terminate, Some(0), 1, [0, 0, 1]),
        (Kind::PodDeleted, Some(0), 1, [0, 0, 1]),
        (Kind::PodGone, Some(0), 1, [7, 7, 5]),
        (Kind::ContainersKilled, Some(0), 0, [3, 3, 5]),
        (Kind::ExecutorKilled, Some(0), 0, [0, 0, 5]),
        (Kind::ExecutorKilledUnprobed, Some(0), 0, [0, 0, 12]),
        (Kind::Kill, Some(0), 1, [0, 0, 23]),
        (Kind::ForcedDeletion, Some(0), 1, [0, 0, 23]),
        (Kind::Freeze, Some(0), 1, [90, 0, 80]),
        (Kind::BrokerKilled, None, 0, [6, 6, 5]),
    ];
    for (kind, member, next, [lasts, begins, bound]) in figures {
        let events = [event(kind, member, WAITS, WAITS + lasts * S)];
        let until = |late| {
            [
                call(0, 0, 0),
                call(1, next, WAITS + (begins + bound) * S + late),
            ]
        };
        assert!(met(&until(0), &events), "{kind:?}");
        assert!(!met(&until(1_000), &events), "{kind:?}");
    }
}

#[test]
fn no_event_excuses_that_a_queue_stood_still_before_it() {
    let calls = [call(0, 0, 0), call(1, 1, 20 * S)];
    for kind in [Kind::Kill, Kind::Terminate, Kind::PodGone] {
        let late = [at_once(kind, 0, 19 * S + S / 2)];
        assert!(!met(&calls, &late), "{kind:?}");
    }
    assert!(!met(
        &calls,
        &[event(Kind::BrokerKilled, None, 19 * S, 21 * S)]
    ));
    assert!(met(&calls, &[at_once(Kind::Kill, 0, WAITS)]));
}

#[test]
fn calls_that_run_excuse_a_hand_over_by_their_member_and_nothing_else() {
    let mut slow = call(0, 0, 0);
    slow.end = Some(9 * S);
    let until = |member| [slow.clone(), call(1, member, 9 * S + S / 2)];
    assert!(met(&until(1), &[at_once(Kind::Start, 1, WAITS)]));
    // It stood still before anybody was to take it.
    assert!(!met(&until(1), &[at_once(Kind::Start, 1, 8 * S)]));
    // One key is slow, and the others wait.
    assert!(!met(&until(0), &[]));
    let of_another = [
        Call {
            member: 2,
            ..slow.clone()
        },
        call(1, 0, WAITS),
        call(2, 1, 9 * S + S / 2),
    ];
    assert!(!met(&of_another, &[at_once(Kind::Start, 1, 2 * WAITS)]));
}

#[test]
fn a_kill_of_one_that_did_not_have_the_queue_excuses_a_hand_over_in_good_order_at_most() {
    let until = |to| [call(0, 0, 5 * S), call(1, 1, to)];
    // The queue was with another after it, or still is when it comes.
    for at in [S, 6 * S] {
        let killed = [at_once(Kind::Kill, 2, at)];
        assert!(!met(&until(20 * S), &killed), "{at}");
    }
    let killed = [at_once(Kind::Kill, 2, S)];
    let short = until(5 * S + 9 * S / 10);
    assert!(met(&short, &killed));
    // And it is not told as a gap of a kill.
    let (rows, _) = by_kind(&found(&short, &killed), &killed);
    assert!(rows[&Kind::Kill].alone.is_empty());
}

#[test]
fn a_clean_event_is_not_blamed_for_the_kill_of_whoever_was_given_the_queue() {
    let until = |to| [call(0, 0, 5 * S), call(1, 1, to)];
    let events = |at| {
        [
            at_once(Kind::Terminate, 0, 5 * S),
            at_once(Kind::Kill, 2, at),
        ]
    };
    let killed = events(5 * S + S / 2);
    assert_eq!(found(&until(28 * S), &killed)[0].events, [0, 1]);
    assert!(met(&until(28 * S), &killed));
    assert!(!met(&until(29 * S), &killed));
    // A hand-over is over then: it should have run the queue.
    assert!(!met(&until(28 * S), &events(7 * S)));
}

#[test]
fn a_kill_of_the_holder_stands_for_the_gap_and_not_the_start_beside_it() {
    let events = [
        at_once(Kind::Start, 1, WAITS),
        at_once(Kind::Kill, 0, WAITS),
    ];
    let until = |to| [call(0, 0, 0), call(1, 1, to)];
    assert!(met(&until(23 * S), &events));
    assert!(!met(&until(24 * S), &events));
    let (rows, _) = by_kind(&found(&until(23 * S), &events), &events);
    assert_eq!(rows[&Kind::Kill].among_others.len(), 1);
    assert!(rows[&Kind::Start].alone.is_empty());
}

#[test]
fn the_kill_of_a_process_is_no_excuse_for_the_one_after_it_in_its_place() {
    let events = [at_once(Kind::Kill, 0, S), at_once(Kind::Start, 0, 2 * S)];
    let until = |to| [call(0, 0, 10 * S), call(1, 0, to)];
    assert!(!met(&until(20 * S), &events));
    assert!(met(&until(11 * S), &events));
}

#[test]
fn a_proven_death_is_not_delayed_by_what_came_when_its_time_was_over() {
    let calls = [call(0, 0, 0), call(1, 1, 20 * S)];
    let events = |at| [at_once(Kind::PodGone, 0, WAITS), at_once(Kind::Kill, 1, at)];
    assert!(met(&calls, &events(3 * S)));
    assert!(!met(&calls, &events(10 * S)));
}

#[test]
fn who_has_thawed_and_lost_its_queue_waits_for_it_as_after_a_kill() {
    let events = [event(Kind::Freeze, Some(0), S, 20 * S)];
    let until = |to| [call(0, 0, 21 * S), call(1, 1, to)];
    assert!(met(&until(43 * S), &events));
    assert!(!met(&until(50 * S), &events));
}

#[test]
fn the_time_of_a_broker_that_serves_again_is_counted_once() {
    let events = [event(Kind::BrokerKilled, None, WAITS, 6 * S)];
    let until = |to| [call(0, 0, 9 * S), call(1, 0, to)];
    assert!(met(&until(10 * S + S / 2), &events));
    assert!(!met(&until(13 * S), &events));
}

#[test]
fn who_is_told_to_end_while_the_broker_is_away_for_a_lease_is_as_one_that_was_killed() {
    let ended = at_once(Kind::Terminate, 0, 2 * S);
    for (back, bound) in [(7, 7 + 5), (8, 8 + 5 + 23), (15, 15 + 5 + 23)] {
        let outage = event(Kind::BrokerKilled, None, S, back * S);
        let events = [outage, ended.clone()];
        let goes_on = |at: u64| [call(0, 0, S), call(1, 1, at * S)];
        assert!(met(&goes_on(bound), &events), "{back} s");
        assert!(!met(&goes_on(bound + 1), &events), "{back} s");
    }
    // Before it, and once it is over, nothing hinders it.
    for at in [S / 2, 16 * S] {
        let events = [
            event(Kind::BrokerKilled, None, S, 15 * S),
            at_once(Kind::Terminate, 0, at),
        ];
        assert!(!met(&[call(0, 0, S / 4), call(1, 1, 22 * S)], &events));
    }
}

#[test]
fn who_is_frozen_when_the_broker_restarts_is_missed_from_then_on() {
    // When the broker is killed, when it thaws, and the bound: the freeze's own where the others had the time before, or
    // have the lock by then, unless it is back and has the lock before them.
    let cases = [
        (20, 90, 80),
        (54, 90, 60 + 5 + 23),
        (62, 90, 80),
        (62, 66, 68 + 5 + 23),
    ];
    for (killed, thaws, bound) in cases {
        let events = [
            event(Kind::Freeze, Some(0), WAITS, thaws * S),
            event(Kind::BrokerKilled, None, killed * S, (killed + 6) * S),
        ];
        let goes_on = |at: u64| [call(0, 0, 0), call(1, 1, at * S)];
        assert!(met(&goes_on(bound), &events), "{killed} s, {thaws} s");
        let late = goes_on(bound + 1);
        assert!(!met(&late, &events), "{killed} s, {thaws} s");
    }
}

#[test]
fn who_is_killed_and_listed_on_is_as_one_that_is_silent() {
    let mut killed = at_once(Kind::Kill, 0, WAITS);
    let until = |to| [call(0, 0, 0), call(1, 1, to)];
    assert!(!met(&until(24 * S), std::slice::from_ref(&killed)));
    killed.listed = Some(90 * S);
    let listed = std::slice::from_ref(&killed);
    assert!(met(&until(80 * S), listed));
    assert!(!met(&until(81 * S), listed));
    let (rows, _) = by_kind(&found(&until(80 * S), listed), listed);
    assert_eq!(rows[&Kind::Kill].events, 1);
    assert_eq!(rows[&Kind::Silence].alone.len(), 1);
}

#[test]
fn a_queue_may_change_hands_twice_in_good_order_when_two_start_one_after_the_other() {
    let mut slow = call(0, 0, 0);
    slow.end = Some(9 * WAITS);
    let until = |to| [slow.clone(), call(1, 1, to)];
    let starts = |first| {
        [
            at_once(Kind::Start, 2, first),
            at_once(Kind::Start, 1, 8 * WAITS),
        ]
    };
    assert!(met(&until(15 * WAITS), &starts(WAITS)));
    assert!(!met(&until(20 * WAITS), &starts(WAITS)));
    // The first one came too late to have moved it.
    assert!(!met(&until(15 * WAITS), &starts(7 * WAITS)));
}

#[test]
fn who_is_well_again_when_the_broker_comes_back_can_have_the_lock_before_who_had_it() {
    // It had the queue in its place until the broker went, and was waited for.
    let until = |to| [call(0, 1, 70 * S), call(1, 0, to)];
    for (thaws, met_until) in [(66, 75 + 5 + 23), (40, 75 + 5)] {
        let events = [
            event(Kind::Freeze, Some(0), S, thaws * S),
            event(Kind::BrokerKilled, None, 67 * S, 75 * S),
        ];
        assert!(met(&until(met_until * S), &events), "{thaws} s");
        assert!(!met(&until((met_until + 1) * S), &events), "{thaws} s");
    }
}

#[test]
fn a_queue_stands_still_with_a_dead_handler_to_which_it_was_given_for_a_moment() {
    let calls = [call(0, 0, 10 * S), call(1, 0, 14 * S)];
    let dead = event(Kind::HandlerDead, Some(1), 9 * S, 13 * S);
    let (comes, goes) = (
        at_once(Kind::Start, 2, 10 * S),
        at_once(Kind::Terminate, 2, 12 * S),
    );
    let all = [dead.clone(), comes.clone(), goes.clone()];
    assert!(met(&calls, &all));
    // Nothing gave it to that one, or nothing took it away.
    assert!(!met(&calls, &[comes.clone(), goes]));
    assert!(!met(&calls, &[dead, comes]));
}
