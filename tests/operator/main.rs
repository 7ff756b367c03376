//! The operator against a real API server: what it makes, keeps, refuses and leaves alone.
#![recursion_limit = "512"]

mod charts;
mod commands;
mod dependencies;
mod docs;
mod kubectl;
mod lanes;
mod leaders;
mod metrics;
mod modes;
mod newcomers;
mod offsets;
mod plugin;
mod process;
mod resource;
mod rights;
mod schedules;
mod secrets;
mod shell;
mod simulation;
mod space;
mod traces;

use anyhow::{Context as _, Result};
use keylane_operator::scale::Recorded;
use serde_json::{Value, json};
use space::{Space, condition, consumer};
use std::time::Duration;

/// Every kind of child, with its name.
const CHILDREN: [(&str, &str); 7] = [
    ("deployment", "orders-keylane"),
    ("serviceaccount", "orders-keylane"),
    ("configmap", "orders-keylane"),
    ("secret", "orders-keylane-admin"),
    ("service", "orders-keylane"),
    ("networkpolicy", "orders-keylane"),
    ("poddisruptionbudget", "orders-keylane"),
];

/// The handler's container of a Deployment the operator made.
fn handler(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]["initContainers"][0]
}

fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition["status"] == "True")
}

fn message<'o>(object: &'o Value, kind: &str) -> &'o str {
    condition(object, kind)
        .and_then(|condition| condition["message"].as_str())
        .unwrap_or_default()
}

#[test]
fn children_are_made_owned_and_removed_with_their_consumer() -> Result<()> {
    let space = Space::with_operator("children")?;
    space.apply(&consumer("orders"))?;
    let owner = space.get("orderedconsumer", "orders")?["metadata"]["uid"].clone();
    for (kind, name) in CHILDREN {
        let child = space.until_object(kind, name, |_| true)?;
        let by = &child["metadata"]["ownerReferences"][0];
        assert_eq!(
            (&by["uid"], &by["controller"]),
            (&owner, &json!(true)),
            "{kind}"
        );
    }
    let deployment = space.get("deployment", "orders-keylane")?;
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(handler(&deployment)["restartPolicy"], "Always");
    assert_eq!(pod["containers"][0]["name"], "executor");
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["terminationGracePeriodSeconds"], 80);
    let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(
        annotations["kubectl.kubernetes.io/default-container"],
        "handler"
    );
    let account = space.get("serviceaccount", "orders-keylane")?;
    assert_eq!(account["automountServiceAccountToken"], false);

    // What somebody deletes comes back.
    space.kubectl(&["delete", "service", "orders-keylane"])?;
    space.until_object("service", "orders-keylane", |_| true)?;

    space.kubectl(&["delete", "orderedconsumer", "orders"])?;
    for (kind, name) in CHILDREN {
        space.until_gone(kind, name)?;
    }
    Ok(())
}

#[test]
fn what_opens_the_admin_api_is_made_once_and_its_certificate_exchanged_in_time() -> Result<()> {
    let space = Space::with_operator("access")?;
    space.apply(&consumer("orders"))?;
    let secret = space.until_object("secret", "orders-keylane-admin", |_| true)?;
    let token = secret["data"]["token"].as_str().unwrap_or_default();
    // 32 random bytes, in hexadecimal, in base64.
    assert_eq!(token.len(), 88);
    let mut changed = consumer("orders");
    changed["spec"]["handler"]["timeout"] = json!("5s");
    space.apply(&changed)?;
    space.until_object("configmap", "orders-keylane", |config| {
        config["data"]["consumer.yaml"]
            .as_str()
            .is_some_and(|text| text.contains("timeout: 5s"))
    })?;
    let after = space.get("secret", "orders-keylane-admin")?;
    assert_eq!(after["data"], secret["data"]);

    let soon = json!({"stringData": {"expires": "2026-01-01"}}).to_string();
    space.kubectl(&["patch", "secret", "orders-keylane-admin", "--patch", &soon])?;
    changed["spec"]["handler"]["timeout"] = json!("6s");
    space.apply(&changed)?;
    let renewed = space.until_object("secret", "orders-keylane-admin", |secret| {
        !secret["data"]["previous.crt"].is_null()
    })?;
    let (old, new) = (&secret["data"], &renewed["data"]);
    assert_eq!(new["previous.crt"], old["tls.crt"]);
    assert_eq!(new["token"], old["token"]);
    assert_eq!(new["expires"], old["expires"]);
    for key in ["tls.crt", "tls.key"] {
        assert_ne!(new[key], old[key]);
    }
    Ok(())
}

