//! Numaflow's rule for sources: as many replicas as would finish what is pending in the target time at the
//! present rate of each; at most so many more or fewer at once, and a cooldown after each change.
//!
//! Source: numaproj/numaflow pkg/reconciler/vertex/scaling/scaling.go, pkg/daemon/server/service/rater/helper.go and pkg/apis/numaflow/v1alpha1/const.go
//! (Apache-2.0): target 20 s, 2 replicas at once, 90 s of cooldown, averages over 120 s.

use super::Setting;
use keylane_operator::simulate::{Controller, Plant, Sizes};
use std::collections::VecDeque;

/// How often a vertex is looked at.
const EVERY: u32 = 30;

/// Replicas that finish `pending` messages in `target` seconds; of several partitions the one that needs most.
pub fn desired(rates: &[f64], pending: &[f64], target: f64, ready: u32) -> u32 {
    let mut most = 1;
    for (rate, pending) in rates.iter().zip(pending) {
        if *pending == 0.0 || *rate == 0.0 {
            continue;
        }
        let wanted = (pending / rate / target * f64::from(ready))
            .round()
            .max(1.0);
        most = most.max(wanted.min(*pending) as u32);
    }
    most
}

/// Numaflow.
pub struct Numaflow {
    target: f64,
    step: u32,
    cooldown: u32,
    lookback: u32,
    lanes: u32,
    most: u32,
    samples: VecDeque<(u32, f64, f64)>,
    changed_at: Option<u32>,
}

impl Controller for Numaflow {
    fn decide(&mut self, plant: &Plant<'_>) -> Option<Sizes> {
        let now = plant.now();
        let pending = plant.broker_answers().then(|| {
            (0..plant.ids().len())
                .map(|queue| plant.unfinished(queue))
                .sum::<f64>()
        });
        if let Some(pending) = pending {
            self.samples.push_back((now, plant.finished_now(), pending));
        }
        self.samples.retain(|(at, ..)| now - at < self.lookback);
        let current = plant.sizes().replicas;
        // The newest count may be incomplete (CalculateRate in rater/helper.go leaves it out), and a rate takes two.
        if self.samples.len() < 3 {
            return None;
        }
        let ready = plant.ready().count() as u32;
        let cooling = self.changed_at.is_some_and(|at| now - at < self.cooldown);
        if !now.is_multiple_of(EVERY) || cooling || ready != current || pending.is_none() {
            return None;
        }
        let count = self.samples.len().max(1) as f64;
        let rate = self.samples.iter().map(|(_, rate, _)| rate).sum::<f64>() / count;
        let pending = self
            .samples
            .iter()
            .map(|(.., pending)| pending)
            .sum::<f64>()
            / count;
        let wanted = desired(&[rate], &[pending], self.target, ready).clamp(1, self.most);
        let replicas = wanted.clamp(
            current.saturating_sub(self.step).max(1),
            current + self.step,
        );
        if replicas != current {
            self.changed_at = Some(now);
        }
        Some(Sizes {
            lanes: self.lanes,
            replicas,
        })
    }
}

pub(super) fn settings(lanes: u32) -> Vec<Setting> {
    let make = |target: f64, step: u32, cooldown: u32, lookback: u32| {
        let name =
            format!("target={target}s step={step} cooldown={cooldown}s lookback={lookback}s");
        Setting::new("numaflow", name, lanes, move |most| {
            Box::new(Numaflow {
                target,
                step,
                cooldown,
                lookback,
                lanes,
                most,
                samples: VecDeque::new(),
                changed_at: None,
            })
        })
    };
    // The defaults first.
    let mut settings = vec![make(20.0, 2, 90, 120)];
    for target in [1.0, 2.0, 5.0, 10.0, 20.0] {
        for step in [2, 8, 24] {
            for (cooldown, lookback) in [(90, 120), (30, 30), (60, 60)] {
                if (target, step, cooldown) != (20.0, 2, 90) {
                    settings.push(make(target, step, cooldown, lookback));
                }
            }
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of Test_desiredReplicasSinglePartition in scaling_test.go: target 5 s, two ready replicas.
    #[test]
    fn the_formula_gives_what_numaflows_tests_expect() {
        for (rates, pending, expected) in [
            ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 1),
            ([250.0, 500.0, 750.0], [10_010.0, 800.0, 1200.0], 16),
            ([450.0, 500.0, 750.0], [10_010.0, 800.0, 1200.0], 9),
            ([450.0, 20.0, 750.0], [10_010.0, 800.0, 1200.0], 16),
            ([450.0, 20.0, 750.0], [18_932.0, 800.0, 1200.0], 17),
            ([800.0, 200.0, 750.0], [18_932.0, 800.0, 24_988.0], 13),
            ([800.0, 21.0, 750.0], [18_932.0, 800.0, 24_988.0], 15),
        ] {
            assert_eq!(
                desired(&rates, &pending, 5.0, 2),
                expected,
                "{rates:?} {pending:?}"
            );
        }
    }
}
