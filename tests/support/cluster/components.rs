//! How each part is started: its program and its arguments.

use super::error::{ClusterError, Result};
use super::net;
use super::paths::Paths;
use super::process::Daemon;
use super::run;

/// The API server's log of changes.
pub const AUDIT: &str = "audit";

/// etcd: the API server's store.
pub fn etcd(paths: &Paths) -> Result<Daemon> {
    let (client, peer) = net::ETCD_PORTS;
    let client = format!("https://127.0.0.1:{client}");
    let peer = format!("http://127.0.0.1:{peer}");
    Ok(Daemon {
        name: "etcd",
        program: system("etcd", "etcd-server")?,
        args: flags(&[
            ("name", "keylane"),
            ("data-dir", &show(paths.state().join("etcd"))),
            ("listen-client-urls", &client),
            ("advertise-client-urls", &client),
            ("listen-peer-urls", &peer),
            ("initial-advertise-peer-urls", &peer),
            ("initial-cluster", &format!("keylane={peer}")),
            ("client-cert-auth", "true"),
            ("trusted-ca-file", &show(paths.pki("ca.crt"))),
            ("cert-file", &show(paths.pki("etcd.crt"))),
            ("key-file", &show(paths.pki("etcd.key"))),
            // The data is thrown away with the cluster.
            ("unsafe-no-fsync", "true"),
            ("logger", "zap"),
            ("log-level", "warn"),
        ]),
    })
}

/// containerd with its own root, state and socket, out of a system containerd's way.
pub fn containerd(paths: &Paths) -> Result<Daemon> {
    Ok(Daemon {
        name: "containerd",
        program: system("containerd", "containerd")?,
        args: flags(&[("config", &show(paths.config("containerd.toml")))]),
    })
}

/// The API server, with the authorizers and admission of a real one.
#[must_use]
pub fn api_server(paths: &Paths) -> Daemon {
    let pki = |file: &str| show(paths.pki(file));
    built(
        paths,
        "kube-apiserver",
        &[
            ("bind-address", net::NODE_IP),
            ("advertise-address", net::NODE_IP),
            ("secure-port", &net::API_PORT.to_string()),
            (
                "etcd-servers",
                &format!("https://127.0.0.1:{}", net::ETCD_PORTS.0),
            ),
            ("etcd-cafile", &pki("ca.crt")),
            ("etcd-certfile", &pki("etcd-client.crt")),
            ("etcd-keyfile", &pki("etcd-client.key")),
            ("tls-cert-file", &pki("apiserver.crt")),
            ("tls-private-key-file", &pki("apiserver.key")),
            ("client-ca-file", &pki("ca.crt")),
            ("authorization-mode", "Node,RBAC"),
            ("enable-admission-plugins", "NodeRestriction"),
            ("allow-privileged", "true"),
            ("audit-policy-file", &show(paths.config("audit.yaml"))),
            ("audit-log-path", &show(paths.log(AUDIT))),
            // Megabytes; the one before is kept too.
            ("audit-log-maxsize", "50"),
            ("audit-log-maxbackup", "1"),
            ("anonymous-auth", "false"),
            ("service-cluster-ip-range", net::SERVICE_NETWORK),
            (
                "service-account-issuer",
                "https://kubernetes.default.svc.cluster.local",
            ),
            ("service-account-key-file", &pki("service-account.pub")),
            (
                "service-account-signing-key-file",
                &pki("service-account.key"),
            ),
            ("kubelet-certificate-authority", &pki("ca.crt")),
            ("kubelet-client-certificate", &pki("apiserver-kubelet.crt")),
            ("kubelet-client-key", &pki("apiserver-kubelet.key")),
            // The node's host name resolves nowhere.
            ("kubelet-preferred-address-types", "InternalIP"),
            ("requestheader-client-ca-file", &pki("front-proxy-ca.crt")),
            ("requestheader-allowed-names", "front-proxy-client"),
            ("requestheader-username-headers", "X-Remote-User"),
            ("requestheader-group-headers", "X-Remote-Group"),
            ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
            ("proxy-client-cert-file", &pki("front-proxy.crt")),
            ("proxy-client-key-file", &pki("front-proxy.key")),
            ("enable-aggregator-routing", "true"),
        ],
    )
}

/// The controllers: Deployments, ServiceAccounts, garbage collection and so on.
#[must_use]
pub fn controller_manager(paths: &Paths) -> Daemon {
    let kubeconfig = kubeconfig(paths, "controller-manager");
    built(
        paths,
        "kube-controller-manager",
        &[
            ("bind-address", "127.0.0.1"),
            ("secure-port", "12357"),
            ("kubeconfig", &kubeconfig),
            ("authentication-kubeconfig", &kubeconfig),
            ("authorization-kubeconfig", &kubeconfig),
            ("client-ca-file", &show(paths.pki("ca.crt"))),
            ("root-ca-file", &show(paths.pki("ca.crt"))),
            ("cluster-signing-cert-file", &show(paths.pki("ca.crt"))),
            ("cluster-signing-key-file", &show(paths.pki("ca.key"))),
            (
                "service-account-private-key-file",
                &show(paths.pki("service-account.key")),
            ),
            ("use-service-account-credentials", "true"),
            ("leader-elect", "false"),
        ],
    )
}

/// The scheduler.
#[must_use]
pub fn scheduler(paths: &Paths) -> Daemon {
    let kubeconfig = kubeconfig(paths, "scheduler");
    built(
        paths,
        "kube-scheduler",
        &[
            ("bind-address", "127.0.0.1"),
            ("secure-port", "12359"),
            ("kubeconfig", &kubeconfig),
            ("authentication-kubeconfig", &kubeconfig),
            ("authorization-kubeconfig", &kubeconfig),
            ("leader-elect", "false"),
        ],
    )
}

/// The kubelet of the only node.
#[must_use]
pub fn kubelet(paths: &Paths) -> Daemon {
    built(
        paths,
        "kubelet",
        &[
            ("config", &show(paths.config("kubelet.yaml"))),
            ("kubeconfig", &kubeconfig(paths, "kubelet")),
            ("root-dir", &show(paths.state().join("kubelet"))),
            ("hostname-override", net::NODE_NAME),
            ("node-ip", net::NODE_IP),
        ],
    )
}

/// kube-proxy: Services by iptables.
#[must_use]
pub fn kube_proxy(paths: &Paths) -> Daemon {
    built(
        paths,
        "kube-proxy",
        &[("config", &show(paths.config("kube-proxy.yaml")))],
    )
}

fn built(paths: &Paths, name: &'static str, args: &[(&str, &str)]) -> Daemon {
    Daemon {
        name,
        program: paths.bin().join(name),
        args: flags(args),
    }
}

fn system(program: &str, package: &str) -> Result<std::path::PathBuf> {
    run::find(program).ok_or_else(|| ClusterError::MissingCommand {
        command: program.to_owned(),
        package: package.to_owned(),
        reason: "the cluster runs it".to_owned(),
    })
}

fn kubeconfig(paths: &Paths, name: &str) -> String {
    show(paths.config(&format!("{name}.kubeconfig")))
}

fn show(path: std::path::PathBuf) -> String {
    path.display().to_string()
}

fn flags(args: &[(&str, &str)]) -> Vec<String> {
    args.iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect()
}