#[test]
fn a_change_of_the_template_reaches_the_pods_and_so_does_what_is_taken_out() -> Result<()> {
    let space = Space::with_operator("change")?;
    space.apply(&consumer("orders"))?;
    space.until_object("deployment", "orders-keylane", |deployment| {
        handler(deployment)["env"].as_array().map(Vec::len) == Some(2)
    })?;
    let mut changed = consumer("orders");
    let container = &mut changed["spec"]["template"]["spec"]["containers"][0];
    container["image"] = json!("localhost/not-there:2");
    container["env"] = json!([{"name": "KEPT", "value": "1"}]);
    space.apply(&changed)?;
    let deployment = space.until_object("deployment", "orders-keylane", |deployment| {
        handler(deployment)["image"] == "localhost/not-there:2"
    })?;
    assert_eq!(
        handler(&deployment)["env"],
        json!([{"name": "KEPT", "value": "1"}])
    );
    Ok(())
}

#[test]
fn bounds_of_lanes_replace_no_pods() -> Result<()> {
    let space = Space::with_operator("bounds")?;
    space.apply(&consumer("orders"))?;
    let before = space.until_object("deployment", "orders-keylane", |_| true)?;
    let mut changed = consumer("orders");
    changed["spec"]["lanes"] = json!({"min": 7, "max": 9});
    space.apply(&changed)?;
    // The new bounds are in force for pods to come.
    space.until_object("configmap", "orders-keylane", |config| {
        config["data"]["consumer.yaml"]
            .as_str()
            .is_some_and(|text| text.contains("min: 7"))
    })?;
    let generation = space.get("orderedconsumer", "orders")?["metadata"]["generation"].clone();
    space.until_object("orderedconsumer", "orders", |object| {
        object["status"]["observedGeneration"] == generation
    })?;
    let after = space.get("deployment", "orders-keylane")?;
    assert_eq!(after["spec"]["template"], before["spec"]["template"]);
    Ok(())
}

#[test]
fn a_foreign_object_with_a_childs_name_is_left_alone_and_named() -> Result<()> {
    let space = Space::with_operator("foreign")?;
    let foreign = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "orders-keylane"}, "data": {"mine": "1"}
    });
    space.apply(&foreign)?;
    let before = space.get("configmap", "orders-keylane")?;
    space.apply(&consumer("orders"))?;
    let object = space.until_object("orderedconsumer", "orders", |object| {
        is_true(object, "NameConflict")
    })?;
    assert!(message(&object, "NameConflict").contains("ConfigMap \"orders-keylane\""));
    assert!(!is_true(&object, "Ready"));
    assert_eq!(
        condition(&object, "Ready").map(|ready| ready["reason"].clone()),
        Some(json!("NameConflict"))
    );
    let after = space.get("configmap", "orders-keylane")?;
    assert_eq!(after, before);

    // Once it is out of the way the consumer gets its own.
    space.kubectl(&["delete", "configmap", "orders-keylane"])?;
    space.until_object("orderedconsumer", "orders", |object| {
        condition(object, "NameConflict").is_some() && !is_true(object, "NameConflict")
    })?;
    space.until_object("deployment", "orders-keylane", |_| true)?;
    Ok(())
}

#[test]
fn a_typing_error_in_the_template_is_reported_with_the_field() -> Result<()> {
    let space = Space::with_operator("typo")?;
    let mut wrong = consumer("orders");
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePullPolcy"] = json!("Never");
    space.apply(&wrong)?;
    let object = space.until_object("orderedconsumer", "orders", |object| {
        is_true(object, "TemplateInvalid")
    })?;
    let text = message(&object, "TemplateInvalid");
    assert!(text.contains("imagePullPolcy"), "{text}");
    Ok(())
}

#[test]
fn a_template_that_pods_may_not_have_replaces_none() -> Result<()> {
    let space = Space::with_operator("admitted")?;
    let level = "pod-security.kubernetes.io/enforce=restricted";
    space.kubectl(&["label", "namespace", &space.name, level])?;
    let mut restricted = consumer("orders");
    restricted["spec"]["template"]["spec"]["containers"][0]["securityContext"] = json!({
        "runAsNonRoot": true, "runAsUser": 7, "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}
    });
    space.apply(&restricted)?;
    let before = space.until_object("deployment", "orders-keylane", |_| true)?;
    space.apply(&consumer("orders"))?;
    let object = space.until_object("orderedconsumer", "orders", |object| {
        is_true(object, "TemplateInvalid")
    })?;
    let text = message(&object, "TemplateInvalid");
    assert!(text.contains("violates PodSecurity"), "{text}");
    let after = space.get("deployment", "orders-keylane")?;
    assert_eq!(after["spec"], before["spec"]);
    space.apply(&restricted)?;
    space.until_object("orderedconsumer", "orders", |object| {
        condition(object, "TemplateInvalid").is_some() && !is_true(object, "TemplateInvalid")
    })?;
    Ok(())
}

