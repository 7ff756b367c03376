//! Two versions of the operator: what the released one left in the API server is met by that of the source, and what
//! that one writes by the released definition.
//!
//! What it leaves after a while with load is recorded: its children, as its source made them, the owner of their
//! fields, its status and what autoscaling remembered in it. They are written again before the operator starts. So it
//! is tried whether that is understood, kept and taken over; `beside` tries it while the released one still leads, and
//! `turns` with its program.

use crate::leaders::pods;
use crate::space::{Space, consumer};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use keylane_operator::crd::{OrderedConsumer, OrderedConsumerStatus};
use keylane_tests::cluster::run;
use keylane_tests::images::workspace::workspace;
use kube::CustomResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Who owned the fields that it wrote.
const MANAGER: &str = "keylane.dev/operator";
/// What of the configuration replaced no pods.
const LIVE: [&str; 5] = ["lanes", "retry", "limits", "suspend", "redactKeys"];
/// Lanes that it had decided; a pod starts with four.
pub const LANES: u32 = 24;

#[test]
fn what_the_released_operator_left_is_taken_over_and_no_pod_is_replaced() -> Result<()> {
    let mut space = Space::new("versions")?;
    space.stop_installed_operators()?;
    space.apply(&consumer("orders"))?;
    let uid = space.get("orderedconsumer", "orders")?["metadata"]["uid"].clone();
    leave_children(&space, &uid)?;
    let learned = leave_status(&space, &uid, 1, None)?;
    space.until_object("deployment", "orders-keylane", |deployment| {
        deployment["status"]["replicas"] == 1
    })?;
    let (running, before) = (pods(&space)?.0, children(&space)?);
    ensure!(running.len() == 1, "{running:?}");

    space.start_operator()?;
    // The Deployment is the last child that is written.
    space.until_object("deployment", "orders-keylane", |deployment| {
        deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 1
    })?;
    // Decided anew, without figures: there is no broker, and the pod does not run.
    let object = space.until_object("orderedconsumer", "orders", |object| {
        object["status"]["decision"]["reason"] == "MetricsMissing"
    })?;
    let decision = &object["status"]["decision"];
    assert_eq!(decision["lanes"], LANES, "{decision}");
    let history = decision["history"].as_str().context("no history")?;
    let history: Value = serde_json::from_str(history)?;
    for part in ["model", "calm"] {
        for (name, value) in learned[part].as_object().into_iter().flatten() {
            assert_eq!(history[part][name], *value, "{part}.{name}");
        }
    }

    let mut after = children(&space)?;
    let strategy = &before["deployment"]["spec"]["strategy"];
    if let Some(deployment) = after.get_mut("deployment") {
        // Only how pods are replaced is otherwise now.
        assert_ne!(deployment["spec"]["strategy"], *strategy);
        deployment["spec"]["strategy"] = strategy.clone();
    }
    assert_eq!(after, before);
    assert_eq!(pods(&space)?.0, running);
    Ok(())
}

/// The children without what the API server and others keep in them.
pub fn children(space: &Space) -> Result<BTreeMap<&'static str, Value>> {
    let mut all = BTreeMap::new();
    for (kind, name) in crate::CHILDREN {
        let mut child = space.get(kind, name)?;
        if let Some(fields) = child.as_object_mut() {
            fields.remove("status");
        }
        if let Some(fields) = child["metadata"].as_object_mut() {
            for kept in ["resourceVersion", "generation", "managedFields"] {
                fields.remove(kept);
            }
        }
        all.insert(kind, child);
    }
    Ok(all)
}

