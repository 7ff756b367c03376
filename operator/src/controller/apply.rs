//! Brings the children to what was built. I/O.
//!
//! Never takes what is not ours: a child is created only where nothing of its name exists, and changed
//! only if it is controlled by this very OrderedConsumer. Every change names the uid it is meant for, so
//! an object that was replaced in between is not touched.
//!
//! What the spec no longer says is taken out again: server-side apply does so for fields its manager
//! applied, and what was created counts as applied.
//!
//! A child that is as it was left, and is to be as it was to be then, is not written: [`Marks`].

use super::build::{self, Guests, Resources};
use super::validate::Consumer;
use crate::certificate::{self, CertificateError};
use crate::metrics::Metrics;
use crate::names;
use jiff::civil::Date;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;
use tracing::{info, instrument};

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
    /// No certificate can be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl ApplyError {
    /// True if the API server found the object itself wrong, so that a person must change it.
    pub fn is_invalid(&self) -> bool {
        match self {
            Self::Api {
                source: kube::Error::Api(status),
                kind,
                ..
            } => {
                // By an admission plugin or a policy, such as Pod Security; not for want of a right of our own.
                let refused = kind == POD
                    && status.code == 403
                    && !status.message.contains("cannot create resource");
                refused || matches!(status.code, 400 | 422)
            }
            _ => false,
        }
    }
}

const POD: &str = "Pod";

/// How each child was left, by kind.
#[derive(Clone, Debug, Default)]
pub struct Marks(BTreeMap<String, Mark>);

/// How a child was to be, and how it was then: whoever changes it changes the second.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    wanted: String,
    left: String,
}

impl Marks {
    /// Whether a Deployment is as it was left.
    pub fn knows(&self, deployment: &Deployment) -> bool {
        let known = self.0.get(Deployment::kind(&()).as_ref());
        known.is_some_and(|mark| mark.left == state(deployment))
    }
}

/// What changes when somebody changes the object, but not when its controller writes its status.
fn state<K: Resource>(object: &K) -> String {
    let meta = object.meta();
    let version = match meta.generation {
        Some(generation) => generation.to_string(),
        None => meta.resource_version.clone().unwrap_or_default(),
    };
    format!(
        "{:?} {version} {:?} {:?}",
        meta.uid, meta.labels, meta.owner_references
    )
}

/// What applying takes.
pub struct Applier<'a> {
    /// Writes.
    pub client: &'a Client,
    /// Whose children.
    pub consumer: &'a Consumer,
    /// How children were left.
    pub marks: &'a mut Marks,
    /// Counts writes.
    pub metrics: &'a Metrics,
    /// Who may reach the pods' own ports; none: everybody.
    pub guests: Option<&'a Guests>,
    /// The day, UTC.
    pub today: Date,
}

/// Children that rounds go on with, as the API server has them now.
pub struct Applied {
    /// The pods.
    pub deployment: Deployment,
    /// What opens the admin API.
    pub secret: Secret,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Present {
    Update,
    Keep,
}

impl Applier<'_> {
    /// Applies all children.
    ///
    /// In this order, because a pod cannot start before what it mounts exists. A template that is new is
    /// tried as a pod first: pods of the old one stay when the new one would be refused.
    #[instrument(level = "debug", skip_all)]
    pub async fn apply(&mut self, resources: Resources) -> Result<Applied, ApplyError> {
        let Resources {
            service_account,
            config_map,
            secret,
            service,
            disruption_budget,
            deployment,
        } = resources;
        self.ensure(service_account, Present::Update).await?;
        self.ensure(config_map, Present::Update).await?;
        let secret = self.ensure(secret, Present::Keep).await?;
        let secret = self.renew(secret).await?;
        self.ensure(service, Present::Update).await?;
        self.ensure(disruption_budget, Present::Update).await?;
        self.guard().await?;
        self.try_template(&deployment).await?;
        let deployment = self.ensure(deployment, Present::Update).await?;
        Ok(Applied { deployment, secret })
    }

    /// Closes the pods' own ports to others; opens them if they were closed and are not to be any more.
    async fn guard(&mut self) -> Result<(), ApplyError> {
        let policy = build::network_policy(self.consumer, self.guests)?;
        let name = policy.name_any();
        if self.guests.is_none() {
            let api: Api<NetworkPolicy> =
                Api::namespaced(self.client.clone(), self.consumer.namespace());
            let found = api.get_opt(&name).await;
            let found = found.map_err(|source| ApplyError::Api {
                kind: NetworkPolicy::kind(&()).into_owned(),
                name,
                source,
            })?;
            if !found.is_some_and(|found| self.consumer.controls(&found)) {
                return Ok(());
            }
        }
        self.ensure(policy, Present::Update).await?;
        Ok(())
    }

