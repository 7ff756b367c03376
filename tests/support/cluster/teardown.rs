//! Removing every trace of the cluster: what was recorded, and what a killed or rebooted cluster
//! left without a record. Build caches stay. Doing it twice is fine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};

use super::cgroup;
use super::error::{ClusterError, Result};
use super::net;
use super::paths::Paths;
use super::process::{self, Identity};

/// Directories outside the cache that the kubelet and containerd fill with names of our own.
const CONTAINER_LOGS: &str = "/var/log/containers";
const CNI_RESULTS: &str = "/var/lib/cni/results";
const SHIM_SOCKETS: &str = "/run/containerd/s";

/// Whether anything of a cluster is left on this machine.
#[must_use]
pub fn leftovers(paths: &Paths) -> bool {
    paths.state().exists() || Path::new("/sys/class/net").join(net::BRIDGE).exists()
}

/// Stops and removes everything.
pub fn tear_down(paths: &Paths) -> Result<()> {
    // The kubelet goes first and at once: it would start again what is stopped below.
    let kubelet: Vec<Identity> = process::running(paths, "kubelet").into_iter().collect();
    process::kill(&kubelet)?;
    process::kill(&shims(paths))?;
    cgroup::remove()?;
    process::stop(&process::all_running(paths), Duration::from_secs(5))?;
    // A shim may have been started while the first ones ended.
    process::kill(&shims(paths))?;
    cgroup::remove()?;
    unmount_below(&paths.state())?;
    net::tear_down(paths)?;
    remove_traces(paths);
    let state = paths.state();
    match fs::remove_dir_all(&state) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ClusterError::io("remove", &state)(error))
        }
        _ => Ok(()),
    }
}

/// The container shims of our containerd, known by its socket on their command line.
fn shims(paths: &Paths) -> Vec<Identity> {
    let socket = paths.containerd_socket().display().to_string();
    process::with_command_line(|args| {
        args.first()
            .is_some_and(|program| program.contains("containerd-shim"))
            && args.contains(&socket)
    })
}

fn unmount_below(dir: &Path) -> Result<()> {
    let file = Path::new("/proc/self/mountinfo");
    let table = fs::read_to_string(file).map_err(ClusterError::io("read", file))?;
    // Later mounts lie on top of earlier ones.
    for point in mounts_below(&table, dir).iter().rev() {
        unmount(point, UnmountFlags::DETACH)
            .map_err(|error| ClusterError::io("unmount", point)(error.into()))?;
    }
    Ok(())
}

fn mounts_below(table: &str, dir: &Path) -> Vec<PathBuf> {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(dir))
        .collect()
}

/// Small files in directories that belong to the system. They do no harm, so failing to remove one
/// is no error.
fn remove_traces(paths: &Paths) {
    let state = paths.state();
    remove_entries(CONTAINER_LOGS, |path| {
        fs::read_link(path).is_ok_and(|target| target.starts_with(&state))
    });
    remove_entries(CNI_RESULTS, |path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("keylane-"))
    });
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    remove_entries(SHIM_SOCKETS, |path| {
        !sockets.contains(&path.display().to_string())
    });
}

fn remove_entries(dir: &str, ours: impl Fn(&Path) -> bool) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if ours(&entry.path()) {
            let _harmless = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_directory_are_taken_in_order() {
        let table = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
                     2 1 0:5 / /c/cluster/a rw - tmpfs t rw\n\
                     3 1 0:5 / /c/cluster-other rw - tmpfs t rw\n\
                     4 2 0:6 / /c/cluster/a/b\\040c rw - tmpfs t rw\n";
        assert_eq!(
            mounts_below(table, Path::new("/c/cluster")),
            [
                PathBuf::from("/c/cluster/a"),
                PathBuf::from("/c/cluster/a/b c")
            ]
        );
    }
}
