//! Whether the disk has room for what is about to be built and run. A broker refuses messages on a disk that is
//! more than 90 % full, and it would say so only after all builds.

use std::path::{Path, PathBuf};

use super::error::{ClusterError, Result};
use super::paths::Paths;

const GIB: u64 = 1 << 30;
/// What building the cluster's programs takes, Go's caches with it.
const CLUSTER: u64 = 5 * GIB;
/// What building the images takes, most of it the release build.
const IMAGES: u64 = 8 * GIB;
/// What a running cluster takes.
const RUNNING: u64 = GIB;
/// How full a disk may be, in hundredths, that a broker still takes messages on.
const FULL: u64 = 90;

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A cluster is built and started.
    Cluster,
    /// The images of this workspace are built and run, on a cluster that may be built first.
    Stack {
        /// Whether the cluster is on this machine.
        local: bool,
    },
}

/// Fails when the disk of the cache would be too full in the end.
pub fn refuse_full(paths: &Paths, work: Work) -> Result<()> {
    let path = existing(paths.cache());
    let Ok(disk) = rustix::fs::statvfs(&path) else {
        // What cannot be told is no reason to stop.
        return Ok(());
    };
    let used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize;
    let free = disk.f_bavail * disk.f_frsize;
    let need = need(paths, work);
    match missing(used, free, need) {
        0 => Ok(()),
        missing => Err(ClusterError::DiskFull {
            path,
            percent: used * 100 / (used + free).max(1),
            need: gib(need),
            free: gib(free),
            missing: gib(missing),
        }),
    }
}

/// Bytes that the work takes beside what is built already.
fn need(paths: &Paths, work: Work) -> u64 {
    let cluster = match paths.bin().join("kubelet").is_file() {
        true => 0,
        false => CLUSTER,
    };
    let images = match paths.images().join("keylane-operator_dev.tar").is_file() {
        true => 0,
        false => IMAGES,
    };
    match work {
        Work::Cluster => cluster + RUNNING,
        Work::Stack { local: true } => cluster + images + RUNNING,
        Work::Stack { local: false } => images,
    }
}

/// Bytes that have to be freed before so many can be used.
fn missing(used: u64, free: u64, need: u64) -> u64 {
    let usable = (used + free) / 100 * FULL;
    (used + need).saturating_sub(usable)
}

/// In GiB, rounded up.
fn gib(bytes: u64) -> u64 {
    bytes.div_ceil(GIB)
}

/// The directory itself, or the next one above it that is there.
fn existing(path: &Path) -> PathBuf {
    let mut above = path.ancestors();
    let found = above.find(|path| path.exists());
    found.unwrap_or(Path::new("/")).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_may_become_as_full_as_brokers_take_messages_on() {
        let missing = |used, free, need| missing(used * GIB, free * GIB, need * GIB) / GIB;
        assert_eq!(missing(10, 90, 14), 0);
        assert_eq!(missing(76, 24, 14), 0);
        assert_eq!(missing(77, 23, 14), 1);
        // Much is free, and yet it is too full.
        assert_eq!(missing(920, 80, 1), 21);
    }

    #[test]
    fn what_is_built_already_needs_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path());
        let stack = Work::Stack { local: true };
        let (first, cluster) = (need(&paths, stack), need(&paths, Work::Cluster));
        assert_eq!(
            (first, cluster),
            (CLUSTER + IMAGES + RUNNING, CLUSTER + RUNNING)
        );
        for file in ["bin/kubelet", "images/keylane-operator_dev.tar"] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        assert_eq!(need(&paths, stack), RUNNING);
        assert_eq!(need(&paths, Work::Stack { local: false }), 0);
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_on_the_disk_of_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing(&dir.path().join("a/b")), dir.path());
    }

    #[test]
    fn who_is_refused_hears_how_much_to_free_and_where_else_to_put_it() {
        let error = ClusterError::DiskFull {
            path: "/var/cache".into(),
            percent: 85,
            need: 14,
            free: 15,
            missing: 9,
        };
        let text = error.to_string();
        for part in ["85 % full", "14 GiB", "free 9 GiB", "KEYLANE_CACHE"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