    /// Exchanges a certificate that ends soon.
    async fn renew(&self, secret: Secret) -> Result<Secret, ApplyError> {
        let (namespace, consumer) = (self.consumer.namespace(), self.consumer.name());
        let server_name = names::admin_server(namespace, consumer);
        let Some(data) = certificate::renewal(&secret, &server_name, self.today)? else {
            return Ok(secret);
        };
        let name = secret.name_any();
        let patch = json!({
            "metadata": {"uid": secret.uid(), "resourceVersion": secret.resource_version()},
            "stringData": data,
        });
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let parameters = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let renewed = api.patch(&name, &parameters, &Patch::Merge(&patch)).await;
        let renewed = renewed.map_err(|source| ApplyError::Api {
            kind: Secret::kind(&()).into_owned(),
            name: name.clone(),
            source,
        })?;
        self.metrics.wrote_child(&Secret::kind(&()));
        info!("{namespace}/{consumer}: the pods have a new certificate in Secret {name}");
        Ok(renewed)
    }

    async fn ensure<K>(&mut self, desired: K, present: Present) -> Result<K, ApplyError>
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
        let api: Api<K> = Api::namespaced(self.client.clone(), self.consumer.namespace());
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
                    result => {
                        let created = result.map_err(failed)?;
                        self.metrics.wrote_child(&kind);
                        created
                    }
                }
            }
        };
        if !self.consumer.controls(&found) {
            return Err(ApplyError::NameConflict { kind, name });
        }
        if present == Present::Keep || found.meta().deletion_timestamp.is_some() {
            return Ok(found);
        }
        let wanted = serde_json::to_value(&desired)?;
        let mark = Mark {
            wanted: build::hash(&wanted.to_string()),
            left: state(&found),
        };
        if self.marks.0.get(&kind) == Some(&mark) {
            return Ok(found);
        }
        if let Some(patch) = as_applied(&found) {
            own(&api, &name, patch).await.map_err(failed)?;
        }
        let mut patch = wanted;
        patch["apiVersion"] = Value::from(K::api_version(&()).into_owned());
        patch["kind"] = Value::from(kind.clone());
        patch["metadata"]["uid"] = Value::from(found.uid());
        // Forced for fields, not for objects: the object is ours by its uid.
        let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
        let applied = api
            .patch(&name, &parameters, &Patch::Apply(&patch))
            .await
            .map_err(failed)?;
        self.metrics.wrote_child(&kind);
        let left = state(&applied);
        self.marks.0.insert(kind, Mark { left, ..mark });
        Ok(applied)
    }

    /// Asks the API server what it would say to a pod of this template, unless pods of it were made already.
    async fn try_template(&self, deployment: &Deployment) -> Result<(), ApplyError> {
        let Some(pod) = build::pod(deployment) else {
            return Ok(());
        };
        let namespace = self.consumer.namespace();
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        let name = deployment.name_any();
        let failed = |kind: &str| {
            let (kind, name) = (kind.to_owned(), name.clone());
            move |source| ApplyError::Api { kind, name, source }
        };
        let found = deployments.get_opt(&name).await;
        let found = found.map_err(failed("Deployment"))?;
        let of = |object: &Deployment| object.annotations().get(names::TEMPLATE_HASH).cloned();
        if found.is_some_and(|found| of(&found) == of(deployment)) {
            return Ok(());
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let parameters = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        match pods.create(&parameters, &pod).await {
            Ok(_) => Ok(()),
            // Not about the template: a quota that is used up by pods that run, a webhook that cannot be
            // asked without effect.
            Err(kube::Error::Api(status))
                if status.message.contains("exceeded quota")
                    || status.message.contains("dry run") =>
            {
                Ok(())
            }
            Err(error) => Err(failed(POD)(error)),
        }
    }
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
    fn a_pod_that_is_not_permitted_is_a_fault_of_the_template_and_a_missing_right_is_not() {
        let refused = |kind: &str, message: &str| {
            let status = kube::core::Status::failure(message, "Forbidden").with_code(403);
            let error = ApplyError::Api {
                kind: kind.to_owned(),
                name: "orders".to_owned(),
                source: kube::Error::Api(status.boxed()),
            };
            error.is_invalid()
        };
        let security = "pods \"orders-\" is forbidden: violates PodSecurity \"restricted:latest\"";
        let no_right = "pods is forbidden: User \"operator\" cannot create resource \"pods\"";
        assert!(refused(POD, security));
        assert!(!refused(POD, no_right));
        assert!(!refused("Secret", security));
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
