//! Every state that members of a group can get into, searched for one in which a promise is broken.
//!
//! What runs here is the production state machine, [`super::Tenure`], two or three of it, with a broker, a
//! journal and handlers that do whatever they may ([`steps`]). The bounds of the searches below keep them
//! within seconds; `KEYLANE_EXPLORE=<faults>` in the environment searches deeper (release build advised).

mod calm;
mod canonical;
mod effects;
mod promises;
mod steps;
mod symmetry;
mod three;
mod world;

use super::{Death, Durations, Rules, Terms};
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::time::Duration;
use steps::{Faults, Step};
use world::{Member, Setting, UNIT, World};

/// Bounds of a search.
#[derive(Clone)]
struct Bounds {
    members: usize,
    lease: u32,
    call: u32,
    keys: &'static str,
    faults: Faults,
    most_faults: u8,
    gives: u8,
    rules: Rules,
    union_of_records: bool,
    deaths: &'static [Death],
    slow_answers: bool,
    most_states: usize,
    /// Of this many states one is run on without faults until everything is done.
    calm_every: Option<u64>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            members: 2,
            lease: 1,
            call: 1,
            keys: "a",
            faults: Faults::ALL,
            most_faults: 1,
            gives: 1,
            rules: Rules::default(),
            union_of_records: true,
            deaths: &[Death::Unproven, Death::Executor, Death::Pod],
            slow_answers: false,
            most_states: usize::MAX,
            calm_every: None,
        }
    }
}

impl Bounds {
    fn setting(&self) -> Setting {
        let durations = Durations {
            // An instant longer than whole units, so that the last moment of a lease is within it.
            lease: UNIT * self.lease + Duration::from_millis(1),
            wait: UNIT * (self.lease + self.call),
            call_bound: UNIT * self.call,
            renew_every: Duration::ZERO,
            lock_every: Duration::ZERO,
            stand_in_every: Duration::ZERO,
            stand_in_returns: Duration::ZERO,
            if_released_every: Duration::ZERO,
            stand_in_for: Duration::MAX,
            journal_retry: Duration::ZERO,
            free_every: Duration::ZERO,
            doubt: Duration::ZERO,
            doubt_every: Duration::ZERO,
        };
        let terms = |slot: usize| {
            let processes = 0..=self.most_faults;
            processes
                .map(|process| Terms {
                    me: format!("{}{process}", (b'a' + slot as u8) as char).into(),
                    durations: durations.clone(),
                    rules: self.rules.clone(),
                })
                .collect()
        };
        Setting {
            keys: self.keys.bytes().map(|key| key - b'a').collect(),
            terms: (0..self.members).map(terms).collect(),
            union_of_records: self.union_of_records,
            call_units: self.call as u8,
            deaths: self.deaths,
            slow_answers: self.slow_answers,
        }
    }
}

struct Searched {
    states: usize,
    depth: u32,
    /// Every state within the bounds was seen.
    complete: bool,
    /// The broken promise and the shortest way to it.
    broken: Option<(String, Vec<Step>)>,
}

/// Breadth first, so that a counterexample is a shortest one. States are remembered by 64-bit hashes.
fn search(bounds: &Bounds) -> Searched {
    let setting = bounds.setting();
    let first = World::new(&setting, bounds.most_faults, bounds.gives).representative(&setting);
    let mut seen: HashSet<u64, BuildHasherDefault<Mixed>> = HashSet::default();
    let mut ways: Vec<(u32, Step)> = vec![(0, Step::Tick)];
    seen.insert(hash(&first));
    let mut front = vec![(first, 0u32)];
    let (mut depth, mut possible) = (0, Vec::new());
    let way = |ways: &[(u32, Step)], mut at: u32, last| {
        let mut steps = vec![last];
        while at != 0 {
            let (before, step) = ways[at as usize];
            steps.push(step);
            at = before;
        }
        steps.reverse();
        steps
    };
    while !front.is_empty() {
        depth += 1;
        let mut next = Vec::new();
        for (world, at) in &front {
            possible.clear();
            steps::steps(&setting, bounds.faults, world, &mut possible);
            for step in possible.iter().copied() {
                let mut after = world.clone();
                if let Err(broken) = steps::take(&setting, &mut after, step) {
                    let broken = Some((broken, way(&ways, *at, step)));
                    return Searched {
                        states: seen.len(),
                        depth,
                        complete: false,
                        broken,
                    };
                }
                let after = after.representative(&setting);
                let hash = hash(&after);
                if seen.insert(hash) {
                    if bounds
                        .calm_every
                        .is_some_and(|every| hash.is_multiple_of(every))
                    {
                        for late in [false, true] {
                            if let Err(broken) = calm::finishes(&setting, after.clone(), late) {
                                let broken = Some((
                                    format!("without faults: {broken}"),
                                    way(&ways, *at, step),
                                ));
                                return Searched {
                                    states: seen.len(),
                                    depth,
                                    complete: false,
                                    broken,
                                };
                            }
                        }
                    }
                    next.push((after, ways.len() as u32));
                    ways.push((*at, step));
                }
            }
            if seen.len() > bounds.most_states {
                return Searched {
                    states: seen.len(),
                    depth,
                    complete: false,
                    broken: None,
                };
            }
        }
        front = next;
    }
    Searched {
        states: seen.len(),
        depth,
        complete: true,
        broken: None,
    }
}

