use super::*;
use std::time::Duration;

/// Seeds of one test; there are four, so that they share the processors.
const SEEDS: u64 = 2_500;

fn any_world(first: u64) {
    for seed in first..first + SEEDS {
        let run = std::panic::catch_unwind(|| World::new(Plan::any(seed)).run());
        assert!(
            run.is_ok(),
            "a promise is broken in this world: {:?}\nTo see it again: \
             KEYLANE_SIM_SEED={seed} cargo test -p keylane-consumer --lib a_seed_replays -- --nocapture",
            Plan::any(seed)
        );
    }
}

#[test]
fn promises_hold_in_any_world_1() {
    any_world(0);
}

#[test]
fn promises_hold_in_any_world_2() {
    any_world(SEEDS);
}

#[test]
fn promises_hold_in_any_world_3() {
    any_world(2 * SEEDS);
}

#[test]
fn promises_hold_in_any_world_4() {
    any_world(3 * SEEDS);
}

#[test]
fn a_seed_replays() {
    let seed = std::env::var("KEYLANE_SIM_SEED").map(|seed| seed.parse().expect("a seed"));
    let plan = Plan::any(*seed.as_ref().unwrap_or(&7));
    let world = World::new(plan.clone());
    let world = if seed.is_ok() { world.traced() } else { world };
    let outcome = world.run();
    assert!(outcome.calls > 0);
    assert_eq!(
        outcome,
        World::new(plan).run(),
        "the same seed is the same world"
    );
}

const STEADY: Steady = Steady {
    lanes: 100,
    queues: 8,
    keys: 1_000,
    service: Duration::from_millis(10),
    stuck: false,
};

#[test]
fn a_hundred_lanes_give_what_they_can_in_virtual_time() {
    for (service, time) in [(10, 10), (100, 100)] {
        let steady = Steady {
            service: Duration::from_millis(service),
            ..STEADY
        };
        // All keys but the first.
        let ideal = 100 * 1_000 * time / service * 999 / 1_000;
        let finished = steady.finished_in(Duration::from_secs(time));
        assert!(
            finished * 1_000 >= ideal * 999,
            "{finished} of {ideal} at {service} ms"
        );
    }
}

#[test]
fn one_stuck_key_leaves_the_others_their_throughput() {
    let time = Duration::from_secs(10);
    let before = STEADY.finished_in(time);
    let stuck = Steady {
        stuck: true,
        ..STEADY
    };
    let finished = stuck.finished_in(time);
    assert!(finished * 100 >= before * 99, "{finished} of {before}");
}
