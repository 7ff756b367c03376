//! Flink's autoscaler for a source (a rule in the manner of DS2): the true rate is the rate over the busy
//! part; the target is what catches up with the lag in time, what a restart costs, and the arrivals over
//! the wanted utilisation. It acts outside a band around that, waits after each change until things are
//! stable and its window is full, and goes down to the largest recommendation of an interval.
//!
//! Source: apache/flink-kubernetes-operator flink-autoscaler: ScalingMetricEvaluator, JobVertexScaler,
//! AutoScalerUtils, alignment/ParallelismAligner, config/AutoScalerOptions (Apache-2.0). As there, a lag that is
//! missing counts as 0.

use super::Setting;
use keylane_operator::simulate::{Controller, Plant, Sizes};
use std::collections::VecDeque;

/// Time between two looks (the operator's reconcile interval).
const EVERY: u32 = 60;
/// Backlog processing: a lag of more than this of input.
const BACKLOG: f64 = 300.0;
const BOUNDARY: f64 = 0.3;
const MAX_DOWN: f64 = 0.6;

/// Settings with Flink's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// metrics.window, seconds.
    pub window: u32,
    /// stabilization.interval, seconds.
    pub stabilisation: u32,
    /// catch-up.duration, seconds.
    pub catch_up: f64,
    /// restart.time, seconds.
    pub restart: f64,
    /// utilization.target.
    pub utilisation: f64,
    /// scale-down.interval, seconds.
    pub down_interval: u32,
}

impl Options {
    /// Flink's defaults.
    pub const DEFAULT: Self = Self {
        window: 900,
        stabilisation: 300,
        catch_up: 1800.0,
        restart: 300.0,
        utilisation: 0.7,
        down_interval: 3600,
    };

    /// Capacity that is wanted at a utilisation.
    pub fn capacity(&self, input: f64, lag: f64, utilisation: f64, with_restart: bool) -> f64 {
        let utilisation = utilisation.clamp(0.0, 1.0);
        if utilisation == 0.0 {
            return f64::INFINITY;
        }
        let (mut catch_up, mut restart) = (0.0, 0.0);
        if self.catch_up > 0.0 {
            catch_up = lag / self.catch_up;
            restart = if with_restart {
                input * self.restart / self.catch_up
            } else {
                0.0
            };
        }
        (catch_up + restart + input / utilisation).round()
    }

    /// Rates below and above which it acts.
    pub fn band(&self, input: f64, lag: f64, backlog: bool) -> (f64, f64) {
        let (upper, lower) = if backlog {
            (1.0, 0.0)
        } else {
            // Decimal fractions: the sum must not be a hair off.
            let round = |value: f64| (value * 1e9).round() / 1e9;
            (
                round(self.utilisation + BOUNDARY),
                round(self.utilisation - BOUNDARY),
            )
        };
        (
            self.capacity(input, lag, upper, false),
            self.capacity(input, lag, lower, true),
        )
    }

    /// Parallelism for a true rate, before the interval for steps down.
    pub fn parallelism(
        &self,
        current: u32,
        input: f64,
        lag: f64,
        true_rate: f64,
        most: u32,
        parts: u32,
    ) -> u32 {
        let target = self.capacity(input, lag, self.utilisation, true);
        let factor = (target / true_rate).max(1.0 - MAX_DOWN);
        let raw = (factor * f64::from(current)).ceil().min(1e6) as u32;
        let new = raw.clamp(1, most.max(current));
        if new == current {
            current
        } else {
            align(current, new, parts, most)
        }
    }
}

/// The first parallelism from the target on that spreads the partitions better (mode BALANCED); never more
/// than there are partitions.
fn align(current: u32, target: u32, parts: u32, most: u32) -> u32 {
    let target = target.min(parts);
    let end = if target > current {
        parts.min(most)
    } else {
        current.min(parts).min(most)
    };
    let better = |count: &u32| parts.is_multiple_of(*count) || parts / count < parts / target;
    (target..=end).find(better).unwrap_or(target)
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: u32,
    input: f64,
    lag: f64,
    load: f64,
}

/// Flink's autoscaler.
pub struct Flink {
    options: Options,
    lanes: u32,
    most: u32,
    samples: VecDeque<Sample>,
    /// When the job runs with its parallelism.
    running_since: u32,
    lower: VecDeque<(u32, u32)>,
    lower_since: Option<u32>,
}

impl Controller for Flink {
    fn decide(&mut self, plant: &Plant<'_>) -> Option<Sizes> {
        let now = plant.now();
        let current = plant.sizes().replicas;
        if (plant.ready().count() as u32) < current {
            self.running_since = now;
            self.samples.clear();
            return None;
        }
        let lag = if plant.broker_answers() {
            (0..plant.ids().len())
                .map(|queue| plant.unfinished(queue))
                .sum()
        } else {
            0.0
        };
        let load = plant
            .ready()
            .map(|pod| pod.busy / f64::from(pod.lanes.max(1)));
        let load = load.fold(0.0, f64::max);
        self.samples.push_back(Sample {
            at: now,
            input: plant.finished_now(),
            lag,
            load,
        });
        let stable = self.running_since + self.options.stabilisation;
        let window = self.options.window;
        self.samples
            .retain(|sample| sample.at >= stable && now - sample.at <= window);
        if !now.is_multiple_of(EVERY) || now < stable + window {
            return None;
        }
        let wanted = self.evaluate(now, current, plant.ids().len() as u32)?;
        if wanted != current {
            self.running_since = now;
            self.lower.clear();
            self.lower_since = None;
        }
        Some(Sizes {
            lanes: self.lanes,
            replicas: wanted,
        })
    }
}

