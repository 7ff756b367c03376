//! What a command of this repository was given.

use std::ffi::OsString;

/// The program's name and arguments. `cargo demo --down` and `cargo demo -- --down` mean the same: the
/// alias ends with `--` so that options are not taken for cargo's own, and people add one of habit.
pub fn arguments() -> Vec<OsString> {
    without_separator(std::env::args_os().collect())
}

fn without_separator(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_some_and(|first| first == "--") {
        arguments.remove(1);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_with_and_without_a_separator() {
        let read =
            |arguments: &[&str]| without_separator(arguments.iter().map(OsString::from).collect());
        assert_eq!(read(&["demo", "--", "--down"]), ["demo", "--down"]);
        assert_eq!(read(&["demo", "--down"]), ["demo", "--down"]);
        assert_eq!(read(&["chaos", "--peer", "--"]), ["chaos", "--peer", "--"]);
        assert_eq!(read(&["demo"]), ["demo"]);
    }
}
