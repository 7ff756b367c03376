//! How the load would spread over so many pods. Queues are indivisible and the consumers allocate them by
//! hash, so the fullest pod of `n` can carry far more than a part in `n`; the group needs as many pods as
//! the fullest one does. Asked of the consumer's own allocation, where quick bounds do not tell and unless
//! that takes too long: it costs a hash for each pair of queue and pod. For very many of them it is drawn by
//! lot how queues fall together, which the allocation does as evenly and as blindly; what such a group turns
//! out to be like is seen once its pods have their queues.

use keylane_consumer::ownership::Allocator;
use std::cell::{OnceCell, RefCell};

/// Pairs of queue and pod that allocations of one search may be asked for.
const PAIRS: usize = 49_152;
/// Those with so few pairs are asked for one number of pods after the other, for half of all pairs at most;
/// others where a draw says that so many pods are enough.
const PAIRS_AT_ONCE: usize = 2048;
/// Queues that are dealt out by one search before it passes numbers of pods over.
const DEALT: usize = 8192;
/// Names nobody has yet: the fullest pod differs with them, the worse of two counts.
const STRANGERS: [&str; 2] = ["keylane-new", "keylane-next"];
/// Seeds of draws: as with names the worse of two counts.
const SEEDS: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];

/// Loads of queues, in messages a second, and the pods there are, youngest last.
pub(super) struct Placement<'s, 'q> {
    /// Of the queues that `loads` are of.
    allocator: &'s RefCell<Allocator<'q>>,
    loads: Vec<f64>,
    /// Sums of the heaviest queues.
    heaviest: Vec<f64>,
    members: Vec<&'s str>,
    /// Load of the fullest of the pods there are, if that is seen.
    held: Option<f64>,
    /// Loads in the order of each draw.
    drawn: OnceCell<[Vec<f64>; SEEDS.len()]>,
}

/// What a search has done so far.
#[derive(Default)]
struct Spent {
    /// Pairs that allocations were asked for.
    pairs: usize,
    /// Queues that were dealt out.
    dealt: usize,
}

impl<'s, 'q> Placement<'s, 'q> {
    pub fn new(
        allocator: &'s RefCell<Allocator<'q>>,
        loads: Vec<f64>,
        members: Vec<&'s str>,
    ) -> Self {
        let mut sorted = loads.clone();
        sorted.sort_unstable_by(|left, right| right.total_cmp(left));
        let mut sum = 0.0;
        let sums = sorted.into_iter().map(|load| {
            sum += load;
            sum
        });
        Self {
            heaviest: [0.0].into_iter().chain(sums).collect(),
            allocator,
            loads,
            members,
            held: None,
            drawn: OnceCell::new(),
        }
    }

    /// With the load of the fullest of the pods there are, by the queues each has now. Only asked where the
    /// allocation takes too long.
    pub fn held(self, held: Option<f64>) -> Self {
        Self { held, ..self }
    }

    /// Load of all queues.
    pub fn total(&self) -> f64 {
        self.heaviest.last().copied().unwrap_or(0.0)
    }

    /// The fewest pods, from `least` to `most`, of which none carries more than `limit`; `most` if there
    /// is no such number. A queue that is more than a pod can carry counts as much as a pod can.
    pub fn fewest(&self, limit: f64, least: u32, most: u32) -> u32 {
        let even = (self.total() / limit * (1.0 - 1e-9)).ceil();
        let mut pods = (even.clamp(0.0, f64::from(most)) as u32).clamp(least.min(most), most);
        let (mut spent, mut step) = (Spent::default(), 1u32);
        while pods < most {
            if self.fits(pods, limit, &mut spent) {
                return pods;
            }
            if spent.dealt > DEALT {
                step = step.saturating_mul(2);
            }
            pods = pods.saturating_add(step);
        }
        most
    }

    /// Whether the fullest of so many pods carries no more than `limit`.
    fn fits(&self, pods: u32, limit: f64, spent: &mut Spent) -> bool {
        let pods = pods as usize;
        let share = self.loads.len().div_ceil(pods.max(1));
        if self.heaviest[share.min(self.loads.len())] <= limit {
            return true;
        }
        if self.total() > limit * pods as f64 {
            return false;
        }
        let limit = limit * 1.0001;
        let pairs = self.loads.len() * pods;
        if pairs <= PAIRS_AT_ONCE && spent.pairs + pairs <= PAIRS / 2 {
            spent.pairs += pairs;
            return self.fullest(pods) <= limit;
        }
        // Fewer pods than are too few by what is seen are not believed to be enough by lot.
        if let Some(held) = self.held
            && pods <= self.members.len()
            && (pods == self.members.len() || held > limit)
        {
            return held <= limit;
        }
        spent.dealt += self.loads.len();
        if self.by_lot(pods) > limit {
            return false;
        }
        if spent.pairs + pairs > PAIRS {
            return true;
        }
        spent.pairs += pairs;
        self.fullest(pods) <= limit
    }

    /// Load of the fullest of so many pods if queues were dealt out by lot, in the worse of two draws.
    fn by_lot(&self, pods: usize) -> f64 {
        let draws = self
            .drawn
            .get_or_init(|| SEEDS.map(|seed| shuffled(&self.loads, seed)));
        let fullest = draws.iter().map(|loads| {
            let mut sums = vec![0.0f64; pods];
            for dealt in loads.chunks(pods.max(1)) {
                for (sum, load) in sums.iter_mut().zip(dealt) {
                    *sum += load;
                }
            }
            sums.into_iter().fold(0.0, f64::max)
        });
        fullest.fold(0.0, f64::max)
    }