impl Flink {
    fn evaluate(&mut self, now: u32, current: u32, parts: u32) -> Option<u32> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let count = self.samples.len() as f64;
        let input = self.samples.iter().map(|sample| sample.input).sum::<f64>() / count;
        let load = self.samples.iter().map(|sample| sample.load).sum::<f64>() / count;
        let elapsed = f64::from(last.at.saturating_sub(first.at)).max(1.0);
        let arrivals = (input + (last.lag - first.lag) / elapsed).max(0.0);
        let (lag, options) = (last.lag, self.options);
        let true_rate = if input == 0.0 || load == 0.0 {
            f64::INFINITY
        } else {
            input / load
        };
        let backlog = input > 0.0 && lag / input > BACKLOG;
        let (up, down) = options.band(arrivals, lag, backlog);
        let new = options.parallelism(current, arrivals, lag, true_rate, self.most, parts);
        let outside = true_rate < up || true_rate > down;
        if new >= current {
            (self.lower_since, _) = (None, self.lower.clear());
            return Some(if outside { new } else { current });
        }
        // Down: only after the interval, to the largest of what was recommended in it.
        let since = *self.lower_since.get_or_insert(now);
        self.lower.push_back((now, new));
        self.lower
            .retain(|(at, _)| now - at <= options.down_interval);
        if now - since < options.down_interval {
            return Some(current);
        }
        let largest = self
            .lower
            .iter()
            .map(|(_, new)| *new)
            .max()
            .unwrap_or(current);
        Some(if outside { largest } else { current })
    }
}

pub(super) fn settings(lanes: u32) -> Vec<Setting> {
    let make = |name: String, options: Options| {
        Setting::new("flink", name, lanes, move |most| {
            Box::new(Flink {
                options,
                lanes,
                most,
                samples: VecDeque::new(),
                running_since: 0,
                lower: VecDeque::new(),
                lower_since: None,
            })
        })
    };
    let mut settings = vec![make("default".to_owned(), Options::DEFAULT)];
    for window in [60, 120, 300] {
        for catch_up in [30.0, 60.0, 120.0, 300.0] {
            for utilisation in [0.6, 0.7, 0.8] {
                for down_interval in [300, 900] {
                    let name = format!(
                        "window={window}s catch-up={catch_up}s u={utilisation} down={down_interval}s"
                    );
                    let options = Options {
                        window,
                        stabilisation: 30,
                        catch_up,
                        restart: 60.0,
                        utilisation,
                        down_interval,
                    };
                    settings.push(make(name, options));
                }
            }
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of JobVertexScalerTest.testParallelismScaling: parallelism, target rate, true rate, 720 key
    /// groups.
    #[test]
    fn the_formula_gives_what_flinks_tests_expect() {
        let new = |utilisation, current, target, true_rate| {
            let options = Options {
                utilisation,
                restart: 0.0,
                ..Options::DEFAULT
            };
            options.parallelism(current, target, 0.0, true_rate, 200, 720)
        };
        assert_eq!(new(0.8, 10, 50.0, 100.0), 8);
        assert_eq!(new(0.8, 10, 80.0, 100.0), 10);
        assert_eq!(new(0.8, 10, 60.0, 100.0), 8);
        assert_eq!(new(0.5, 2, 100.0, 40.0), 10);
        assert_eq!(new(0.6, 2, 100.0, 100.0), 4);
        assert_eq!(new(1.0, 10, 10.0, 100.0), 4);
    }

    /// Vectors of testUtilizationBoundaryComputation and …WithRestartTimesTracking in
    /// ScalingMetricEvaluatorTest: utilisation 0.7 to 0.9, 700 records a second. Their lag is given as the
    /// rate that catches up with it.
    #[test]
    fn the_thresholds_are_what_flinks_tests_expect() {
        for (restart, catch_up, catching_up, lower, upper) in [
            (1.0, 0.0, 0.0, 778.0, 1000.0),
            (1.0, 2.0, 350.0, 1128.0, 1700.0),
            (1.0, 2.0, 0.0, 778.0, 1350.0),
            (300.0, 60.0, 350.0, 1128.0, 4850.0),
            (300.0, 60.0, 0.0, 778.0, 4500.0),
        ] {
            let options = Options {
                catch_up,
                restart,
                ..Options::DEFAULT
            };
            let lag = catching_up * catch_up;
            assert_eq!(options.capacity(700.0, lag, 0.9, false), lower);
            assert_eq!(options.capacity(700.0, lag, 0.7, true), upper);
        }
    }

    /// Vectors of AlignmentModeTest, mode BALANCED: current, target, partitions or key groups, upper bound.
    #[test]
    fn parallelism_is_aligned_as_flinks_tests_expect() {
        for (current, target, parts, most, aligned) in [
            (16, 24, 128, 128, 26),
            (22, 25, 35, 30, 25),
            (5, 7, 12, 8, 7),
            (100, 180, 15, 180, 15),
            (100, 50, 15, 180, 15),
            (100, 16, 15, 180, 15),
            (100, 15, 15, 180, 15),
            (20, 18, 12, 12, 12),
        ] {
            assert_eq!(align(current, target, parts, most), aligned, "{target}");
        }
    }

    #[test]
    fn while_it_works_off_a_backlog_it_acts_only_at_full_utilisation() {
        // getThresholds(700, 350) of ScalingMetricEvaluatorTest: caught up in one second, no restart.
        let options = Options {
            catch_up: 1.0,
            restart: 0.0,
            utilisation: 0.7,
            ..Options::DEFAULT
        };
        assert_eq!(options.band(700.0, 350.0, true), (1050.0, f64::INFINITY));
        assert_eq!(options.band(700.0, 0.0, true), (700.0, f64::INFINITY));
    }
}
