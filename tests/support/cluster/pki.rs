//! The cluster's own certificate authority and everything it signs. Keys never leave the state
//! directory and are readable by their owner only.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::error::{ClusterError, Result};
use super::net::{API_SERVICE_IP, NODE_IP, NODE_NAME};
use super::paths::Paths;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// Makes the authorities, the certificates of all parts and the service account key.
pub fn create(paths: &Paths) -> Result<()> {
    let dir = paths.state().join("pki");
    std::fs::create_dir_all(&dir).map_err(ClusterError::io("create", &dir))?;
    let ca = authority("keylane-ca")?;
    write_private(&paths.pki("ca.crt"), &ca.pem())?;
    write_private(&paths.pki("ca.key"), &ca.key().serialize_pem())?;
    for leaf in leaves() {
        sign(paths, &ca, &leaf)?;
    }
    // The aggregation layer trusts its own authority, so that no other certificate can claim to
    // speak for a user.
    let front = authority("keylane-front-proxy-ca")?;
    write_private(&paths.pki("front-proxy-ca.crt"), &front.pem())?;
    sign(
        paths,
        &front,
        &Leaf::client("front-proxy", "front-proxy-client", None),
    )?;

    let key = key("service-account")?;
    write_private(&paths.pki("service-account.key"), &key.serialize_pem())?;
    write_private(&paths.pki("service-account.pub"), &key.public_key_pem())
}

struct Leaf {
    file: &'static str,
    common_name: String,
    organization: Option<&'static str>,
    names: Vec<String>,
    server: bool,
}

impl Leaf {
    fn client(file: &'static str, name: &str, organization: Option<&'static str>) -> Self {
        Self {
            file,
            common_name: name.to_owned(),
            organization,
            names: Vec::new(),
            server: false,
        }
    }

    fn server(file: &'static str, name: &str, names: &[&str]) -> Self {
        Self {
            file,
            common_name: name.to_owned(),
            organization: None,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            server: true,
        }
    }
}

fn leaves() -> Vec<Leaf> {
    let masters = Some("system:masters");
    vec![
        Leaf::server("etcd", "etcd", &["127.0.0.1", "localhost"]),
        Leaf::client("etcd-client", "kube-apiserver-etcd-client", None),
        Leaf::server(
            "apiserver",
            "kube-apiserver",
            &[
                NODE_IP,
                API_SERVICE_IP,
                "127.0.0.1",
                "localhost",
                NODE_NAME,
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
            ],
        ),
        Leaf::client(
            "apiserver-kubelet",
            "kube-apiserver-kubelet-client",
            masters,
        ),
        Leaf::server("kubelet-server", NODE_NAME, &[NODE_NAME, NODE_IP]),
        Leaf::client(
            "kubelet",
            &format!("system:node:{NODE_NAME}"),
            Some("system:nodes"),
        ),
        Leaf::client("controller-manager", "system:kube-controller-manager", None),
        Leaf::client("scheduler", "system:kube-scheduler", None),
        Leaf::client("kube-proxy", "system:kube-proxy", None),
        Leaf::client("admin", "keylane-admin", masters),
    ]
}

fn authority(name: &str) -> Result<Issuer> {
    let mut params = params(name, None, Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    CertifiedIssuer::self_signed(params, key(name)?).map_err(certificate(name))
}

fn sign(paths: &Paths, issuer: &Issuer, leaf: &Leaf) -> Result<()> {
    let key = key(leaf.file)?;
    let mut params = params(&leaf.common_name, leaf.organization, leaf.names.clone())?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = if leaf.server {
        // etcd's own gateway calls back with the server's certificate.
        vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ]
    } else {
        vec![ExtendedKeyUsagePurpose::ClientAuth]
    };
    let signed = params
        .signed_by(&key, issuer)
        .map_err(certificate(leaf.file))?;
    write_private(&paths.pki(&format!("{}.crt", leaf.file)), &signed.pem())?;
    write_private(
        &paths.pki(&format!("{}.key", leaf.file)),
        &key.serialize_pem(),
    )
}

fn params(name: &str, organization: Option<&str>, names: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names).map_err(certificate(name))?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    if let Some(organization) = organization {
        subject.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name = subject;
    // A cluster lives for days; the wide span forgives a wrong clock.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    Ok(params)
}

fn key(name: &str) -> Result<KeyPair> {
    KeyPair::generate().map_err(certificate(name))
}

fn certificate(name: &str) -> impl FnOnce(rcgen::Error) -> ClusterError + use<> {
    let name = name.to_owned();
    move |source| ClusterError::Certificate { name, source }
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(ClusterError::io("create", dir))?;
    }
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(ClusterError::io("write", path))
}
