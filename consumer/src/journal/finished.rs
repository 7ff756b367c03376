//! A set of finished offsets.

use roaring::{RoaringBitmap, RoaringTreemap};

const WORD: u64 = u64::BITS as u64;

/// Everything below the watermark, and a compressed set (Chambi, Lemire, Kaser and Godin: Better bitmap
/// performance with Roaring bitmaps, 2016) of what is above it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finished {
    watermark: u64,
    above: RoaringTreemap,
}

impl Finished {
    /// Everything below `watermark`.
    pub fn below(watermark: u64) -> Self {
        Self {
            watermark,
            above: RoaringTreemap::new(),
        }
    }

    /// Everything below `watermark`, and offset `base + 64 * w + b` for every bit `b` of word `w`.
    /// `base` is a multiple of 64.
    pub fn from_words(watermark: u64, base: u64, words: &[u64]) -> Self {
        let mut set = Self::below(watermark);
        // The compressed set has one bitmap for each value of an offset's upper half.
        let per_half = (1u64 << 32) / WORD;
        let mut from = base / WORD;
        let mut rest = words;
        while !rest.is_empty() {
            let here = (per_half - from % per_half).min(rest.len() as u64) as usize;
            let bytes: Vec<u8> = rest[..here]
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect();
            let low = (from % per_half * WORD) as u32;
            let bitmap = RoaringBitmap::from_lsb0_bytes(low, &bytes);
            let half = RoaringTreemap::from_bitmaps([((from / per_half) as u32, bitmap)]);
            set.above |= half;
            from += here as u64;
            rest = &rest[here..];
        }
        set.normalize();
        set
    }

    pub(super) fn from_parts(watermark: u64, above: RoaringTreemap) -> Self {
        let mut set = Self { watermark, above };
        set.normalize();
        set
    }

    pub(super) fn above(&self) -> &RoaringTreemap {
        &self.above
    }

    /// First offset that is not finished, as far as this set knows.
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// Whether an offset is finished.
    pub fn contains(&self, offset: u64) -> bool {
        offset < self.watermark || self.above.contains(offset)
    }

    /// How many offsets above the watermark are finished.
    pub fn len_above(&self) -> u64 {
        self.above.len()
    }

    /// The highest finished offset.
    pub fn highest(&self) -> Option<u64> {
        self.above.max().or_else(|| self.watermark.checked_sub(1))
    }

    /// What is above the watermark, as words of bits: the base of the first, a multiple of 64, and the words.
    pub fn words(&self) -> (u64, Vec<u64>) {
        let Some(highest) = self.above.max() else {
            return (self.watermark / WORD * WORD, Vec::new());
        };
        let first = self.above.min().unwrap_or(highest) / WORD;
        let mut words = vec![0; (highest / WORD - first + 1) as usize];
        for offset in &self.above {
            words[(offset / WORD - first) as usize] |= 1 << (offset % WORD);
        }
        (first * WORD, words)
    }

    /// Adds what another set knows.
    pub fn add(&mut self, other: &Self) {
        self.watermark = self.watermark.max(other.watermark);
        self.above |= &other.above;
        self.normalize();
    }

    /// Forgets the highest offsets until the set takes at most `bytes`. What is forgotten may run again.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        while self.above.serialized_size() > bytes {
            let keep = self.above.len() / 2;
            match self.above.select(keep) {
                Some(offset) => drop(self.above.remove_range(offset..)),
                None => break,
            }
        }
    }

    /// Lets the watermark pass what is finished right above it.
    fn normalize(&mut self) {
        self.above.remove_range(..self.watermark);
        // Stretches, not single offsets: the watermark may have to pass millions.
        while self.above.min() == Some(self.watermark) {
            let mut step = 1u64;
            while self.watermark.checked_add(step * 2).is_some_and(|end| {
                self.above.range_cardinality(self.watermark..end) == step * 2
            }) {
                step *= 2;
            }
            self.above.remove_range(self.watermark..self.watermark + step);
            self.watermark += step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set() -> impl Strategy<Value = (u64, BTreeSet<u64>)> {
        // Around the border of the upper half, where the set is made of two.
        let near = (1u64 << 32) - 200;
        (near..near + 300, prop::collection::btree_set(near..near + 600, 0..300))
    }

    fn made((watermark, above): &(u64, BTreeSet<u64>)) -> Finished {
        let base = *above.first().unwrap_or(&0) / WORD * WORD;
        let mut words = vec![0; 12];
        for offset in above {
            let at = offset - base;
            words[(at / WORD) as usize] |= 1 << (at % WORD);
        }
        Finished::from_words(*watermark, base, &words)
    }

    proptest! {
        #[test]
        fn a_union_has_what_either_has(left in set(), right in set()) {
            let mut union = made(&left);
            union.add(&made(&right));
            let near = (1u64 << 32) - 300;
            for offset in near..near + 1200 {
                let plain = offset < left.0.max(right.0) || left.1.contains(&offset) || right.1.contains(&offset);
                prop_assert_eq!(union.contains(offset), plain, "offset {}", offset);
            }
            prop_assert!(!union.contains(union.watermark()));
            let (base, words) = union.words();
            prop_assert_eq!(Finished::from_words(union.watermark(), base, &words), union);
        }
    }

    #[test]
    fn a_set_that_is_too_large_keeps_its_lowest_offsets() {
        let words = vec![0x5555_5555_5555_5555; 20_000];
        let mut set = Finished::from_words(1, 64, &words);
        set.shrink_to(100_000);
        assert!(set.above().serialized_size() <= 100_000 && set.len_above() > 100_000);
        assert!(set.contains(64) && !set.contains(64 * 20_000));
    }

    #[test]
    fn the_watermark_passes_what_is_finished_above_it() {
        let set = Finished::from_words(60, 0, &[0xf000_0000_0000_0000, u64::MAX, 0b101]);
        assert_eq!((set.watermark(), set.len_above(), set.highest()), (129, 1, Some(130)));
    }
}
