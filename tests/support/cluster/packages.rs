//! System programs the cluster is made of: found, or installed where that can be done, or named
//! with the package that has them.

use std::path::{Path, PathBuf};

use super::error::{ClusterError, Result};
use super::paths::Paths;
use super::progress::{note, step};
use super::run;

/// A program or file that has to be there, and the Debian package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// A name on the search path, or an absolute path.
    pub program: &'static str,
    /// Its package on Debian and Ubuntu.
    pub package: &'static str,
}

const fn need(program: &'static str, package: &'static str) -> Need {
    Need { program, package }
}

/// What runs a cluster.
pub const CLUSTER: [Need; 9] = [
    need("containerd", "containerd"),
    need("ctr", "containerd"),
    need("runc", "runc"),
    need("/usr/lib/cni/bridge", "containernetworking-plugins"),
    need("etcd", "etcd-server"),
    need("iptables", "iptables"),
    need("ip", "iproute2"),
    need("setsid", "util-linux"),
    need("cc", "gcc"),
];

/// What builds images without a registry.
pub const IMAGES: [Need; 4] = [
    need("buildah", "buildah"),
    need("mmdebstrap", "mmdebstrap"),
    need(
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
    ),
    need("tar", "tar"),
];

/// What libFuzzer is built with.
pub const FUZZING: [Need; 1] = [need("c++", "g++")];

/// What runs the sample in Python.
pub const PYTHON: [Need; 1] = [need("python3", "python3")];

/// Makes sure that all of `needs` are there, installing missing ones with apt-get when this is root
/// on Debian or Ubuntu.
pub fn ensure(paths: &Paths, needs: &[Need]) -> Result<()> {
    let missing = missing(needs, present);
    let Some(first) = missing.first() else {
        return Ok(());
    };
    let packages = packages(&missing);
    let cannot = |reason: &str| ClusterError::MissingCommand {
        command: first.program.to_owned(),
        package: format!("the packages {}", packages.join(" ")),
        reason: reason.to_owned(),
    };
    if !rustix::process::geteuid().is_root() {
        return Err(cannot("only root can install it"));
    }
    if run::find("apt-get").is_none() {
        return Err(cannot("this system has no apt-get to install it with"));
    }
    let log = paths.build_logs().join("apt.log");
    step(
        &format!("Installing {} (log: {})", packages.join(" "), log.display()),
        || {
            apt_get(&["update"], &log)?;
            let mut install = vec!["install", "--yes", "--no-install-recommends"];
            install.extend(&packages);
            apt_get(&install, &log)
        },
    )?;
    match self::missing(needs, present).first() {
        None => Ok(()),
        Some(still) => Err(ClusterError::MissingCommand {
            command: still.program.to_owned(),
            package: still.package.to_owned(),
            reason: format!("apt-get installed {} and it is not there", still.package),
        }),
    }
}

/// Unpacks a package and installs nothing: the program may come with a service that its installation would
/// start. Gives the directory it was unpacked in.
pub fn unpacked(paths: &Paths, package: &str) -> Result<PathBuf> {
    let dir = paths.bin().join(format!("{package}.unpacked"));
    if dir.is_dir() {
        return Ok(dir);
    }
    let cannot = |reason: &str| ClusterError::MissingCommand {
        command: package.to_owned(),
        package: format!("the package {package}"),
        reason: reason.to_owned(),
    };
    if run::find("apt-get").is_none() || run::find("dpkg-deb").is_none() {
        return Err(cannot("this system has no apt-get to fetch it with"));
    }
    let bin = paths.bin();
    std::fs::create_dir_all(&bin).map_err(ClusterError::io("create", &bin))?;
    let work = tempfile::Builder::new()
        .prefix("unpacking-")
        .tempdir_in(&bin)
        .map_err(ClusterError::io("create a directory in", &bin))?;
    let log = paths.build_logs().join("apt.log");
    step(
        &format!("Fetching {package} (log: {})", log.display()),
        || {
            if rustix::process::geteuid().is_root() {
                apt_get(&["update"], &log)?;
            }
            run::logged(
                &format!("apt-get download {package}"),
                run::command("apt-get")
                    .current_dir(work.path())
                    .args(["download", package]),
                &log,
            )?;
            let files = std::fs::read_dir(work.path());
            let files = files.map_err(ClusterError::io("read", work.path()))?;
            let archive = files
                .flatten()
                .map(|file| file.path())
                .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
                .ok_or_else(|| cannot("apt-get downloaded nothing"))?;
            let partial = work.path().join("partial");
            run::logged(
                &format!("unpacking {package}"),
                run::command("dpkg-deb")
                    .arg("-x")
                    .arg(&archive)
                    .arg(&partial),
                &log,
            )?;
            std::fs::rename(&partial, &dir).map_err(ClusterError::io("write", &dir))
        },
    )?;
    Ok(dir)
}

/// Makes sure that Go is there and new enough for Kubernetes.
pub fn ensure_go() -> Result<()> {
    let wanted = "Go 1.24 or newer (https://go.dev/dl)";
    let missing = |reason: String| ClusterError::MissingCommand {
        command: "go".to_owned(),
        package: wanted.to_owned(),
        reason,
    };
    if run::find("go").is_none() {
        return Err(missing("Kubernetes is built from source".to_owned()));
    }
    let version = run::output("go env", run::command("go").args(["env", "GOVERSION"]))?;
    match go_minor(version.trim()) {
        // Go 1.21 and newer fetch the toolchain a module asks for.
        Some(minor) if minor >= 21 => Ok(()),
        Some(_) => Err(missing(format!("{} is too old", version.trim()))),
        None => {
            note(&format!("unknown Go version {}, trying it", version.trim()));
            Ok(())
        }
    }
}

fn go_minor(version: &str) -> Option<u32> {
    let rest = version.strip_prefix("go1.")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn present(program: &str) -> bool {
    if program.starts_with('/') {
        Path::new(program).exists()
    } else {
        run::find(program).is_some()
    }
}

fn missing(needs: &[Need], present: impl Fn(&str) -> bool) -> Vec<Need> {
    needs
        .iter()
        .copied()
        .filter(|need| !present(need.program))
        .collect()
}

fn packages(needs: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> = needs.iter().map(|need| need.package).collect();
    if packages.contains(&"gcc") {
        packages.push("libc6-dev");
    }
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn apt_get(args: &[&str], log: &Path) -> Result<()> {
    run::logged(
        &format!("apt-get {}", args.join(" ")),
        run::command("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(args),
        log,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_programs_ask_for_their_packages_and_each_once() {
        let missing = missing(&CLUSTER, |program| {
            !matches!(program, "ctr" | "containerd" | "cc")
        });
        assert_eq!(packages(&missing), ["containerd", "gcc", "libc6-dev"]);
    }

    #[test]
    fn go_versions_are_read_with_and_without_a_patch_level() {
        assert_eq!(go_minor("go1.24"), Some(24));
        assert_eq!(go_minor("go1.26.8"), Some(26));
        assert_eq!(go_minor("go1.25rc1"), Some(25));
        assert_eq!(go_minor("devel +abc"), None);
    }
}
