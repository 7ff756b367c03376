//! Whether this machine has room for the cluster: free ports, and no other Kubernetes whose
//! iptables chains would have the same names.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::error::{ClusterError, Result};
use super::net::{API_PORT, ETCD_PORTS};
use super::paths::Paths;
use super::process::{self, Identity};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Who listens where.
const PORTS: [(&str, Ipv4Addr, u16); 9] = [
    ("the API server", NODE, API_PORT),
    ("etcd", LOOPBACK, ETCD_PORTS.0),
    ("etcd", LOOPBACK, ETCD_PORTS.1),
    ("the kubelet", NODE, 10250),
    ("the kubelet", LOOPBACK, 12348),
    ("the controller manager", LOOPBACK, 12357),
    ("the scheduler", LOOPBACK, 12359),
    ("kube-proxy", LOOPBACK, 12356),
    ("kube-proxy", LOOPBACK, 12349),
];

/// Node programs of a Kubernetes; the last ones hold all of them in one.
const NODE_PROGRAMS: [&str; 5] = ["kubelet", "kube-proxy", "k3s", "k0s", "rke2"];

/// Fails when another Kubernetes runs in this network namespace: its iptables chains and ours could
/// not be told apart.
pub fn refuse_another_kubernetes(paths: &Paths) -> Result<()> {
    match another_kubernetes(paths) {
        Some(process) => Err(ClusterError::AnotherKubernetes { pid: process.pid }),
        None => Ok(()),
    }
}

/// A node program that is not ours.
#[must_use]
pub fn another_kubernetes(paths: &Paths) -> Option<Identity> {
    let bin = paths.bin().display().to_string();
    let ours = fs::read_link("/proc/self/ns/net").ok();
    process::with_command_line(|args| {
        let program = args.first().map(String::as_str).unwrap_or_default();
        let name = program.rsplit('/').next().unwrap_or_default();
        NODE_PROGRAMS.contains(&name) && !program.starts_with(&bin)
    })
    .into_iter()
    // One in a container has tables of its own.
    .find(|process| fs::read_link(format!("/proc/{}/ns/net", process.pid)).ok() == ours)
}

/// Fails when a port of the cluster is taken.
pub fn refuse_taken_ports() -> Result<()> {
    for (part, ip, port) in PORTS {
        let address = SocketAddr::from((ip, port));
        match TcpListener::bind(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                return Err(ClusterError::PortTaken {
                    part,
                    address,
                    holder: holder(port).unwrap_or_else(|| "another process".to_owned()),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The process that listens on a TCP port, by name and id.
fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        if entry.file_name().to_string_lossy().parse::<u32>().is_err() {
            continue;
        }
        let Ok(fds) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        let holds = fds
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|link| {
                inodes
                    .iter()
                    .any(|inode| link.as_os_str() == inode.as_str())
            });
        if holds {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let pid = entry.file_name();
            return Some(format!("process {} ({})", pid.display(), name.trim()));
        }
    }
    None
}

fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTEN;
            listens.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = holder(port).unwrap();
        assert!(
            holder.starts_with(&format!("process {} (", std::process::id())),
            "{holder}"
        );
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:303B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1\n\
             1: 0100007F:303B 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 12 1\n\
             2: 0100007F:303C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1\n";
        assert_eq!(listening_inodes(table, 0x303B), ["11"]);
    }
}
