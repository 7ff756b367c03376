//! The file systems images start from, made of Debian or Ubuntu packages: what distroless images
//! are, for machines that reach a package mirror but no registry.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::build::{Recipe, Store};
use crate::cluster::binaries::write;
use crate::cluster::error::{ClusterError, Result};
use crate::cluster::paths::Paths;
use crate::cluster::progress::step;
use crate::cluster::run;

/// A base image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The C library, zlib, certificates and time zones: enough for a Rust program. No shell.
    Runtime,
    /// A Java 17 runtime and busybox.
    Java,
    /// Busybox: a shell and small network programs.
    Toolbox,
    /// PostgreSQL 15, PgBouncer and busybox.
    Postgres,
    /// Python 3. No shell.
    Python,
}

/// The way bases are made: another text, another base.
fn revision() -> String {
    let mut hasher = DefaultHasher::new();
    (include_str!("base.rs"), include_str!("base.Containerfile")).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

impl Base {
    fn name(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Java => "java",
            Self::Toolbox => "toolbox",
            Self::Postgres => "postgres",
            Self::Python => "python",
        }
    }

    fn packages(self) -> &'static str {
        match self {
            // Where a build machine has zlib's headers, the RocketMQ client links to zlib.
            Self::Runtime => "libc6,libgcc-s1,zlib1g,ca-certificates,tzdata",
            Self::Java => "openjdk-17-jre-headless,busybox,ca-certificates,tzdata",
            Self::Toolbox => "busybox,ca-certificates",
            Self::Postgres => "postgresql-15,pgbouncer,busybox,ca-certificates",
            Self::Python => "python3,ca-certificates,tzdata",
        }
    }

    fn suite(self) -> String {
        match self {
            // A program built here needs the C library of here.
            Self::Runtime => host_suite(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
            Self::Java | Self::Toolbox | Self::Postgres | Self::Python => "bookworm".to_owned(),
        }
    }

    fn tag(self) -> String {
        format!(
            "keylane-base-{}:{}-{}",
            self.name(),
            self.suite(),
            revision()
        )
    }

    /// Everything the base depends on, as text.
    pub(super) fn inputs(self) -> String {
        format!("base {} {}\n", self.tag(), self.packages())
    }

    /// Makes the base image if it is not there, and gives its local name.
    pub(super) fn ensure(self, paths: &Paths) -> Result<String> {
        let tag = self.tag();
        let store = Store::open(paths)?;
        let local = format!("localhost/{tag}");
        if store.has(&local) {
            return Ok(local);
        }
        let log = paths.build_logs().join(format!("base-{}.log", self.name()));
        step(
            &format!(
                "Making base image {tag} of packages (log: {})",
                log.display()
            ),
            || {
                let images = paths.images();
                fs::create_dir_all(&images).map_err(ClusterError::io("create", &images))?;
                let work = tempfile::Builder::new()
                    .prefix("base-")
                    .tempdir_in(&images)
                    .map_err(ClusterError::io("create a directory in", &images))?;
                let root = work.path().join("root");
                self.extract(&root, &log)?;
                self.finish(&root)?;
                let tar = work.path().join("root.tar");
                run::output(
                    "packing the base image",
                    run::command("tar")
                        .args(["--numeric-owner", "--sort=name", "-cf"])
                        .arg(&tar)
                        .arg("-C")
                        .arg(&root)
                        .arg("."),
                )?;
                let recipe = Recipe {
                    name: &tag,
                    containerfile: include_str!("base.Containerfile"),
                    base: None,
                    files: &[("root.tar", &tar)],
                };
                store.forget_all(&format!("localhost/keylane-base-{}:", self.name()));
                store.bud(&recipe, None, &log)
            },
        )
    }

    fn extract(self, root: &Path, log: &Path) -> Result<()> {
        run::logged(
            "mmdebstrap",
            run::command("mmdebstrap")
                .args(["--variant=extract", "--mode=root", "--format=directory"])
                .arg(format!("--include={}", self.packages()))
                .arg(self.suite())
                .arg(root),
            log,
        )
    }

    /// Does what the packages' own scripts would have done, as far as a program needs it.
    fn finish(self, root: &Path) -> Result<()> {
        for dir in [
            "usr/share/doc",
            "usr/share/man",
            "var/lib/dpkg",
            "var/lib/apt",
            "var/cache",
        ] {
            remove(&root.join(dir))?;
        }
        // Copies of this machine's own; a container gets its own at start.
        for file in ["etc/resolv.conf", "etc/hostname"] {
            remove_file(&root.join(file))?;
        }
        bundle_certificates(root)?;
        write(
            &root.join("etc/passwd"),
            "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n",
        )?;
        write(&root.join("etc/group"), "root:x:0:\nnonroot:x:65532:\n")?;
        write(&root.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
        make_dir(&root.join("tmp"), 0o1777)?;
        make_dir(&root.join("home/nonroot"), 0o755)?;
        match self {
            Self::Runtime => {
                for dir in [
                    "bin",
                    "sbin",
                    "usr/bin",
                    "usr/sbin",
                    "usr/share/perl5",
                    "usr/lib/dpkg",
                ] {
                    remove(&root.join(dir))?;
                }
                Ok(())
            }
            Self::Java => {
                link(
                    root,
                    "/usr/lib/jvm/java-17-openjdk-amd64/bin/java",
                    "usr/bin/java",
                )?;
                busybox(root)
            }
            Self::Toolbox => busybox(root),
            Self::Postgres => {
                // Compilers and scripts that a database for tests does without: two thirds of the space.
                for path in [
                    "usr/lib/x86_64-linux-gnu/libLLVM-14.so.1",
                    "usr/lib/postgresql/15/lib/bitcode",
                    "usr/lib/postgresql/15/lib/llvmjit.so",
                    "usr/lib/x86_64-linux-gnu/perl",
                    "usr/lib/x86_64-linux-gnu/perl-base",
                    "usr/share/perl",
                    "usr/share/perl5",
                    "usr/share/locale",
                ] {
                    remove(&root.join(path))?;
                }
                busybox(root)
            }
            Self::Python => Ok(()),
        }
    }
}

/// Names for what busybox is used for here.
fn busybox(root: &Path) -> Result<()> {
    [
        "sh", "cat", "ls", "id", "sleep", "nslookup", "wget", "nc", "httpd", "timeout",
    ]
    .iter()
    .try_for_each(|name| link(root, "busybox", &format!("bin/{name}")))
}

/// The suite of this machine's own packages, else Debian 12.
fn host_suite(os_release: &str) -> String {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"'))
    };
    match (value("ID"), value("VERSION_CODENAME")) {
        (Some("debian" | "ubuntu"), Some(suite)) if !suite.is_empty() => suite.to_owned(),
        _ => "bookworm".to_owned(),
    }
}

