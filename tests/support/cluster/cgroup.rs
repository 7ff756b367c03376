//! The cgroup all pods live under: made before the kubelet starts, emptied and removed by `down`.
//! Whatever runs in it was started by our containers, also when every record of it is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::config::CGROUP;
use super::error::{ClusterError, Result};
use super::process::{self, Identity};
use super::wait;

const ROOT: &str = "/sys/fs/cgroup";

/// Makes the cgroup in every hierarchy the kubelet looks at.
pub fn create() -> Result<()> {
    let root = Path::new(ROOT);
    if is_unified(root) {
        // Children only get the controllers their parent hands on; one that is absent is no error.
        let offered = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        for controller in offered.split_whitespace() {
            let _not_delegable = fs::write(
                root.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
        return make(&root.join(CGROUP));
    }
    for hierarchy in hierarchies(root) {
        let dir = hierarchy.join(CGROUP);
        make(&dir)?;
        // A new cpuset has neither processors nor memory until it is told.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let parent = hierarchy.join(file);
            if let Ok(value) = fs::read_to_string(&parent) {
                let own = dir.join(file);
                fs::write(&own, value.trim()).map_err(ClusterError::io("write", &own))?;
            }
        }
    }
    Ok(())
}

/// Kills everything in the cgroup and removes it. Fine when it is not there.
pub fn remove() -> Result<()> {
    let root = Path::new(ROOT);
    let mut tops: Vec<PathBuf> = hierarchies(root);
    tops.push(root.to_path_buf());
    let groups: Vec<PathBuf> = tops
        .iter()
        .flat_map(|top| deepest_first(&top.join(CGROUP)))
        .collect();
    wait::until("pod cgroups removed", Duration::from_secs(30), None, || {
        let members: Vec<Identity> = groups.iter().flat_map(|group| members(group)).collect();
        process::kill(&members).map_err(wait::Pending::Never)?;
        for group in &groups {
            if group.exists() {
                fs::remove_dir(group).map_err(|error| format!("{}: {error}", group.display()))?;
            }
        }
        Ok(())
    })
}

fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(ClusterError::io("create", dir))
}

fn is_unified(root: &Path) -> bool {
    root.join("cgroup.controllers").exists()
}

fn hierarchies(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        // Joined controllers have links beside their directory.
        .filter(|path| path.join("cgroup.procs").exists() && !path.is_symlink())
        .collect()
}

fn deepest_first(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return found;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(deepest_first(&entry.path()));
        }
    }
    found.push(dir.to_path_buf());
    found
}

fn members(group: &Path) -> Vec<Identity> {
    fs::read_to_string(group.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|pid| pid.parse().ok())
        .filter_map(Identity::of)
        .collect()
}
