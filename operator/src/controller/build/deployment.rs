//! The Deployment: the user's template with the handler as a native sidecar and the executor beside it.
//!
//! A native sidecar starts before the executor and stops after it, so the handler outlives the drain.

use super::{hash, metadata, selector};
use crate::certificate::{CERTIFICATE, PRIVATE_KEY};
use crate::controller::validate::Consumer;
use crate::names;
use crate::pods::access::TOKEN;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec, Volume, VolumeMount};
use keylane_consumer::contract::spec::Rocketmq;
use keylane_consumer::contract::{ADMIN_PORT, METRICS_PORT, PROBE_PORT};
use keylane_consumer::source::rocketmq::wanted;
use serde_json::json;
use std::collections::BTreeMap;

/// Time the handler has to stop after the executor has drained, and time for everything else.
const HANDLER_STOP_SECONDS: i64 = 10;
const SPARE_SECONDS: i64 = 10;

pub fn deployment(
    consumer: &Consumer,
    image: &str,
    config: &str,
) -> Result<Deployment, serde_json::Error> {
    let template = template(consumer, image, config)?;
    let mut metadata = metadata(consumer, names::child(consumer.name()));
    metadata.annotations.get_or_insert_default().insert(
        names::TEMPLATE_HASH.to_owned(),
        hash(&serde_json::to_string(&template)?),
    );
    serde_json::from_value(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": consumer.replicas(),
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector(consumer)},
            // A new pod is there before an old one goes. Either way round each queue moves twice, but so it moves
            // from one that drains to one that takes it at once, nobody is short of pods meanwhile, and a
            // version that does not get ready takes nothing away.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template,
        }
    }))
}

fn template(
    consumer: &Consumer,
    image: &str,
    config: &str,
) -> Result<PodTemplateSpec, serde_json::Error> {
    let mut template = consumer.template().clone();
    let metadata = template.metadata.get_or_insert_default();
    metadata
        .labels
        .get_or_insert_default()
        .extend(selector(consumer));
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(names::CONFIG_HASH.to_owned(), hash(config));
    annotations
        .entry(names::DEFAULT_CONTAINER.to_owned())
        .or_insert_with(|| consumer.handler().name.clone());
    keep_meshes_out(annotations);

    let pod = template.spec.get_or_insert_default();
    let mut handler = consumer.handler().clone();
    handler.restart_policy = Some("Always".to_owned());
    let mut executor = executor(consumer, image)?;
    let mut volumes: Vec<Volume> = serde_json::from_value(json!([
        {"name": "keylane-config", "configMap": {"name": names::child(consumer.name())}},
        {"name": "keylane-admin", "secret": {"secretName": names::admin_secret(consumer.name())}},
    ]))?;
    if let Some(secrets) = rocketmq_secrets(&consumer.spec().rocketmq)? {
        executor
            .args
            .get_or_insert_default()
            .push(format!("--rocketmq-secrets={}", names::ROCKETMQ_DIR));
        let mount =
            json!({"name": secrets.name, "mountPath": names::ROCKETMQ_DIR, "readOnly": true});
        let mounts = executor.volume_mounts.get_or_insert_default();
        mounts.push(serde_json::from_value(mount)?);
        volumes.push(secrets);
    }
    if let Some(socket) = consumer.spec().handler.unix_socket() {
        let mount: VolumeMount = serde_json::from_value(
            json!({"name": "keylane-socket", "mountPath": socket.directory()}),
        )?;
        volumes.push(serde_json::from_value(
            json!({"name": "keylane-socket", "emptyDir": {}}),
        )?);
        for container in [&mut handler, &mut executor] {
            let mounts = container.volume_mounts.get_or_insert_default();
            mounts.push(mount.clone());
        }
    }
    pod.init_containers.get_or_insert_default().push(handler);
    pod.containers.push(executor);
    let drain = consumer.spec().drain.timeout.get().as_secs_f64().ceil() as i64;
    pod.termination_grace_period_seconds = Some(drain + HANDLER_STOP_SECONDS + SPARE_SECONDS);
    // A user's own account stays: clouds bind rights to it. Its token is not mounted either way.
    pod.service_account_name
        .get_or_insert_with(|| names::child(consumer.name()));
    pod.automount_service_account_token = Some(false);
    pod.volumes.get_or_insert_default().extend(volumes);
    Ok(template)
}

