//! Which offsets of a queue are finished.
//!
//! Invariants: everything below the watermark is finished, the watermark itself is not, and it never
//! moves back. Costs one bit per offset between the watermark and the highest finished offset;
//! finishing costs O(1) amortised.

use std::collections::VecDeque;

const WORD: u64 = u64::BITS as u64;

/// The finished offsets of one queue.
#[derive(Debug)]
pub struct Offsets {
    watermark: u64,
    /// Bit `i` of word `w` stands for offset `base + w * 64 + i`; `base` is a multiple of 64.
    words: VecDeque<u64>,
    base: u64,
    above: u64,
}

impl Offsets {
    /// Everything below `start` is finished, nothing else.
    pub fn new(start: u64) -> Self {
        let base = start / WORD * WORD;
        Self {
            watermark: start,
            words: VecDeque::new(),
            base,
            above: 0,
        }
    }

    /// First unfinished offset.
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// Number of finished offsets above the watermark.
    pub fn finished_above(&self) -> u64 {
        self.above
    }

    /// Marks one offset as finished. Returns false if it already was.
    pub fn finish(&mut self, offset: u64) -> bool {
        if !self.mark(offset) {
            return false;
        }
        self.advance();
        true
    }

    /// Marks `[from, to)` as finished, whatever of it already was.
    pub fn finish_range(&mut self, from: u64, to: u64) {
        if from <= self.watermark && to > self.watermark {
            // The usual case after a jump (filtered or expired messages): nothing below `to` need be kept.
            self.skip_to(to);
        } else {
            for offset in from..to {
                self.mark(offset);
            }
        }
        self.advance();
    }

    fn mark(&mut self, offset: u64) -> bool {
        if offset < self.watermark {
            return false;
        }
        let (word, bit) = self.position(offset);
        while self.words.len() <= word {
            self.words.push_back(0);
        }
        let slot = &mut self.words[word];
        if *slot & (1 << bit) != 0 {
            return false;
        }
        *slot |= 1 << bit;
        self.above += 1;
        true
    }

    fn position(&self, offset: u64) -> (usize, u64) {
        let distance = offset - self.base;
        ((distance / WORD) as usize, distance % WORD)
    }

    /// Moves the watermark over a run of finished offsets and frees the words below it.
    fn advance(&mut self) {
        loop {
            let (word, bit) = self.position(self.watermark);
            let Some(slot) = self.words.get_mut(word) else {
                break;
            };
            let run = u64::from((!(*slot >> bit)).trailing_zeros()).min(WORD - bit);
            if run == 0 {
                break;
            }
            // Bits below the watermark are zero, so that a set bit always counts in `above`.
            *slot &= !(u64::MAX >> (WORD - run) << bit);
            self.watermark += run;
            self.above -= run;
        }
        self.free();
    }

    fn skip_to(&mut self, to: u64) {
        let (word, bit) = self.position(to);
        for (index, slot) in self.words.iter_mut().enumerate().take(word + 1) {
            let below = if index < word {
                u64::MAX
            } else {
                (1 << bit) - 1
            };
            self.above -= u64::from((*slot & below).count_ones());
            *slot &= !below;
        }
        self.watermark = to;
        self.free();
    }

    fn free(&mut self) {
        while self.watermark >= self.base + WORD && self.words.pop_front().is_some() {
            self.base += WORD;
        }
        if self.words.is_empty() {
            self.base = self.watermark / WORD * WORD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Clone, Debug)]
    enum Step {
        One(u64),
        Range(u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u64..600).prop_map(Step::One),
            1 => (0u64..600, 0u64..200).prop_map(|(from, length)| Step::Range(from, from + length)),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(start in 0u64..200, steps in prop::collection::vec(step(), 0..400)) {
            let mut offsets = Offsets::new(start);
            let mut finished: BTreeSet<u64> = (0..start).collect();
            for step in steps {
                match step {
                    Step::One(offset) => prop_assert_eq!(offsets.finish(offset), finished.insert(offset)),
                    Step::Range(from, to) => {
                        offsets.finish_range(from, to);
                        finished.extend(from..to);
                    }
                }
                let watermark = (0..).find(|offset| !finished.contains(offset)).unwrap();
                prop_assert_eq!(offsets.watermark(), watermark);
                prop_assert_eq!(offsets.finished_above(), finished.range(watermark..).count() as u64);
            }
        }
    }

    #[test]
    fn a_million_finished_offsets_beyond_a_stuck_head_take_one_bit_each() {
        let mut offsets = Offsets::new(7);
        for offset in 8..1_000_008 {
            assert!(offsets.finish(offset));
        }
        assert_eq!(
            (offsets.watermark(), offsets.finished_above()),
            (7, 1_000_000)
        );
        assert!(offsets.words.len() as u64 <= 1_000_008 / WORD + 1);
        assert!(offsets.finish(7));
        assert_eq!(
            (offsets.watermark(), offsets.finished_above()),
            (1_000_008, 0)
        );
        assert!(offsets.words.len() <= 1);
    }

    #[test]
    fn a_far_jump_over_filtered_messages_costs_nothing() {
        let mut offsets = Offsets::new(0);
        offsets.finish_range(0, 1 << 40);
        assert_eq!(offsets.watermark(), 1 << 40);
        assert!(offsets.words.is_empty());
    }
}