    /// Load of the fullest of so many pods: the oldest of those there are, and strangers.
    pub fn fullest(&self, pods: usize) -> f64 {
        let kept = &self.members[..pods.min(self.members.len())];
        let missing = pods - kept.len();
        let variants = if missing == 0 {
            &STRANGERS[..1]
        } else {
            &STRANGERS[..]
        };
        let worst = variants.iter().map(|stranger| {
            let strangers: Vec<String> = (0..missing)
                .map(|number| format!("{stranger}-{number}"))
                .collect();
            let members = kept.iter().copied();
            let members: Vec<&str> = members
                .chain(strangers.iter().map(String::as_str))
                .collect();
            let owners = self.allocator.borrow_mut().owners(&members);
            let mut sums = vec![0.0f64; pods];
            for (owner, load) in owners.into_iter().zip(&self.loads) {
                sums[owner] += load;
            }
            sums.into_iter().fold(0.0, f64::max)
        });
        worst.fold(0.0, f64::max)
    }
}

/// The loads in an order of chance (Fisher and Yates, 1938), the same for the same seed (the generator of MMIX;
/// Knuth).
fn shuffled(loads: &[f64], seed: u64) -> Vec<f64> {
    let mut loads = loads.to_vec();
    let mut state = seed;
    for last in (1..loads.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        loads.swap(last, (state >> 33) as usize % (last + 1));
    }
    loads
}

#[cfg(test)]
mod tests {
    use super::*;
    use keylane_consumer::message::QueueId;

    fn queues(count: u32) -> Vec<QueueId> {
        (0..count).map(|id| QueueId::new("b", id)).collect()
    }

    #[test]
    fn no_pod_carries_more_than_the_limit_and_one_fewer_would() {
        let ids = queues(24);
        let allocator = RefCell::new(Allocator::new(&ids));
        let members: Vec<String> = (0..5).map(|pod| format!("pod-{pod}")).collect();
        for (heavy, limit) in [(10.0, 40.0), (35.0, 40.0), (10.0, 100.0)] {
            let loads = (0..24)
                .map(|id| if id < 2 { heavy } else { 10.0 })
                .collect();
            let members = members.iter().map(String::as_str).collect();
            let placement = Placement::new(&allocator, loads, members);
            let pods = placement.fewest(limit, 1, 24);
            assert!(placement.fullest(pods as usize) <= limit, "{pods}");
            assert!(
                placement.total() > limit * f64::from(pods - 1)
                    || placement.fullest(pods as usize - 1) > limit
            );
        }
    }

    #[test]
    fn as_many_pods_as_queues_exactly_when_each_queue_needs_one() {
        let ids = queues(64);
        let allocator = RefCell::new(Allocator::new(&ids));
        let placement = |load| Placement::new(&allocator, vec![load; 64], Vec::new());
        assert_eq!(placement(10.0).fewest(10.0, 1, 64), 64);
        assert_eq!(placement(4.9).fewest(10.0, 1, 64), 32);
    }

    /// One of so many queues has much to do, the others little.
    fn skewed(count: u32, one_of: u32, heavy: f64, light: f64) -> Vec<f64> {
        let load = |id: u32| {
            if id.is_multiple_of(one_of) {
                heavy
            } else {
                light
            }
        };
        (0..count).map(load).collect()
    }

    fn names(set: u32, count: usize) -> Vec<String> {
        (0..count).map(|pod| format!("pod-{set}-{pod}")).collect()
    }

    #[test]
    fn two_heavy_queues_that_would_fall_together_are_found_with_64_queues_and_40_pods() {
        let ids = queues(64);
        let allocator = RefCell::new(Allocator::new(&ids));
        for set in 0..24 {
            let names = names(set, 40);
            let members = names.iter().map(String::as_str).collect();
            // A pod has one queue or two: a heavy one beside a light one fits, two heavy ones do not.
            let loads = skewed(64, 11, 50.0, 10.0);
            let placement = Placement::new(&allocator, loads, members);
            let pods = placement.fewest(80.0, 36, 64);
            let fullest = placement.fullest(pods as usize);
            assert!(fullest <= 80.1, "{fullest} in one of {pods} pods");
        }
    }

    #[test]
    fn no_more_pods_than_the_allocation_needs_with_64_queues_and_40_pods() {
        let (ids, names) = (queues(64), names(0, 40));
        let allocator = RefCell::new(Allocator::new(&ids));
        let members = names.iter().map(String::as_str).collect();
        // The average and one heavy queue would be too much up to the 51st pod.
        let loads = skewed(64, 22, 50.0, 10.0);
        let placement = Placement::new(&allocator, loads, members);
        let pods = placement.fewest(65.0, 36, 64);
        assert!(placement.fullest(pods as usize) <= 65.1, "{pods}");
        assert!(pods <= 48, "{pods}");
    }

    #[test]
    fn more_than_a_thousand_queues_end_with_as_many_pods_as_their_fullest_needs() {
        const LIMIT: f64 = 36.0;
        let ids = queues(1024);
        let allocator = RefCell::new(Allocator::new(&ids));
        // With 52 pods the average and a heavy queue fit. Two heavy queues with 18 others do not, and some
        // pod has two.
        let (mut have, mut steps) = (52, 0);
        loop {
            let names = names(0, have);
            let members = names.iter().map(String::as_str).collect();
            let loads = skewed(1024, 32, 10.0, 1.0);
            let placement = Placement::new(&allocator, loads, members);
            let fullest = placement.fullest(have);
            let placement = placement.held(Some(fullest));
            let wanted = placement.fewest(LIMIT, have as u32, 1024) as usize;
            if wanted == have {
                assert!(fullest <= LIMIT * 1.001, "{fullest} in one of {have} pods");
                break;
            }
            (have, steps) = (wanted, steps + 1);
            assert!(steps < 12, "still at {have}");
        }
        assert!((53..=342).contains(&have), "{have}");
    }
}
