//! Which keys have the most messages arriving, in bounded memory.
//!
//! Space-Saving (A. Metwally, D. Agrawal and A. El Abbadi, Efficient Computation of Frequent and Top-k
//! Elements in Data Streams, 2005): a new key takes the counter with the least, and what that had counts
//! as its possible error. Counts decay by half in about seven seconds; instead of making all smaller, new
//! ones weigh more (forward decay: G. Cormode, V. Shkapenyuk, D. Srivastava and B. Xu, 2009).

use super::Time;
use super::slab::NONE;
use super::view::HotKey;
use crate::message::QueueId;

const COUNTERS: usize = 64;
/// Seconds in which an old count loses all but 1/e of its weight.
const MEMORY: f64 = 10.0;
/// Weights are made small again before they lose precision.
const HEAVIEST: f64 = 1e100;
/// Of a large reply every so many messages are looked at, and count as many.
const SAMPLE: usize = 8;
/// Replies up to this size are looked at in full.
const SMALL: usize = 64;
const LONGEST_NAME: usize = 255;

#[derive(Debug)]
struct Counter {
    queue: u32,
    key: String,
    error: f64,
}

/// The keys with the most messages.
#[derive(Debug)]
pub struct Hot {
    /// Hashes of the counted keys, apart so that they are found by one pass over little memory.
    hashes: Vec<u64>,
    counts: Vec<f64>,
    counters: Vec<Counter>,
    begin: Option<Time>,
    /// When the weight was last 1.
    unit: Time,
    phase: usize,
}

impl Default for Hot {
    fn default() -> Self {
        Self {
            hashes: Vec::with_capacity(COUNTERS),
            counts: Vec::with_capacity(COUNTERS),
            counters: Vec::with_capacity(COUNTERS),
            begin: None,
            unit: Time::ZERO,
            phase: 0,
        }
    }
}

impl Hot {
    /// A reply of so many messages arrives: the weight of each, and which are to be counted.
    pub fn reply(&mut self, now: Time, messages: usize) -> Sample {
        self.begin.get_or_insert(now);
        let mut weight = self.weight(now);
        if weight > HEAVIEST {
            for (count, counter) in self.counts.iter_mut().zip(&mut self.counters) {
                *count /= weight;
                counter.error /= weight;
            }
            self.unit = now;
            weight = 1.0;
        }
        let every = if messages > SMALL { SAMPLE } else { 1 };
        self.phase = (self.phase + 1) % SAMPLE;
        Sample {
            weight: weight * every as f64,
            every,
            next: self.phase % every,
        }
    }

    fn weight(&self, now: Time) -> f64 {
        (now.saturating_sub(self.unit).as_secs_f64() / MEMORY).exp()
    }

    /// Counts a message.
    pub fn count(&mut self, weight: f64, queue: u32, hash: u64, key: &str) {
        if let Some(known) = self.hashes.iter().position(|of| *of == hash) {
            self.counts[known] += weight;
            self.counters[known].queue = queue;
            return;
        }
        if self.hashes.len() < COUNTERS {
            self.hashes.push(hash);
            self.counts.push(weight);
            self.counters.push(Counter {
                queue,
                key: cut(key).to_owned(),
                error: 0.0,
            });
            return;
        }
        let least = (1..COUNTERS).fold(0, |least, at| {
            if self.counts[at] < self.counts[least] {
                at
            } else {
                least
            }
        });
        let counter = &mut self.counters[least];
        counter.queue = queue;
        counter.error = self.counts[least];
        counter.key.clear();
        counter.key.push_str(cut(key));
        self.hashes[least] = hash;
        self.counts[least] += weight;
    }

    /// The queue of this number is gone.
    pub fn forget_queue(&mut self, queue: u32) {
        for counter in &mut self.counters {
            if counter.queue == queue {
                counter.queue = NONE;
            }
        }
    }

