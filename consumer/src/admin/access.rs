//! What opens the admin API: the bearer token and, where it is served over TLS, a certificate with its key.
//!
//! All of them are files, read again every few seconds: in a pod a mounted Secret, which the kubelet swaps
//! some time after it was changed. Connections that are open stay; those made after the change get the new
//! certificate, and requests need the new token. Files that do not fit together, because they are being
//! exchanged, change nothing.

use crate::secret::is_same;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tracing::{info, warn};

const LOOK_EVERY: Duration = Duration::from_secs(5);
const SHORTEST_TOKEN: usize = 16;

/// Where it lies.
#[derive(Clone, Debug)]
pub struct Files {
    /// The token; blanks round it do not count.
    pub token: PathBuf,
    /// Certificate chain and private key, PEM; without them the admin API is served in clear.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error("the admin API's {what} {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which file.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The token could be guessed.
    #[error(
        "the admin token in {} has fewer than {SHORTEST_TOKEN} characters: write a random one, such as that of openssl rand -hex 32",
        path.display()
    )]
    ShortToken {
        /// Its path.
        path: PathBuf,
    },
    /// A file is not what it should be, or they do not belong together.
    #[error(
        "the admin API's certificate {} and key {} cannot be used: {reason}; both are PEM, the key PKCS #8, PKCS #1 or SEC 1 and not encrypted",
        certificate.display(),
        key.display()
    )]
    Certificate {
        /// Path of the certificate.
        certificate: PathBuf,
        /// Path of the key.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What opens the admin API now.
pub struct Access {
    files: Files,
    in_force: RwLock<InForce>,
}

#[derive(Clone, PartialEq)]
struct InForce {
    token: String,
    certificate: Option<Certificate>,
}

#[derive(Clone)]
struct Certificate(Arc<CertifiedKey>);

impl PartialEq for Certificate {
    /// A certificate has one key.
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Access")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Access {
    /// Reads the files.
    pub fn read(files: Files) -> Result<Arc<Self>, AccessError> {
        let in_force = RwLock::new(InForce::read(&files)?);
        Ok(Arc::new(Self { files, in_force }))
    }

    /// Whether it is served over TLS.
    pub fn is_encrypted(&self) -> bool {
        self.files.tls.is_some()
    }

    /// TLS 1.3 with the certificate that is in force when a connection is made.
    pub fn server_config(self: &Arc<Self>) -> io::Result<Arc<ServerConfig>> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        Ok(Arc::new(config))
    }

    /// Takes over changes of the files; never returns.
    pub async fn follow(self: Arc<Self>) {
        let mut interval = tokio::time::interval(LOOK_EVERY);
        let mut last_problem = None;
        loop {
            interval.tick().await;
            match self.look() {
                Ok(changed) => {
                    last_problem = None;
                    if changed {
                        info!(
                            "the admin API's token or certificate has changed and was taken over"
                        );
                    }
                }
                Err(problem) => {
                    let problem = problem.to_string();
                    if last_problem.as_ref() != Some(&problem) {
                        warn!("the admin API's token and certificate stay as they are: {problem}");
                    }
                    last_problem = Some(problem);
                }
            }
        }
    }

    /// Reads the files again; says whether something is new.
    fn look(&self) -> Result<bool, AccessError> {
        let found = InForce::read(&self.files)?;
        let mut in_force = self
            .in_force
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let changed = *in_force != found;
        *in_force = found;
        Ok(changed)
    }

    /// Whether that is the token.
    pub fn is_token(&self, given: &[u8]) -> bool {
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
        is_same(given, in_force.token.as_bytes())
    }
}

impl ResolvesServerCert for Access {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
        in_force
            .certificate
            .clone()
            .map(|certificate| certificate.0)
    }
}

impl InForce {
    fn read(files: &Files) -> Result<Self, AccessError> {
        let token = String::from_utf8_lossy(&read("token", &files.token)?)
            .trim()
            .to_owned();
        if token.len() < SHORTEST_TOKEN {
            return Err(AccessError::ShortToken {
                path: files.token.clone(),
            });
        }
        let certificate = files
            .tls
            .as_ref()
            .map(|(certificate, key)| Certificate::read(certificate, key))
            .transpose()?;
        Ok(Self { token, certificate })
    }
}

impl Certificate {
    fn read(certificate: &Path, key: &Path) -> Result<Self, AccessError> {
        let (chain, secret) = (read("certificate", certificate)?, read("key", key)?);
        certified(&chain, &secret, &ring::default_provider())
            .map(|certified| Self(Arc::new(certified)))
            .map_err(|reason| AccessError::Certificate {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                reason,
            })
    }
}

/// Fails if they do not belong together.
fn certified(chain: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| format!("the certificate: {error}"))?;
    if chain.is_empty() {
        return Err("there is no certificate".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key: {error}"))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| error.to_string())
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, AccessError> {
    std::fs::read(path).map_err(|source| AccessError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::{Made, make};

    #[test]
    fn only_the_whole_token_is_the_token() {
        assert!(is_same(b"secret", b"secret"));
        for given in [&b""[..], b"s", b"secre", b"secrets", b"Secret"] {
            assert!(!is_same(given, b"secret"));
        }
    }

    #[test]
    fn files_that_do_not_fit_together_change_nothing() {
        let Made { access, dir, .. } = make("executor.test");
        assert!(access.is_token(b"0123456789abcdef") && !access.look().unwrap());
        let other = make("executor.test");
        let (mine, others) = (dir.path(), other.dir.path());
        std::fs::copy(others.join("tls.crt"), mine.join("tls.crt")).unwrap();
        std::fs::write(mine.join("token"), "another token, 28 characters").unwrap();
        let problem = access.look().unwrap_err().to_string();
        assert!(problem.contains("tls.crt"), "{problem}");
        assert!(access.is_token(b"0123456789abcdef"));
        std::fs::copy(others.join("tls.key"), mine.join("tls.key")).unwrap();
        assert!(access.look().unwrap());
        assert!(access.is_token(b"another token, 28 characters"));
        assert!(!access.is_token(b"0123456789abcdef"));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_path() {
        let Made { access, dir, .. } = make("executor.test");
        let say = |file: &str, text: &str| {
            let path = dir.path().join(file);
            let before = std::fs::read(&path).unwrap();
            std::fs::write(&path, text).unwrap();
            let problem = access.look().unwrap_err().to_string();
            std::fs::write(&path, before).unwrap();
            assert!(problem.contains(&*path.to_string_lossy()), "{problem}");
            problem
        };
        assert!(say("token", " short \n").contains("fewer than 16 characters"));
        assert!(say("tls.crt", "").contains("there is no certificate"));
        assert!(say("tls.key", "no key").contains("the key:"));
        std::fs::remove_file(dir.path().join("tls.key")).unwrap();
        let problem = access.look().unwrap_err().to_string();
        assert!(
            problem.contains("key") && problem.contains("cannot be read"),
            "{problem}"
        );
    }
}
