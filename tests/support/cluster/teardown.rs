//! Removing every trace of the cluster: what was recorded, and what a killed or rebooted cluster
//! left without a record. Build caches stay. Doing it twice is fine.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup;
use super::error::{ClusterError, Result};
use super::net;
use super::paths::Paths;
use super::process::{self, Identity};
use super::{room, run};

/// Directories outside the cache that the kubelet and containerd fill with names of our own.
const CONTAINER_LOGS: &str = "/var/log/containers";
const CNI_RESULTS: &str = "/var/lib/cni/results";
const SHIM_SOCKETS: &str = "/run/containerd/s";
const DEVICE_PLUGINS: &str = "/var/lib/kubelet/device-plugins";

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
    // Nothing of their data is kept, so nobody is given time to save it.
    process::kill(&process::all_running(paths))?;
    // A shim may have been started while the first ones ended.
    process::kill(&shims(paths))?;
    cgroup::remove()?;
    unmount_below(&paths.state())?;
    net::tear_down(paths, room::another_kubernetes(paths).is_none())?;
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
        run::output(
            &format!("unmounting {}", point.display()),
            run::command("umount").arg("--lazy").arg(point),
        )?;
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

/// Small files in directories that belong to the system, and those directories when they are empty
/// then. They do no harm, so failing to remove one is no error.
fn remove_traces(paths: &Paths) {
    let state = paths.state();
    remove_entries(CONTAINER_LOGS, |path| {
        fs::read_link(path).is_ok_and(|target| target.starts_with(&state))
    });
    let sandboxes = sandboxes(&entry_names(CNI_RESULTS));
    remove_entries(CNI_RESULTS, |path| {
        let path = path.to_string_lossy();
        sandboxes.iter().any(|id| path.contains(id))
    });
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    for dir in [SHIM_SOCKETS, DEVICE_PLUGINS] {
        remove_entries(dir, |path| {
            is_socket(path) && !sockets.contains(&path.display().to_string())
        });
    }
    for dir in [
        CONTAINER_LOGS,
        CNI_RESULTS,
        "/var/lib/cni",
        SHIM_SOCKETS,
        "/run/containerd",
        DEVICE_PLUGINS,
        "/var/lib/kubelet",
    ] {
        let _in_use = fs::remove_dir(dir);
    }
}

/// The pod sandboxes that were plugged into our network, out of the names of cached results.
fn sandboxes(names: &[String]) -> Vec<String> {
    names
        .iter()
        .filter_map(|name| name.strip_prefix("keylane-")?.split('-').next())
        .map(str::to_owned)
        .collect()
}

fn entry_names(dir: &str) -> Vec<String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.symlink_metadata()
        .is_ok_and(|meta| meta.file_type().is_socket())
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

    #[test]
    fn a_sandbox_is_ours_when_it_was_plugged_into_our_network() {
        let names = [
            "keylane-0ab1-eth0",
            "cni-loopback-0ab1-lo",
            "cni-loopback-9f-lo",
        ];
        assert_eq!(sandboxes(&names.map(str::to_owned)), ["0ab1"]);
    }
}