/// FNV-1a, as the released operator hashed.
fn hash(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Writes the children as the released operator did.
pub fn leave_children(space: &Space, uid: &Value) -> Result<()> {
    let file = workspace().join("tests/operator/released/children-0.1.0.yaml");
    let text = std::fs::read_to_string(file)?.replace("NAMESPACE", &space.name);
    let documents = serde_norway::Deserializer::from_str(&text).map(Value::deserialize);
    let mut children: Vec<Value> = documents.collect::<Result<_, _>>()?;
    children.push(secret(space)?);
    let owner = json!([{
        "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer", "name": "orders",
        "uid": uid, "controller": true,
    }]);
    let labels = json!({
        "keylane.dev/ordered-consumer": "orders", "app.kubernetes.io/managed-by": "keylane",
        "app.kubernetes.io/name": "keylane-consumer",
    });
    let mut config = String::new();
    for child in &mut children {
        let metadata = &mut child["metadata"];
        metadata["namespace"] = json!(space.name);
        metadata["labels"] = labels.clone();
        metadata["ownerReferences"] = owner.clone();
        match child["kind"].as_str() {
            Some("ConfigMap") => {
                let text = &mut child["data"]["consumer.yaml"];
                let mut document: Value =
                    serde_norway::from_str(text.as_str().unwrap_or_default())?;
                *text = json!(serde_norway::to_string(&document)?);
                let spec = document["spec"].as_object_mut().context("no spec")?;
                spec.retain(|field, _| !LIVE.contains(&field.as_str()));
                config = hash(&serde_norway::to_string(&document)?);
            }
            // It is behind the ConfigMap.
            Some("Deployment") => {
                let template = &mut child["spec"]["template"];
                template["metadata"]["annotations"]["keylane.dev/config-hash"] = json!(config);
                let template: PodTemplateSpec = serde_json::from_value(template.clone())?;
                let hash = hash(&serde_json::to_string(&template)?);
                child["metadata"]["annotations"]["keylane.dev/template-hash"] = json!(hash);
            }
            _ => {}
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": children});
    let mut kubectl = space.cluster().kubectl();
    kubectl.args(["apply", "--server-side", "-f", "-"]);
    kubectl.arg(format!("--field-manager={MANAGER}"));
    run::feed("leaving children", &mut kubectl, &list.to_string())?;
    Ok(())
}

/// What opened the admin API: it is random, so only its form is recorded.
fn secret(space: &Space) -> Result<Value> {
    let server = format!("orders-keylane.{}.svc", space.name);
    let mut parts = keylane_operator::certificate::issue(&server, jiff::Zoned::now().date())?;
    assert_eq!(
        parts.keys().collect::<Vec<_>>(),
        ["expires", "tls.crt", "tls.key"]
    );
    parts.insert("token".to_owned(), "0123456789abcdef".repeat(4));
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "orders-keylane-admin"}, "stringData": parts,
    }))
}

/// Writes the status as the released operator did, with so many pods decided on, and figures of brokers missing for so
/// many seconds, if they are; gives what of it must not be forgotten.
pub fn leave_status(
    space: &Space,
    uid: &Value,
    decided: u32,
    missing: Option<f64>,
) -> Result<Value> {
    let now = jiff::Timestamp::now().as_second() as f64;
    let learned = json!({
        "model": {
            "service": 0.02, "completions": 4_000.0, "watched": 600.0, "shown": 120.0,
            "capacity": 400.0, "seen": true, "starts": [12.0],
        },
        "calm": {"direction": 1, "changedAt": now - 300.0, "reversals": [], "noUpBefore": null},
    });
    let history = json!({
        "at": now - 5.0,
        "arrivals": {
            "recent": [[now - 10.0, 118.5], [now - 5.0, 120.0]],
            "blocks": [[now - 10.0, 119.25]],
            "count": 2,
        },
        "queues": {"broker-a": [60.0, 60.0]},
        "completions": 120.0, "busy": 2.4,
        "model": learned["model"],
        "link": {"state": {"free": {"slow": 0}}, "rememberedUntil": null},
        "lanes": LANES, "change": null,
        "calm": learned["calm"],
        "missing": {"brokers": missing.map(|seconds| now - seconds), "pods": null},
        "burstUntil": null, "lastReason": "Steady",
    });
    let object = json!({
        "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer",
        "metadata": {"name": "orders", "uid": uid},
        "status": {
            "observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "lanes": LANES, "queues": 2,
            "selector": "app.kubernetes.io/managed-by=keylane,keylane.dev/ordered-consumer=orders",
            "lag": {"messages": 12, "unfinished": 7},
            "rates": {"arriving": "120.0", "completed": "120.0"},
            "decision": {
                "lanes": LANES, "replicas": decided, "reason": "Steady", "message": "what there is fits",
                "inputs": {"serviceMilliseconds": "20"}, "history": history.to_string(),
            },
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "AsExpected", "message": "",
                "observedGeneration": 1, "lastTransitionTime": "2026-11-26T14:49:56Z",
            }],
        },
    });
    tokio::runtime::Runtime::new()?.block_on(async {
        keylane_operator::install_crypto();
        let kubeconfig = kube::config::Kubeconfig::read_from(space.cluster().kubeconfig())?;
        let options = Default::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let client = kube::Client::try_from(config)?;
        let api: kube::Api<OrderedConsumer> = kube::Api::namespaced(client, &space.name);
        let parameters = PatchParams::apply(MANAGER).force();
        api.patch_status("orders", &parameters, &Patch::Apply(&object))
            .await?;
        anyhow::Ok(())
    })?;
    Ok(learned)
}

