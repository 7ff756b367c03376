//! Brings the children to what was built. I/O.
//!
//! Never takes what is not ours: a child is created only where nothing of its name exists, and changed
//! only if it is controlled by this very OrderedConsumer. Every change names the uid it is meant for, so
//! an object that was replaced in between is not touched.
//!
//! What the spec no longer says is taken out again: server-side apply does so for fields its manager
//! applied, and what was created counts as applied.

use super::build::Resources;
use super::validate::Consumer;
use crate::names;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// Why children are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// An object of that name belongs to somebody else.
    #[error(
        "{kind} {name:?} exists and is not controlled by this OrderedConsumer: rename or delete it, or rename the OrderedConsumer; it was not touched"
    )]
    NameConflict {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The API server refused or did not answer.
    #[error("{kind} {name:?} cannot be applied: {source}")]
    Api {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// Why.
        source: kube::Error,
    },
    /// An object cannot be written as JSON.
    #[error("a child cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl ApplyError {
    /// True if the API server found the object itself wrong, so that a person must change it.
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Api { source: kube::Error::Api(status), .. } if matches!(status.code, 400 | 422))
    }
}

/// Applies all children; returns the Deployment as the API server has it now.
///
/// In this order, because a pod cannot start before what it mounts exists.
pub async fn apply(
    client: &Client,
    consumer: &Consumer,
    resources: Resources,
) -> Result<Deployment, ApplyError> {
    let Resources {
        service_account,
        config_map,
        secret,
        service,
        disruption_budget,
        deployment,
    } = resources;
    ensure(client, consumer, service_account, Present::Update).await?;
    ensure(client, consumer, config_map, Present::Update).await?;
    ensure(client, consumer, secret, Present::Keep).await?;
    ensure(client, consumer, service, Present::Update).await?;
    ensure(client, consumer, disruption_budget, Present::Update).await?;
    ensure(client, consumer, deployment, Present::Update).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Present {
    Update,
    Keep,
}

async fn ensure<K>(
    client: &Client,
    consumer: &Consumer,
    desired: K,
    present: Present,
) -> Result<K, ApplyError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    let (kind, name) = (K::kind(&()).into_owned(), desired.name_any());
    let failed = |source| ApplyError::Api {
        kind: kind.clone(),
        name: name.clone(),
        source,
    };
    let api: Api<K> = Api::namespaced(client.clone(), consumer.namespace());
    let found = match api.get_opt(&name).await.map_err(failed)? {
        Some(found) => found,
        None => {
            let parameters = PostParams {
                field_manager: Some(names::FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            match api.create(&parameters, &desired).await {
                // Somebody was faster; the next round sees who.
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                    return Err(ApplyError::NameConflict { kind, name });
                }
                result => result.map_err(failed)?,
            }
        }
    };
    let ours = found
        .owner_references()
        .iter()
        .any(|owner| owner.controller == Some(true) && owner.uid == consumer.uid());
    if !ours {
        return Err(ApplyError::NameConflict { kind, name });
    }
    if present == Present::Keep || found.meta().deletion_timestamp.is_some() {
        return Ok(found);
    }
    if let Some(patch) = as_applied(&found) {
        own(&api, &name, patch).await.map_err(failed)?;
    }
    let mut patch = serde_json::to_value(&desired)?;
    patch["apiVersion"] = Value::from(K::api_version(&()).into_owned());
    patch["kind"] = Value::from(kind.clone());
    patch["metadata"]["uid"] = Value::from(found.uid());
    // Forced for fields, not for objects: the object is ours by its uid.
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    api.patch(&name, &parameters, &Patch::Apply(&patch))
        .await
        .map_err(failed)
}

/// The patch that makes the fields we created fields we applied; none if they are already.
///
/// An object is created by a POST, because that cannot change one that somebody else made first. The
/// fields of a POST belong to their manager as an update, and an apply never removes those. Giving up
/// all ownership before the first apply does not help: the API server then gives every field to a
/// manager of its own, `before-first-apply`.
fn as_applied<K: Resource>(object: &K) -> Option<Value> {
    let meta = object.meta();
    let mut fields = meta.managed_fields.clone()?;
    let ours = |entry: &ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(names::FIELD_MANAGER) && entry.subresource.is_none()
    };
    let is = |entry: &ManagedFieldsEntry, operation| entry.operation.as_deref() == Some(operation);
    if fields.iter().any(|entry| ours(entry) && is(entry, "Apply")) {
        return None;
    }
    let created = fields
        .iter_mut()
        .find(|entry| ours(entry) && is(entry, "Update"))?;
    created.operation = Some("Apply".to_owned());
    Some(json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "managedFields": fields,
    }}))
}

async fn own<K>(api: &Api<K>, name: &str, patch: Value) -> Result<K, kube::Error>
where
    K: Clone + Debug + DeserializeOwned,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn managed(entries: Value) -> ConfigMap {
        serde_json::from_value(json!({
            "metadata": {"uid": "u", "resourceVersion": "7", "managedFields": entries}
        }))
        .unwrap()
    }

    #[test]
    fn only_what_we_created_and_never_applied_is_made_applied() {
        let ours =
            |operation: &str| json!({"manager": names::FIELD_MANAGER, "operation": operation});
        let other = json!({"manager": "kubectl", "operation": "Update"});
        let patch = as_applied(&managed(json!([other, ours("Update")]))).unwrap();
        let metadata = &patch["metadata"];
        assert_eq!(metadata["resourceVersion"], "7");
        assert_eq!(metadata["managedFields"], json!([other, ours("Apply")]));
        for nothing_to_do in [
            json!([]),
            json!([other]),
            json!([ours("Apply")]),
            json!([ours("Update"), ours("Apply")]),
        ] {
            assert_eq!(as_applied(&managed(nothing_to_do)), None);
        }
    }
}
