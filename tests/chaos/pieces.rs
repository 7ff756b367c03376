//! Runs with successive seeds, of each system in turn, until enough has happened.

use crate::figures::Figures;
use crate::report::Teller;
use crate::schedule::{self, Place, Planned};
use crate::system::System;
use anyhow::Result;
use std::time::Duration;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Pieces {
    /// The first seed.
    pub seed: u64,
    /// How long things happen in each.
    pub length: Duration,
    /// Where members run.
    pub place: Place,
    /// Places for members.
    pub members: usize,
    /// How many events are to happen to each system; none: those of one piece.
    pub events: Option<usize>,
    /// Whether goals are judged that only a machine with time to spare can be held to.
    pub goals: bool,
    /// What consumes.
    pub systems: Vec<System>,
}

impl Pieces {
    /// The events of a piece.
    pub fn plan(&self, seed: u64) -> Vec<Planned> {
        schedule::plan(seed, self.length, self.members, self.place)
    }

    fn successive(&self) -> impl Iterator<Item = u64> {
        (0..).map(|number| self.seed.wrapping_add(number))
    }

    /// Seeds that have enough events, as they are planned.
    pub fn seeds(&self) -> Vec<u64> {
        let wanted = self.events.unwrap_or(1);
        let mut planned = 0;
        let mut seeds = Vec::new();
        for seed in self.successive() {
            seeds.push(seed);
            planned += self.plan(seed).len();
            if planned >= wanted {
                break;
            }
        }
        seeds
    }

    /// Runs pieces until enough has happened to the first system, each of them whatever came of those
    /// before it; gives the sum of each system's.
    ///
    /// What is planned may be left out, so there can be more pieces than planned, but no more than twice
    /// as many. A piece that comes to no end counts as one that failed.
    pub async fn run(
        &self,
        teller: &Teller,
        mut piece: impl AsyncFnMut(System, u64, &Teller) -> Result<Figures>,
    ) -> Vec<(System, Figures)> {
        let planned = self.seeds().len();
        let mut sums: Vec<(System, Figures)> = self
            .systems
            .iter()
            .map(|system| (*system, Figures::default()))
            .collect();
        for seed in self.successive().take(2 * planned) {
            for (system, sum) in &mut sums {
                let teller = teller.of(*system, seed);
                sum.add(match piece(*system, seed, &teller).await {
                    Ok(figures) => figures,
                    Err(error) => {
                        teller.no_end(&error);
                        Figures::without_end(seed)
                    }
                });
                if planned > 1 {
                    teller.so_far(*system, planned, sum);
                }
            }
            let happened = sums.first().map_or(0, |(_, sum)| sum.events);
            if happened >= self.events.unwrap_or(0) {
                break;
            }
        }
        sums
    }

    /// Whether this system has to pass: those that run beside the first one are its measure.
    pub fn judges(&self, system: System) -> bool {
        self.systems.first() == Some(&system)
    }

