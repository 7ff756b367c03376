//! The shape of the API, and its routes.

use super::{groups, letters, pods};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use keylane_consumer::contract::admin::Stats;
use kube::Client;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// API group.
pub const GROUP: &str = "live.keylane.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";
/// The resource.
pub const RESOURCE: &str = "consumerstats";
const KIND: &str = "ConsumerStats";

/// What the pods of an OrderedConsumer say of themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerStats {
    /// Group and version.
    pub api_version: String,
    /// ConsumerStats.
    pub kind: String,
    /// Whose they are.
    pub metadata: Metadata,
    /// The pods that have an address, in order of their names.
    pub pods: Vec<PodStats>,
}

/// Name and namespace of an OrderedConsumer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// What a pod says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStats {
    /// Name of the pod.
    pub name: String,
    /// What it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<Stats>,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ConsumerStats {
    /// What pods said.
    pub fn new(namespace: &str, name: &str, pods: Vec<PodStats>) -> Self {
        Self {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: KIND.to_owned(),
            metadata: Metadata {
                name: name.to_owned(),
                namespace: namespace.to_owned(),
            },
            pods,
        }
    }
}

/// Where the stats of an OrderedConsumer are.
pub fn path(namespace: &str, name: &str) -> String {
    format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{RESOURCE}/{name}")
}

/// The API, asked with the rights of the operator.
pub(crate) fn router(client: Client) -> Router {
    let version = format!("/apis/{GROUP}/{VERSION}");
    Router::new()
        .route(&version, get(async || Json(resources())))
        .route(&path("{namespace}", "{name}"), get(stats))
        .merge(letters::router())
        .merge(groups::router())
        .fallback(async || {
            failure(
                StatusCode::NOT_FOUND,
                "NotFound",
                "there is no such resource",
            )
        })
        .with_state(client)
}

/// What clients ask for first.
fn resources() -> Value {
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [
            {"name": RESOURCE, "singularName": "", "namespaced": true, "kind": KIND, "verbs": ["get"]},
            {
                "name": letters::RESOURCE, "singularName": "", "namespaced": true,
                "kind": "DeadLetters", "verbs": ["get"],
            },
            {
                "name": format!("{}/replay", letters::RESOURCE), "singularName": "", "namespaced": true,
                "kind": "DeadLetters", "verbs": ["create"],
            },
            {
                "name": groups::RESOURCE, "singularName": "", "namespaced": true,
                "kind": "Group", "verbs": ["create"],
            },
        ],
    })
}

async fn stats(
    State(client): State<Client>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    match pods::ask(&client, &namespace, &name).await {
        Ok(stats) => Json(stats).into_response(),
        Err(pods::LiveError::Api(kube::Error::Api(status))) => passed_on(&status),
        Err(error) => failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            &error.to_string(),
        ),
    }
}

/// What the API server answered the operator.
pub(super) fn passed_on(status: &kube::core::Status) -> Response {
    let code = StatusCode::from_u16(status.code);
    let code = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    failure(code, &status.reason, &status.message)
}

pub(super) fn failure(code: StatusCode, reason: &str, message: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    (code, Json(status)).into_response()
}
