//! What the API server itself refuses, in words a person understands.

use anyhow::Result;
use serde_json::{Value, json};

use crate::space::{Space, consumer};

/// Where it is wrong, what the API server says about it, and the wrong manifest.
type Wrong = (&'static str, &'static str, Value);

/// The consumer with one field set; a `null` takes it out.
fn with(path: &str, value: Value) -> Value {
    let mut object = consumer("orders");
    let (parents, field) = path.rsplit_once('.').unwrap_or_default();
    let parent = parents
        .split('.')
        .fold(&mut object, |at, field| &mut at[field]);
    if value.is_null() {
        parent.as_object_mut().unwrap().remove(field);
    } else {
        parent[field] = value;
    }
    object
}

fn spec(field: &str, value: Value) -> Value {
    with(&format!("spec.{field}"), value)
}

/// The same in ordering.mode None.
fn unordered(field: &str, value: Value) -> Value {
    let mut object = spec(field, value);
    object["spec"]["ordering"] = json!({"mode": "None"});
    object
}

fn durations() -> Vec<Wrong> {
    const UNITS: &str = "each with its unit h, m, s or ms";
    let mut cases: Vec<Wrong> = ["-5s", "1 day", "1 minute", "3w", "5", "1.5s", "1H", ""]
        .into_iter()
        .map(|text| {
            (
                "spec.drain.timeout",
                UNITS,
                spec("drain", json!({"timeout": text})),
            )
        })
        .collect();
    cases.extend([
        (
            "spec.handler.timeout",
            UNITS,
            with("spec.handler.timeout", json!("-5s")),
        ),
        (
            "spec.retry.backoff.max",
            UNITS,
            spec("retry", json!({"backoff": {"max": "10"}})),
        ),
        (
            "spec.autoscaling.objective.drainWithin",
            UNITS,
            spec(
                "autoscaling",
                json!({"objective": {"drainWithin": "1 day"}}),
            ),
        ),
        (
            "spec.drain.timeout",
            "32",
            spec("drain", json!({"timeout": "1".repeat(300)})),
        ),
        (
            "spec.drain",
            "between 1s and 1h",
            spec("drain", json!({"timeout": "0s"})),
        ),
        (
            "spec.drain",
            "between 1s and 1h",
            spec("drain", json!({"timeout": "2h"})),
        ),
        (
            "spec.drain.timeout",
            "must be of type string",
            spec("drain", json!({"timeout": 60})),
        ),
        (
            "spec.handler",
            "between 10ms and 1h",
            with("spec.handler.timeout", json!("2h")),
        ),
        (
            "spec.retry.backoff",
            "not longer than retry.backoff.max",
            spec("retry", json!({"backoff": {"initial": "1m"}})),
        ),
        (
            "spec.retry.budget",
            "not longer than retry.budget.per",
            spec("retry", json!({"budget": {"blocked": "20m"}})),
        ),
        (
            "spec.autoscaling.objective",
            "at least 1s",
            spec("autoscaling", json!({"objective": {"maxMessageAge": "0s"}})),
        ),
        (
            "spec.autoscaling.scaleDown",
            "between 0s and 30m",
            spec(
                "autoscaling",
                json!({"scaleDown": {"stabilizationWindow": "31m"}}),
            ),
        ),
    ]);
    cases
}

