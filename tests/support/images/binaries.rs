//! The programs that other tests start, built first and alone: a release build beside tests that measure how
//! long something takes makes them fail where there are few processors.

use keylane_tests::cluster::Paths;
use keylane_tests::images::workspace::{PROGRAMS, release_binaries};
use std::process::Command;

#[test]
fn the_programs_of_a_release_are_built_and_say_which_they_are() {
    let binaries = release_binaries(&Paths::from_env(), &PROGRAMS).unwrap();
    assert_eq!(binaries.len(), PROGRAMS.len());
    for ((package, name), binary) in PROGRAMS.iter().zip(&binaries) {
        assert!(binary.is_file(), "{}", binary.display());
        if *package == *name {
            let told = Command::new(binary).arg("--version").output().unwrap();
            let told = String::from_utf8(told.stdout).unwrap();
            let version = env!("CARGO_PKG_VERSION");
            assert_eq!(told.trim(), format!("{name} {version}"));
        }
    }
}
