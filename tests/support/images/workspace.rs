//! The images of this workspace: the product's, the tests' and RocketMQ's.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::base::Base;
use super::build::{Image, Recipe, build};
use crate::cluster::error::{ClusterError, Result};
use crate::cluster::paths::Paths;
use crate::cluster::progress::step;
use crate::cluster::run;

/// The operator's image.
pub const OPERATOR: &str = "keylane-operator:dev";
/// The executor's image.
pub const CONSUMER: &str = "keylane-consumer:dev";
/// The image of the handler that tests and the demo use.
pub const SAMPLE_HANDLER: &str = "keylane-sample-handler:dev";
/// The broker's image.
pub const ROCKETMQ: &str = "keylane-rocketmq:5.3.3";
/// The image of a database and of a connection pool in front of it.
pub const POSTGRES: &str = "keylane-postgres:15";

/// An image of a shell and small network programs, for tests.
pub const TOOLBOX: &str = "keylane-toolbox:dev";

/// The workspace this was built from.
#[must_use]
pub fn workspace() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// The programs of the images: pairs of package and program.
pub const PROGRAMS: [(&str, &str); 5] = [
    ("keylane-operator", "keylane-operator"),
    ("keylane-consumer", "keylane-consumer"),
    ("keylane-tests", "sample-handler"),
    ("keylane-sample-orders", "order-handler"),
    // In no image, and in the hands of whoever looks.
    ("keylane-operator", "kubectl-keylane"),
];

/// Builds the operator, the executor and the sample handler in release mode and makes their images.
///
/// All in one build: cargo would compile what they share again for another selection of packages.
pub fn build_workspace_images(paths: &Paths) -> Result<Vec<Image>> {
    let files = [
        (OPERATOR, "operator/Containerfile"),
        (CONSUMER, "consumer/Containerfile"),
        (SAMPLE_HANDLER, "tests/demo/Containerfile"),
    ];
    let binaries = release_binaries(paths, &PROGRAMS)?;
    files
        .iter()
        .zip(&binaries)
        .map(|((name, file), binary)| build_image(paths, name, &workspace().join(file), binary))
        .collect()
}

/// Makes the image of one program: the Containerfile copies it from the context's root, by its own
/// file name, onto the base it gets as the build argument `BASE`.
pub fn build_image(
    paths: &Paths,
    name: &str,
    containerfile: &Path,
    binary: &Path,
) -> Result<Image> {
    let text =
        std::fs::read_to_string(containerfile).map_err(ClusterError::io("read", containerfile))?;
    let file = binary
        .file_name()
        .and_then(|file| file.to_str())
        .ok_or_else(|| ClusterError::Input {
            field: "the program of an image",
            value: binary.display().to_string(),
            reason: "it must be a file with a plain name".to_owned(),
        })?;
    build(
        paths,
        &Recipe {
            name,
            containerfile: &text,
            base: Some(Base::Runtime),
            files: &[(file, binary)],
        },
    )
}

/// Makes the RocketMQ image from a directory of its jars. Its entry point is `java` with the jars
/// on the class path, so a container's arguments start with JVM options and the class to run.
pub fn rocketmq(paths: &Paths, jars: &Path) -> Result<Image> {
    if !jars.is_dir() {
        return Err(ClusterError::Input {
            field: "the directory of RocketMQ's jars",
            value: jars.display().to_string(),
            reason: "it is not there; download the jars first".to_owned(),
        });
    }
    build(
        paths,
        &Recipe {
            name: ROCKETMQ,
            containerfile: include_str!("rocketmq.Containerfile"),
            base: Some(Base::Java),
            files: &[("lib", jars)],
        },
    )
}

/// Makes the image of PostgreSQL and PgBouncer, which both run as whoever runs them.
pub fn postgres(paths: &Paths) -> Result<Image> {
    build(
        paths,
        &Recipe {
            name: POSTGRES,
            containerfile: include_str!("postgres.Containerfile"),
            base: Some(Base::Postgres),
            files: &[],
        },
    )
}

/// Makes the image of a shell and small network programs.
pub fn toolbox(paths: &Paths) -> Result<Image> {
    build(
        paths,
        &Recipe {
            name: TOOLBOX,
            containerfile: "ARG BASE\nFROM ${BASE}\nCMD [\"/bin/sh\"]\n",
            base: Some(Base::Toolbox),
            files: &[],
        },
    )
}

/// Where cargo puts what it builds in this workspace.
pub(super) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

/// Where programs are that were built in release mode.
#[must_use]
pub fn release_directory() -> PathBuf {
    target().join("release")
}

/// Cargo, as it is when a person calls it.
///
/// What cargo tells the program it runs about that program is taken out: build scripts of dependencies look at it,
/// and would rebuild half the tree for every other checkout.
#[must_use]
pub fn cargo() -> Command {
    let mut cargo = run::command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let told = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_CRATE_",
        "CARGO_BIN_",
    ];
    for (name, _) in std::env::vars_os() {
        let text = name.to_str();
        if text.is_some_and(|name| told.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// Builds programs of this workspace in release mode: pairs of package and program. Gives the
/// programs' paths in the same order.
pub fn release_binaries(paths: &Paths, programs: &[(&str, &str)]) -> Result<Vec<PathBuf>> {
    let names: Vec<&str> = programs.iter().map(|(_, name)| *name).collect();
    let target = target();
    let log = paths.build_logs().join("cargo-release.log");
    step(
        &format!(
            "Building {} in release mode, minutes when nothing is cached (log: {})",
            names.join(" "),
            log.display()
        ),
        || {
            let mut build = cargo();
            build
                .current_dir(workspace())
                .env("CARGO_TARGET_DIR", &target)
                .args(["build", "--release"]);
            for (package, name) in programs {
                build.args(["--package", package, "--bin", name]);
            }
            run::logged(&format!("building {}", names.join(" ")), &mut build, &log)
        },
    )?;
    Ok(names
        .iter()
        .map(|name| release_directory().join(name))
        .collect())
}
