//! Serves the API: its own certificate is told to the API server in the APIService, and nobody but the API server
//! is let in.

use super::api::{GROUP, VERSION, router};
use super::front::{self, FrontError};
use crate::certificate::{CERTIFICATE, PREVIOUS, part};
use crate::names;
use crate::served::{self, KeptError, Place};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use rustls::ServerConfig;
use rustls::crypto::ring;
use serde_json::json;
use std::sync::Arc;
use tokio::net::TcpListener;

#[derive(Debug, thiserror::Error)]
enum ServingError {
    #[error("APIService {VERSION}.{GROUP} cannot be {doing}: {source}")]
    Api {
        doing: &'static str,
        source: kube::Error,
    },
    #[error(transparent)]
    Kept(#[from] KeptError),
    #[error(transparent)]
    Front(#[from] FrontError),
}

/// Serves until the process ends, for the Service at `place`. What is missing is said in the log and tried
/// again.
pub async fn serve(client: Client, listener: TcpListener, place: Place) -> std::io::Result<()> {
    let router = router(client.clone());
    let prepare = move || prepare(client.clone(), place.clone());
    served::serve(GROUP, listener, router, prepare).await
}

/// Sees to it that there is a certificate and that the API server knows it.
async fn prepare(client: Client, place: Place) -> Result<Arc<ServerConfig>, ServingError> {
    let secret = served::kept(&client, &place).await?;
    tell(&client, &secret).await?;
    let provider = Arc::new(ring::default_provider());
    let verifier = front::verifier(&client, &provider).await?;
    let (chain, key) = served::pair(&secret)?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_client_cert_verifier(verifier))
        .and_then(|builder| builder.with_single_cert(chain, key));
    Ok(Arc::new(
        config.map_err(|error| served::unusable(&secret, &error))?,
    ))
}

/// Writes into the APIService what the API server is to trust.
async fn tell(client: &Client, secret: &Secret) -> Result<(), ServingError> {
    let name = format!("{VERSION}.{GROUP}");
    let failed = |doing| move |source| ServingError::Api { doing, source };
    let services: Api<APIService> = Api::all(client.clone());
    let service = services.get(&name).await.map_err(failed("read"))?;
    let uid = service.metadata.uid.clone();
    let trusted = [CERTIFICATE, PREVIOUS].map(|key| part(secret, key).unwrap_or_default());
    let trusted = ByteString(trusted.concat());
    let known = service.spec.and_then(|spec| spec.ca_bundle);
    if known.as_ref() == Some(&trusted) {
        return Ok(());
    }
    let patch = json!({"metadata": {"uid": uid}, "spec": {"caBundle": trusted}});
    let parameters = PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let told = services
        .patch(&name, &parameters, &Patch::Merge(&patch))
        .await;
    told.map(drop).map_err(failed("written"))
}