fn names() -> Vec<Wrong> {
    vec![
        (
            "metadata.name",
            "253 characters",
            with("metadata.name", json!("n".repeat(300))),
        ),
        (
            "metadata.name",
            "choose a shorter one",
            with("metadata.name", json!("n".repeat(41))),
        ),
        (
            "metadata.name",
            "lower case",
            with("metadata.name", json!("Orders")),
        ),
        ("spec.topic", "Required", spec("topic", json!(null))),
        (
            "spec.topic",
            "letters, digits",
            spec("topic", json!("a topic")),
        ),
        ("spec.topic", "127", spec("topic", json!("t".repeat(128)))),
        (
            "spec.consumerGroup",
            "Required",
            spec("consumerGroup", json!(null)),
        ),
        (
            "spec.consumerGroup",
            "letters, digits",
            spec("consumerGroup", json!("g/1")),
        ),
        (
            "spec.consumerGroup",
            "119",
            spec("consumerGroup", json!("g".repeat(120))),
        ),
        ("spec.template", "Required", spec("template", json!(null))),
        (
            "spec.template",
            "must be of type object",
            spec("template", json!("pod")),
        ),
        ("spec.handler", "Required", spec("handler", json!(null))),
        (
            "spec.handler",
            "exactly one of handler.http and handler.grpc",
            spec("handler", json!({})),
        ),
        (
            "spec.handler",
            "exactly one of handler.http and handler.grpc",
            with("spec.handler.grpc", json!({"port": 8080})),
        ),
        (
            "spec.handler.grpc",
            "exactly one of handler.grpc.port and handler.grpc.unixSocket",
            spec("handler", json!({"grpc": {}})),
        ),
        (
            "spec.handler.grpc.port",
            "greater than or equal to 1",
            spec("handler", json!({"grpc": {"port": 0}})),
        ),
        (
            "spec.handler.grpc.unixSocket",
            "in a directory of its own below /run",
            spec("handler", json!({"grpc": {"unixSocket": "/run/h.sock"}})),
        ),
        (
            "spec.handler.http",
            "exactly one of handler.http.port and handler.http.unixSocket",
            with("spec.handler.http.unixSocket", json!("/run/h/h.sock")),
        ),
        (
            "spec.handler.http.port",
            "less than or equal to 65535",
            with("spec.handler.http.port", json!(65536)),
        ),
        (
            "spec.handler.http.path",
            "begin the path with /",
            with("spec.handler.http.path", json!("events")),
        ),
        (
            "spec.rocketmq.nameServers",
            "at least 1 items",
            spec("rocketmq.nameServers", json!([])),
        ),
        (
            "spec.rocketmq.nameServers",
            "as host:port",
            spec("rocketmq.nameServers", json!(["no-port"])),
        ),
        (
            "spec.rocketmq.nameServers",
            "as host:port",
            spec("rocketmq.nameServers", json!(["http://a:9876"])),
        ),
        (
            "spec.rocketmq.nameServers",
            "as host:port",
            spec("rocketmq.nameServers", json!(["a:1;b:2"])),
        ),
        (
            "spec.rocketmq.credentialsSecretRef.name",
            "write the name of a Secret",
            with(
                "spec.rocketmq.credentialsSecretRef",
                json!({"name": "MQ_ACL"}),
            ),
        ),
        (
            "spec.rocketmq.credentialsSecretRef.name",
            "Required",
            with("spec.rocketmq.credentialsSecretRef", json!({})),
        ),
        (
            "spec.rocketmq.tls.caSecretRef",
            "Required",
            with("spec.rocketmq.tls", json!({"serverName": "a.b"})),
        ),
        (
            "spec.rocketmq.tls.serverName",
            "without a port",
            with(
                "spec.rocketmq.tls",
                json!({"caSecretRef": {"name": "ca"}, "serverName": "a.b:9876"}),
            ),
        ),
        (
            "spec.filter",
            "tags or sql, not both",
            spec("filter", json!({"tags": ["A"], "sql": "a = 1"})),
        ),
        (
            "spec.filter.tags",
            "an entry of its own",
            spec("filter", json!({"tags": ["A || B"]})),
        ),
        (
            "spec.suspend.queues",
            "broker name/queue id",
            spec("suspend", json!({"queues": ["3"]})),
        ),
        (
            "spec.suspend.keys[0]",
            "at least 1 chars",
            spec("suspend", json!({"keys": [""]})),
        ),
        (
            "spec.lane",
            "unknown field",
            spec("lane", json!({"min": 1})),
        ),
        (
            "spec.handler.grcp",
            "unknown field",
            with("spec.handler.grcp", json!({})),
        ),
    ]
}

fn bounds() -> Vec<Wrong> {
    vec![
        (
            "spec.lanes",
            "must not be larger than lanes.max",
            spec("lanes", json!({"min": 9, "max": 8})),
        ),
        (
            "spec.lanes.min",
            "greater than or equal to 1",
            spec("lanes", json!({"min": 0})),
        ),
        (
            "spec.lanes.max",
            "less than or equal to 10000",
            spec("lanes", json!({"max": 10001})),
        ),
        (
            "spec.replicas",
            "greater than or equal to 0",
            spec("replicas", json!(-1)),
        ),
        (
            "spec.replicas",
            "must be of type integer",
            spec("replicas", json!("two")),
        ),
        (
            "spec.limits",
            "at least 1Mi",
            spec("limits", json!({"bytes": "1Ki"})),
        ),
        (
            "spec.limits",
            "at least 1Mi",
            spec("limits", json!({"bytes": 1024})),
        ),
        (
            "spec.limits.bytes",
            "such as 256Mi",
            spec("limits", json!({"bytes": "many"})),
        ),
        (
            "spec.limits.messages",
            "greater than or equal to 1",
            spec("limits", json!({"messages": 0})),
        ),
        (
            "spec.retry.maxAttempts",
            "greater than or equal to 1",
            spec("retry", json!({"maxAttempts": 0})),
        ),
        (
            "spec.handler.batch.maxMessages",
            "greater than or equal to 1",
            with("spec.handler.batch", json!({"maxMessages": 0})),
        ),
        (
            "spec.autoscaling",
            "must not be larger than autoscaling.maxReplicas",
            spec("autoscaling", json!({"minReplicas": 11})),
        ),
        (
            "spec.autoscaling.fallback.replicas",
            "greater than or equal to 1",
            spec("autoscaling", json!({"fallback": {"replicas": 0}})),
        ),
        (
            "spec.autoscaling.fallback.replicas",
            "Required value",
            spec("autoscaling", json!({"fallback": {}})),
        ),
    ]
}