    /// The keys with the highest rates, highest first, of those queues that are still there.
    pub fn top(
        &self,
        now: Time,
        most: usize,
        queue: impl Fn(u32) -> Option<QueueId>,
    ) -> Vec<HotKey> {
        let Some(begin) = self.begin else {
            return Vec::new();
        };
        let age = now.saturating_sub(begin).as_secs_f64().max(0.1);
        // What one message a second would have as its count.
        let one = self.weight(now) * MEMORY * (1.0 - (-age / MEMORY).exp());
        let keys = self.counters.iter().zip(&self.counts);
        let mut keys: Vec<HotKey> = keys
            .filter_map(|(counter, count)| {
                Some(HotKey {
                    queue: queue(counter.queue)?,
                    key: counter.key.clone(),
                    rate: count / one,
                    error: counter.error / one,
                })
            })
            .collect();
        // A key is as hot as is certain: one that has just taken a counter over is not.
        let certain = |key: &HotKey| key.rate - key.error;
        keys.sort_by(|a, b| certain(b).total_cmp(&certain(a)));
        keys.truncate(most);
        keys
    }
}

/// Which messages of a reply are counted.
#[derive(Debug)]
pub struct Sample {
    weight: f64,
    every: usize,
    next: usize,
}

impl Sample {
    /// The weight of the next message, if it is counted.
    pub fn next(&mut self) -> Option<f64> {
        if self.next > 0 {
            self.next -= 1;
            return None;
        }
        self.next = self.every - 1;
        Some(self.weight)
    }
}

/// At most [`LONGEST_NAME`] bytes of a key.
pub fn cut(key: &str) -> &str {
    &key[..key.floor_char_boundary(LONGEST_NAME)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn queue(number: u32) -> Option<QueueId> {
        Some(QueueId::new("b", number))
    }

    /// Feeds replies of `size` messages, of which every `share`th is of the hot key.
    fn feed(hot: &mut Hot, from: u64, seconds: u64, size: u64, share: u64, name: &str) {
        for reply in from * 10..(from + seconds) * 10 {
            let mut sample = hot.reply(Duration::from_millis(reply * 100), size as usize);
            for message in 0..size {
                let Some(weight) = sample.next() else {
                    continue;
                };
                let other = reply * size + message;
                match (message / 8 + reply) % share {
                    0 => hot.count(weight, 0, u64::MAX - name.len() as u64, name),
                    _ => hot.count(weight, 1, other, &other.to_string()),
                }
            }
        }
    }

    #[test]
    fn a_hot_key_is_named_within_a_second_among_any_number_of_others() {
        for size in [50, 1_000] {
            let mut hot = Hot::default();
            feed(&mut hot, 0, 1, size, 5, "hot");
            let top = hot.top(Duration::from_secs(1), 3, queue);
            assert_eq!(
                (top[0].key.as_str(), &top[0].queue),
                ("hot", &queue(0).unwrap())
            );
            let truth = size as f64 * 10.0 / 5.0;
            assert!(top[0].rate > truth * 0.8, "{} of {truth}", top[0].rate);
            assert!(top[0].rate - top[0].error < truth * 1.3, "{:?}", top[0]);
        }
    }

    #[test]
    fn a_key_that_is_no_longer_hot_makes_room() {
        let mut hot = Hot::default();
        feed(&mut hot, 0, 30, 50, 2, "past");
        feed(&mut hot, 30, 60, 50, 2, "present");
        let top = hot.top(Duration::from_secs(90), 1, queue);
        assert_eq!(top[0].key, "present");
        assert!((top[0].rate - 250.0).abs() < 60.0, "{:?}", top[0]);
    }

    #[test]
    fn years_of_weights_keep_their_precision() {
        let mut hot = Hot::default();
        for day in 0..800 {
            let now = Duration::from_secs(day * 86_400);
            hot.reply(now, 1);
            hot.count(hot.weight(now), 0, 1, "daily");
            assert!(hot.counts[0].is_finite() && hot.top(now, 1, queue)[0].rate <= 10.5);
        }
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(cut(&"é".repeat(200)).len(), 254);
        assert_eq!(cut("short"), "short");
    }
}
