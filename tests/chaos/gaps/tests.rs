use super::*;
use crate::schedule::Kind;

pub(super) const S: Micros = 1_000_000;

pub(super) fn call(offset: u64, member: usize, start: Micros) -> Call {
    Call::sample(offset, member, start, start + 1000)
}

pub(super) fn event(kind: Kind, member: Option<usize>, at: Micros, until: Micros) -> Happened {
    Happened {
        kind,
        member,
        at,
        until,
        listed: None,
    }
}

/// Messages come each tenth of a second.
pub(super) fn steady(count: u64) -> Arrivals {
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
fn a_queue_whose_messages_wait_for_a_call_of_their_key_does_not_stand_still() {
    let mut slow = call(0, 0, 0);
    slow.end = Some(4 * S);
    let calls = [slow.clone(), call(1, 0, 4 * S)];
    assert_eq!(gaps(&calls, &steady(2), &[]), []);
    let mut other = call(1, 0, 4 * S);
    other.key = "another".into();
    let found = gaps(&[slow, other], &steady(2), &[]);
    assert_eq!((found[0].from, found[0].to), (S / 10, 4 * S));
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
    let broker = event(Kind::BrokerKilled, None, S, 7 * S);
    let kill = |at| event(Kind::Kill, Some(1), at, at);
    let much = |events: &[Happened]| {
        let found = gaps(&calls, &steady(2), events);
        let (rows, _) = by_kind(&found, events);
        let row = &rows[&Kind::Kill];
        assert!(row.alone.is_empty());
        assert_eq!(row.passes(Kind::Kill), found[0].too_much.is_zero());
        found[0].too_much
    };
    // Until 12 s the broker, from then on the kill.
    assert_eq!(
        much(&[broker.clone(), kill(12 * S)]),
        Duration::from_millis(900)
    );
    assert_eq!(
        much(&[broker.clone(), kill(15 * S)]),
        Duration::from_millis(3_900)
    );
    assert_eq!(much(&[broker, kill(2 * S)]), Duration::from_millis(10_900));
}

#[test]
fn who_has_to_be_waited_for_is_waited_for_anew_after_an_outage_of_more_than_is_left_of_a_lease() {
    let calls = [call(0, 0, 0), call(1, 1, 60 * S)];
    let killed = event(Kind::Kill, Some(0), S, S);
    let much = |back: Micros| {
        let outage = event(Kind::NameServerLost, None, 5 * S, back);
        gaps(&calls, &steady(2), &[killed.clone(), outage])[0].too_much
    };
    // 6 s: the wait goes on, until 24 s. 25 s: until all can be back, 5 s after it serves, and 23 s more.
    assert_eq!(much(11 * S), Duration::from_millis(36_900));
    assert_eq!(much(30 * S), Duration::from_millis(2_900));
    // One that began when it was over had not to be waited for before.
    let late = event(Kind::Kill, Some(0), 31 * S, 31 * S);
    let outage = event(Kind::NameServerLost, None, 5 * S, 30 * S);
    let found = gaps(&calls, &steady(2), &[outage, late]);
    assert_eq!(found[0].too_much, Duration::from_millis(4_900 + 6_000));
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
fn an_executor_whose_handler_cannot_be_asked_may_take_as_long_as_its_calls() {
    // No message waited before it.
    let killed = event(Kind::ExecutorKilledUnprobed, Some(0), S / 10, S / 10);
    for (back, passes) in [(12, true), (14, false)] {
        let calls = [call(0, 0, 0), call(1, 0, back * S)];
        let found = gaps(&calls, &steady(2), std::slice::from_ref(&killed));
        let (rows, _) = by_kind(&found, std::slice::from_ref(&killed));
        assert_eq!(rows[&killed.kind].passes(killed.kind), passes, "{back} s");
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
