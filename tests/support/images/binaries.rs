//! The programs that other tests start, built first and alone: a release build beside tests that measure how
//! long something takes makes them fail where there are few processors.

use keylane_tests::cluster::Paths;
use keylane_tests::images::released;
use keylane_tests::images::workspace::{PROGRAMS, release_binaries};
use std::path::Path;
use std::process::Command;

#[test]
fn the_programs_of_a_release_are_built_and_say_which_they_are() {
    let binaries = release_binaries(&Paths::from_env(), &PROGRAMS).unwrap();
    assert_eq!(binaries.len(), PROGRAMS.len());
    for ((package, name), binary) in PROGRAMS.iter().zip(&binaries) {
        assert!(binary.is_file(), "{}", binary.display());
        if *package == *name {
            assert_eq!(
                version(binary),
                format!("{name} {}", env!("CARGO_PKG_VERSION"))
            );
        }
    }
    // It shares what it needs with those: after them little is left to build.
    let before = released::operator(&Paths::from_env()).unwrap();
    let told = format!("keylane-operator {}-released", released::VERSION);
    assert_eq!(version(&before), told);
}

fn version(program: &Path) -> String {
    let told = Command::new(program).arg("--version").output().unwrap();
    String::from_utf8(told.stdout).unwrap().trim().to_owned()
}
