//! Damages samples: a few small changes each, decided by a seed and the number of the input.

/// Numbers at which readers go wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];
/// Bytes that mean something in some format.
const MEANING: &[u8] = b"\0\x01\x02{}[]\"\\:,-&*!|>%#'(\n\t ~\x7f\x80\xff";
const LONGEST: usize = 64 * 1024;

/// Random numbers: SplitMix64 (Steele, Lea and Flood, “Fast splittable pseudorandom number generators”, 2014).
pub struct Damage(u64);

impl Damage {
    /// That of one input.
    pub fn new(seed: u64, number: u64) -> Self {
        let mut numbers = Self(seed);
        let seed = numbers.next();
        Self(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`; 0 if that is 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }

    fn one<'s, T>(&mut self, of: &'s [T]) -> Option<&'s T> {
        let at = self.below(of.len());
        of.get(at)
    }

    /// A damaged sample. One in two with a `checksum` (CRC-32, little endian, at its end) gets it right again.
    pub fn of(&mut self, samples: &[Vec<u8>], checksum: bool) -> Vec<u8> {
        let mut bytes = self.one(samples).cloned().unwrap_or_default();
        for _ in 0..=self.below(6) {
            self.change(&mut bytes, samples);
        }
        bytes.truncate(LONGEST);
        if checksum && bytes.len() > 4 && self.below(2) == 0 {
            let body = bytes.len() - 4;
            let sum = crc32fast::hash(&bytes[..body]);
            bytes[body..].copy_from_slice(&sum.to_le_bytes());
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, samples: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        let length = 1 + self.below(16);
        let end = (at + length).min(bytes.len());
        match self.below(8) {
            0 => {
                let bit = self.below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            1 => {
                let byte = self.next() as u8;
                if let Some(old) = bytes.get_mut(at) {
                    *old = byte;
                }
            }
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            4 => bytes.truncate(at),
            5 => {
                let edge = self.one(&EDGES).copied().unwrap_or_default();
                let width = [1, 2, 4, 8][self.below(4)];
                let number = match self.below(2) {
                    0 => edge.to_be_bytes()[8 - width..].to_vec(),
                    _ => edge.to_le_bytes()[..width].to_vec(),
                };
                let end = (at + width).min(bytes.len());
                bytes.splice(at..end, number);
            }
            6 => {
                let byte = self.one(MEANING).copied().unwrap_or_default();
                let times = if self.below(64) == 0 { 512 } else { 1 };
                bytes.splice(at..at, std::iter::repeat_n(byte, times));
            }
            _ => {
                let other = self.one(samples).cloned().unwrap_or_default();
                let from = self.below(other.len());
                let to = (from + 4 * length).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
}