fn unions() -> Vec<Wrong> {
    let window = |extra: Value| {
        let mut schedule = json!({"duration": "1h", "expectedPerSecond": 5});
        schedule
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        spec("autoscaling", json!({"schedules": [schedule]}))
    };
    vec![
        (
            "spec.autoscaling.mode",
            "supported values: \"Auto\", \"LanesOnly\"",
            spec("autoscaling", json!({"mode": "Automatic"})),
        ),
        (
            "spec.consumption",
            "supported values: \"Clustering\", \"Broadcasting\"",
            spec("consumption", json!("Everywhere")),
        ),
        (
            "spec.startFrom",
            "exactly when startFrom.position is Timestamp",
            spec("startFrom", json!({"position": "Timestamp"})),
        ),
        (
            "spec.startFrom.timestamp",
            "date-time",
            spec(
                "startFrom",
                json!({"position": "Timestamp", "timestamp": "yesterday"}),
            ),
        ),
        (
            "spec.ordering.key",
            "exactly when ordering.key.from is Property",
            spec("ordering", json!({"key": {"from": "Property"}})),
        ),
        (
            "spec.ordering.key.pointer",
            "each part begins with /",
            spec(
                "ordering",
                json!({"key": {"from": "JsonPointer", "pointer": "order.id"}}),
            ),
        ),
        (
            "spec.autoscaling.schedules[0]",
            "either start or cron",
            window(json!({})),
        ),
        (
            "spec.autoscaling.schedules[0]",
            "timeZone goes with cron",
            window(json!({"start": "2026-11-11T00:00:00+08:00", "timeZone": "Asia/Shanghai"})),
        ),
        (
            "spec.autoscaling.schedules[0]",
            "between 1m and 168h",
            window(json!({"cron": "0 20 * * *", "duration": "30s"})),
        ),
        (
            "spec.consumption",
            "needs spec.ordering.mode Key or Queue",
            unordered("consumption", json!("Broadcasting")),
        ),
        (
            "spec.retry.onExhausted",
            "needs spec.ordering.mode Key or Queue",
            unordered("retry", json!({"onExhausted": "Block"})),
        ),
        (
            "spec.handler.batch.maxMessages",
            "needs spec.ordering.mode Key or Queue",
            unordered("handler.batch", json!({"maxMessages": 2})),
        ),
    ]
}

#[test]
fn what_cannot_be_is_refused_with_its_path_and_what_to_write() -> Result<()> {
    let space = Space::new("refused")?;
    let cases = [durations(), names(), bounds(), unions()].concat();
    println!("{} wrong manifests", cases.len());
    assert!(cases.len() >= 75, "{}", cases.len());
    let mut unclear = Vec::new();
    for (path, hint, object) in &cases {
        let refusal = space.refusal(object).unwrap_or_default();
        if !refusal.contains(path) || !refusal.contains(hint) {
            unclear.push(format!("{path} ({hint}): {refusal:?}"));
        }
    }
    assert!(unclear.is_empty(), "{}", unclear.join("\n"));
    Ok(())
}

