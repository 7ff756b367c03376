//! What happens when: a schedule of faults and changes, the same for the same seed.
//!
//! Pure. Calm minutes, in which one event's consequences can be told from another's, take turns with
//! storms, in which they pile up.

use crate::settings::has_idle_probe;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use std::time::Duration;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A process starts and joins the group.
    Start,
    /// SIGTERM.
    Terminate,
    /// SIGKILL, and nobody is told.
    Kill,
    /// SIGKILL of the process alone: it is started again at once beside its handler, which lives on.
    ExecutorKilled,
    /// The same where the handler cannot be asked whether it is idle.
    ExecutorKilledUnprobed,
    /// SIGKILL of a process and its handler, and the others are told, as the operator does.
    PodGone,
    /// SIGSTOP, SIGCONT later.
    Freeze,
    /// A process's connections to broker and name server are closed and refused.
    Cut,
    /// Nothing passes between a process and broker or name server; connections stay open.
    Silence,
    /// The broker gets SIGKILL and is started again.
    BrokerKilled,
    /// The name server gets SIGKILL and is started again.
    NameServerLost,
    /// Calls of one process's handler take seconds, some longer than their timeout.
    HandlerSlow,
    /// Calls of one process's handler are answered with 500.
    HandlerFailing,
    /// One process's handler is dead: its calls end, connections are refused.
    HandlerDead,
    /// Connections to one process's handler are lost, its calls go on.
    HandlerCut,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Start,
        Self::Terminate,
        Self::Kill,
        Self::ExecutorKilled,
        Self::ExecutorKilledUnprobed,
        Self::PodGone,
        Self::Freeze,
        Self::Cut,
        Self::Silence,
        Self::BrokerKilled,
        Self::NameServerLost,
        Self::HandlerSlow,
        Self::HandlerFailing,
        Self::HandlerDead,
        Self::HandlerCut,
    ];

    /// How often it is drawn, beside the others.
    fn weight(self) -> u32 {
        match self {
            Self::Start => 24,
            Self::Terminate | Self::Kill => 12,
            Self::ExecutorKilled | Self::PodGone => 6,
            // What the one with the probe is where there is none.
            Self::ExecutorKilledUnprobed => 0,
            Self::Freeze => 8,
            Self::Cut | Self::BrokerKilled => 6,
            Self::Silence | Self::NameServerLost => 4,
            Self::HandlerSlow | Self::HandlerFailing | Self::HandlerDead | Self::HandlerCut => 5,
        }
    }

    /// What it is when it happens to this one of so many processes.
    fn of(self, member: Option<usize>, members: usize) -> Self {
        match (self, member) {
            (Self::ExecutorKilled, Some(member)) if !has_idle_probe(member, members) => {
                Self::ExecutorKilledUnprobed
            }
            _ => self,
        }
    }

    /// Whether it happens to all processes at once.
    pub fn is_global(self) -> bool {
        matches!(self, Self::BrokerKilled | Self::NameServerLost)
    }

    /// Whether a process cannot work on queues while it lasts.
    fn disables(self) -> bool {
        matches!(self, Self::Freeze | Self::Cut | Self::Silence)
    }

    /// Whether a process is gone after it.
    fn ends(self) -> bool {
        matches!(self, Self::Terminate | Self::Kill | Self::PodGone)
    }

    /// Seconds it lasts, at least and at most; none if it is over at once.
    fn seconds(self) -> Option<(f64, f64)> {
        match self {
            Self::Start | Self::Terminate | Self::Kill | Self::PodGone => None,
            Self::ExecutorKilled | Self::ExecutorKilledUnprobed => None,
            Self::Freeze => Some((1.0, 90.0)),
            Self::Cut => Some((1.0, 40.0)),
            Self::Silence => Some((1.0, 80.0)),
            Self::BrokerKilled => Some((0.2, 6.0)),
            Self::NameServerLost => Some((1.0, 25.0)),
            Self::HandlerSlow | Self::HandlerFailing | Self::HandlerDead => Some((2.0, 15.0)),
            Self::HandlerCut => Some((0.1, 3.0)),
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// When, from the start.
    pub at: Duration,
    /// What.
    pub kind: Kind,
    /// To which process; none if to all.
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
/// All processes start, one after the other.
const START_EVERY: Duration = Duration::from_secs(1);
const SETTLED: Duration = Duration::from_secs(15);
/// So many processes can work at any time.
const LEFT: usize = 2;
/// After the broker or the name server was away, the other one stays for this long.
const SERVERS_APART: Duration = Duration::from_secs(25);
/// What still goes on at the end ends so long before it.
const BEFORE_THE_END: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
struct Slot {
    up: bool,
    /// Until when it cannot work, and until when something happens to it or its handler.
    disabled: Duration,
    busy: Duration,
}

struct Planner {
    random: StdRng,
    slots: Vec<Slot>,
    servers: Duration,
    end: Duration,
}

/// The events of so many processes in this time.
pub fn plan(seed: u64, length: Duration, members: usize) -> Vec<Planned> {
    let mut planner = Planner {
        random: StdRng::seed_from_u64(seed),
        slots: vec![
            Slot {
                up: true,
                disabled: Duration::ZERO,
                busy: Duration::ZERO,
            };
            members
        ],
        servers: SETTLED,
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
        let possible: Vec<(Kind, Vec<usize>)> = Kind::ALL
            .into_iter()
            .filter_map(|kind| Some((kind, self.candidates(kind, at)?)))
            .collect();
        let total: u32 = possible.iter().map(|(kind, _)| kind.weight()).sum();
        let mut drawn = self.random.random_range(0..total.max(1));
        let (kind, members) = possible.into_iter().find(|(kind, _)| {
            let found = drawn < kind.weight();
            drawn = drawn.saturating_sub(kind.weight());
            found
        })?;
        let member =
            (!members.is_empty()).then(|| members[self.random.random_range(0..members.len())]);
        let lasts = kind.seconds().map_or(Duration::ZERO, |(least, most)| {
            Duration::from_millis(
                self.random
                    .random_range((least * 1e3) as u64..(most * 1e3) as u64),
            )
        });
        let lasts = lasts.min(self.end - at);
        self.note(kind, member, at + lasts);
        let kind = kind.of(member, self.slots.len());
        Some(Planned {
            at,
            kind,
            member,
            lasts,
        })
    }

    /// The processes to which this can happen now; none if it cannot. Empty if it happens to all.
    fn candidates(&self, kind: Kind, at: Duration) -> Option<Vec<usize>> {
        if kind.is_global() {
            return (at >= self.servers).then(Vec::new);
        }
        let able = |slot: &Slot| slot.up && at >= slot.disabled;
        let spare = self.slots.iter().filter(|slot| able(slot)).count() > LEFT;
        let removes = kind.disables() || kind.ends();
        if removes && !spare {
            return None;
        }
        let fits = |slot: &Slot| match kind {
            Kind::Start => !slot.up,
            _ => able(slot) && at >= slot.busy,
        };
        let found: Vec<usize> = (0..self.slots.len())
            .filter(|member| fits(&self.slots[*member]))
            .collect();
        (!found.is_empty()).then_some(found)
    }

    fn note(&mut self, kind: Kind, member: Option<usize>, until: Duration) {
        let Some(slot) = member.map(|member| &mut self.slots[member]) else {
            self.servers = until + SERVERS_APART;
            return;
        };
        match kind {
            Kind::Start => slot.up = true,
            kind if kind.ends() => slot.up = false,
            _ => slot.busy = until,
        }
        if kind.disables() {
            slot.disabled = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_seed_replays_the_schedule_and_another_gives_another() {
        assert_eq!(plan(7, HOUR, 4), plan(7, HOUR, 4));
        assert_ne!(plan(7, HOUR, 4), plan(8, HOUR, 4));
    }

    #[test]
    fn an_hour_has_everything_and_nothing_outlasts_it() {
        let events = plan(1, HOUR, 4);
        let kinds: BTreeSet<Kind> = events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, BTreeSet::from(Kind::ALL));
        assert!(events.len() > 500, "{} events", events.len());
        assert!(events.is_sorted_by_key(|event| event.at));
        assert!(events.iter().all(|event| event.until() < HOUR));
        let freezes = events.iter().filter(|event| event.kind == Kind::Freeze);
        let longest = freezes.map(|event| event.lasts).max();
        assert!(longest > Some(Duration::from_secs(80)), "{longest:?}");
    }

    #[test]
    fn an_executor_dies_without_a_probe_where_there_is_none() {
        let all = plan(1, HOUR, 4);
        let killed = |kind: Kind| all.iter().filter(move |event| event.kind == kind);
        assert!(killed(Kind::ExecutorKilled).all(|event| event.member < Some(3)));
        assert!(killed(Kind::ExecutorKilledUnprobed).all(|event| event.member == Some(3)));
    }

    #[test]
    fn two_processes_can_always_work() {
        for seed in 0..20 {
            let events = plan(seed, HOUR, 4);
            for now in events.iter().map(|event| event.at) {
                let able = (0..4).filter(|member| {
                    let mine = events
                        .iter()
                        .filter(|event| event.member == Some(*member) && event.at <= now);
                    let mut up = false;
                    let mut disabled = false;
                    for event in mine {
                        match event.kind {
                            Kind::Start => up = true,
                            kind if kind.ends() => up = false,
                            kind => disabled |= kind.disables() && event.until() > now,
                        }
                    }
                    up && !disabled
                });
                // The first starts apart.
                let early = now < START_EVERY * 2;
                assert!(early || able.count() >= LEFT, "seed {seed} at {now:?}");
            }
        }
    }
}
