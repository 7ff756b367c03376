//! The node's side of the pod network: one bridge, whose address is also the node's, and the kernel
//! settings pods need. What was changed is recorded and put back by `down`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::binaries::write;
use super::error::{ClusterError, Result};
use super::paths::Paths;
use super::run;

/// The only node's name.
pub const NODE_NAME: &str = "keylane";
/// The node's address: the bridge's own. (A kubelet refuses a loopback address.)
pub const NODE_IP: &str = "10.244.0.1";
/// Pods get addresses of this network.
pub const POD_NETWORK: &str = "10.244.0.0/24";
/// Services get addresses of this network.
pub const SERVICE_NETWORK: &str = "10.96.0.0/16";
/// The API server's address inside the cluster.
pub const API_SERVICE_IP: &str = "10.96.0.1";
/// The cluster's name server.
pub const DNS_IP: &str = "10.96.0.10";
/// The bridge pods are plugged into.
pub const BRIDGE: &str = "keylane0";
/// The API server's port on the node's address.
pub const API_PORT: u16 = 16443;
/// etcd's ports on loopback: clients, peers.
pub const ETCD_PORTS: (u16, u16) = (12379, 12380);

/// Settings that the cluster's parts change, so that `down` can put them back.
const SYSCTLS: [&str; 8] = [
    "net/ipv4/ip_forward",
    "net/bridge/bridge-nf-call-iptables",
    "net/ipv4/conf/all/route_localnet",
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

const BRIDGE_NF: &str = "net/bridge/bridge-nf-call-iptables";

/// Makes the bridge, the routes and the settings.
pub fn set_up(paths: &Paths) -> Result<()> {
    refuse_taken_network()?;
    if !sysctl_file(BRIDGE_NF).exists() {
        // Built into many kernels; where it is missing, kube-proxy masquerades instead.
        let _not_a_module = run::output("modprobe", run::command("modprobe").arg("br_netfilter"));
    }
    remember_sysctls(paths)?;
    set_sysctl("net/ipv4/ip_forward", "1")?;
    if bridged_traffic_is_filtered() {
        set_sysctl(BRIDGE_NF, "1")?;
    }
    // A fixed hardware address: a bridge otherwise takes the lowest of its ports', and pods would
    // hold a stale one after the next pod.
    let address = format!("{NODE_IP}/24");
    let steps: [&[&str]; 4] = [
        &[
            "link",
            "add",
            BRIDGE,
            "address",
            "0a:58:0a:f4:00:01",
            "type",
            "bridge",
        ],
        &["addr", "add", &address, "dev", BRIDGE],
        &["link", "set", BRIDGE, "up"],
        // Processes of this machine reach Services even where there is no default route.
        &[
            "route",
            "replace",
            SERVICE_NETWORK,
            "dev",
            BRIDGE,
            "src",
            NODE_IP,
        ],
    ];
    for args in steps {
        run::output(
            &format!("ip {}", args.join(" ")),
            run::command("ip").args(args),
        )?;
    }
    // Other container engines drop forwarded traffic by default.
    let rules = format!(
        "*filter\n:KEYLANE-FORWARD - [0:0]\n-A KEYLANE-FORWARD -i {BRIDGE} -j ACCEPT\n\
         -A KEYLANE-FORWARD -o {BRIDGE} -j ACCEPT\n-I FORWARD -j KEYLANE-FORWARD\nCOMMIT\n"
    );
    run::feed(
        "iptables-restore",
        run::command("iptables-restore").args(["--noflush", "--wait"]),
        &rules,
    )?;
    Ok(())
}

/// Removes what `set_up`, kube-proxy and the kubelet left. Fine when nothing is
/// there. Chains that may belong to another Kubernetes stay.
pub fn tear_down(paths: &Paths, kubernetes_is_ours: bool) -> Result<()> {
    if PathBuf::from("/sys/class/net").join(BRIDGE).exists() {
        run::output(
            "removing the bridge",
            run::command("ip").args(["link", "del", BRIDGE]),
        )?;
    }
    for (save, restore) in [
        ("iptables-save", "iptables-restore"),
        ("ip6tables-save", "ip6tables-restore"),
    ] {
        if run::find(save).is_none() {
            continue;
        }
        // Without IPv6 in the kernel there is nothing to list.
        let Ok(rules) = run::output(save, &mut run::command(save)) else {
            continue;
        };
        if let Some(removal) = removal_of_our_chains(&rules, kubernetes_is_ours) {
            run::feed(
                "removing iptables chains",
                run::command(restore).args(["--noflush", "--wait"]),
                &removal,
            )?;
        }
    }
    restore_sysctls(paths)
}

/// Whether iptables sees traffic between two pods of the bridge.
#[must_use]
pub fn bridged_traffic_is_filtered() -> bool {
    sysctl_file(BRIDGE_NF).exists()
}

fn refuse_taken_network() -> Result<()> {
    let list = run::output(
        "ip addr",
        run::command("ip").args(["-o", "-4", "addr", "show"]),
    )?;
    match other_interface_in_network(&list) {
        Some(interface) => Err(ClusterError::NetworkTaken {
            network: POD_NETWORK,
            interface,
        }),
        None => Ok(()),
    }
}

/// The interface, other than our bridge, that has an address of the pod network.
fn other_interface_in_network(list: &str) -> Option<String> {
    list.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let interface = words.next()?;
        let address = words.nth(1)?;
        (interface != BRIDGE && address.starts_with("10.244.0.")).then(|| interface.to_owned())
    })
}

