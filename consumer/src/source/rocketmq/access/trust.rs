//! Whom we trust over TLS, who we say we are, and what went wrong, in words for a person.

use super::{Access, Part, Parts};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use std::sync::Arc;

/// A client that trusts the authorities of ca.crt and nobody else. The private key is for the certificate, or
/// the configuration is refused here and not by each server.
pub fn config(parts: &Parts, shows_certificate: bool) -> Result<Arc<ClientConfig>, (Part, String)> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(parts, Part::Authority)? {
        let added = roots.add(certificate);
        added.map_err(|error| (Part::Authority, error.to_string()))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| (Part::Authority, error.to_string()))?
        .with_root_certificates(roots);
    let config = if shows_certificate {
        let chain = certificates(parts, Part::Certificate)?;
        let key = parts.get(Part::PrivateKey).unwrap_or_default();
        let key = PrivateKeyDer::from_pem_slice(key)
            // The error of a key may say something of it.
            .map_err(|_| (Part::PrivateKey, "there is no private key in it".to_owned()))?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| (Part::PrivateKey, error.to_string()))?
    } else {
        builder.with_no_client_auth()
    };
    Ok(Arc::new(config))
}

fn certificates(parts: &Parts, part: Part) -> Result<Vec<CertificateDer<'static>>, (Part, String)> {
    let pem = parts.get(part).unwrap_or_default();
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err((part, "there is no certificate in it".to_owned()))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err((part, error.to_string())),
    }
}

/// Why there is no TLS connection to a server that is to be `name`, and what to do.
pub fn explain(error: &rustls::Error, name: &ServerName<'_>, access: &Access) -> String {
    let (name, said) = (&*name.to_str(), access.said());
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "its certificate is from an authority that {} does not have: \
                 add the certificate of the authority that signed it there",
                said.place(Part::Authority)
            ),
            CertificateError::NotValidForName => other_name(name, &[], said.server_name()),
            CertificateError::NotValidForNameContext { presented, .. } => {
                other_name(name, presented, said.server_name())
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("its certificate has expired ({certificate}): renew it")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("its certificate is not valid yet ({certificate}): check the clocks")
            }
            other => format!(
                "its certificate cannot be verified ({other}): it must be an X.509 v3 certificate for a server, with its name as a subject alternative name"
            ),
        },
        rustls::Error::AlertReceived(alert) if is_about_us(*alert) => {
            if access.shows_certificate() {
                format!(
                    "it refuses the certificate of {} ({alert:?}): put one there from an authority that it trusts \
                     (its tls.server.trustCertPath)",
                    said.place(Part::Certificate)
                )
            } else {
                format!(
                    "it wants a certificate of its clients ({alert:?}): {}",
                    said.how_to_show_a_certificate()
                )
            }
        }
        rustls::Error::InvalidMessage(_) => format!(
            "it does not speak TLS (tls.server.mode disabled): enable that there, or take {} out",
            said.tls()
        ),
        other => other.to_string(),
    }
}

fn other_name(name: &str, presented: &[String], field: &str) -> String {
    let names = match presented {
        [] => "no name".to_owned(),
        some => {
            // As DnsName("rocketmq.test").
            let names = some
                .iter()
                .map(|name| name.split('"').nth(1).unwrap_or(name));
            names.take(5).collect::<Vec<_>>().join(", ")
        }
    };
    format!(
        "its certificate is for {names} and not for {name:?}: set {field} to a name that it is for, or add this one to it"
    )
}

/// Alerts that servers answer a missing or unwanted certificate of ours with.
fn is_about_us(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::CertificateRequired
            | AlertDescription::HandshakeFailure
    )
}
