//! The simulated group does what arithmetic says.

use super::*;

/// Asks for the same sizes at every second, with another number of pods from a second on.
struct Fixed {
    replicas: u32,
    later: Option<(u32, u32)>,
}

impl Controller for Fixed {
    fn decide(&mut self, plant: &Plant<'_>) -> Option<Sizes> {
        let later = self.later.filter(|(from, _)| plant.now() >= *from);
        Some(Sizes {
            lanes: 16,
            replicas: later.map_or(self.replicas, |(_, replicas)| replicas),
        })
    }
}

fn play(trace: &Trace, world: World, replicas: u32, later: Option<(u32, u32)>) -> Run {
    let start = Sizes {
        lanes: 16,
        replicas,
    };
    let mut controller = Fixed { replicas, later };
    run(trace, world, start, &mut controller, &mut |_, _| {})
}

fn trace(rate: f64) -> Trace {
    Trace {
        name: "test".to_owned(),
        seconds: 300,
        queues: 8,
        rate: vec![rate],
        ..Trace::default()
    }
}

#[test]
fn what_arrives_beyond_the_capacity_stays_and_grows_old() {
    let run = play(&trace(400.0), World::default(), 1, None);
    let last = run.course.last().unwrap();
    // A pod does 320 a second: 80 a second stay, for 300 seconds.
    assert!((last.backlog - 80.0 * 300.0).abs() < 400.0, "{last:?}");
    // The oldest arrived when as much had arrived as is finished now.
    assert!((last.age - 60.0).abs() < 3.0, "{last:?}");
    assert!(
        play(&trace(310.0), World::default(), 1, None)
            .score
            .worst_age
            < 3.0
    );
}

#[test]
fn a_pod_takes_its_time_to_start_and_queues_stand_still_while_they_move() {
    let world = World {
        start_delay: 40,
        handoff: 20,
        ..World::default()
    };
    let run = play(&trace(200.0), world, 1, Some((100, 2)));
    let age = |second: usize| run.course[second].age;
    assert!(
        age(135) < 2.0 && age(139) < 2.0,
        "{} {}",
        age(135),
        age(139)
    );
    assert!((15.0..=20.0).contains(&age(158)), "{}", age(158));
    assert!(age(180) < 2.0, "{}", age(180));
    assert_eq!((run.score.actions, run.score.most_pods), (1, 2));
}

#[test]
fn a_saturated_downstream_takes_longer_and_no_more_gets_through() {
    let capped = Trace {
        downstream_cap: Some(vec![300.0]),
        ..trace(600.0)
    };
    let run = play(&capped, World::default(), 4, None);
    let last = run.course.last().unwrap();
    assert!((last.finished - 300.0).abs() < 1.0, "{last:?}");
    // 64 calls at once, 300 a second: 213 ms instead of 50.
    assert!(run.score.inflated_seconds > 290, "{:?}", run.score);
}

#[test]
fn a_poison_key_waits_while_it_does_not_move_and_is_done_one_by_one_then() {
    let poisoned = Trace {
        poison: Some(Poison {
            from: 100,
            to: 200,
            queue: 3,
        }),
        ..trace(200.0)
    };
    let start = Sizes {
        lanes: 16,
        replicas: 2,
    };
    let mut controller = Fixed {
        replicas: 2,
        later: None,
    };
    let mut waiting = Vec::new();
    run(
        &poisoned,
        World::default(),
        start,
        &mut controller,
        &mut |plant, _| waiting.push(plant.poison_key().map(|(_, waiting, _)| waiting.round())),
    );
    assert_eq!(waiting[99], Some(0.0));
    // 60 a second come, and then 20 a second go.
    assert_eq!(waiting[199], Some(6000.0));
    assert_eq!(waiting[299], Some(4000.0));
}

#[test]
fn the_same_trace_gives_the_same_run() {
    let mut first = Autopilot::new(&trace(900.0), Setup::of(&trace(900.0)));
    let mut second = Autopilot::new(&trace(900.0), Setup::of(&trace(900.0)));
    let start = Sizes {
        lanes: 4,
        replicas: 1,
    };
    let go = |pilot: &mut Autopilot| {
        run(
            &trace(900.0),
            World::default(),
            start,
            pilot,
            &mut |_, _| {},
        )
    };
    assert_eq!(go(&mut first), go(&mut second));
    assert_eq!(first.history(), second.history());
}

#[test]
fn a_trace_is_read_from_json_and_nonsense_is_refused_by_name() {
    let text = r#"{"name":"x","seconds":10,"queues":2,"queueWeights":[1,3],"rate":[5,6],"hotKeyRate":null,
        "downstreamCap":[100],"slowness":null,"backlog":7,"poison":{"from":1,"to":2,"queue":1},
        "metricsOutage":null,"brokerOutage":{"from":3,"to":4},"schedule":{"from":5,"to":6,"rate":9}}"#;
    let trace = Trace::from_json(text).unwrap();
    assert_eq!(trace.weights(), [0.25, 0.75]);
    assert_eq!(Trace::at(&trace.rate, 9), Some(6.0));
    for (from, to, named) in [
        ("\"seconds\":10", "\"seconds\":0", "seconds must be"),
        ("[1,3]", "[1]", "queueWeights"),
        ("\"queue\":1}", "\"queue\":2}", "poison.queue"),
        ("\"rate\":[5,6]", "\"rate\":[]", "at least one value"),
        ("\"slowness\"", "\"slownes\"", "slownes"),
    ] {
        let error = Trace::from_json(&text.replace(from, to)).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
    }
}
