//! The operator of the last release, built from its source for tests that run it beside the one of this tree.
//!
//! An image of it is not to be had on every machine, nor is the history of this tree, so its source lies here: what
//! its program is made of, as it was in commit 4697831, from which the charts beside it are, too.

use super::workspace::{PROGRAMS, cargo, target, workspace};
use crate::cluster::error::{ClusterError, Result};
use crate::cluster::paths::Paths;
use crate::cluster::progress::step;
use crate::cluster::run;
use std::path::{Path, PathBuf};

/// Its version.
pub const VERSION: &str = "0.1.0";

/// Path of its program, which is built where no one has yet.
pub fn operator(paths: &Paths) -> Result<PathBuf> {
    let archive = workspace().join(format!("tests/operator/released/source-{VERSION}.tgz"));
    let bytes = std::fs::read(&archive).map_err(ClusterError::io("read", &archive))?;
    let place = paths.cache().join(format!(
        "released-{VERSION}-{:08x}",
        crc32fast::hash(&bytes)
    ));
    let program = place.join("keylane-operator");
    if !program.is_file() {
        let log = paths.build_logs().join("cargo-released.log");
        step(
            &format!(
                "Building the operator {VERSION}, half a minute (log: {})",
                log.display()
            ),
            || build(&archive, &place, &program, &log),
        )?;
    }
    Ok(program)
}

fn build(archive: &Path, place: &Path, program: &Path, log: &Path) -> Result<()> {
    let source = place.join("source");
    // What a run that broke off has left.
    if place.exists() {
        std::fs::remove_dir_all(place).map_err(ClusterError::io("remove", place))?;
    }
    std::fs::create_dir_all(&source).map_err(ClusterError::io("make", &source))?;
    let mut unpack = run::command("tar");
    unpack.arg("--extract").arg("--gzip");
    unpack
        .arg("--file")
        .arg(archive)
        .arg("--directory")
        .arg(&source);
    run::output("unpacking the released source", &mut unpack)?;
    rename_version(&source)?;

    // Between this tree and that one little else differs than their own packages: what they need is built once.
    let target = target();
    let mut build = cargo();
    build
        .current_dir(&source)
        .env("CARGO_TARGET_DIR", source.join("target"))
        .env("CARGO_BUILD_BUILD_DIR", &target)
        .args(["build", "--release", "--locked", "--bin=keylane-operator"]);
    for (package, _) in PROGRAMS {
        build.args(["--package", package]);
    }
    // What it does is tried, not how fast: half a minute in place of four.
    for package in ["keylane-consumer", "keylane-operator"] {
        for setting in ["opt-level=0", "debug=false"] {
            build.arg(format!(
                "--config=profile.release.package.{package}.{setting}"
            ));
        }
    }
    run::logged("building the released operator", &mut build, log)?;
    let built = source.join("target/release/keylane-operator");
    // At once: a program that is there is a whole one.
    std::fs::rename(&built, program).map_err(ClusterError::io("rename", &built))?;
    std::fs::remove_dir_all(&source).map_err(ClusterError::io("remove", &source))
}

/// Gives its packages a version that none of this tree has: cargo would take theirs for an older build of ours, and
/// build both again each time.
fn rename_version(source: &Path) -> Result<()> {
    let version = format!("version = \"{VERSION}\"");
    let renamed = format!("version = \"{VERSION}-released\"");
    for (file, ours) in [
        ("Cargo.toml", "[workspace.package]"),
        ("Cargo.lock", "name = \"keylane-"),
    ] {
        let path = source.join(file);
        let text = std::fs::read_to_string(&path).map_err(ClusterError::io("read", &path))?;
        let parts = text.split("\n\n").map(|part| {
            if part.contains(ours) {
                part.replacen(&version, &renamed, 1)
            } else {
                part.to_owned()
            }
        });
        let text = parts.collect::<Vec<_>>().join("\n\n");
        std::fs::write(&path, text).map_err(ClusterError::io("write", &path))?;
    }
    Ok(())
}
