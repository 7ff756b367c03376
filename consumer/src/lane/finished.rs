//! Which offsets of a queue are finished.
//!
//! Invariants: everything below the watermark is finished, the watermark itself is not, and it never
//! moves back. Costs at most one bit per offset between the watermark and the highest finished offset,
//! nothing where a long run is finished, and nothing at all while offsets finish in their order.
//! Finishing costs O(1) amortised.

use std::collections::VecDeque;
use std::ops::Range;

const WORD: u64 = u64::BITS as u64;
const WORDS: usize = 256;
/// Offsets of one chunk.
const CHUNK: u64 = WORD * WORDS as u64;

/// Finished offsets of one stretch of [`CHUNK`] offsets.
#[derive(Clone, Debug, Default)]
struct Chunk {
    ones: u64,
    /// None while all are unfinished or all are finished.
    bits: Option<Box<[u64; WORDS]>>,
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.ones == CHUNK
    }

    /// Sets the bits of the range; returns how many were not set before.
    fn set(&mut self, range: Range<u64>) -> u64 {
        if self.is_full() {
            return 0;
        }
        let before = self.ones;
        if range.end - range.start == CHUNK {
            self.ones = CHUNK;
        } else {
            let bits = self.bits.get_or_insert_with(|| Box::new([0; WORDS]));
            let mut at = range.start;
            while at < range.end {
                let bit = at % WORD;
                let length = (WORD - bit).min(range.end - at);
                let mask = u64::MAX >> (WORD - length) << bit;
                let word = &mut bits[(at / WORD) as usize];
                self.ones += u64::from((mask & !*word).count_ones());
                *word |= mask;
                at += length;
            }
        }
        if self.is_full() {
            self.bits = None;
        }
        self.ones - before
    }

    fn is_set(&self, at: u64) -> bool {
        match &self.bits {
            Some(bits) => bits[(at / WORD) as usize] >> (at % WORD) & 1 == 1,
            None => self.is_full(),
        }
    }

    /// The first place from `at` on whose bit is `wanted`.
    fn find(&self, at: u64, wanted: bool) -> Option<u64> {
        let Some(bits) = &self.bits else {
            return (self.is_full() == wanted).then_some(at);
        };
        let (first, bit) = ((at / WORD) as usize, at % WORD);
        let flip = if wanted { 0 } else { u64::MAX };
        (first..WORDS).find_map(|index| {
            let above = if index == first {
                u64::MAX << bit
            } else {
                u64::MAX
            };
            let word = (bits[index] ^ flip) & above;
            (word != 0).then(|| index as u64 * WORD + u64::from(word.trailing_zeros()))
        })
    }
}

/// The finished offsets of one queue. By default nothing is.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    watermark: u64,
    /// First offset of the first chunk. All offsets from here to the watermark are set.
    base: u64,
    chunks: VecDeque<Chunk>,
    /// Bits set in all chunks.
    ones: u64,
}

impl Finished {
    /// Everything below `start` is finished, nothing else.
    pub fn new(start: u64) -> Self {
        Self {
            watermark: start,
            base: start,
            ..Self::default()
        }
    }

    /// First unfinished offset.
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// Number of finished offsets above the watermark.
    pub fn finished_above(&self) -> u64 {
        self.ones - (self.watermark - self.base).min(self.ones)
    }

    /// Whether this offset is finished.
    pub fn contains(&self, offset: u64) -> bool {
        let chunk = |at: u64| self.chunks.get((at / CHUNK) as usize);
        offset < self.watermark
            || chunk(offset - self.base)
                .is_some_and(|chunk| chunk.is_set((offset - self.base) % CHUNK))
    }

    /// Marks one offset as finished. Returns false if it already was.
    pub fn finish(&mut self, offset: u64) -> bool {
        if offset == self.watermark && self.chunks.is_empty() {
            self.watermark += 1;
            self.base = self.watermark;
            return true;
        }
        if offset < self.watermark {
            return false;
        }
        let new = self.set(offset, offset + 1) > 0;
        if offset == self.watermark {
            self.advance();
        }
        new
    }

    /// Marks `[from, to)` as finished, whatever of it already was.
    pub fn finish_range(&mut self, from: u64, to: u64) {
        let from = from.max(self.watermark);
        if from >= to {
            return;
        }
        let end = self.base + self.chunks.len() as u64 * CHUNK;
        if from == self.watermark && to >= end {
            // Nothing is known above: a jump, however far, or the next offset in order.
            self.chunks.clear();
            (self.watermark, self.base, self.ones) = (to, to, 0);
        } else {
            self.set(from, to);
            if from == self.watermark {
                self.advance();
            }
        }
    }

    /// Adds what another set has finished.
    pub fn union(&mut self, other: &Self) {
        self.finish_range(0, other.watermark);
        for range in other.ranges() {
            self.finish_range(range.start, range.end);
        }
    }

    /// The finished offsets above the watermark as ascending ranges, none touching the next.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut at = self.watermark;
        std::iter::from_fn(move || {
            let start = self.find(at, true)?;
            let end = self.find(start, false).unwrap_or_else(|| self.end());
            at = end;
            Some(start..end)
        })
    }

    fn end(&self) -> u64 {
        self.base + self.chunks.len() as u64 * CHUNK
    }

    /// The first offset from `from` on, within the chunks, that is finished or not, as `wanted`.
    fn find(&self, from: u64, wanted: bool) -> Option<u64> {
        let distance = from - self.base;
        let first = (distance / CHUNK) as usize;
        self.chunks
            .iter()
            .enumerate()
            .skip(first)
            .find_map(|(index, chunk)| {
                let at = if index == first { distance % CHUNK } else { 0 };
                let place = chunk.find(at, wanted)?;
                Some(self.base + index as u64 * CHUNK + place)
            })
    }

    fn set(&mut self, from: u64, to: u64) -> u64 {
        if self.chunks.is_empty() {
            self.base = self.watermark;
        }
        let (mut at, to) = (from - self.base, to - self.base);
        let chunks = to.div_ceil(CHUNK) as usize;
        if self.chunks.len() < chunks {
            self.chunks.resize_with(chunks, Chunk::default);
        }
        let before = self.ones;
        while at < to {
            let (chunk, start) = ((at / CHUNK) as usize, at % CHUNK);
            let end = CHUNK.min(start + to - at);
            self.ones += self.chunks[chunk].set(start..end);
            at += end - start;
        }
        self.ones - before
    }

    /// Moves the watermark over a run of finished offsets and frees the chunks below it.
    fn advance(&mut self) {
        self.watermark = self
            .find(self.watermark, false)
            .unwrap_or_else(|| self.end());
        while self.watermark - self.base >= CHUNK {
            self.chunks.pop_front();
            self.base += CHUNK;
            self.ones -= CHUNK;
        }
        if self.chunks.is_empty() {
            self.base = self.watermark;
            self.chunks.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests;
