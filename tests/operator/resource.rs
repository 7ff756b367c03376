//! What the API server itself refuses, in words a person understands.

use anyhow::Result;
use serde_json::{Value, json};

use crate::space::{Space, consumer};

type Change = fn(&mut Value);

#[test]
fn what_cannot_be_is_refused_with_a_reason() -> Result<()> {
    let space = Space::new("refused")?;
    assert_eq!(space.refusal(&consumer("orders")), None);
    let wrong: [(&str, Change); 29] = [
        ("metadata.name must not be longer than 40", |object| {
            object["metadata"]["name"] = json!("n".repeat(41))
        }),
        ("spec.topic: Required", |object| {
            object["spec"].as_object_mut().unwrap().remove("topic");
        }),
        ("spec.template: Required", |object| {
            object["spec"].as_object_mut().unwrap().remove("template");
        }),
        ("spec.topic", |object| {
            object["spec"]["topic"] = json!("a topic")
        }),
        ("spec.rocketmq.nameServers", |object| {
            object["spec"]["rocketmq"]["nameServers"] = json!([])
        }),
        ("spec.rocketmq.nameServers[0]", |object| {
            object["spec"]["rocketmq"]["nameServers"] = json!(["no-port"])
        }),
        ("lanes.min must not be larger than lanes.max", |object| {
            object["spec"]["lanes"] = json!({"min": 9, "max": 8})
        }),
        ("spec.lanes.min", |object| {
            object["spec"]["lanes"] = json!({"min": 0})
        }),
        (
            "autoscaling.minReplicas must not be larger than autoscaling.maxReplicas",
            |object| object["spec"]["autoscaling"] = json!({"minReplicas": 11}),
        ),
        ("supported values: \"Auto\", \"LanesOnly\"", |object| {
            object["spec"]["autoscaling"] = json!({"mode": "Automatic"})
        }),
        ("startFrom.timestamp must be set exactly when", |object| {
            object["spec"]["startFrom"] = json!({"position": "Timestamp"})
        }),
        ("ordering.key.property must be set exactly when", |object| {
            object["spec"]["ordering"] = json!({"key": {"from": "Property"}})
        }),
        ("handler.timeout must be between", |object| {
            object["spec"]["handler"]["timeout"] = json!("2h")
        }),
        ("spec.drain.timeout", |object| {
            object["spec"]["drain"] = json!({"timeout": "1 minute"})
        }),
        ("filter: give tags or sql, not both", |object| {
            object["spec"]["filter"] = json!({"tags": ["A"], "sql": "a = 1"})
        }),
        ("spec.filter.tags[0]", |object| {
            object["spec"]["filter"] = json!({"tags": ["A || B"]})
        }),
        (
            "supported values: \"Clustering\", \"Broadcasting\"",
            |object| object["spec"]["consumption"] = json!("Everywhere"),
        ),
        ("consumption Broadcasting needs", |object| {
            object["spec"]["consumption"] = json!("Broadcasting");
            object["spec"]["ordering"] = json!({"mode": "None"})
        }),
        ("retry.onExhausted Block needs", |object| {
            object["spec"]["retry"] = json!({"onExhausted": "Block"});
            object["spec"]["ordering"] = json!({"mode": "None"})
        }),
        ("handler.batch.maxMessages above 1 needs", |object| {
            object["spec"]["handler"]["batch"] = json!({"maxMessages": 2});
            object["spec"]["ordering"] = json!({"mode": "None"})
        }),
        ("spec.handler.batch.maxMessages", |object| {
            object["spec"]["handler"]["batch"] = json!({"maxMessages": 0})
        }),
        ("retry.budget.blocked must be at least 1s", |object| {
            object["spec"]["retry"] = json!({"budget": {"blocked": "20m"}})
        }),
        ("limits.bytes must be at least 1Mi", |object| {
            object["spec"]["limits"] = json!({"bytes": "1Ki"})
        }),
        ("limits.bytes must be at least 1Mi", |object| {
            object["spec"]["limits"] = json!({"bytes": 1024})
        }),
        ("spec.limits.bytes", |object| {
            object["spec"]["limits"] = json!({"bytes": "many"})
        }),
        ("spec.limits.messages", |object| {
            object["spec"]["limits"] = json!({"messages": 0})
        }),
        ("spec.suspend.queues[0]", |object| {
            object["spec"]["suspend"] = json!({"queues": ["3"]})
        }),
        ("spec.suspend.keys[0]", |object| {
            object["spec"]["suspend"] = json!({"keys": [""]})
        }),
        ("unknown field \"spec.lane\"", |object| {
            object["spec"]["lane"] = json!({"min": 1})
        }),
    ];
    for (named, change) in wrong {
        let mut object = consumer("orders");
        change(&mut object);
        let refusal = space.refusal(&object).unwrap_or_default();
        assert!(refusal.contains(named), "{named}: {refusal}");
    }
    Ok(())
}

#[test]
fn topic_and_group_cannot_change() -> Result<()> {
    let space = Space::new("immutable")?;
    space.apply(&consumer("orders"))?;
    for field in ["topic", "consumerGroup"] {
        let mut changed = consumer("orders");
        changed["spec"][field] = json!("other");
        let refusal = space.apply(&changed).map_err(|error| error.to_string());
        let refusal = refusal.err().unwrap_or_default();
        assert!(refusal.contains("cannot be changed"), "{field}: {refusal}");
    }
    Ok(())
}

#[test]
fn defaults_are_filled_in() -> Result<()> {
    let space = Space::new("defaults")?;
    let mut object = consumer("orders");
    object["spec"]
        .as_object_mut()
        .unwrap()
        .remove("autoscaling");
    space.apply(&object)?;
    let spec = space.get("orderedconsumer", "orders")?["spec"].clone();
    assert_eq!(spec["replicas"], 1);
    assert_eq!(
        spec["autoscaling"],
        json!({
            "mode": "Auto", "minReplicas": 1, "maxReplicas": 10,
            "objective": {"maxMessageAge": "30s", "drainWithin": "5m"}
        })
    );
    assert_eq!(spec["lanes"], json!({"min": 4, "max": 512}));
    assert_eq!(spec["handler"]["container"], "handler");
    assert_eq!(spec["drain"]["timeout"], "1m");
    Ok(())
}