fn hash(world: &World) -> u64 {
    let mut hasher = Mixed::default();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Fast and good enough to tell states apart (multiplication and rotation as in FxHash, finished as in
/// MurmurHash3).
#[derive(Default)]
struct Mixed(u64);

impl Mixed {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, word: u8) {
        self.mix(word.into());
    }
    fn write_u32(&mut self, word: u32) {
        self.mix(word.into());
    }
    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }
    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }
    fn finish(&self) -> u64 {
        let mut hash = self.0 ^ (self.0 >> 33);
        hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }
}

/// The way to a counterexample, state by state. Slots change places where states were told to be alike.
fn show(bounds: &Bounds, way: &[Step]) {
    let setting = bounds.setting();
    let mut world = World::new(&setting, bounds.most_faults, bounds.gives).representative(&setting);
    for step in way {
        let outcome = steps::take(&setting, &mut world, *step);
        println!("{step:?} {}", outcome.err().unwrap_or_default());
        for member in &world.members {
            let Member {
                tenure, run, wires, ..
            } = member;
            println!(
                "      {:?} lease {:?} {run:?} {wires:?}",
                tenure.phase, tenure.lease
            );
        }
        println!(
            "      lock {:?} {:?} calls {:?}",
            world.lock, world.journal, world.calls
        );
        world = world.representative(&setting);
    }
}

/// Fails with the way to it if a promise is broken anywhere within the bounds.
fn holds(bounds: &Bounds) {
    let searched = search(bounds);
    if let Some((broken, way)) = searched.broken {
        show(bounds, &way);
        panic!("{broken}");
    }
    println!("{} states, {} steps deep", searched.states, searched.depth);
    assert!(
        searched.complete,
        "{} states were not enough",
        searched.states
    );
}

/// Fails unless a promise is broken somewhere within the bounds.
fn breaks(promise: &str, bounds: &Bounds) {
    let searched = search(bounds);
    println!("{} states, {} steps deep", searched.states, searched.depth);
    let (broken, _) = searched.broken.expect("a broken promise");
    assert!(broken.starts_with(promise), "{broken}");
}

fn with(faults: &[&str], most_faults: u8, gives: u8) -> Bounds {
    let has = |fault| faults.contains(&fault);
    let faults = Faults {
        crash: has("crash"),
        freeze: has("freeze"),
        cut: has("cut"),
        restart: has("restart"),
        late: has("late"),
        stale_unlock: has("unlock"),
        stale_commit: has("commit"),
        call: has("call"),
        stop: has("stop"),
    };
    Bounds {
        faults,
        most_faults,
        gives,
        ..Bounds::default()
    }
}

#[test]
fn all_promises_hold_while_queues_change_hands_without_a_fault() {
    holds(&Bounds {
        calm_every: Some(16),
        ..with(&["stop"], 0, 1)
    });
}

#[test]
fn all_promises_hold_under_any_one_fault() {
    holds(&Bounds {
        calm_every: Some(64),
        gives: 0,
        ..Bounds::default()
    });
}

#[test]
fn all_promises_hold_within_the_bounds_asked_for() {
    let Ok(most_faults) = std::env::var("KEYLANE_EXPLORE") else {
        return;
    };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let keys: Option<&'static str> = std::env::var("KEYLANE_EXPLORE_KEYS")
        .ok()
        .map(|keys| &*keys.leak());
    holds(&Bounds {
        members: number("KEYLANE_EXPLORE_MEMBERS").unwrap_or(2),
        most_faults: most_faults.parse().expect("a number of faults"),
        gives: number("KEYLANE_EXPLORE_GIVES").unwrap_or(1) as u8,
        keys: keys.unwrap_or("a"),
        slow_answers: std::env::var("KEYLANE_EXPLORE_SLOW").is_ok(),
        most_states: number("KEYLANE_EXPLORE_STATES").unwrap_or(200_000_000),
        calm_every: Some(256),
        ..Bounds::default()
    });
}

/// Leaves out one rule and names the promise that this breaks.
macro_rules! needed {
    ($test:ident, $rule:ident, $promise:literal, $bounds:expr) => {
        #[test]
        fn $test() {
            let rules = Rules {
                $rule: false,
                ..Rules::default()
            };
            breaks($promise, &Bounds { rules, ..$bounds });
        }
    };
}

needed!(
    rule_1_is_needed,
    direct_claim,
    "P4",
    with(&["restart"], 1, 0)
);
needed!(
    rule_2_is_needed,
    wait_from_acknowledgement,
    "P4",
    with(&["restart"], 1, 0)
);
needed!(
    rule_3_is_needed,
    own_epoch_only,
    "P1",
    with(&["restart"], 1, 1)
);
needed!(
    rule_4_is_needed,
    release_after_wait,
    "P4",
    with(&["restart"], 1, 1)
);
needed!(
    rule_5_is_needed,
    proof_needs_record,
    "P4",
    Bounds {
        deaths: &[Death::Executor],
        ..with(&["restart", "crash"], 2, 1)
    }
);
needed!(
    rule_6_is_needed,
    waiting_keys_recorded,
    "P1",
    Bounds {
        deaths: &[Death::Executor],
        ..with(&["crash"], 1, 1)
    }
);
needed!(
    rule_7_is_needed,
    renewal_reads_journal,
    "P4",
    with(&["restart"], 2, 0)
);
needed!(
    rule_9_is_needed,
    withdrawn_passes_on,
    "P1",
    Bounds {
        deaths: &[Death::Executor],
        ..with(&["crash"], 1, 1)
    }
);
needed!(
    the_reading_before_the_start_is_needed,
    start_reads_journal,
    "P4",
    with(&["restart", "cut"], 2, 0)
);

#[test]
fn rule_8_is_needed() {
    breaks(
        "P6",
        &Bounds {
            union_of_records: false,
            ..with(&["restart"], 1, 1)
        },
    );
}
