//! A set of finished offsets.

use roaring::RoaringTreemap;
use std::ops::Range;

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

    /// Everything below `watermark`, and these ranges.
    pub fn new(watermark: u64, ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut set = Self::below(watermark);
        for range in ranges {
            set.above.insert_range(range);
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

    /// What is above the watermark, as ascending ranges.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut offsets = self.above.iter().peekable();
        std::iter::from_fn(move || {
            let start = offsets.next()?;
            let mut end = start + 1;
            while offsets.next_if_eq(&end).is_some() {
                end += 1;
            }
            Some(start..end)
        })
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
            while self
                .watermark
                .checked_add(step * 2)
                .is_some_and(|end| self.above.range_cardinality(self.watermark..end) == step * 2)
            {
                step *= 2;
            }
            self.above
                .remove_range(self.watermark..self.watermark + step);
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
        (
            near..near + 300,
            prop::collection::btree_set(near..near + 600, 0..300),
        )
    }

    fn made((watermark, above): &(u64, BTreeSet<u64>)) -> Finished {
        Finished::new(*watermark, above.iter().map(|offset| *offset..offset + 1))
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
            prop_assert_eq!(Finished::new(union.watermark(), union.ranges()), union);
        }
    }

    #[test]
    fn a_set_that_is_too_large_keeps_its_lowest_offsets() {
        let mut set = Finished::new(
            1,
            (64..64 * 20_000)
                .step_by(2)
                .map(|offset| offset..offset + 1),
        );
        set.shrink_to(100_000);
        assert!(set.above().serialized_size() <= 100_000 && set.len_above() > 100_000);
        assert!(set.contains(64) && !set.contains(64 * 20_000));
    }

    #[test]
    fn the_watermark_passes_what_is_finished_above_it() {
        let set = Finished::new(60, [60..129, 130..131]);
        assert_eq!(
            (set.watermark(), set.len_above(), set.highest()),
            (129, 1, Some(130))
        );
    }
}