#[test]
fn the_older_of_two_keeps_the_group_and_the_younger_runs_once_it_is_gone() -> Result<()> {
    let space = Space::with_operator("contest")?;
    space.apply(&consumer("older"))?;
    space.until_object("deployment", "older-keylane", |_| true)?;
    // The API server tells ages in whole seconds; within one the uid decides, and that is chance.
    std::thread::sleep(Duration::from_millis(1100));
    space.apply(&consumer("younger"))?;
    let object = space.until_object("orderedconsumer", "younger", |object| {
        is_true(object, "GroupShared")
    })?;
    let text = message(&object, "GroupShared");
    assert!(text.contains("OrderedConsumer \"older\""), "{text}");
    let held = space.until_object("deployment", "younger-keylane", |_| true)?;
    assert_eq!(held["spec"]["replicas"], 0);
    let older = space.get("orderedconsumer", "older")?;
    assert!(!is_true(&older, "GroupShared"));
    space.kubectl(&["delete", "orderedconsumer", "older"])?;
    space.until_object("deployment", "younger-keylane", |deployment| {
        deployment["spec"]["replicas"] == 1
    })?;
    space.until_object("orderedconsumer", "younger", |object| {
        condition(object, "GroupShared").is_some() && !is_true(object, "GroupShared")
    })?;
    Ok(())
}

#[test]
fn brokers_that_do_not_answer_are_reported_and_the_lag_is_unknown() -> Result<()> {
    let space = Space::with_operator("broker")?;
    space.apply(&consumer("orders"))?;
    let object = space.until_object("orderedconsumer", "orders", |object| {
        is_true(object, "BrokerUnavailable")
    })?;
    let text = message(&object, "BrokerUnavailable");
    assert!(text.contains("127.0.0.1:1"), "{text}");
    assert_eq!(object["status"].get("lag"), None);
    assert_eq!(object["status"]["observedGeneration"], 1);
    Ok(())
}

#[test]
fn a_change_of_pods_is_kept_with_all_it_was_made_of() -> Result<()> {
    let space = Space::with_operator("decisions")?;
    let mut wanted = consumer("orders");
    wanted["spec"]["autoscaling"] = json!({"mode": "Auto", "minReplicas": 2, "maxReplicas": 4});
    space.apply(&wanted)?;
    let changed = space.until_object("orderedconsumer", "orders", |object| {
        object["spec"]["replicas"] == 2
    })?;
    // It was kept before it was carried out.
    let kept = space.get("configmap", "orders-keylane-decisions")?;
    let owner = &kept["metadata"]["ownerReferences"][0]["uid"];
    assert_eq!(*owner, changed["metadata"]["uid"]);
    let all = kept["data"].as_object().context("it has no data")?;
    let last = all.values().next_back().and_then(Value::as_str);
    let recorded: Recorded = serde_json::from_str(last.context("it keeps nothing")?)?;
    assert_eq!((recorded.inputs.replicas(), recorded.replicas), (1, 2));
    assert_eq!(recorded.replay(), recorded);
    Ok(())
}

#[test]
fn the_scale_subresource_sets_the_number_of_pods() -> Result<()> {
    let space = Space::with_operator("scale")?;
    space.apply(&consumer("orders"))?;
    space.until_object("deployment", "orders-keylane", |deployment| {
        deployment["spec"]["replicas"] == 1
    })?;
    space.kubectl(&["scale", "orderedconsumer/orders", "--replicas=2"])?;
    space.until_object("deployment", "orders-keylane", |deployment| {
        deployment["spec"]["replicas"] == 2
    })?;
    let object = space.until_object("orderedconsumer", "orders", |object| {
        object["status"]["replicas"] == 2
    })?;
    // An HPA finds the pods by the selector.
    let selector = object["status"]["selector"].as_str().unwrap_or_default();
    let pods = space.kubectl(&["get", "pods", "-l", selector, "-o", "name"])?;
    assert_eq!(pods.lines().count(), 2, "{pods}");
    Ok(())
}
