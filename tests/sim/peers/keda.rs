//! KEDA's Kafka scaler, as it would be for RocketMQ, in front of an HPA: the lag of all queues from
//! committed offsets, at most queues x threshold, over the threshold.
//!
//! Source: kedacore/keda pkg/scalers/kafka_scaler.go and pkg/fallback/fallback.go (Apache-2.0). As there, a queue
//! that is missing in the reply counts as 0, and with excludePersistentLag so does one whose committed
//! offset has not moved since the last look.

use super::Setting;
use super::hpa::{Behaviour, due, for_average};
use keylane_operator::simulate::{Controller, Plant, Sizes};

/// Failures before the fallback (spec.fallback.failureThreshold).
const FAILURES: u32 = 3;

/// Offsets of a queue in one look; none if the broker did not say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offsets {
    /// Of the next message.
    pub latest: Option<f64>,
    /// Committed by the group.
    pub committed: f64,
}

/// The lag that the scaler reports: of all queues, capped.
pub fn total_lag(queues: &[Offsets], before: Option<&[f64]>, threshold: f64) -> f64 {
    let lags = queues.iter().enumerate().map(|(index, queue)| {
        let stuck = before.is_some_and(|before| before.get(index) == Some(&queue.committed));
        match queue.latest {
            Some(latest) if !stuck => latest - queue.committed,
            _ => 0.0,
        }
    });
    let (total, most) = (lags.sum::<f64>(), queues.len() as f64);
    if (total / threshold).floor() > most {
        most * threshold
    } else {
        total
    }
}

/// What is reported instead after so many failures in a row: what as many replicas as the fallback says are for.
pub fn instead(failures: u32, fallback: Option<u32>, threshold: f64) -> Option<f64> {
    let replicas = fallback.filter(|_| failures > FAILURES)?;
    Some(f64::from(replicas) * threshold)
}

/// KEDA and its HPA.
pub struct Keda {
    threshold: f64,
    exclude_persistent: bool,
    fallback: Option<u32>,
    lanes: u32,
    most: u32,
    committed: Option<Vec<f64>>,
    failures: u32,
    behaviour: Behaviour,
}

impl Controller for Keda {
    fn decide(&mut self, plant: &Plant<'_>) -> Option<Sizes> {
        if !due(plant.now()) {
            return None;
        }
        let current = plant.sizes().replicas;
        let wanted = if plant.broker_answers() {
            self.failures = 0;
            let queues = 0..plant.ids().len();
            let offsets: Vec<Offsets> = queues
                .map(|queue| {
                    let latest = plant.max_offset(queue).floor();
                    let committed = (latest - plant.committed_lag(queue)).floor();
                    Offsets {
                        latest: Some(latest),
                        committed,
                    }
                })
                .collect();
            let before = self
                .committed
                .as_deref()
                .filter(|_| self.exclude_persistent);
            let lag = total_lag(&offsets, before, self.threshold);
            self.committed = Some(offsets.iter().map(|queue| queue.committed).collect());
            for_average(current, lag, self.threshold)
        } else {
            self.failures += 1;
            let reported = instead(self.failures, self.fallback, self.threshold)?;
            for_average(current, reported, self.threshold)
        };
        let replicas = self
            .behaviour
            .apply(plant.now(), current, wanted.max(1), self.most);
        Some(Sizes {
            lanes: self.lanes,
            replicas,
        })
    }
}

pub(super) fn settings(lanes: u32) -> Vec<Setting> {
    // Each twice the one before, and the largest.
    let thresholds = (0..=10u32).map(|power| 10i32 << power).chain([12_800]);
    let mut settings = Vec::new();
    for threshold in thresholds {
        for exclude in [false, true] {
            for fallback in [None, Some(12)] {
                let name = format!(
                    "lagThreshold={threshold}{}{}",
                    if exclude { " excludePersistentLag" } else { "" },
                    fallback.map_or_else(String::new, |pods| format!(" fallback={pods}"))
                );
                settings.push(Setting::new("keda", name, lanes, move |most| {
                    Box::new(Keda {
                        threshold: f64::from(threshold),
                        exclude_persistent: exclude,
                        fallback,
                        lanes,
                        most,
                        committed: None,
                        failures: 0,
                        behaviour: Behaviour::default(),
                    })
                }));
            }
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KEDA's kafka_scaler_test.go has vectors for parameters and partitions, and none for lags that could be
    /// found: these are worked out by hand from getLagForPartition.
    #[test]
    fn a_queue_that_is_missing_counts_as_nothing() {
        let queue = |latest| Offsets {
            latest,
            committed: 100.0,
        };
        assert_eq!(total_lag(&[queue(Some(150.0))], None, 100.0), 50.0);
        assert_eq!(total_lag(&[queue(None)], None, 100.0), 0.0);
    }

    /// Vectors of fallback_test.go: failureThreshold 3, 10 replicas, an average of 10 each.
    #[test]
    fn the_fallback_is_what_kedas_tests_expect() {
        assert_eq!(instead(1, Some(10), 10.0), None);
        assert_eq!(instead(4, Some(10), 10.0), Some(100.0));
        assert_eq!(instead(4, None, 10.0), None);
    }

    #[test]
    fn thresholds_go_from_ten_to_twelve_thousand_eight_hundred() {
        let settings = settings(8);
        // Each with and without the lag that persists, and with and without a fallback.
        assert_eq!(settings.len(), 12 * 4);
        for threshold in [10, 20, 10_240, 12_800] {
            let name = format!("lagThreshold={threshold} ");
            let of_it = settings.iter().filter(|one| one.name.starts_with(&name));
            assert_eq!(of_it.count(), 4, "{threshold}");
        }
    }

    #[test]
    fn no_more_than_the_threshold_for_each_queue_and_nothing_for_one_that_stands_still() {
        // By hand from getTotalLag: it divides whole numbers, so that 49 over 10 is not more than 4.
        let queues = |latest| {
            [Offsets {
                latest: Some(latest),
                committed: 0.0,
            }; 4]
        };
        assert_eq!(total_lag(&queues(1e6), None, 10.0), 40.0);
        assert_eq!(total_lag(&queues(12.0), None, 10.0), 48.0);
        assert_eq!(total_lag(&queues(12.5), None, 10.0), 40.0);
        assert_eq!(total_lag(&queues(1e6), Some(&[0.0; 4]), 10.0), 0.0);
    }
}
