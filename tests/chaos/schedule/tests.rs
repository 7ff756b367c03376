use super::*;
use std::collections::BTreeSet;

const HOUR: Duration = Duration::from_secs(3600);
const PLACES: [Place; 2] = [Place::Processes, Place::Pods];

fn hour(seed: u64, place: Place) -> Vec<Planned> {
    plan(seed, HOUR, 4, place)
}

#[test]
fn a_seed_replays_the_schedule_and_another_gives_another() {
    for place in PLACES {
        assert_eq!(hour(7, place), hour(7, place));
        assert_ne!(hour(7, place), hour(8, place));
    }
}

#[test]
fn an_hour_has_everything_that_can_happen_there_and_nothing_outlasts_it() {
    for place in PLACES {
        let events = hour(1, place);
        let kinds: BTreeSet<Kind> = events.iter().map(|event| event.kind).collect();
        let unprobed = place == Place::Processes;
        let possible = Kind::ALL.into_iter().filter(|kind| {
            kind.weight(place) > 0 || (unprobed && *kind == Kind::ExecutorKilledUnprobed)
        });
        assert_eq!(kinds, possible.collect());
        assert!(events.len() > 300, "{} events", events.len());
        assert!(events.is_sorted_by_key(|event| event.at));
        assert!(events.iter().all(|event| event.until() < HOUR));
        let freezes = events.iter().filter(|event| event.kind == Kind::Freeze);
        let longest = freezes.map(|event| event.lasts).max();
        assert!(longest > Some(Duration::from_secs(80)), "{longest:?}");
    }
}

#[test]
fn an_executor_dies_without_a_probe_where_there_is_none() {
    let all = hour(1, Place::Processes);
    let killed = |kind: Kind| all.iter().filter(move |event| event.kind == kind);
    assert!(killed(Kind::ExecutorKilled).all(|event| event.member < Some(3)));
    assert!(killed(Kind::ExecutorKilledUnprobed).all(|event| event.member == Some(3)));
}

#[test]
fn two_members_can_always_work() {
    for (place, seed) in PLACES
        .into_iter()
        .flat_map(|place| (0..20).map(move |seed| (place, seed)))
    {
        let events = hour(seed, place);
        for now in events.iter().map(|event| event.at) {
            let able = (0..4).filter(|member| {
                let mine = events
                    .iter()
                    .filter(|event| event.member == Some(*member) && event.at <= now);
                let mut up = false;
                let mut disabled = false;
                for event in mine {
                    let kind = event.kind;
                    let first = kind == Kind::Start && event.at < SETTLED;
                    up = (up || kind == Kind::Start) && !kind.ends(place);
                    disabled |= kind.disables(place)
                        && !first
                        && event.until() + kind.recovers(place) > now;
                }
                up && !disabled
            });
            // The first starts apart.
            let early = now < START_EVERY * 2;
            assert!(
                early || able.count() >= LEFT,
                "{place:?}, seed {seed} at {now:?}"
            );
        }
    }
}

#[test]
fn containers_of_a_pod_are_killed_in_place_once_and_then_it_is_replaced() {
    let events = hour(3, Place::Pods);
    for member in 0..4 {
        let mut crashed = false;
        for event in events.iter().filter(|event| event.member == Some(member)) {
            let kind = event.kind;
            assert!(!(crashed && kind.is_killed_in_place()), "{event:?}");
            crashed |= kind.crashes(Place::Pods, event.lasts);
            crashed &= kind != Kind::Start && !kind.replaces(Place::Pods);
        }
    }
}

#[test]
fn nothing_needs_the_operator_while_it_is_away() {
    let events = hour(5, Place::Pods);
    let away: Vec<Duration> = events
        .iter()
        .filter(|event| event.kind == Kind::OperatorKilled)
        .map(|event| event.at)
        .collect();
    let needing = events
        .iter()
        .filter(|event| event.at > SETTLED && event.kind.needs_operator(Place::Pods));
    for event in needing {
        let apart = |at: &Duration| event.at.abs_diff(*at) >= OPERATOR_APART;
        assert!(away.iter().all(apart), "{event:?}");
    }
    assert!(away.len() > 5);
}
