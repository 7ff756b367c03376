//! What is remembered of a queue of dead letters: which were sent again.
//!
//! It is written as a note to a topic beside them, whole each time. A note is in the same commit log as the
//! letters it tells of and behind them, so it never expires before them, and a broker that lost the end of its
//! log lost the note before what was sent. Offsets of a topic that was made anew mean other letters: the note
//! has a witness.

use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;

/// A letter as it was, known by when and where the broker stored it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Witness {
    /// Offset of the letter.
    pub offset: u64,
    /// When it was stored, milliseconds since the Unix epoch.
    pub stored_at_ms: i64,
    /// Where it is in the broker's commit log.
    pub physical_offset: u64,
}

/// Which letters of a queue were sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// First and last offset of what lies together, in order.
    ranges: Vec<(u64, u64)>,
    witness: Option<Witness>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    version: u32,
    #[serde(default)]
    replayed: Vec<(u64, u64)>,
    #[serde(default)]
    witness: Option<Witness>,
}

impl Memory {
    /// Reads a note; an error says why it cannot be.
    pub fn decode(note: &[u8]) -> Result<Self, String> {
        let note: Note = serde_json::from_slice(note).map_err(|error| error.to_string())?;
        if note.version != VERSION {
            return Err(format!(
                "it has version {}, and this operator knows {VERSION}",
                note.version
            ));
        }
        let in_order = note.replayed.iter().all(|(first, last)| first <= last)
            && note.replayed.windows(2).all(|two| two[0].1 < two[1].0);
        if !in_order {
            return Err("its offsets are not in order".to_owned());
        }
        Ok(Self {
            ranges: note.replayed,
            witness: note.witness,
        })
    }

    /// The note.
    pub fn encode(&self) -> Vec<u8> {
        let note = Note {
            version: VERSION,
            replayed: self.ranges.clone(),
            witness: self.witness,
        };
        serde_json::to_vec(&note).unwrap_or_default()
    }

    /// The last letter that was sent again.
    pub fn witness(&self) -> Option<Witness> {
        self.witness
    }

    /// Whether the letter at an offset was sent again.
    pub fn has(&self, offset: u64) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= offset);
        after > 0 && self.ranges[after - 1].1 >= offset
    }

    /// First offset from this one on that was not sent again.
    pub fn first_open(&self, from: u64) -> u64 {
        let after = self.ranges.partition_point(|(first, _)| *first <= from);
        match after.checked_sub(1).map(|at| self.ranges[at].1) {
            Some(last) if last >= from => last + 1,
            _ => from,
        }
    }

    /// A letter was sent again.
    pub fn add(&mut self, letter: Witness) {
        self.witness = Some(letter);
        let offset = letter.offset;
        if self.has(offset) {
            return;
        }
        let at = self.ranges.partition_point(|(first, _)| *first <= offset);
        let joins_before = at > 0 && self.ranges[at - 1].1 + 1 == offset;
        let joins_after = self
            .ranges
            .get(at)
            .is_some_and(|(first, _)| *first == offset + 1);
        match (joins_before, joins_after) {
            (true, true) => self.ranges[at - 1].1 = self.ranges.remove(at).1,
            (true, false) => self.ranges[at - 1].1 = offset,
            (false, true) => self.ranges[at].0 = offset,
            (false, false) => self.ranges.insert(at, (offset, offset)),
        }
    }

    /// What the broker does not keep any more is of no interest.
    pub fn forget_below(&mut self, min: u64) {
        self.ranges.retain(|(_, last)| *last >= min);
    }

    /// How many pieces it consists of, which is what a note costs.
    pub fn pieces(&self) -> usize {
        self.ranges.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn witness(offset: u64) -> Witness {
        Witness {
            offset,
            stored_at_ms: offset as i64,
            physical_offset: offset * 100,
        }
    }

    proptest! {
        #[test]
        fn it_remembers_exactly_what_it_was_told(offsets in prop::collection::vec(0_u64..60, 0..60), min in 0_u64..60) {
            let (mut memory, mut model) = (Memory::default(), BTreeSet::new());
            for offset in offsets {
                memory.add(witness(offset));
                model.insert(offset);
                let again = Memory::decode(&memory.encode()).unwrap();
                prop_assert_eq!(&again, &memory);
            }
            for offset in 0..62 {
                prop_assert_eq!(memory.has(offset), model.contains(&offset));
                let open = (offset..).find(|open| !model.contains(open)).unwrap();
                prop_assert_eq!(memory.first_open(offset), open);
            }
            let pieces = model.iter().filter(|&&at| at == 0 || !model.contains(&(at - 1))).count();
            prop_assert_eq!(memory.pieces(), pieces);
            memory.forget_below(min);
            for offset in min..62 {
                prop_assert_eq!(memory.has(offset), model.contains(&offset));
            }
        }
    }

    #[test]
    fn a_note_that_cannot_be_understood_is_no_empty_one() {
        for (note, says) in [
            ("", "EOF"),
            (r#"{"version": 2}"#, "version 2"),
            (r#"{"version": 1, "replayed": [[3, 2]]}"#, "not in order"),
            (
                r#"{"version": 1, "replayed": [[3, 4], [4, 5]]}"#,
                "not in order",
            ),
        ] {
            let error = Memory::decode(note.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{note}: {error}");
        }
    }
}
