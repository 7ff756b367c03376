//! A HorizontalPodAutoscaler on the scale subresource: in mode LanesOnly the number of pods is its.
//!
//! The metrics API is served by the API server itself from a definition of its kind, and the test writes
//! what a metrics server would: the memory of each pod, and its CPU, which the operator sees too.

use crate::NAME;
use anyhow::{Context as _, Result};
use keylane_tests::cluster::run;
use keylane_tests::stack::Stack;
use keylane_tests::wait;
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(240);
const DEFINITION: &str = "pods.metrics.k8s.io";
const SELECTOR: &str = "--selector=keylane.dev/ordered-consumer=orders";

/// An autoscaler that wants a third of what each pod is said to use, then twice as much.
pub async fn drives_the_pods(stack: &Stack) -> Result<()> {
    // With figures of pods that an earlier run left.
    stack.kubectl(&["delete", "crd", DEFINITION, "--ignore-not-found"])?;
    apply(stack, "the metrics API", &definition())?;
    let served = ["wait", "--for=condition=Established", "--timeout=60s"];
    stack.kubectl(&[&served[..], &[&format!("crd/{DEFINITION}")]].concat())?;
    let outcome = scale(stack).await;
    stack.kubectl(&["delete", "hpa", NAME, "--ignore-not-found"])?;
    stack.kubectl(&["delete", "crd", DEFINITION])?;
    outcome
}

async fn scale(stack: &Stack) -> Result<()> {
    apply(stack, "the autoscaler", &autoscaler(stack.namespace()))?;
    pods(stack, 300, 3).await?;
    cpu_is_seen(stack).await?;
    pods(stack, 50, 1).await
}

/// Says that each pod uses so much until there are so many.
async fn pods(stack: &Stack, mebibytes: u32, wanted: u64) -> Result<()> {
    let what = format!("{wanted} pods by the autoscaler");
    wait::until(LIMIT, &what, async || {
        let all = publish(stack, mebibytes).map_err(|error| error.to_string())?;
        let object = stack
            .get("orderedconsumer", NAME)
            .map_err(|error| error.to_string())?;
        let sizes = [
            object["spec"]["replicas"].as_u64(),
            object["status"]["readyReplicas"].as_u64(),
        ];
        if sizes == [Some(wanted); 2] && all as u64 == wanted {
            return Ok(());
        }
        let autoscaler = stack.get("hpa", NAME).map_err(|error| error.to_string())?;
        Err(format!("{sizes:?}: {}", autoscaler["status"]))
    })
    .await?;
    println!("the autoscaler made it {wanted} pods");
    Ok(())
}

/// 1.9 of the 2 cores that a handler may use.
async fn cpu_is_seen(stack: &Stack) -> Result<()> {
    wait::until(LIMIT, "the CPU of pods in the last decision", async || {
        publish(stack, 300).map_err(|error| error.to_string())?;
        let object = stack
            .get("orderedconsumer", NAME)
            .map_err(|error| error.to_string())?;
        let inputs = &object["status"]["decision"]["inputs"];
        if inputs["cpuPercent"] == "95.0" {
            return Ok(());
        }
        Err(inputs.to_string())
    })
    .await?;
    Ok(())
}

/// Writes the figures of every pod; returns how many there are.
fn publish(stack: &Stack, mebibytes: u32) -> Result<usize> {
    let pods = stack.kubectl(&["get", "pods", SELECTOR, "--output=json"])?;
    let pods: Value = serde_json::from_str(&pods)?;
    let pods = pods["items"].as_array().context("no list of pods")?;
    let now = jiff::Timestamp::now().round(jiff::Unit::Second)?;
    let figures = pods.iter().map(|pod| {
        let metadata = &pod["metadata"];
        json!({
            "apiVersion": "metrics.k8s.io/v1beta1",
            "kind": "PodMetrics",
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "labels": metadata["labels"],
            },
            "timestamp": now.to_string(),
            "window": "15s",
            "containers": [{"name": "handler", "usage": {
                "cpu": "1900m", "memory": format!("{mebibytes}Mi"),
            }}],
        })
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": figures.collect::<Vec<_>>()});
    apply(stack, "what pods use", &list)?;
    Ok(pods.len())
}

fn apply(stack: &Stack, what: &str, object: &Value) -> Result<()> {
    let mut kubectl = stack.cluster().kubectl();
    kubectl.args(["apply", "--server-side", "--force-conflicts"]);
    kubectl.args(["--field-manager=test", "-f", "-"]);
    run::feed(
        &format!("applying {what}"),
        &mut kubectl,
        &object.to_string(),
    )?;
    Ok(())
}

fn autoscaler(namespace: &str) -> Value {
    let at_once = json!({"stabilizationWindowSeconds": 0});
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer", "name": NAME,
            },
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": {
                "name": "memory", "target": {"type": "AverageValue", "averageValue": "100Mi"},
            }}],
            "behavior": {"scaleDown": at_once, "scaleUp": at_once},
        }
    })
}

fn definition() -> Value {
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": DEFINITION,
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": "metrics.k8s.io",
            "scope": "Namespaced",
            "names": {"plural": "pods", "singular": "pod", "kind": "PodMetrics"},
            "versions": [{
                "name": "v1beta1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": anything},
            }],
        }
    })
}
