//! What happens when: a schedule of faults and changes, the same for the same seed.
//!
//! Pure. Calm minutes, in which one event's consequences can be told from another's, take turns with
//! storms, in which they pile up.

mod kind;
#[cfg(test)]
mod tests;

pub use kind::Kind;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// Where members run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Each is a process of this machine, with a handler of its own in the recording process.
    Processes,
    /// Each is a pod of an OrderedConsumer, on the cluster of this machine.
    Pods,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// When, from the start.
    pub at: Duration,
    /// What.
    pub kind: Kind,
    /// To which member; none if to all.
    pub member: Option<usize>,
    /// For how long; zero if it is over at once.
    pub lasts: Duration,
}

impl Planned {
    /// When it is over.
    pub fn until(&self) -> Duration {
        self.at + self.lasts
    }
}

const CALM: Duration = Duration::from_secs(60);
const STORM: Duration = Duration::from_secs(60);
/// Mean seconds between two events.
const CALM_EVERY: f64 = 10.0;
const STORM_EVERY: f64 = 1.8;
/// All members start, one after the other.
const START_EVERY: Duration = Duration::from_secs(1);
const SETTLED: Duration = Duration::from_secs(15);
/// So many members can work at any time.
const LEFT: usize = 2;
/// After the broker or the name server was away, the other one stays for this long.
const SERVERS_APART: Duration = Duration::from_secs(25);
/// The same where Kubernetes starts them again, which takes the longer the oftener it happens.
const SERVER_PODS_APART: Duration = Duration::from_secs(60);
/// What needs the operator comes so long after it was killed, and the other way round.
const OPERATOR_APART: Duration = Duration::from_secs(30);
/// What still goes on at the end ends so long before it.
const BEFORE_THE_END: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
struct Slot {
    up: bool,
    /// Until when it cannot work, and until when something happens to it or its handler.
    disabled: Duration,
    busy: Duration,
    /// Whether containers of its pod were started again.
    crashed: bool,
}

struct Planner {
    place: Place,
    random: StdRng,
    slots: Vec<Slot>,
    servers: Duration,
    operator: Duration,
    end: Duration,
}

/// The events of so many members in this time.
pub fn plan(seed: u64, length: Duration, members: usize, place: Place) -> Vec<Planned> {
    let mut planner = Planner {
        place,
        random: StdRng::seed_from_u64(seed),
        slots: vec![
            Slot {
                up: true,
                disabled: Duration::ZERO,
                busy: Duration::ZERO,
                crashed: false,
            };
            members
        ],
        servers: SETTLED,
        operator: SETTLED,
        end: length.saturating_sub(BEFORE_THE_END),
    };
    let mut events: Vec<Planned> = (0..members)
        .map(|member| Planned {
            at: START_EVERY * member as u32,
            kind: Kind::Start,
            member: Some(member),
            lasts: Duration::ZERO,
        })
        .collect();
    let mut at = SETTLED;
    loop {
        at += planner.pause(at);
        if at >= planner.end {
            return events;
        }
        events.extend(planner.draw(at));
    }
}

impl Planner {
    /// Time to the next event: exponential, so that none can be foreseen from the last.
    fn pause(&mut self, at: Duration) -> Duration {
        let in_round = at.as_secs_f64() % (CALM + STORM).as_secs_f64();
        let mean = if in_round < CALM.as_secs_f64() {
            CALM_EVERY
        } else {
            STORM_EVERY
        };
        let uniform: f64 = self.random.random_range(1e-9..1.0);
        Duration::from_secs_f64((-uniform.ln() * mean).clamp(0.1, 3.0 * mean))
    }

    fn draw(&mut self, at: Duration) -> Option<Planned> {
        let place = self.place;
        // Pods take their time to come back: what cannot happen to them now is left out, and not made up for
        // by what can happen at any time.
        let possible: Vec<(Kind, Option<Vec<usize>>)> = Kind::ALL
            .into_iter()
            .map(|kind| (kind, self.candidates(kind, at)))
            .filter(|(_, candidates)| candidates.is_some() || place == Place::Pods)
            .collect();
        let total: u32 = possible.iter().map(|(kind, _)| kind.weight(place)).sum();
        let mut drawn = self.random.random_range(0..total.max(1));
        let (kind, members) = possible.into_iter().find(|(kind, _)| {
            let found = drawn < kind.weight(place);
            drawn = drawn.saturating_sub(kind.weight(place));
            found
        })?;
        let members = members?;
        let member =
            (!members.is_empty()).then(|| members[self.random.random_range(0..members.len())]);
        let lasts = kind.seconds(place).map_or(Duration::ZERO, |(least, most)| {
            Duration::from_millis(
                self.random
                    .random_range((least * 1e3) as u64..(most * 1e3) as u64),
            )
        });
        let lasts = lasts.min(self.end - at);
        self.note(kind, member, at, lasts);
        let kind = kind.of(place, member, self.slots.len());
        Some(Planned {
            at,
            kind,
            member,
            lasts,
        })
    }

    /// The members to which this can happen now; none if it cannot. Empty if it happens to all.
    fn candidates(&self, kind: Kind, at: Duration) -> Option<Vec<usize>> {
        if kind.needs_operator(self.place) && at < self.operator {
            return None;
        }
        if kind == Kind::OperatorKilled {
            return (at >= self.operator).then(Vec::new);
        }
        if kind.is_of_servers() {
            return (at >= self.servers).then(Vec::new);
        }
        let able = |slot: &Slot| slot.up && at >= slot.disabled;
        let spare = self.slots.iter().filter(|slot| able(slot)).count() > LEFT;
        let disables = kind.disables(self.place) && kind != Kind::Start;
        if (disables || kind.ends(self.place)) && !spare {
            return None;
        }
        let fits = |slot: &Slot| match kind {
            Kind::Start => !slot.up,
            _ if slot.crashed && kind.is_killed_in_place() => false,
            _ => able(slot) && at >= slot.busy,
        };
        let found: Vec<usize> = (0..self.slots.len())
            .filter(|member| fits(&self.slots[*member]))
            .collect();
        (!found.is_empty()).then_some(found)
    }

    fn note(&mut self, kind: Kind, member: Option<usize>, at: Duration, lasts: Duration) {
        let (place, until) = (self.place, at + lasts);
        if kind == Kind::OperatorKilled || kind.needs_operator(place) {
            self.operator = at + OPERATOR_APART;
        }
        let Some(slot) = member.map(|member| &mut self.slots[member]) else {
            if kind.is_of_servers() {
                self.servers = until
                    + match place {
                        Place::Processes => SERVERS_APART,
                        Place::Pods => SERVER_PODS_APART,
                    };
            }
            return;
        };
        match kind {
            Kind::Start => slot.up = true,
            kind if kind.ends(place) => slot.up = false,
            _ => slot.busy = until,
        }
        if kind == Kind::Start || kind.replaces(place) {
            slot.crashed = false;
        }
        slot.crashed |= kind.crashes(place, lasts);
        if kind.disables(place) {
            slot.disabled = until + kind.recovers(place);
        }
    }
}
