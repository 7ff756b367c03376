//! Jars of Java programs, fetched once for all checkouts of this machine, and programs of ours over them.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::cluster::packages::{self, Need};
use crate::cluster::progress::step;
use crate::cluster::{ClusterError, Paths, run};

type Result<T> = std::result::Result<T, ClusterError>;

/// What runs them; `setpriv` ties their life to ours.
const RUN: [Need; 2] = [
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

/// A program and all it needs.
#[derive(Debug)]
pub struct Jars {
    /// The program's name, as it is told and as that of its directory.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What it consists of, as Maven takes it.
    pub pom: &'static str,
    /// Jars without which it is not whole.
    pub parts: &'static [&'static str],
}

impl Jars {
    /// The directory of the jars. The first call of a machine fetches them with Maven; callers in other
    /// processes wait for it.
    pub fn dir(&self) -> Result<PathBuf> {
        let paths = Paths::from_env();
        packages::ensure(&paths, &RUN)?;
        let name = self.name.to_lowercase();
        let dir = paths.cache().join(format!("{name}-{}", self.version));
        let lib = dir.join("lib");
        if self.is_complete(&dir) {
            return Ok(lib);
        }
        std::fs::create_dir_all(&dir).map_err(ClusterError::io("create", &dir))?;
        let lock = dir.join("lock");
        let turn = File::create(&lock).map_err(ClusterError::io("create", &lock))?;
        turn.lock().map_err(ClusterError::io("lock", &lock))?;
        if !self.is_complete(&dir) {
            let log = paths.build_logs().join(format!("{name}-jars.log"));
            packages::ensure(&paths, &FETCH)?;
            self.fetch(&dir, &log)?;
        }
        Ok(lib)
    }

    fn fetch(&self, dir: &Path, log: &Path) -> Result<()> {
        let pom = dir.join("pom.xml");
        std::fs::write(&pom, self.pom).map_err(ClusterError::io("write", &pom))?;
        let (name, version) = (self.name, self.version);
        let what = format!(
            "Fetching {name} {version} with Maven (log: {})",
            log.display()
        );
        step(&what, || {
            run::logged(
                "mvn dependency:copy-dependencies",
                run::command("mvn")
                    .current_dir(dir)
                    .args(["-q", "-B", "dependency:copy-dependencies"])
                    .arg(format!("-DoutputDirectory={}", dir.join("lib").display())),
                log,
            )
        })?;
        // Written last: a fetch that was cut short is done again.
        let done = done_file(dir);
        std::fs::write(&done, self.pom).map_err(ClusterError::io("write", &done))
    }

    /// Whether the jars of a directory are those of this POM.
    fn is_complete(&self, dir: &Path) -> bool {
        let lib = dir.join("lib");
        std::fs::read_to_string(done_file(dir)).is_ok_and(|text| text == self.pom)
            && self.parts.iter().all(|part| lib.join(part).exists())
    }
}

fn done_file(dir: &Path) -> PathBuf {
    dir.join("complete-for-pom.xml")
}

/// Compiles programs over these jars into a directory; needs a JDK.
pub fn compile(lib: &Path, sources: &[&str], into: &Path) -> Result<()> {
    run::output(
        "javac, that of a JDK of version 11 or newer such as openjdk-17-jdk-headless,",
        run::command("javac")
            .arg("-cp")
            .arg(lib.join("*"))
            .arg("-d")
            .arg(into)
            .args(sources),
    )?;
    Ok(())
}
