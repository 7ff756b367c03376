//! Whether a program has the names of its functions.
//!
//! Source: the ELF format for 64 bit, `elf(5)`: the header says where the table of sections is, how large an entry
//! of it is and how many there are; one of the kind `SHT_SYMTAB` holds the names.

const ELF_64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
/// Where the header has the table's place (8 bytes), the size of an entry and their number (2 bytes each).
const TABLE: usize = 0x28;
const ENTRY: usize = 0x3a;
const ENTRIES: usize = 0x3c;
/// Where an entry has its kind (4 bytes).
const KIND: usize = 4;
const SHT_SYMTAB: usize = 2;

/// Whether the names were left out. What is no such file is not said to have none: perf reads more than this does.
pub fn are_stripped(program: &[u8]) -> bool {
    let find = || {
        let table = number(program, TABLE, 8)?;
        let (entry, entries) = (number(program, ENTRY, 2)?, number(program, ENTRIES, 2)?);
        let mut kinds = (0..entries).map(|index| {
            let at = table.checked_add(index * entry)?.checked_add(KIND)?;
            number(program, at, 4)
        });
        Some(kinds.any(|kind| kind == Some(SHT_SYMTAB)))
    };
    program.starts_with(ELF_64_LITTLE_ENDIAN) && find() == Some(false)
}

/// A number of so many bytes, the least significant first.
fn number(program: &[u8], at: usize, bytes: usize) -> Option<usize> {
    let read = program.get(at..at.checked_add(bytes)?)?;
    read.iter().rev().try_fold(0_usize, |number, byte| {
        number.checked_mul(256)?.checked_add(usize::from(*byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with a table of sections of these kinds behind it.
    fn program(kinds: &[u8]) -> Vec<u8> {
        let mut program = vec![0; 0x40];
        program[..ELF_64_LITTLE_ENDIAN.len()].copy_from_slice(ELF_64_LITTLE_ENDIAN);
        program[TABLE] = 0x40;
        program[ENTRY] = 0x40;
        program[ENTRIES] = kinds.len() as u8;
        for kind in kinds {
            let mut entry = [0; 0x40];
            entry[KIND] = *kind;
            program.extend(entry);
        }
        program
    }

    #[test]
    fn a_program_without_a_table_of_symbols_is_stripped() {
        assert!(are_stripped(&program(&[0, 1, 3, 11])));
        assert!(!are_stripped(&program(&[0, 1, 2, 3])));
    }

    #[test]
    fn what_is_no_program_or_broken_off_is_left_to_perf() {
        assert!(!are_stripped(b"#!/bin/sh\n"));
        assert!(!are_stripped(b""));
        assert!(!are_stripped(&program(&[0, 1])[..0x30]));
    }

    /// Tests are built with the names of their functions, unless as what is released.
    #[cfg(debug_assertions)]
    #[test]
    fn this_test_has_its_names() {
        let program = std::env::current_exe().and_then(std::fs::read);
        assert!(!are_stripped(&program.unwrap()));
    }
}
