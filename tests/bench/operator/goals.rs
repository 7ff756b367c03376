//! What an operator with hundreds of OrderedConsumers may cost, and whether it does. Pure.

use crate::measure::Figures;
use keylane_tests::goal::Goal;
use serde_json::{Value, json};

/// Where memory and processor time have a limit.
const RESOURCES: usize = 500;
const MIB: f64 = 200.0;
const CORES: f64 = 0.3;
/// Part of the decisions that are expected.
const DECIDED: f64 = 0.9;
/// Where fewer are expected in the time that was measured, one more or fewer is chance.
const DECISIONS: f64 = 20.0;
/// Seconds that 99 % of the decisions take at most: each OrderedConsumer has its next after 5 s.
const DECISION_SECONDS: f64 = 1.0;
/// What one more costs between the two largest sizes, as a multiple of what it costs before.
const GROWTH: f64 = 1.5;

/// The goals that these sizes, which grow, can be judged by.
pub fn goals(curve: &[Figures]) -> Vec<Goal> {
    let mut goals = Vec::new();
    for figures in curve {
        let size = figures.resources;
        let expected = figures.expected_decisions_per_second;
        if expected * figures.seconds >= DECISIONS {
            let part = figures.decisions_per_second / expected;
            let what = format!("part of the decisions made with {size}");
            goals.push(Goal::least(what, part, DECIDED));
            let what = format!("seconds within which 99 % are with {size}");
            let took = figures.decision_p99_seconds;
            goals.push(Goal::most(what, took, DECISION_SECONDS));
        }
        if size == RESOURCES {
            let memory = format!("MiB with {size}");
            goals.push(Goal::most(memory, figures.mib, MIB));
            let time = format!("cores with {size}");
            goals.push(Goal::most(time, figures.cores, CORES));
        }
    }
    if let [first, .., middle, last] = curve
        && first.resources < middle.resources
        && middle.resources < last.resources
    {
        goals.extend([
            growth("cores", first, middle, last, |figures| figures.cores),
            growth("memory", first, middle, last, |figures| figures.mib),
            growth("API requests", first, middle, last, |figures| {
                figures.api_requests_per_second
            }),
            growth("broker requests", first, middle, last, |figures| {
                figures.broker_requests_per_second
            }),
        ]);
    }
    goals
}

/// How much more than before one OrderedConsumer more costs in the end.
fn growth(
    what: &str,
    first: &Figures,
    middle: &Figures,
    last: &Figures,
    cost: fn(&Figures) -> f64,
) -> Goal {
    let each = |from: &Figures, to: &Figures| {
        (cost(to) - cost(from)) / (to.resources - from.resources) as f64
    };
    let (before, after) = (each(first, middle), each(middle, last));
    // What cost nothing before may cost nothing now.
    let times = if after <= 0.0 {
        0.0
    } else {
        after / before.max(0.0)
    };
    let (from, between, to) = (first.resources, middle.resources, last.resources);
    let what = format!(
        "{what} of one more from {between} to {to}, as a multiple of that from {from} to {between}"
    );
    Goal::most(what, times, GROWTH)
}

/// The last line of `--json`.
pub fn verdict(goals: &[Goal]) -> Value {
    json!({"verdict": {
        "reached": goals.iter().all(Goal::is_reached),
        "goals": goals.iter().map(Goal::json).collect::<Vec<_>>(),
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0.001 cores and 0.2 MiB for each, on time.
    fn curve() -> Vec<Figures> {
        let of = |resources: usize| {
            let number = resources as f64;
            Figures {
                resources,
                seconds: 60.0,
                cores: 0.001 + number * 0.0005,
                mib: 30.0 + number * 0.2,
                api_requests_per_second: number * 0.03,
                broker_requests_per_second: number / 5.0,
                decisions_per_second: number * 0.198,
                expected_decisions_per_second: number / 5.0,
                decision_p99_seconds: 0.05,
            }
        };
        [1, 10, 100, 500].map(of).into()
    }

    fn missed(curve: &[Figures]) -> Vec<String> {
        let goals = goals(curve);
        let missed: Vec<_> = goals.iter().filter(|goal| !goal.is_reached()).collect();
        assert_eq!(verdict(&goals)["verdict"]["reached"], missed.is_empty());
        missed.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_operator_that_is_on_time_and_costs_the_same_for_each_reaches_every_goal() {
        assert_eq!(missed(&curve()), Vec::<String>::new());
        // Two of three sizes, two of the largest and four of growth.
        assert_eq!(goals(&curve()).len(), 12);
    }

    #[test]
    fn each_goal_can_be_missed() {
        type Change = fn(&mut Figures);
        let cases: [(Change, &[&str]); 8] = [
            (|last| last.decisions_per_second = 89.0, &["part of"]),
            (|last| last.decision_p99_seconds = f64::INFINITY, &["99 %"]),
            (|last| last.mib = 201.0, &["MiB", "memory of"]),
            (|last| last.cores = 0.31, &["cores with"]),
            (|last| last.cores = f64::NAN, &["cores with", "cores of"]),
            (|last| last.mib = 180.0, &["memory of"]),
            (
                |last| last.api_requests_per_second = 40.0,
                &["API requests of"],
            ),
            (
                |last| last.broker_requests_per_second = 200.0,
                &["broker requests of"],
            ),
        ];
        for (change, wanted) in cases {
            let mut curve = curve();
            // Halved, so that only what is changed is near a limit.
            for figures in &mut curve {
                figures.mib /= 2.0;
            }
            if let Some(last) = curve.last_mut() {
                change(last);
            }
            let missed = missed(&curve);
            assert_eq!(missed.len(), wanted.len(), "{missed:?}");
            for (missed, wanted) in missed.iter().zip(wanted) {
                assert!(
                    missed.starts_with("FAIL") && missed.contains(wanted),
                    "{missed}"
                );
            }
        }
    }

    #[test]
    fn few_sizes_are_judged_by_what_they_can_be() {
        let curve = curve();
        assert!(goals(&curve[..1]).is_empty());
        assert_eq!(goals(&curve[..2]).len(), 2);
        assert_eq!(goals(&curve[3..]).len(), 4);
    }
}
