//! The children beside the Deployment.

use super::{BuildError, metadata, selector};
use crate::controller::validate::Consumer;
use crate::names;
use k8s_openapi::api::core::v1::{
    ConfigMap, Secret, Service, ServiceAccount, ServicePort, ServiceSpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keylane_consumer::contract::spec::LIVE_FIELDS;
use keylane_consumer::contract::{ADMIN_PORT, API_VERSION, KIND, METRICS_PORT};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub fn service_account(consumer: &Consumer) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(consumer, names::child(consumer.name())),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// The configuration is an OrderedConsumer itself, so that the executor reads the same document with and
/// without Kubernetes. The lanes a pod starts with lie beside it: changing them replaces no pod.
pub fn config_map(consumer: &Consumer) -> Result<ConfigMap, BuildError> {
    let text = serde_norway::to_string(&document(consumer)?)?;
    Ok(ConfigMap {
        metadata: metadata(consumer, names::child(consumer.name())),
        data: Some(BTreeMap::from([
            (names::CONFIG_FILE.to_owned(), text),
            (
                names::START_LANES.to_owned(),
                consumer.spec().lanes.min.to_string(),
            ),
        ])),
        ..ConfigMap::default()
    })
}

/// The last decisions, for people to look into and to make again.
pub fn decisions(consumer: &Consumer, data: BTreeMap<String, String>) -> ConfigMap {
    ConfigMap {
        metadata: metadata(consumer, names::decisions(consumer.name())),
        data: Some(data),
        ..ConfigMap::default()
    }
}

/// The part of the configuration that a running pod does not take over. The bounds of lanes the operator
/// keeps to when it sets lanes; the others a pod reads again when its mounted file changes.
pub fn fixed_configuration(consumer: &Consumer) -> Result<String, BuildError> {
    let mut document = document(consumer)?;
    if let Some(spec) = document["spec"].as_object_mut() {
        for field in ["lanes"].iter().chain(&LIVE_FIELDS) {
            spec.remove(*field);
        }
    }
    Ok(serde_norway::to_string(&document)?)
}

fn document(consumer: &Consumer) -> Result<Value, serde_json::Error> {
    Ok(json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": consumer.name(), "namespace": consumer.namespace()},
        "spec": serde_json::to_value(consumer.spec())?,
    }))
}

pub fn secret(consumer: &Consumer, access: BTreeMap<String, String>) -> Secret {
    Secret {
        metadata: metadata(consumer, names::admin_secret(consumer.name())),
        type_: Some("Opaque".to_owned()),
        string_data: Some(access),
        ..Secret::default()
    }
}

pub fn service(consumer: &Consumer) -> Service {
    let port = |name: &str, port: u16| ServicePort {
        name: Some(name.to_owned()),
        port: port.into(),
        ..ServicePort::default()
    };
    Service {
        metadata: metadata(consumer, names::child(consumer.name())),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(selector(consumer)),
            ports: Some(vec![
                port("metrics", METRICS_PORT),
                port("admin", ADMIN_PORT),
            ]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

pub fn disruption_budget(consumer: &Consumer) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(consumer, names::child(consumer.name())),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            selector: Some(LabelSelector {
                match_labels: Some(selector(consumer)),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
