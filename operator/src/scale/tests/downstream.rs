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
    // Whoever is left when pods go again has the lanes for what they did.
    for decision in &decisions[first..first + 4] {
        let lanes = decision.lanes * decision.replicas;
        assert!((4..=8).contains(&lanes), "{}", decision.message);
    }
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

#[test]
fn at_the_maximum_a_limit_of_all_pods_is_not_taken_for_too_few_pods() {
    let capped = Trace {
        seconds: 2400,
        rate: vec![600.0],
        downstream_cap: Some(until(300, 5e3, 400.0)),
        ..trace(0.0, 0.0)
    };
    let (_, decisions) = play(&capped, 3, |setup| setup.policy.max_replicas = 3);
    let bound = |decision: &&Decision| decision.limits.downstream.is_some();
    // Also after the ten minutes for which the backlog does not count.
    assert!(decisions.iter().filter(bound).count() > 250);
    for decision in decisions.iter().filter(bound) {
        assert_eq!(decision.limits.scaling, None, "{}", decision.message);
        assert_ne!(decision.reason, Reason::AtMaximum, "{}", decision.message);
    }
}

#[test]
fn at_the_maximum_it_is_said_that_something_shared_may_be_the_limit_unless_cpu_is_used_up() {
    for (cpu, shared) in [(false, true), (true, false)] {
        let (_, decisions) = play(&trace(2000.0, 0.0), 2, |setup| {
            setup.policy.max_replicas = 2;
            setup.cpu = cpu;
        });
        let at_most = |decision: &&Decision| decision.reason == Reason::AtMaximum;
        let last = decisions.iter().rfind(at_most).unwrap();
        let said = last.message.contains("something all pods share");
        assert_eq!(said, shared, "{}", last.message);
    }
}

/// The service time that is believed at the end, where what is behind the handlers gets slower and lanes are
/// not the controller's to take: 16 on each of 3 pods, whatever it says.
fn learned(policy: &Policy) -> f64 {
    let capped = database(vec![600.0], 0.0, until(300, 5e3, 400.0));
    let start = Sizes {
        lanes: 16,
        replicas: 3,
    };
    let (mut history, mut reasons) = (History::default(), Vec::new());
    by(&capped, start, |plant| {
        if plant.now().is_multiple_of(5) {
            let snapshot = Autopilot::snapshot(plant, false, true);
            let (decision, next) = decide(&snapshot, policy, &history);
            history = next;
            reasons.push(decision.reason);
        }
        None
    });
    if !matches!(policy.mode, Mode::Auto | Mode::LanesOnly) {
        assert!(!reasons.contains(&Reason::Probing));
    }
    history.model().service().unwrap()
}

#[test]
fn nothing_is_learned_from_a_try_that_was_none() {
    let with = |mode, min_lanes, max_lanes| Policy {
        mode,
        min_lanes,
        max_lanes,
        ..Policy::default()
    };
    for policy in [
        // Lanes are not its own.
        with(Mode::Advise, 4, 32),
        with(Mode::Hold, 4, 32),
        // There are none to take.
        with(Mode::LanesOnly, 16, 16),
        // Pods do not get to know of it.
        with(Mode::LanesOnly, 4, 32),
    ] {
        let service = learned(&policy);
        assert!(service < 1.1 * SERVICE, "{service}: {policy:?}");
    }
}

#[test]
fn lanes_that_bring_nothing_are_not_doubled_while_it_is_learned_how_long_a_call_takes() {
    // A call takes a second, and 4 of them can run at once.
    let slow = database(vec![0.0], 5_000.0, vec![4.0]);
    let world = World {
        service: 1.0,
        ..World::default()
    };
    let mut setup = Setup::of(&slow);
    (setup.policy.min_lanes, setup.policy.max_lanes) = (2, 512);
    let start = Sizes {
        lanes: 2,
        replicas: 1,
    };
    let (mut learning, mut most) = (0, 0);
    run(
        &slow,
        world,
        start,
        &mut Autopilot::new(&slow, setup),
        &mut |plant, decision| {
            if let Some(decision) = decision
                && plant.now().is_multiple_of(5)
                && decision.reason == Reason::Learning
            {
                (learning, most) = (learning + 1, most.max(decision.lanes));
            }
        },
    );
    assert!(learning >= 6, "{learning} looks");
    assert!((8..=16).contains(&most), "{most}");
}

#[test]
fn a_pool_of_each_pod_is_not_taken_for_one_that_all_share_though_their_cpu_is_idle() {
    // What a pod can do ends at 320 a second, and not for want of CPU.
    let busy = trace(1000.0, 0.0);
    let policy = Setup::of(&busy).policy;
    let start = Sizes {
        lanes: 4,
        replicas: 1,
    };
    let mut history = History::default();
    let run = by(&busy, start, |plant| {
        if !plant.now().is_multiple_of(5) {
            return None;
        }
        let mut snapshot = Autopilot::snapshot(plant, false, true);
        for pod in &mut snapshot.pods {
            pod.cpu = Some(0.2);
        }
        let (decision, next) = decide(&snapshot, &policy, &history);
        history = next;
        assert_eq!(decision.limits.downstream, None, "{}", decision.message);
        Some(Sizes {
            lanes: decision.lanes,
            replicas: decision.replicas,
        })
    });
    assert!(pods(&run).last() >= Some(&4), "{:?}", run.score);
    assert!(run.course.last().unwrap().age < 5.0, "{:?}", run.score);
}
