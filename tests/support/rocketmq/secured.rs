//! A broker that lets only some clients in: by RocketMQ's ACL 2.0, and over TLS alone.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::broker::Broker;
use super::door::Door;
use super::error::{Result, RocketMqError};

/// The user who may everything, and the password.
const OWNER: (&str, &str) = ("owner", "owner-of-the-broker");
/// The name in the servers' certificates.
const NAME: &str = "rocketmq.test";

/// Somebody who issues certificates.
#[derive(Clone)]
pub struct Authority(Arc<Issued>);

struct Issued {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Authority")
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// When no key can be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let made = || {
            let mut params = CertificateParams::new(Vec::new())?;
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate()?;
            let pem = params.self_signed(&key)?.pem();
            let issuer = Issuer::new(params, key);
            Ok::<_, rcgen::Error>(Self(Arc::new(Issued { issuer, pem })))
        };
        match made() {
            Ok(authority) => authority,
            Err(error) => panic!("no authority {name}: {error}"),
        }
    }

    /// Its own certificate (PEM).
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.0.pem
    }

    /// A certificate for these names and its private key (both PEM), for a server or a client.
    ///
    /// # Panics
    /// When a name is none.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> (String, String) {
        let issued = || {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            let mut params = CertificateParams::new(names)?;
            params
                .distinguished_name
                .push(DnType::CommonName, "of a test");
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let key = KeyPair::generate()?;
            let pem = params.signed_by(&key, &self.0.issuer)?.pem();
            Ok::<_, rcgen::Error>((pem, key.serialize_pem()))
        };
        match issued() {
            Ok(issued) => issued,
            Err(error) => panic!("no certificate for {names:?}: {error}"),
        }
    }
}

/// What clients are let in by.
#[derive(Clone, Debug, Default)]
pub struct Secured {
    /// Requests must be signed by a user who may do what they ask. The tests' own are those of a user who may
    /// everything.
    pub acl: bool,
    /// Connections must be over TLS (enforcing mode); servers have a certificate of this authority for
    /// `rocketmq.test` alone.
    pub tls: Option<Authority>,
    /// Clients must show a certificate of the same authority.
    pub asks_clients: bool,
}

impl Secured {
    /// The way in of the tests' own requests, and lines of broker.conf; what they name is written into the
    /// directory.
    pub(super) fn doors(&self, dir: &Path) -> Result<(Door, Vec<(&'static str, String)>)> {
        let (mut door, mut lines) = (Door::default(), Vec::new());
        if let Some(authority) = &self.tls {
            let write = |name: &str, text: &str| {
                let path = dir.join(name);
                match std::fs::write(&path, text) {
                    Ok(()) => Ok(path.display().to_string()),
                    Err(error) => Err(RocketMqError::io("write", &path)(error)),
                }
            };
            let (certificate, key) = authority.issue(&[NAME]);
            let trusted = write("ca.pem", authority.certificate())?;
            let certificate = write("server.pem", &certificate)?;
            let key = write("server.key", &key)?;
            let wanted = if self.asks_clients { "require" } else { "none" };
            let properties = write(
                "tls.properties",
                &format!(
                    "tls.test.mode.enable=false\n\
                     tls.server.certPath={certificate}\ntls.server.keyPath={key}\n\
                     tls.server.need.client.auth={wanted}\ntls.server.authClient={}\n\
                     tls.server.trustCertPath={trusted}\n\
                     tls.client.certPath={certificate}\ntls.client.keyPath={key}\n\
                     tls.client.authServer=true\ntls.client.trustCertPath={trusted}\n",
                    self.asks_clients
                ),
            )?;
            door.tls = Some(client(authority)?);
            // A broker is a client of the name server.
            door.java.extend([
                "-Dtls.server.mode=enforcing".to_owned(),
                "-Dtls.enable=true".to_owned(),
                format!("-Dtls.config.file={properties}"),
            ]);
        }
        if self.acl {
            let (user, password) = OWNER;
            door.user = Some((user.to_owned(), password.to_owned()));
            let auth = "org.apache.rocketmq.auth";
            lines.extend([
                ("authenticationEnabled", "true".to_owned()),
                (
                    "authenticationProvider",
                    format!("{auth}.authentication.provider.DefaultAuthenticationProvider"),
                ),
                (
                    "authenticationMetadataProvider",
                    format!("{auth}.authentication.provider.LocalAuthenticationMetadataProvider"),
                ),
                (
                    "initAuthenticationUser",
                    format!(r#"{{"username":"{user}","password":"{password}"}}"#),
                ),
                (
                    "innerClientAuthenticationCredentials",
                    format!(r#"{{"accessKey":"{user}","secretKey":"{password}"}}"#),
                ),
                ("authorizationEnabled", "true".to_owned()),
                (
                    "authorizationProvider",
                    format!("{auth}.authorization.provider.DefaultAuthorizationProvider"),
                ),
                (
                    "authorizationMetadataProvider",
                    format!("{auth}.authorization.provider.LocalAuthorizationMetadataProvider"),
                ),
            ]);
        }
        Ok((door, lines))
    }
}

impl Broker {
    /// Makes a user of the ACL who may no more than a consumer of a topic and group needs, as the documentation
    /// says; with `retries` also what mode None needs.
    pub async fn permit(
        &self,
        user: &str,
        password: &str,
        (topic, group): (&str, &str),
        retries: bool,
    ) -> Result<()> {
        self.mqadmin(&[
            "createUser",
            "-c",
            "keylane",
            "-u",
            user,
            "-p",
            password,
            "-t",
            "Normal",
        ])
        .await?;
        let mut rights = vec![
            (format!("Topic:{topic}"), "Sub,Get"),
            (format!("Group:{group}"), "Sub,Get,Update"),
            (format!("Topic:KEYLANE_{group}"), "Pub,Sub,Get,Create"),
        ];
        if retries {
            rights.extend([
                (format!("Topic:%RETRY%{group}"), "Sub,Get"),
                (format!("Topic:KEYLANE%{group}"), "Pub,Sub,Get,Create"),
            ]);
        }
        let subject = format!("User:{user}");
        for (resource, actions) in rights {
            self.mqadmin(&[
                "createAcl",
                "-c",
                "keylane",
                "-s",
                &subject,
                "-r",
                &resource,
                "-a",
                actions,
                "-d",
                "Allow",
            ])
            .await?;
        }
        Ok(())
    }
}

fn client(authority: &Authority) -> Result<(Arc<ClientConfig>, ServerName<'static>)> {
    let made = || {
        let mut roots = RootCertStore::empty();
        roots.add(pem(authority.certificate())?)?;
        let (certificate, key) = authority.issue(&["client.test"]);
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![pem(&certificate)?], key)?;
        anyhow::Ok((Arc::new(config), ServerName::try_from(NAME)?))
    };
    made().map_err(|error| RocketMqError::Connection {
        address: NAME.to_owned(),
        reason: error.to_string(),
    })
}

fn pem(text: &str) -> anyhow::Result<CertificateDer<'static>> {
    Ok(CertificateDer::from_pem_slice(text.as_bytes())?)
}
