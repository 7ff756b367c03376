//! What the operator serves over TLS: with a certificate of its own for a Service, kept in a Secret that all
//! operators of an installation share, and exchanged while it is served.

use crate::certificate::{
    self, CERTIFICATE, CertificateError, EXPIRES, PREVIOUS, PRIVATE_KEY, part,
};
use crate::names;
use axum::Router;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use keylane_consumer::program::tls::TlsListener;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tracing::{info, warn};

/// Key of the certificates that clients are to trust in the Secret: the one in force and the one before.
pub const AUTHORITIES: &str = "ca.crt";
/// How often certificates are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// Time to the next try.
const AGAIN: Duration = Duration::from_secs(15);

/// The Service that a certificate is for; the Secret has the same name.
#[derive(Clone, Debug)]
pub struct Place {
    /// Namespace of the Service, the operator's own.
    pub namespace: String,
    /// Name of the Service, and of the Secret with the certificate.
    pub service: String,
}

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The API server refused or did not answer.
    #[error("Secret {secret} cannot be {doing}: {source}")]
    Api {
        /// Namespace and name of the Secret.
        secret: String,
        /// What was tried.
        doing: &'static str,
        /// Why.
        source: kube::Error,
    },
    /// None can be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Somebody else's Secret has the name.
    #[error(
        "Secret {0:?} was not made by Keylane, which needs the name: rename or delete it; it was not touched"
    )]
    Foreign(String),
    /// What is in the Secret is none.
    #[error("Secret {0:?} has no usable certificate: {1}; delete it, and it is made anew")]
    Unusable(String, String),
}

/// The Secret with the certificate, made or renewed if need be.
pub async fn kept(client: &Client, place: &Place) -> Result<Secret, KeptError> {
    let Place { namespace, service } = place;
    let failed = |doing: &'static str| {
        let secret = format!("{namespace}/{service}");
        move |source| KeptError::Api {
            secret,
            doing,
            source,
        }
    };
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let server_name = format!("{service}.{namespace}.svc");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = secrets.get_opt(service).await.map_err(failed("read"))?;
    let Some(secret) = found else {
        let new = Secret {
            metadata: ObjectMeta {
                name: Some(service.clone()),
                ..ObjectMeta::default()
            },
            string_data: Some(with_authorities(certificate::issue(&server_name, today)?)),
            ..Secret::default()
        };
        let created = secrets.create(&PostParams::default(), &new).await;
        return created.map_err(failed("made"));
    };
    refuse_foreign(&secret)?;
    let Some(data) = certificate::renewal(&secret, &server_name, today)? else {
        return Ok(secret);
    };
    // The version that was just read is as good as a uid: an object that was replaced has another.
    let patch = json!({
        "metadata": {"resourceVersion": secret.resource_version()},
        "stringData": with_authorities(data),
    });
    let parameters = PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    // Another operator may have been faster: the next try finds what it wrote.
    let renewed = secrets
        .patch(service, &parameters, &Patch::Merge(&patch))
        .await;
    renewed.map_err(failed("renewed"))
}

/// Ours say when their certificate ends.
fn refuse_foreign(secret: &Secret) -> Result<(), KeptError> {
    match part(secret, EXPIRES) {
        Some(_) => Ok(()),
        None => Err(KeptError::Foreign(secret.name_any())),
    }
}

fn with_authorities(mut data: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let trusted = [CERTIFICATE, PREVIOUS].map(|key| data.get(key).map_or("", String::as_str));
    let trusted = trusted.concat();
    data.insert(AUTHORITIES.to_owned(), trusted);
    data
}

/// The certificate of a Secret with its key.
pub fn pair(
    secret: &Secret,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), KeptError> {
    let bytes =
        |key: &str| part(secret, key).ok_or_else(|| unusable(secret, &format!("{key} is missing")));
    let chain = CertificateDer::from_pem_slice(bytes(CERTIFICATE)?);
    let key = PrivateKeyDer::from_pem_slice(bytes(PRIVATE_KEY)?);
    Ok((
        vec![chain.map_err(|error| unusable(secret, &error))?],
        key.map_err(|error| unusable(secret, &error))?,
    ))
}

/// The certificate of a Secret cannot be used, for this reason.
pub fn unusable(secret: &Secret, reason: &dyn std::fmt::Display) -> KeptError {
    KeptError::Unusable(secret.name_any(), reason.to_string())
}

/// Serves until the process ends, with what `prepare` makes at the begin and every few minutes. What is missing
/// is said in the log and tried again; `what` is served meanwhile as before.
pub async fn serve<E, F>(
    what: &'static str,
    listener: TcpListener,
    router: Router,
    prepare: impl Fn() -> F + Send + Sync + 'static,
) -> std::io::Result<()>
where
    E: std::fmt::Display + Send + 'static,
    F: Future<Output = Result<Arc<ServerConfig>, E>> + Send + 'static,
{
    let config = loop {
        match prepare().await {
            Ok(config) => break config,
            Err(error) => {
                warn!("{what} is not served yet: {error}");
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    info!("{what} is served over TLS");
    let config = Arc::new(RwLock::new(config));
    let in_force = config.clone();
    let listener = TlsListener::new(listener, move || {
        let config = in_force.read().unwrap_or_else(PoisonError::into_inner);
        config.clone()
    })?;
    tokio::spawn(async move {
        let mut wait = LOOK_EVERY;
        loop {
            tokio::time::sleep(wait).await;
            wait = match prepare().await {
                Ok(new) => {
                    *config.write().unwrap_or_else(PoisonError::into_inner) = new;
                    LOOK_EVERY
                }
                Err(error) => {
                    warn!("{what} is served as before: {error}");
                    AGAIN
                }
            };
        }
    });
    axum::serve(listener, router).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::{day, secret};

    #[test]
    fn clients_trust_the_certificate_in_force_and_the_one_before() {
        let first = certificate::issue("a.b.svc", day("2026-03-02")).unwrap();
        let mut data = with_authorities(first.clone());
        assert_eq!(data[AUTHORITIES], first[CERTIFICATE]);
        let renewed = certificate::renewal(&secret(&data), "a.b.svc", day("2026-05-01"));
        data.extend(with_authorities(renewed.unwrap().unwrap()));
        let both = format!("{}{}", data[CERTIFICATE], first[CERTIFICATE]);
        assert_eq!(data[AUTHORITIES], both);
        assert!(pair(&secret(&data)).is_ok());
    }

    #[test]
    fn a_secret_without_a_certificate_is_named() {
        let data = BTreeMap::from([(CERTIFICATE.to_owned(), "-----BEGIN".to_owned())]);
        let error = pair(&secret(&data)).unwrap_err().to_string();
        assert!(error.contains("delete it, and it is made anew"), "{error}");
        let error = refuse_foreign(&secret(&data)).unwrap_err().to_string();
        assert!(error.contains("was not made by Keylane"), "{error}");
        let ours = certificate::issue("a.b.svc", day("2026-03-02")).unwrap();
        assert!(refuse_foreign(&secret(&ours)).is_ok());
    }
}