    /// Why this is no success; nothing if enough has happened and the system that is judged did well.
    pub fn why_not(&self, sums: &[(System, Figures)]) -> Vec<String> {
        let Some((_, sum)) = sums.first() else {
            return vec!["nothing was run".into()];
        };
        let mut why = Vec::new();
        let wanted = self.events.unwrap_or(0);
        if sum.events < wanted {
            why.push(format!("{} events happened of {wanted}", sum.events));
        }
        if !sum.passed() {
            why.push(format!(
                "with seeds {:?} order was broken, a message lost, a process ended by itself, or the run came to no end",
                sum.failed()
            ));
        }
        if self.goals {
            why.extend(sum.misses());
        }
        why
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Peer;
    use anyhow::bail;

    fn pieces(events: Option<usize>) -> Pieces {
        Pieces {
            seed: 5,
            length: Duration::from_secs(300),
            place: Place::Processes,
            members: 4,
            events,
            goals: false,
            systems: vec![System::Keylane, System::Peer(Peer::JavaOrderly)],
        }
    }

    fn happened(seed: u64, events: usize, passed: bool) -> Figures {
        Figures {
            runs: vec![(seed, passed)],
            events,
            ..Figures::default()
        }
    }

    async fn run(
        pieces: &Pieces,
        mut each: impl FnMut(System, u64) -> Result<Figures>,
    ) -> (bool, Vec<(System, Figures)>) {
        let teller = Teller::new(false);
        let sums = pieces.run(&teller, async |system, seed, _: &Teller| each(system, seed));
        let sums = sums.await;
        (pieces.why_not(&sums).is_empty(), sums)
    }

    fn seeds(of: &Figures) -> Vec<u64> {
        of.runs.iter().map(|(seed, _)| *seed).collect()
    }

    #[test]
    fn as_many_seeds_are_planned_as_have_enough_events() {
        let pieces = pieces(Some(200));
        let seeds = pieces.seeds();
        let events = |seeds: &[u64]| -> usize {
            let plans = seeds.iter().map(|seed| pieces.plan(*seed));
            plans.map(|plan| plan.len()).sum()
        };
        assert_eq!(seeds[..2], [5, 6]);
        assert!(events(&seeds) >= 200, "{}", events(&seeds));
        assert!(events(&seeds[..seeds.len() - 1]) < 200);
        assert_eq!(
            super::Pieces {
                events: None,
                ..pieces
            }
            .seeds(),
            [5]
        );
    }

    #[tokio::test]
    async fn pieces_follow_each_other_until_enough_has_happened() {
        let (passed, sums) = run(&pieces(Some(200)), |_, seed| Ok(happened(seed, 70, true))).await;
        assert!(passed);
        assert_eq!(sums.len(), 2);
        for (_, sum) in &sums {
            assert_eq!((seeds(sum), sum.events), (vec![5, 6, 7], 210));
        }
        let (passed, sums) = run(&pieces(None), |_, seed| Ok(happened(seed, 1, true))).await;
        assert!(passed);
        assert_eq!(seeds(&sums[0].1), [5]);
    }

    #[tokio::test]
    async fn a_piece_that_fails_or_comes_to_no_end_stops_no_other_and_fails_all() {
        for ends in [true, false] {
            let (passed, sums) = run(&pieces(Some(200)), |system, seed| match (system, seed) {
                (System::Keylane, 5) if ends => Ok(happened(seed, 70, false)),
                (System::Keylane, 5) => bail!("no broker"),
                _ => Ok(happened(seed, 70, true)),
            })
            .await;
            assert!(!passed);
            assert_eq!(sums[0].1.failed(), [5]);
            assert!(sums[0].1.events >= 200);
            let why = pieces(Some(200)).why_not(&sums);
            assert!(why.len() == 1 && why[0].contains("[5]"), "{why:?}");
        }
    }

    #[tokio::test]
    async fn goals_are_judged_where_they_are_asked_for() {
        for goals in [false, true] {
            let pieces = Pieces {
                goals,
                ..pieces(None)
            };
            let (passed, sums) = run(&pieces, |_, seed| {
                Ok(Figures {
                    regressions: 1,
                    ..happened(seed, 70, true)
                })
            })
            .await;
            assert_eq!(passed, !goals);
            let told = pieces.why_not(&sums).concat();
            assert_eq!(told.contains("committed offsets"), goals, "{told}");
        }
    }

    #[tokio::test]
    async fn what_runs_beside_keylane_is_not_judged() {
        let (passed, sums) = run(&pieces(None), |system, seed| {
            Ok(happened(seed, 70, system == System::Keylane))
        })
        .await;
        assert!(passed);
        assert_eq!(sums[1].1.failed(), [5]);
    }

    #[tokio::test]
    async fn pieces_in_which_nothing_happens_do_not_go_on_for_ever() {
        let pieces = pieces(Some(200));
        let (passed, sums) = run(&pieces, |_, seed| Ok(happened(seed, 0, true))).await;
        assert!(!passed);
        assert_eq!(pieces.why_not(&sums), ["0 events happened of 200"]);
        assert_eq!(seeds(&sums[0].1).len(), 2 * pieces.seeds().len());
    }
}