/// All trusted certificates in the one file programs look for.
fn bundle_certificates(root: &Path) -> Result<()> {
    let dir = root.join("usr/share/ca-certificates/mozilla");
    let entries = fs::read_dir(&dir).map_err(ClusterError::io("read", &dir))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut bundle = String::new();
    for file in files {
        bundle.push_str(&fs::read_to_string(&file).map_err(ClusterError::io("read", &file))?);
    }
    write(&root.join("etc/ssl/certs/ca-certificates.crt"), &bundle)
}

fn remove(path: &Path) -> Result<()> {
    if path.is_symlink() || path.is_file() {
        return remove_file(path);
    }
    gone(fs::remove_dir_all(path), path)
}

fn remove_file(path: &Path) -> Result<()> {
    gone(fs::remove_file(path), path)
}

fn gone(removed: std::io::Result<()>, path: &Path) -> Result<()> {
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ClusterError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(path).map_err(ClusterError::io("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(ClusterError::io("change", path))
}

fn link(root: &Path, target: &str, name: &str) -> Result<()> {
    let path = root.join(name);
    if path.is_symlink() || path.exists() {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(ClusterError::io("create", dir))?;
    }
    symlink(target, &path).map_err(ClusterError::io("link", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_matches_the_machine_where_that_is_known() {
        let debian = "ID=debian\nVERSION_CODENAME=trixie\n";
        let ubuntu = "VERSION_CODENAME=\"noble\"\nID=\"ubuntu\"\n";
        assert_eq!(host_suite(debian), "trixie");
        assert_eq!(host_suite(ubuntu), "noble");
        assert_eq!(host_suite("ID=fedora\nVERSION_CODENAME=\"\"\n"), "bookworm");
        assert_eq!(host_suite(""), "bookworm");
    }
}