/// Input for `iptables-restore --noflush` that removes our chains and the rules that lead to them;
/// `None` when there are none.
fn removal_of_our_chains(saved: &str, kubernetes_is_ours: bool) -> Option<String> {
    let is_ours = |chain: &str| {
        chain.starts_with("KEYLANE-") || (kubernetes_is_ours && chain.starts_with("KUBE-"))
    };
    let mut script = String::new();
    let mut table = "";
    let mut chains: Vec<&str> = Vec::new();
    let mut jumps: Vec<String> = Vec::new();
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':') {
            chains.extend(chain.split(' ').next().filter(|chain| is_ours(chain)));
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let from = rule.split(' ').next().unwrap_or_default();
            let target = rule.split(" -j ").nth(1).unwrap_or_default();
            if !is_ours(from) && is_ours(target) {
                jumps.push(format!("-D {rule}\n"));
            }
        } else if line == "COMMIT" && !chains.is_empty() {
            script.push_str(&format!("*{table}\n"));
            // Naming a chain empties it; only then can all of them go.
            script.extend(chains.iter().map(|chain| format!(":{chain} - [0:0]\n")));
            script.extend(jumps.drain(..));
            script.extend(chains.drain(..).map(|chain| format!("-X {chain}\n")));
            script.push_str("COMMIT\n");
        }
    }
    (!script.is_empty()).then_some(script)
}

fn sysctl_file(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}

fn set_sysctl(name: &str, value: &str) -> Result<()> {
    let file = sysctl_file(name);
    if fs::read_to_string(&file).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&file, value).map_err(ClusterError::io("write", &file))
}

fn remember_sysctls(paths: &Paths) -> Result<()> {
    let values: BTreeMap<&str, String> = SYSCTLS
        .iter()
        .filter_map(|name| {
            let value = fs::read_to_string(sysctl_file(name)).ok()?;
            Some((*name, value.trim().to_owned()))
        })
        .collect();
    let text = serde_json::to_string(&values).unwrap_or_default();
    write(&sysctl_record(paths), &text)
}

fn restore_sysctls(paths: &Paths) -> Result<()> {
    let Ok(text) = fs::read_to_string(sysctl_record(paths)) else {
        return Ok(());
    };
    let values: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
    for (name, value) in values {
        if sysctl_file(&name).exists() {
            set_sysctl(&name, &value)?;
        }
    }
    Ok(())
}

fn sysctl_record(paths: &Paths) -> PathBuf {
    paths.state().join("sysctls.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_others_and_their_rules_stay() {
        let saved = "*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n:KUBE-SERVICES - [0:0]\n\
                     :KUBE-SVC-A - [0:0]\n-A PREROUTING -m comment --comment \"a b\" -j KUBE-SERVICES\n\
                     -A PREROUTING -j DOCKER\n-A KUBE-SERVICES -j KUBE-SVC-A\nCOMMIT\n\
                     *filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n";
        let expected = "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-A - [0:0]\n\
                        -D PREROUTING -m comment --comment \"a b\" -j KUBE-SERVICES\n\
                        -X KUBE-SERVICES\n-X KUBE-SVC-A\nCOMMIT\n";
        assert_eq!(
            removal_of_our_chains(saved, true).as_deref(),
            Some(expected)
        );
        assert_eq!(removal_of_our_chains(saved, false), None);
    }

    #[test]
    fn nothing_of_ours_means_nothing_to_do() {
        let saved = "*filter\n:INPUT ACCEPT [0:0]\n:DOCKER - [0:0]\n-A INPUT -j DOCKER\nCOMMIT\n";
        assert_eq!(removal_of_our_chains(saved, true), None);
    }

    #[test]
    fn an_address_of_the_pod_network_counts_only_on_another_interface() {
        let ours = "5: keylane0    inet 10.244.0.1/24 scope global keylane0";
        let other = "9: cni0    inet 10.244.0.1/24 brd 10.244.0.255 scope global cni0";
        assert_eq!(other_interface_in_network(ours), None);
        assert_eq!(
            other_interface_in_network(&format!("{ours}\n{other}")).as_deref(),
            Some("cni0")
        );
    }
}