#[test]
fn what_can_be_is_taken() -> Result<()> {
    let space = Space::new("taken")?;
    for object in [
        consumer("orders"),
        with("metadata.name", json!("n".repeat(40))),
        spec("drain", json!({"timeout": "1m30s500ms"})),
        spec(
            "limits",
            json!({"bytes": "512Mi", "messages": 1, "span": 1}),
        ),
        spec("limits", json!({"bytes": 1_048_576})),
        spec("topic", json!("%RETRY%orders")),
        spec(
            "rocketmq.nameServers",
            json!(["a.mq:9876", "10.0.0.1:9876"]),
        ),
        with(
            "spec.rocketmq.tls",
            json!({"caSecretRef": {"name": "ca.v1"}, "serverName": "Rocketmq.MQ.svc",
                   "clientCertificateSecretRef": {"name": "client"}}),
        ),
        spec("filter", json!({"tags": ["PAID", "SHIPPED"]})),
        spec("filter", json!({"sql": "amount > 100 AND region = 'eu'"})),
        spec("consumption", json!("Broadcasting")),
        spec(
            "startFrom",
            json!({"position": "Timestamp", "timestamp": "2026-11-11T00:00:00+08:00"}),
        ),
        spec(
            "ordering",
            json!({"key": {"from": "JsonPointer", "pointer": "/order/id"}, "unkeyed": "Parallel"}),
        ),
        spec("suspend", json!({"queues": ["broker-a/3"], "keys": ["k"]})),
        spec("replicas", json!(0)),
        spec(
            "autoscaling",
            json!({"mode": "Advise", "schedules": [
                {"cron": "0 20 * * *", "timeZone": "Asia/Shanghai", "duration": "2h", "expectedPerSecond": 60000}
            ]}),
        ),
    ] {
        assert_eq!(space.refusal(&object), None, "{}", object["spec"]);
    }
    Ok(())
}

#[test]
fn what_would_break_order_cannot_change_and_the_way_out_is_said() -> Result<()> {
    let space = Space::new("immutable")?;
    let original = spec("consumption", json!("Broadcasting"));
    space.apply(&original)?;
    for (field, value) in [
        ("topic", json!("other")),
        ("consumerGroup", json!("other")),
        ("consumption", json!("Clustering")),
        // Taken out first, to be set anew afterwards: its default comes in its place, or it is required.
        ("consumption", json!(null)),
        ("topic", json!(null)),
    ] {
        let mut changed = original.clone();
        if value.is_null() {
            changed["spec"].as_object_mut().unwrap().remove(field);
        } else {
            changed["spec"][field] = value.clone();
        }
        let refusal = space.apply(&changed).map_err(|error| error.to_string());
        let refusal = refusal.err().unwrap_or_default();
        let way_out = refusal.contains("cannot be changed")
            && refusal.contains("create a new OrderedConsumer and delete this one");
        let required = refusal.contains(&format!("spec.{field}: Required"));
        assert!(way_out || required, "{field} {value}: {refusal}");
    }
    Ok(())
}

/// What failed in mode None waits in the retry topic, and no other mode would ever handle it.
#[test]
fn mode_none_is_not_left_while_messages_may_wait_in_its_retry_topic() -> Result<()> {
    let space = Space::new("retries")?;
    let none = spec("ordering", json!({"mode": "None"}));
    // The way there is open.
    space.apply(&consumer("orders"))?;
    space.apply(&none)?;
    let mut unsaid = none.clone();
    if let Some(spec) = unsaid["spec"].as_object_mut() {
        spec.remove("ordering");
    }
    let other = |mode: &str| spec("ordering", json!({"mode": mode}));
    for changed in [other("Key"), other("Queue"), unsaid] {
        let refusal = space.apply(&changed).map_err(|error| error.to_string());
        let refusal = refusal.err().unwrap_or_default();
        assert!(
            refusal.contains("cannot be changed from None")
                && refusal.contains("create a new OrderedConsumer and delete this one"),
            "{refusal}"
        );
    }
    Ok(())
}

#[test]
fn kubectl_knows_it_by_its_short_name_and_category() -> Result<()> {
    let space = Space::new("columns")?;
    space.apply(&consumer("orders"))?;
    let table = space.kubectl(&["get", "oc"])?;
    let head: Vec<_> = table
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(
        head,
        [
            "NAME", "TOPIC", "GROUP", "READY", "REPLICAS", "LANES", "LAG", "OLDEST", "RATE",
            "REASON", "AGE"
        ]
    );
    // Not asked by the category itself: kubectl remembers for hours which there are.
    let served = space.kubectl(&["get", "--raw", "/apis/keylane.dev/v1alpha1"])?;
    let served: Value = serde_json::from_str(&served)?;
    let resource = &served["resources"][0];
    assert_eq!(resource["categories"], json!(["keylane"]));
    assert_eq!(resource["shortNames"], json!(["oc"]));
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
            "objective": {"maxMessageAge": "30s", "drainWithin": "5m"},
            "scaleDown": {"stabilizationWindow": "11m"}
        })
    );
    assert_eq!(spec["lanes"], json!({"min": 4, "max": 512}));
    assert_eq!(spec["handler"]["container"], "handler");
    assert_eq!(spec["drain"]["timeout"], "1m");
    Ok(())
}
