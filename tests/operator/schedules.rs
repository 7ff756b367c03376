//! A load that was announced is met by an operator that starts while brokers are silent, with what its
//! predecessor knew of a pod.

use crate::space::{Space, consumer};
use anyhow::{Context as _, Result, ensure};
use jiff::{Timestamp, ToSpan as _};
use keylane_operator::scale::{History, Model};
use serde_json::json;

#[test]
fn pods_for_an_announced_load_are_asked_for_while_no_broker_answers() -> Result<()> {
    let mut space = Space::new("window")?;
    // Near enough for pods to be asked for now: they take 40 s to start.
    let start = Timestamp::now() + 30.seconds();
    let mut object = consumer("orders");
    object["spec"]["autoscaling"] = json!({
        "mode": "Auto", "minReplicas": 1, "maxReplicas": 20,
        "schedules": [{"start": start.to_string(), "duration": "1h", "expectedPerSecond": 2000}]
    });
    space.apply(&object)?;
    // Calls of 50 ms, 320 messages a second a pod.
    let history = History::with_model(Model::given(0.05, 320.0, 40.0));
    let history = history.written(8192).context("no history")?;
    let status = json!({"status": {"decision": {
        "lanes": 16, "replicas": 1, "reason": "Steady", "message": "it fits", "inputs": {},
        "history": history
    }}});
    let status = status.to_string();
    space.kubectl(&[
        "patch",
        "orderedconsumer/orders",
        "--subresource=status",
        "--type=merge",
        "--patch",
        &status,
    ])?;
    space.start_operator()?;
    // 2,000 a second over four fifths of what a pod can do.
    space.until_object("deployment", "orders-keylane", |deployment| {
        deployment["spec"]["replicas"] == 8
    })?;
    let events = space.until_object("events", "--field-selector=reason=ScaledUp", |list| {
        list["items"].as_array().is_some_and(|all| !all.is_empty())
    })?;
    let note = events["items"][0]["message"].as_str().context("no note")?;
    ensure!(
        note.contains("1 -> 8 pods: the load that was announced"),
        "{note}"
    );
    Ok(())
}
