//! RocketMQ's jars, fetched once for all checkouts of this machine.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::error::{Result, RocketMqError};
use crate::cluster::Paths;
use crate::cluster::packages::{self, Need};
use crate::cluster::progress::step;
use crate::cluster::run;

/// The version everything here was tried with.
pub const VERSION: &str = "5.3.3";

const POM: &str = include_str!("pom.xml");

/// What runs the servers; `setpriv` ties their life to ours.
pub(super) const RUN: [Need; 2] = [
    Need {
        program: "java",
        package: "openjdk-17-jdk-headless",
    },
    Need {
        program: "setpriv",
        package: "util-linux",
    },
];
const FETCH: [Need; 1] = [Need {
    program: "mvn",
    package: "maven",
}];

/// The directory of RocketMQ's jars (name server, broker, tools, client and what they need). The
/// first call of a machine fetches them with Maven; callers in other processes wait for it.
pub fn jars() -> Result<PathBuf> {
    let paths = Paths::from_env();
    packages::ensure(&paths, &RUN)?;
    let dir = paths.cache().join(format!("rocketmq-{VERSION}"));
    let lib = dir.join("lib");
    if is_complete(&dir, &lib) {
        return Ok(lib);
    }
    std::fs::create_dir_all(&dir).map_err(RocketMqError::io("create", &dir))?;
    let lock = dir.join("lock");
    let turn = File::create(&lock).map_err(RocketMqError::io("create", &lock))?;
    turn.lock().map_err(RocketMqError::io("lock", &lock))?;
    if !is_complete(&dir, &lib) {
        fetch(&paths, &dir, &lib)?;
    }
    Ok(lib)
}

fn fetch(paths: &Paths, dir: &Path, lib: &Path) -> Result<()> {
    packages::ensure(paths, &FETCH)?;
    let pom = dir.join("pom.xml");
    std::fs::write(&pom, POM).map_err(RocketMqError::io("write", &pom))?;
    let log = paths.build_logs().join("rocketmq-jars.log");
    let what = format!(
        "Fetching RocketMQ {VERSION} with Maven (log: {})",
        log.display()
    );
    step(&what, || {
        run::logged(
            "mvn dependency:copy-dependencies",
            run::command("mvn")
                .current_dir(dir)
                .args(["-q", "-B", "dependency:copy-dependencies"])
                .arg(format!("-DoutputDirectory={}", lib.display())),
            &log,
        )
    })?;
    // Written last: a fetch that was cut short is done again.
    let done = done_file(dir);
    std::fs::write(&done, POM).map_err(RocketMqError::io("write", &done))
}

/// Whether these jars are the ones of this POM.
fn is_complete(dir: &Path, lib: &Path) -> bool {
    std::fs::read_to_string(done_file(dir)).is_ok_and(|text| text == POM)
        && ["namesrv", "broker", "tools", "client"]
            .iter()
            .all(|part| lib.join(format!("rocketmq-{part}-{VERSION}.jar")).exists())
}

fn done_file(dir: &Path) -> PathBuf {
    dir.join("complete-for-pom.xml")
}
