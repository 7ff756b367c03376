//! The HorizontalPodAutoscaler with its defaults: every 15 s, a tolerance of 10 %, up by at most the
//! larger of 4 pods and 100 % in 15 s, down to the largest recommendation of 5 minutes.
//!
//! Source: kubernetes/kubernetes pkg/controller/podautoscaler/{replica_calculator,horizontal}.go (Apache-2.0).

use super::Setting;
use keylane_operator::simulate::{Controller, Plant, Sizes};
use std::collections::VecDeque;

const SYNC: u32 = 15;
const TOLERANCE: f64 = 0.1;
const STABILISATION: u32 = 300;

/// Replicas for a metric with a target of an average value a pod: all of it over the target, unless that
/// is within the tolerance.
pub fn for_average(current: u32, total: f64, target: f64) -> u32 {
    let ratio = total / (target * f64::from(current));
    if (ratio - 1.0).abs() <= TOLERANCE {
        return current;
    }
    (total / target).ceil() as u32
}

/// Replicas for a utilisation of the pods that are ready.
pub fn for_utilisation(current: u32, ready: u32, used: f64, target: f64) -> u32 {
    let ratio = used / target;
    if (ratio - 1.0).abs() <= TOLERANCE {
        return current;
    }
    // Pods that do not report yet count as idle on the way up and as at the target on the way down.
    let missing = f64::from(current.saturating_sub(ready));
    let sum = used * f64::from(ready) + if ratio < 1.0 { target * missing } else { 0.0 };
    let rebalanced = sum / f64::from(current.max(1)) / target;
    if (rebalanced - 1.0).abs() <= TOLERANCE || (ratio > 1.0) != (rebalanced > 1.0) {
        return current;
    }
    (rebalanced * f64::from(current)).ceil() as u32
}

/// What the HPA does with recommendations: limits and stabilisation.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    recommended: VecDeque<(u32, u32)>,
}

impl Behaviour {
    /// Replicas that follow from a recommendation; to be asked once a sync.
    pub fn apply(&mut self, now: u32, current: u32, wanted: u32, most: u32) -> u32 {
        self.recommended.push_back((now, wanted));
        self.recommended.retain(|(at, _)| now - at < STABILISATION);
        let highest = self.recommended.iter().map(|(_, wanted)| *wanted).max();
        let stable = if wanted >= current {
            wanted
        } else {
            highest.unwrap_or(wanted).min(current)
        };
        stable.min(current + current.max(4)).clamp(1, most)
    }
}

/// Whether the HPA looks in this second.
pub fn due(now: u32) -> bool {
    now.is_multiple_of(SYNC)
}

/// The HPA on CPU.
pub struct Hpa {
    target: f64,
    lanes: u32,
    most: u32,
    behaviour: Behaviour,
}

impl Controller for Hpa {
    fn decide(&mut self, plant: &Plant<'_>) -> Option<Sizes> {
        if !due(plant.now()) {
            return None;
        }
        let current = plant.sizes().replicas;
        let used: Vec<f64> = plant.ready().map(|pod| plant.cpu(pod)).collect();
        let average = used.iter().sum::<f64>() / used.len().max(1) as f64;
        let wanted = for_utilisation(current, used.len() as u32, average, self.target);
        let replicas = self
            .behaviour
            .apply(plant.now(), current, wanted, self.most);
        Some(Sizes {
            lanes: self.lanes,
            replicas,
        })
    }
}

pub(super) fn settings(lanes: u32) -> Vec<Setting> {
    let targets = [0.5, 0.6, 0.7, 0.8, 0.9];
    let make = |target: f64| {
        Setting::new("hpa", format!("cpu={target}"), lanes, move |most| {
            Box::new(Hpa {
                target,
                lanes,
                most,
                behaviour: Behaviour::default(),
            })
        })
    };
    targets.into_iter().map(make).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of TestReplicaCalcTolerancePerPodCMExternal, TestReplicaCalcTolerance and
    /// TestReplicaCalcSuperfluousMetrics in replica_calculator_test.go.
    #[test]
    fn the_formula_gives_what_kubernetes_tests_expect() {
        assert_eq!(for_average(3, 8600.0, 2900.0), 3);
        assert_eq!(for_utilisation(3, 3, 1.02, 1.0), 3);
        assert_eq!(for_utilisation(4, 4, 5.875, 1.0), 24);
        assert_eq!(for_utilisation(5, 5, 0.28, 0.5), 3);
    }

    #[test]
    fn down_goes_to_the_largest_recommendation_of_five_minutes() {
        let mut behaviour = Behaviour::default();
        assert_eq!(behaviour.apply(0, 2, 20, 24), 6);
        assert_eq!(behaviour.apply(15, 6, 20, 24), 12);
        assert_eq!(behaviour.apply(30, 12, 3, 24), 12);
        assert_eq!(behaviour.apply(314, 12, 3, 24), 12);
        assert_eq!(behaviour.apply(330, 12, 3, 24), 3);
    }
}