/// A status with everything in it that there is by now.
fn full_status() -> Value {
    json!({
        "observedGeneration": 1, "replicas": 3, "readyReplicas": 2, "lanes": 24, "queues": 8,
        "selector": "keylane.dev/ordered-consumer=orders",
        "lag": {"messages": 12, "unfinished": 7, "oldest": "40s", "drainedIn": "2s"},
        "rates": {"arriving": "120.0", "completed": "119.5"},
        "decision": {
            "lanes": 24, "replicas": 3, "reason": "Steady", "message": "what there is fits",
            "advisedReplicas": 4, "advisedLanes": 30,
            "inputs": {"serviceMilliseconds": "20"}, "history": "{\"lanes\":24}",
        },
        "hotKeys": [{"key": "a", "queue": "broker-a/0", "perSecond": "50.0", "waiting": "3s"}],
        "stuckKeys": [{
            "key": "b", "queue": "broker-a/1", "offset": 17, "stuckFor": "40s", "attempts": 2,
            "lastError": "answered 500",
        }],
        "blockedKeys": ["c (broker-a/2 at 18): answered 500"],
        "offsetsReset": {
            "id": "replay-1", "to": "earliest", "phase": "Done", "queuesDone": 8, "skipped": 0,
            "replayed": 100, "completedAt": "2026-11-26T15:00:00Z",
        },
    })
}

/// What an older definition, as after a rollback or before an upgrade of its chart, makes of this operator's status:
/// `kind` has the released one.
pub fn status_is_served(space: &Space, kind: &str) -> Result<()> {
    let mut status = full_status();
    let written: OrderedConsumerStatus = serde_json::from_value(status.clone())?;
    assert_eq!(serde_json::to_value(&written)?, status);
    status["conditions"] = json!([{
        "type": "HotKeyBound", "status": "True", "reason": "HotKey", "message": "key a",
        "observedGeneration": 1, "lastTransitionTime": "2026-11-26T15:00:00Z",
    }]);
    let definition = serde_json::to_value(OrderedConsumer::crd())?;
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let schema = &schema["properties"]["status"]["properties"];
    for (of, values) in [
        (schema, &status),
        (&schema["decision"]["properties"], &status["decision"]),
        (&schema["lag"]["properties"], &status["lag"]),
    ] {
        let fields = of.as_object().context("the definition has no status")?;
        for name in fields.keys() {
            ensure!(!values[name].is_null(), "{name} is not tried");
        }
    }

    let patch = json!({"status": status}).to_string();
    let change = ["--subresource=status", "--type=merge", "--patch", &patch];
    space.kubectl(&[&["patch", kind, "orders"], &change[..]].concat())?;
    let served = space.get(kind, "orders")?["status"].clone();
    let mut expected = status;
    for (of, unknown) in [
        ("", "hotKeys"),
        ("", "stuckKeys"),
        ("/lag", "oldest"),
        ("/lag", "drainedIn"),
        ("/decision", "advisedLanes"),
    ] {
        let fields = expected.pointer_mut(of).and_then(Value::as_object_mut);
        fields.context("it is not there")?.remove(unknown);
    }
    // What it does not know is left out, and the rest is as it was written.
    assert_eq!(served, expected);
    // This operator goes on from that, too.
    serde_json::from_value::<OrderedConsumerStatus>(served)?;
    Ok(())
}
