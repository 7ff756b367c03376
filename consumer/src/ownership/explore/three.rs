//! Three members, whose states are too many to be searched in a test: those near the start, and walks at random
//! through several faults that go further. What they do not find is not proven; the searches of [`super`] prove,
//! within their bounds, and `KEYLANE_EXPLORE_MEMBERS=3` has them search three members for as long as it takes.
//! A walk is the same at every run; `KEYLANE_EXPLORE_WALKS=<number>` takes more of them.

use super::steps::{self, Faults, Step};
use super::world::{Setting, World};
use super::{Bounds, calm, search, show, with};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// States to search, which bounds time and memory.
const NEAR: usize = 20_000;
const WALKS: u64 = 200;
const STEPS: usize = 250;
/// How often something goes wrong, of all steps, until no more may.
const FAULTS: f64 = 0.05;

fn three() -> Bounds {
    Bounds {
        members: 3,
        keys: "aba",
        most_faults: 3,
        gives: 2,
        ..Bounds::default()
    }
}

/// A process may be about to end at any time.
const USUAL: Faults = Faults {
    stop: true,
    ..Faults::NONE
};

/// Where a walk ends and the way to there, until everything is done or for so many steps. An error is a
/// promise that was broken.
fn walk(bounds: &Bounds, setting: &Setting, seed: u64) -> (World, Vec<Step>, Result<(), String>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let start = World::new(setting, bounds.most_faults, bounds.gives);
    let mut world = start.representative(setting);
    let (mut way, mut possible) = (Vec::new(), Vec::new());
    let all = |world: &World| {
        world.finished == setting.all() && usize::from(world.committed) == setting.keys.len()
    };
    while way.len() < STEPS && !all(&world) {
        possible.clear();
        steps::steps(setting, USUAL, &world, &mut possible);
        let usual = possible.len();
        if rng.random_bool(FAULTS) {
            possible.clear();
            steps::steps(setting, bounds.faults, &world, &mut possible);
        }
        // Faults come last.
        let from = if possible.len() > usual { usual } else { 0 };
        let step = possible[rng.random_range(from..possible.len())];
        way.push(step);
        let taken = steps::take(setting, &mut world, step);
        if taken.is_err() {
            return (world, way, taken);
        }
        world = world.representative(setting);
    }
    (world, way, Ok(()))
}

#[test]
fn no_promise_is_broken_in_the_states_of_three_members_that_are_near() {
    let bounds = Bounds {
        members: 3,
        most_states: NEAR,
        ..with(&["stop"], 0, 1)
    };
    let searched = search(&bounds);
    if let Some((broken, way)) = searched.broken {
        show(&bounds, &way);
        panic!("{broken}");
    }
    let which = if searched.complete {
        "all"
    } else {
        "the nearest"
    };
    println!(
        "{which} {} states, {} steps deep",
        searched.states, searched.depth
    );
}

#[test]
fn no_promise_is_broken_on_walks_of_three_members_and_each_comes_to_an_end_without_faults() {
    let bounds = three();
    let setting = bounds.setting();
    let walks = std::env::var("KEYLANE_EXPLORE_WALKS");
    let walks = walks.map_or(WALKS, |text| text.parse().expect("a number of walks"));
    let mut steps = 0;
    for seed in 0..walks {
        let (world, way, mut result) = walk(&bounds, &setting, seed);
        for late in [false, true] {
            result = result.and_then(|()| {
                let ends = calm::finishes(&setting, world.clone(), late);
                ends.map_err(|broken| format!("without faults: {broken}"))
            });
        }
        if let Err(broken) = result {
            show(&bounds, &way);
            panic!("walk {seed}: {broken}");
        }
        steps += way.len();
    }
    println!("{walks} walks, {steps} steps");
}

/// Who does not wait for calls of a former owner is found out.
#[test]
fn walks_find_that_a_wait_is_missing() {
    let bounds = Bounds { call: 3, ..three() };
    let mut setting = bounds.setting();
    for terms in setting.terms.iter_mut().flatten() {
        terms.durations.wait = Duration::ZERO;
        terms.durations.call_bound = Duration::ZERO;
    }
    let broken = (0..10 * WALKS).find_map(|seed| walk(&bounds, &setting, seed).2.err());
    println!("{}", broken.expect("a broken promise"));
}
