//! Something behind the handlers that can do only so much, as a small pool of connections to a database.

use super::*;

/// What a call takes.
const SERVICE: f64 = 0.05;

fn database(rate: Vec<f64>, backlog: f64, cap: Vec<f64>) -> Trace {
    Trace {
        rate,
        downstream_cap: Some(cap),
        ..trace(0.0, backlog)
    }
}

fn until(second: usize, before: f64, after: f64) -> Vec<f64> {
    let value = |now| if now < second { before } else { after };
    (0..900).map(value).collect()
}

/// Messages finished a second, on average.
fn finished(course: &[crate::simulate::Moment]) -> f64 {
    course.iter().map(|moment| moment.finished).sum::<f64>() / course.len() as f64
}

#[test]
fn a_limit_that_was_there_from_the_start_is_named_once_pods_brought_nothing() {
    // 4 connections.
    let cap = 4.0 / SERVICE;
    let cold = database(vec![0.0], 60_000.0, vec![cap]);
    let (run, decisions) = play(&cold, 1, |setup| {
        setup.policy.min_lanes = 2;
        setup.policy.max_replicas = 4;
    });
    let bound = |decision: &Decision| decision.limits.downstream.is_some();
    let first = decisions.iter().position(bound).unwrap();
    assert!(first * 5 <= 120, "after {} s", first * 5);
    // After ten minutes pods may be tried again.
    let settled = first * 5 + 30..first * 5 + 600;
    for moment in &run.course[settled.clone()] {
        assert_eq!(moment.pods, 1, "{moment:?}");
        assert!((4..=8).contains(&moment.lanes), "{moment:?}");
    }
    let finished = finished(&run.course[settled]);
    assert!(finished >= 0.95 * cap, "{finished}");
    let said = format!("at most {cap:.0}/s get through");
    for decision in &decisions[first + 4..first + 110] {
        assert!(decision.message.contains(&said), "{}", decision.message);
    }
}

#[test]
fn a_downstream_that_gets_slower_is_used_for_what_it_can_still_do() {
    for (slower, lanes) in [(4.0, 4.0), (2.0, 30.0)] {
        let cap = lanes / SERVICE;
        let changes = 300;
        let slow = Trace {
            slowness: Some(until(changes, 1.0, slower)),
            ..database(vec![0.7 * cap], 0.0, until(changes, cap, cap / slower))
        };
        let (run, decisions) = play(&slow, 1, |setup| {
            setup.policy.min_lanes = 1;
            setup.policy.max_lanes = 64;
            setup.policy.max_replicas = 2;
        });
        let can = cap / slower;
        let late = &run.course[600..];
        let last = &decisions.last().unwrap().message;
        assert!(
            finished(late) >= 0.85 * can,
            "{} of {can}: {last}",
            finished(late)
        );
        for moment in late {
            let total = f64::from(moment.lanes * moment.pods);
            assert!(total <= 2.0 * lanes, "{moment:?}: {last}");
        }
    }
}

#[test]
fn a_limit_is_gone_once_nothing_is_left_to_be_done() {
    let cap = 4.0 / SERVICE;
    let (run, decisions) = play(&database(vec![0.0], 20_000.0, vec![cap]), 1, |setup| {
        setup.policy.min_lanes = 2;
        setup.policy.max_replicas = 4;
    });
    let bound = |decision: &Decision| decision.limits.downstream.is_some();
    let empty = run.score.drained_at.unwrap() as usize;
    assert!(bound(&decisions[empty / 5 - 2]), "empty at {empty} s");
    let last = decisions.iter().rposition(bound).unwrap() * 5;
    assert!(
        last <= empty + 30,
        "empty at {empty} s, a limit at {last} s"
    );
}
