//! What opens the admin API of a consumer's pods: a token, and a certificate they are known by. Both lie in
//! a Secret that the pods mount.
//!
//! There is no authority behind the certificate: it would be a key that opens the way to every consumer's
//! pods, and would have to be kept somewhere. So nothing that a pod holds is worth anything beside the pods of
//! its own consumer. Pods see a new certificate when the kubelet has swapped the mounted files; until then the
//! one before is trusted too.

use crate::certificate::{CERTIFICATE, CertificateError, PREVIOUS, issue, part};
use jiff::civil::Date;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::collections::BTreeMap;

/// Key of the token in the Secret.
pub const TOKEN: &str = "token";

/// Why a Secret opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Something in it is missing or wrong.
    #[error(
        "{key:?} of Secret {name:?} cannot be used ({reason}): delete the Secret, and it is made anew; pods are not replaced for that"
    )]
    Unusable {
        /// Name of the Secret.
        name: String,
        /// Which part.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// There can be no client for it.
    #[error("the admin API of the pods: {0}")]
    Tls(String),
}

/// A client's part of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// The bearer token.
    pub token: String,
    /// The name in the certificate.
    pub server_name: ServerName<'static>,
    /// The certificates that pods may show.
    pub trusted: Vec<CertificateDer<'static>>,
}

impl Access {
    /// What a Secret says. Its pods are known by `server_name`.
    pub fn of(secret: &Secret, server_name: &str) -> Result<Self, AccessError> {
        let unusable = |key, reason: String| AccessError::Unusable {
            name: secret.name_any(),
            key,
            reason,
        };
        let missing = |key| unusable(key, "it is missing".to_owned());
        let token = part(secret, TOKEN).ok_or_else(|| missing(TOKEN))?;
        let mut trusted = Vec::new();
        for key in [CERTIFICATE, PREVIOUS] {
            match part(secret, key) {
                Some(pem) => {
                    let read = CertificateDer::from_pem_slice(pem);
                    trusted.push(read.map_err(|error| unusable(key, error.to_string()))?);
                }
                None if key == PREVIOUS => {}
                None => return Err(missing(key)),
            }
        }
        let name = ServerName::try_from(server_name.to_owned());
        Ok(Self {
            token: String::from_utf8_lossy(token).trim().to_owned(),
            server_name: name.map_err(|error| AccessError::Tls(error.to_string()))?,
            trusted,
        })
    }
}

/// What a Secret that does not exist yet is to hold.
pub fn new(
    token: [u8; 32],
    server_name: &str,
    today: Date,
) -> Result<BTreeMap<String, String>, CertificateError> {
    let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut data = issue(server_name, today)?;
    data.insert(TOKEN.to_owned(), token);
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::renewal;
    use crate::certificate::tests::{day, secret};

    const SERVER: &str = "orders-keylane.shop.svc";

    #[test]
    fn the_certificate_before_is_trusted_too() {
        let mut data = new([7; 32], SERVER, day("2026-03-02")).unwrap();
        let first = Access::of(&secret(&data), SERVER).unwrap();
        assert_eq!((first.token.len(), first.trusted.len()), (64, 1));
        let changes = renewal(&secret(&data), SERVER, day("2026-05-01")).unwrap();
        data.extend(changes.unwrap());
        let second = Access::of(&secret(&data), SERVER).unwrap();
        assert_eq!(second.token, first.token);
        assert_eq!(second.trusted.len(), 2);
        assert_eq!(second.trusted[1], first.trusted[0]);
        assert_ne!(second.trusted[0], first.trusted[0]);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let data = BTreeMap::from([(TOKEN.to_owned(), "t".repeat(64))]);
        let problem = |data: &_| Access::of(&secret(data), SERVER).err().unwrap().to_string();
        assert!(problem(&data).contains("\"tls.crt\""));
        let mut data = new([7; 32], SERVER, day("2026-03-02")).unwrap();
        data.insert(CERTIFICATE.to_owned(), "-----BEGIN".to_owned());
        assert!(problem(&data).contains("delete the Secret"));
        data.remove(TOKEN);
        assert!(problem(&data).contains("\"token\""));
    }
}
