//! What the targets of cargo-fuzz have in common: the same readers, with what must hold of whatever is taken.

#[path = "target.rs"]
#[allow(dead_code)]
mod target;

/// Reads an input by the target of that name; panics if it is not as it must be.
pub fn read(name: &str, input: &[u8]) {
    let found = target::TARGETS.iter().find(|target| target.name == name);
    let target = found.expect("a target of that name");
    if let Err(reason) = (target.read)(input) {
        panic!("{name}: {reason}");
    }
}
