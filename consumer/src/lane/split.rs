//! Keys that are met in two queues, on a sample of the keys.
//!
//! Adaptive sampling (M. Wegman; P. Flajolet, On Adaptive Sampling, 1990): all keys are watched until
//! there are too many, then those whose hash ends in a zero bit, and so on. A key is watched as long as it
//! keeps coming.

use super::Time;
use super::hot::cut;
use super::view::{LISTED, SplitKey};
use crate::message::QueueId;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// As many as a table of 4,096 places takes.
const WATCHED: usize = 3_500;
/// A key that moved to another queue after so long moved because the topic changed.
const FORGET: Duration = Duration::from_secs(600);

/// Watches keys.
#[derive(Debug, Default)]
pub struct Splits {
    seen: HashMap<u64, (u32, Time), foldhash::fast::FixedState>,
    /// Keys are watched whose hash has none of these bits.
    mask: u64,
    found: VecDeque<SplitKey>,
}

impl Splits {
    /// Whether a key of this hash is watched.
    pub fn watches(&self, hash: u64) -> bool {
        hash & self.mask == 0
    }

    /// A watched key was met in the queue of this number, named so, with the others named by `name`.
    pub fn met(
        &mut self,
        now: Time,
        queue: u32,
        hash: u64,
        key: &str,
        name: impl Fn(u32) -> Option<QueueId>,
    ) {
        if self.seen.capacity() == 0 {
            self.keep(|_, _| true);
        }
        let former = self.seen.insert(hash, (queue, now));
        if let Some((former, at)) = former
            && former != queue
            && now.saturating_sub(at) < FORGET
            && let (Some(one), Some(other)) = (name(former), name(queue))
            // The same key comes again in another topic when it is retried.
            && one.topic == other.topic
        {
            self.report(cut(key), one, other);
        }
        while self.seen.len() > WATCHED {
            self.mask = self.mask << 1 | 1;
            let mask = self.mask;
            self.keep(|hash, _| hash & mask == 0);
        }
    }

    /// Keeps some of what was seen, in a new table: it never grows beyond its first size.
    fn keep(&mut self, kept: impl Fn(u64, u32) -> bool) {
        let mut seen = HashMap::with_capacity_and_hasher(WATCHED + 1, Default::default());
        seen.extend(
            self.seen
                .drain()
                .filter(|(hash, (queue, _))| kept(*hash, *queue)),
        );
        self.seen = seen;
    }

    fn report(&mut self, key: &str, one: QueueId, other: QueueId) {
        let queues = if one < other {
            [one, other]
        } else {
            [other, one]
        };
        self.found.retain(|found| found.key != key);
        self.found.truncate(LISTED - 1);
        self.found.push_front(SplitKey {
            key: key.to_owned(),
            queues,
        });
    }

    /// The last that were found.
    pub fn found(&self) -> Vec<SplitKey> {
        self.found.iter().cloned().collect()
    }

    /// The queue of this number is gone.
    pub fn forget_queue(&mut self, queue: u32) {
        self.keep(|_, of| of != queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u32) -> Option<QueueId> {
        Some(QueueId::new("b", number))
    }

    fn meet(splits: &mut Splits, second: u64, queue: u32, key: u64) {
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
        if splits.watches(hash) {
            splits.met(
                Duration::from_secs(second),
                queue,
                hash,
                &key.to_string(),
                name,
            );
        }
    }

    #[test]
    fn a_key_in_two_queues_is_found_and_one_in_one_queue_is_not() {
        let mut splits = Splits::default();
        for key in 0..10 {
            meet(&mut splits, 0, 3, key);
            meet(&mut splits, 1, 3, key);
        }
        assert_eq!(splits.found(), []);
        meet(&mut splits, 2, 1, 7);
        let queues = [name(1).unwrap(), name(3).unwrap()];
        let key = "7".to_owned();
        assert_eq!(splits.found(), [SplitKey { key, queues }]);
        meet(&mut splits, 2 + FORGET.as_secs(), 3, 7);
        assert_eq!(splits.found().len(), 1);
        meet(&mut splits, 2_000, 2, 8);
        assert_eq!(splits.found().len(), 1, "long after, the topic has changed");
    }

    #[test]
    fn among_a_million_keys_a_sample_is_watched_in_bounded_memory() {
        let mut splits = Splits::default();
        for key in 0..1_000_000 {
            meet(&mut splits, 0, (key % 8) as u32, key);
            assert!(splits.seen.len() <= WATCHED);
        }
        assert!(splits.seen.len() > WATCHED / 3);
        for key in 0..1_000_000 {
            meet(&mut splits, 1, (key % 7) as u32, key);
        }
        assert_eq!(splits.found().len(), LISTED);
        splits.forget_queue(3);
        assert!(splits.seen.values().all(|(queue, _)| *queue != 3));
    }
}
