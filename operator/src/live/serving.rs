//! Serves the API: its own certificate, kept in a Secret that all operators of an installation share, and told
//! to the API server in the APIService.

use super::api::{GROUP, VERSION, router};
use super::front::{self, FrontError};
use crate::certificate::{self, CERTIFICATE, CertificateError, PREVIOUS, PRIVATE_KEY, part};
use crate::names;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::civil::Date;
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use keylane_consumer::program::tls::TlsListener;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tracing::{info, warn};

/// How often certificates are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// Time to the next try.
const AGAIN: Duration = Duration::from_secs(15);

/// Where the API is served.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespace of the Service, the operator's own.
    pub namespace: String,
    /// Name of the Service, and of the Secret with the certificate.
    pub service: String,
}

#[derive(Debug, thiserror::Error)]
enum ServingError {
    #[error("{what}: {source}")]
    Api { what: String, source: kube::Error },
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Front(#[from] FrontError),
    #[error("Secret {0:?} has no usable certificate: {1}; delete it, and it is made anew")]
    Unusable(String, String),
}

/// Serves until the process ends. What is missing is said in the log and tried again.
pub async fn serve(client: Client, listener: TcpListener, options: Options) -> std::io::Result<()> {
    let config = loop {
        match prepare(&client, &options).await {
            Ok(config) => break config,
            Err(error) => {
                warn!("{GROUP} is not served yet: {error}");
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    info!("{GROUP} is served");
    let config = Arc::new(RwLock::new(config));
    let in_force = config.clone();
    let listener = TlsListener::new(listener, move || {
        let config = in_force.read().unwrap_or_else(PoisonError::into_inner);
        config.clone()
    })?;
    tokio::spawn(follow(client.clone(), options, config));
    axum::serve(listener, router(client)).await
}

/// Takes over new certificates, its own and the API server's.
async fn follow(client: Client, options: Options, config: Arc<RwLock<Arc<ServerConfig>>>) {
    let mut wait = LOOK_EVERY;
    loop {
        tokio::time::sleep(wait).await;
        wait = match prepare(&client, &options).await {
            Ok(new) => {
                *config.write().unwrap_or_else(PoisonError::into_inner) = new;
                LOOK_EVERY
            }
            Err(error) => {
                warn!("{GROUP} is served as before: {error}");
                AGAIN
            }
        };
    }
}

/// Sees to it that there is a certificate and that the API server knows it.
async fn prepare(client: &Client, options: &Options) -> Result<Arc<ServerConfig>, ServingError> {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let secret = certificate(client, options, today).await?;
    tell(client, &secret).await?;
    let provider = Arc::new(ring::default_provider());
    let verifier = front::verifier(client, &provider).await?;
    let unusable = |reason: String| ServingError::Unusable(secret.name_any(), reason);
    let bytes = |key: &str| part(&secret, key).ok_or_else(|| unusable(format!("{key} is missing")));
    let chain = CertificateDer::from_pem_slice(bytes(CERTIFICATE)?);
    let chain = vec![chain.map_err(|error| unusable(error.to_string()))?];
    let key = PrivateKeyDer::from_pem_slice(bytes(PRIVATE_KEY)?);
    let key = key.map_err(|error| unusable(error.to_string()))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_client_cert_verifier(verifier))
        .and_then(|builder| builder.with_single_cert(chain, key));
    Ok(Arc::new(
        config.map_err(|error| unusable(error.to_string()))?,
    ))
}

/// The Secret, made or renewed if need be.
async fn certificate(
    client: &Client,
    options: &Options,
    today: Date,
) -> Result<Secret, ServingError> {
    let Options { namespace, service } = options;
    let failed = |doing: &str| {
        let what = format!("Secret {namespace}/{service} cannot be {doing}");
        move |source| ServingError::Api { what, source }
    };
    let server_name = format!("{service}.{namespace}.svc");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = secrets.get_opt(service).await.map_err(failed("read"))?;
    let Some(secret) = found else {
        let new = Secret {
            metadata: ObjectMeta {
                name: Some(service.clone()),
                ..ObjectMeta::default()
            },
            string_data: Some(certificate::issue(&server_name, today)?),
            ..Secret::default()
        };
        let created = secrets.create(&PostParams::default(), &new).await;
        return created.map_err(failed("made"));
    };
    let Some(data) = certificate::renewal(&secret, &server_name, today)? else {
        return Ok(secret);
    };
    let patch = json!({
        "metadata": {"resourceVersion": secret.resource_version()},
        "stringData": data,
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

/// Writes into the APIService what the API server is to trust.
async fn tell(client: &Client, secret: &Secret) -> Result<(), ServingError> {
    let name = format!("{VERSION}.{GROUP}");
    let failed = |doing: &str| {
        let what = format!("APIService {name} cannot be {doing}");
        move |source| ServingError::Api { what, source }
    };
    let services: Api<APIService> = Api::all(client.clone());
    let service = services.get(&name).await.map_err(failed("read"))?;
    let trusted = [CERTIFICATE, PREVIOUS].map(|key| part(secret, key).unwrap_or_default());
    let trusted = ByteString(trusted.concat());
    let known = service.spec.and_then(|spec| spec.ca_bundle);
    if known.as_ref() == Some(&trusted) {
        return Ok(());
    }
    let patch = json!({"spec": {"caBundle": trusted}});
    let parameters = PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let told = services
        .patch(&name, &parameters, &Patch::Merge(&patch))
        .await;
    told.map(drop).map_err(failed("written"))
}