/// What the Secrets hold that let us into RocketMQ, of each only the keys that are needed: an authority's own
/// private key often lies beside its certificate. One volume, so that the kubelet exchanges all at once.
fn rocketmq_secrets(rocketmq: &Rocketmq) -> Result<Option<Volume>, serde_json::Error> {
    let wanted = wanted(rocketmq).into_iter();
    let sources: Vec<_> = wanted
        .map(|(part, secret)| {
            let items = [json!({"key": part.key(), "path": part.key()})];
            json!({"secret": {"name": secret, "items": items}})
        })
        .collect();
    if sources.is_empty() {
        return Ok(None);
    }
    let volume = json!({"name": "keylane-rocketmq", "projected": {"sources": sources}});
    serde_json::from_value(volume).map(Some)
}

/// A mesh's proxy must not take what the kubelet and the operator ask the executor: they are not in the mesh.
/// What the user excludes himself stays excluded.
fn keep_meshes_out(annotations: &mut BTreeMap<String, String>) {
    for name in names::MESH_EXCLUSIONS {
        let excluded = annotations.entry(name.to_owned()).or_default();
        for port in [PROBE_PORT, METRICS_PORT, ADMIN_PORT] {
            let port = port.to_string();
            if !excluded.split(',').any(|one| one.trim() == port) {
                if !excluded.is_empty() {
                    excluded.push(',');
                }
                excluded.push_str(&port);
            }
        }
    }
}

fn executor(consumer: &Consumer, default_image: &str) -> Result<Container, serde_json::Error> {
    let own = consumer.executor();
    let mut container: Container = serde_json::from_value(json!({
        "name": names::EXECUTOR_CONTAINER,
        "image": own.image.as_deref().unwrap_or(default_image),
        "args": [
            "run",
            format!("--file={}/{}", names::CONFIG_DIR, names::CONFIG_FILE),
            // From the ConfigMap, so that other bounds of lanes do not replace pods.
            format!("--lanes=$({})", names::START_LANES_VARIABLE),
            "--listen=0.0.0.0",
            format!("--admin-token-file={}/{}", names::ADMIN_DIR, TOKEN),
            format!("--admin-cert-file={}/{}", names::ADMIN_DIR, CERTIFICATE),
            format!("--admin-key-file={}/{}", names::ADMIN_DIR, PRIVATE_KEY),
        ],
        "env": [
            {"name": names::POD_UID_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": names::START_LANES_VARIABLE, "valueFrom": {"configMapKeyRef": {
                "name": names::child(consumer.name()), "key": names::START_LANES
            }}},
        ],
        "ports": [
            {"name": "kl-probes", "containerPort": PROBE_PORT},
            {"name": "kl-metrics", "containerPort": METRICS_PORT},
            {"name": "kl-admin", "containerPort": ADMIN_PORT},
        ],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": PROBE_PORT}, "periodSeconds": 2},
        // Past 30 s the broker would keep the queue locks of a process that does nothing with them.
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": PROBE_PORT},
            "periodSeconds": 10, "timeoutSeconds": 6, "failureThreshold": 3, "initialDelaySeconds": 10
        },
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
            "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}
        },
        "volumeMounts": [
            {"name": "keylane-config", "mountPath": names::CONFIG_DIR, "readOnly": true},
            {"name": "keylane-admin", "mountPath": names::ADMIN_DIR, "readOnly": true},
        ],
    }))?;
    container.resources = own.resources.clone();
    container
        .env
        .get_or_insert_default()
        .extend(own.env.iter().cloned());
    Ok(container)
}
