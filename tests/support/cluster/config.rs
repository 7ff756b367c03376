//! Configuration files of the parts, rendered from the templates in `tests/cluster/config`.

use std::path::Path;

use k8s_openapi::ByteString;

use super::binaries::write;
use super::error::{ClusterError, Result};
use super::net;
use super::paths::Paths;
use super::pki::write_private;

/// The cgroup all pods live under.
pub const CGROUP: &str = "keylane";

/// Kubeconfigs of the parts: file stem of the certificate.
const KUBECONFIGS: [&str; 4] = ["controller-manager", "scheduler", "kubelet", "kube-proxy"];

/// Writes every configuration file; `snapshotter` is how containerd stacks image layers.
pub fn write_all(paths: &Paths, snapshotter: &str) -> Result<()> {
    let state = paths.state().display().to_string();
    let socket = paths.containerd_socket().display().to_string();
    let masquerade_all = !net::bridged_traffic_is_filtered();
    let masquerade_all = masquerade_all.to_string();
    let values = [
        ("@STATE@", state.as_str()),
        ("@SOCKET@", &socket),
        ("@SNAPSHOTTER@", snapshotter),
        ("@BRIDGE@", net::BRIDGE),
        ("@POD_NETWORK@", net::POD_NETWORK),
        ("@NODE_IP@", net::NODE_IP),
        ("@NODE_NAME@", net::NODE_NAME),
        ("@DNS_IP@", net::DNS_IP),
        ("@CGROUP@", CGROUP),
        ("@MASQUERADE_ALL@", &masquerade_all),
    ];
    let containerd = include_str!("../../cluster/config/containerd.toml");
    let cni = include_str!("../../cluster/config/cni.json");
    let kubelet = include_str!("../../cluster/config/kubelet.yaml");
    let kube_proxy = include_str!("../../cluster/config/kube-proxy.yaml");
    let audit = include_str!("../../cluster/config/audit.yaml");
    write(&paths.config("containerd.toml"), &fill(containerd, &values))?;
    write(
        &paths.state().join("cni/10-keylane.conflist"),
        &fill(cni, &values),
    )?;
    write(&paths.config("kubelet.yaml"), &fill(kubelet, &values))?;
    write(&paths.config("kube-proxy.yaml"), &fill(kube_proxy, &values))?;
    write(&paths.config("audit.yaml"), audit)?;
    // Pods must not inherit the search domains of this machine.
    let resolv_conf = format!("nameserver {}\n", net::DNS_IP);
    write(&paths.config("resolv.conf"), &resolv_conf)?;
    for name in KUBECONFIGS {
        let file = paths.config(&format!("{name}.kubeconfig"));
        write_private(&file, &kubeconfig(paths, name)?)?;
    }
    write_private(&paths.kubeconfig(), &kubeconfig(paths, "admin")?)
}

/// The manifest of the cluster's name server.
#[must_use]
pub fn dns_manifest(image: &str) -> String {
    let template = include_str!("../../cluster/config/dns.yaml");
    fill(template, &[("@DNS_IP@", net::DNS_IP), ("@IMAGE@", image)])
}

fn kubeconfig(paths: &Paths, name: &str) -> Result<String> {
    let port = net::API_PORT.to_string();
    Ok(fill(
        include_str!("../../cluster/config/kubeconfig.yaml"),
        &[
            ("@NODE_IP@", net::NODE_IP),
            ("@API_PORT@", &port),
            ("@USER@", name),
            ("@CA@", &base64(&paths.pki("ca.crt"))?),
            (
                "@CERTIFICATE@",
                &base64(&paths.pki(&format!("{name}.crt")))?,
            ),
            ("@KEY@", &base64(&paths.pki(&format!("{name}.key")))?),
        ],
    ))
}

fn base64(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).map_err(ClusterError::io("read", file))?;
    let value = serde_json::to_value(ByteString(bytes)).unwrap_or_default();
    Ok(value.as_str().unwrap_or_default().to_owned())
}

fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values
        .iter()
        .fold(template.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_of_every_file_is_filled() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path());
        super::super::pki::create(&paths).unwrap();
        write_all(&paths, "overlayfs").unwrap();
        let files = [
            paths.config("containerd.toml"),
            paths.state().join("cni/10-keylane.conflist"),
            paths.config("kubelet.yaml"),
            paths.config("kube-proxy.yaml"),
            paths.config("scheduler.kubeconfig"),
            paths.kubeconfig(),
        ];
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(!text.contains('@'), "{}: {text}", file.display());
        }
        assert!(!dns_manifest("image:tag").contains('@'));
    }

    #[test]
    fn the_kubeconfig_carries_its_certificates_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path());
        super::super::pki::create(&paths).unwrap();
        write_all(&paths, "overlayfs").unwrap();
        let config = kube::config::Kubeconfig::read_from(paths.kubeconfig()).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("keylane"));
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        assert!(cluster.certificate_authority_data.is_some());
        let mode = paths.kubeconfig().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
}
