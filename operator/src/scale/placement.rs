//! How the load would spread over so many pods. Queues are indivisible and the consumers allocate them by
//! hash, so the fullest pod of `n` can carry far more than a part in `n`; the group needs as many pods as
//! the fullest one does. Asked of the consumer's own allocation, where quick bounds do not tell.

use keylane_consumer::message::QueueId;
use keylane_consumer::ownership::allocate;
use std::collections::BTreeSet;

/// Pairs of queue and pod that allocations of one search may be asked for: more costs more than it tells,
/// because shares of many queues are even.
const PAIRS: usize = 16_384;
/// And so many of one allocation.
const PAIRS_AT_ONCE: usize = 2048;
/// Names nobody has yet: the fullest pod differs with them, the worse of two counts.
const STRANGERS: [&str; 2] = ["keylane-new", "keylane-next"];

/// Loads of queues, in messages a second, and the pods there are, youngest last.
pub(super) struct Placement<'s> {
    queues: Vec<&'s QueueId>,
    loads: Vec<f64>,
    /// Sums of the heaviest queues.
    heaviest: Vec<f64>,
    members: Vec<&'s str>,
}

impl<'s> Placement<'s> {
    pub fn new(queues: Vec<&'s QueueId>, loads: Vec<f64>, members: Vec<&'s str>) -> Self {
        let mut sorted = loads.clone();
        sorted.sort_unstable_by(|left, right| right.total_cmp(left));
        let mut sum = 0.0;
        let sums = sorted.into_iter().map(|load| {
            sum += load;
            sum
        });
        Self {
            heaviest: [0.0].into_iter().chain(sums).collect(),
            queues,
            loads,
            members,
        }
    }

    /// Load of all queues.
    pub fn total(&self) -> f64 {
        self.heaviest.last().copied().unwrap_or(0.0)
    }

    /// The fewest pods, from `least` to `most`, of which none carries more than `limit`; `most` if there
    /// is no such number. A queue that is more than a pod can carry counts as much as a pod can.
    pub fn fewest(&self, limit: f64, least: u32, most: u32) -> u32 {
        let even = (self.total() / limit * (1.0 - 1e-9)).ceil();
        let start = (even.clamp(0.0, f64::from(most)) as u32).clamp(least.min(most), most);
        let mut pairs = 0;
        (start..most)
            .find(|pods| self.fits(*pods, limit, &mut pairs))
            .unwrap_or(most)
    }

    /// Whether the fullest of so many pods carries no more than `limit`.
    fn fits(&self, pods: u32, limit: f64, pairs: &mut usize) -> bool {
        let pods = pods as usize;
        let share = self.queues.len().div_ceil(pods.max(1));
        if self.heaviest[share.min(self.loads.len())] <= limit {
            return true;
        }
        if self.total() > limit * pods as f64 {
            return false;
        }
        let these = self.queues.len() * pods;
        *pairs += these;
        if *pairs > PAIRS || these > PAIRS_AT_ONCE {
            // The average, and one heavy queue more than that.
            return self.total() / pods as f64 + self.heaviest[1.min(self.loads.len())] <= limit;
        }
        self.fullest(pods) <= limit * 1.0001
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
        let queues: BTreeSet<QueueId> = self.queues.iter().map(|queue| (*queue).clone()).collect();
        let worst = variants.iter().map(|stranger| {
            let strangers = (0..missing).map(|number| format!("{stranger}-{number}"));
            let members = kept.iter().map(|name| (*name).to_owned());
            let members: BTreeSet<String> = members.chain(strangers).collect();
            let allocation = allocate(&queues, &members);
            let loads = allocation.values().map(|owned| {
                let owned = owned
                    .iter()
                    .filter_map(|queue| self.queues.binary_search(&queue).ok());
                owned.map(|index| self.loads[index]).sum::<f64>()
            });
            loads.fold(0.0, f64::max)
        });
        worst.fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(count: u32) -> Vec<QueueId> {
        (0..count).map(|id| QueueId::new("b", id)).collect()
    }

    #[test]
    fn no_pod_carries_more_than_the_limit_and_one_fewer_would() {
        let ids = queues(24);
        let members: Vec<String> = (0..5).map(|pod| format!("pod-{pod}")).collect();
        for (heavy, limit) in [(10.0, 40.0), (35.0, 40.0), (10.0, 100.0)] {
            let loads = (0..24)
                .map(|id| if id < 2 { heavy } else { 10.0 })
                .collect();
            let members = members.iter().map(String::as_str).collect();
            let placement = Placement::new(ids.iter().collect(), loads, members);
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
        let placement = |load| Placement::new(ids.iter().collect(), vec![load; 64], Vec::new());
        assert_eq!(placement(10.0).fewest(10.0, 1, 64), 64);
        assert_eq!(placement(4.9).fewest(10.0, 1, 64), 32);
    }
}
