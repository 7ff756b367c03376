//! Secrets that let Keylane into RocketMQ: named in the spec, read by name, mounted in the executor alone.

use crate::space::{Space, consumer};
use crate::{is_true, message};
use anyhow::Result;
use serde_json::{Value, json};

/// The condition's words, once they have these in them.
fn until_said(space: &Space, words: &[&str]) -> Result<String> {
    let found = space.until_object("orderedconsumer", "orders", |object| {
        let said = message(object, "BrokerUnavailable");
        is_true(object, "BrokerUnavailable") && words.iter().all(|words| said.contains(words))
    })?;
    Ok(message(&found, "BrokerUnavailable").to_owned())
}

fn secret(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
}

#[test]
fn a_secret_that_is_missing_or_wrong_is_said_and_a_right_one_taken_over() -> Result<()> {
    let space = Space::with_operator("secrets")?;
    let mut orders = consumer("orders");
    orders["spec"]["rocketmq"]["credentialsSecretRef"] = json!({"name": "mq-acl"});
    space.apply(&orders)?;
    let field = "spec.rocketmq.credentialsSecretRef";
    let missing = "there is no Secret \"mq-acl\" in namespace";
    until_said(
        &space,
        &[field, missing, "create it with accessKey and secretKey"],
    )?;

    let mut namespaced = secret("mq-acl", json!({"accessKey": "orders"}));
    namespaced["metadata"]["namespace"] = json!(space.name);
    space.apply(&namespaced)?;
    until_said(&space, &[field, "Secret \"mq-acl\" has no \"secretKey\""])?;

    namespaced["stringData"]["secretKey"] = json!("a-password-of-a-test");
    space.apply(&namespaced)?;
    // Let in as far as that goes: there are no brokers here.
    let said = until_said(&space, &["did not answer"])?;
    assert!(!said.contains("a-password"), "{said}");

    let deployment = space.until_object("deployment", "orders-keylane", |_| true)?;
    let pod = &deployment["spec"]["template"]["spec"];
    let executor = pod["containers"][0]["volumeMounts"].to_string();
    assert!(executor.contains("keylane-rocketmq"), "{executor}");
    let others = pod["initContainers"].to_string();
    assert!(!others.contains("keylane-rocketmq"), "{others}");
    Ok(())
}

#[test]
fn a_template_that_takes_what_only_the_executor_may_have_is_refused() -> Result<()> {
    let space = Space::with_operator("withheld")?;
    let mut orders = consumer("orders");
    orders["spec"]["rocketmq"]["credentialsSecretRef"] = json!({"name": "mq-acl"});
    let volume = |secret: &str| {
        let source = json!({"secret": {"name": secret}});
        json!([{"name": "mine", "projected": {"sources": [source]}}])
    };
    for secret in ["mq-acl", "orders-keylane-admin"] {
        orders["spec"]["template"]["spec"]["volumes"] = volume(secret);
        space.apply(&orders)?;
        let place = "spec.template.spec.volumes[0].projected.sources[0].secret.name";
        let wanted = format!("{place} is \"{secret}\"");
        space.until_object("orderedconsumer", "orders", |object| {
            is_true(object, "TemplateInvalid")
                && message(object, "TemplateInvalid").contains(&wanted)
        })?;
    }
    // Nothing runs that could have it.
    space.until_gone("deployment", "orders-keylane")?;
    orders["spec"]["template"]["spec"]["volumes"] = volume("of-the-handler");
    space.apply(&orders)?;
    space.until_object("deployment", "orders-keylane", |_| true)?;
    Ok(())
}
