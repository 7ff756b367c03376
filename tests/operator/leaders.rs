//! Several operators: one decides, another goes on where it stopped, and pods never notice.

use crate::process::Process;
use crate::space::{Space, condition, consumer};
use anyhow::{Context as _, Result};
use keylane_operator::scale::Recorded;
use keylane_tests::cluster::wait::{self, Pending};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

const KILLED: Duration = Duration::from_secs(20);
const STOPPED: Duration = Duration::from_secs(10);

/// Uids of pods with their restarts, and what their Deployment was last told.
pub fn pods(space: &Space) -> Result<(Vec<(String, i64)>, Value)> {
    let of = "--selector=keylane.dev/ordered-consumer";
    let text = space.kubectl(&["get", "pods", of, "-o", "json"])?;
    let list: Value = serde_json::from_str(&text)?;
    let restarts = |pod: &Value| {
        let statuses = pod["status"]["containerStatuses"]
            .as_array()
            .into_iter()
            .flatten();
        statuses
            .filter_map(|one| one["restartCount"].as_i64())
            .sum()
    };
    let pods = list["items"].as_array().into_iter().flatten();
    let mut pods: Vec<_> = pods
        .map(|pod| (pod["metadata"]["uid"].to_string(), restarts(pod)))
        .collect();
    pods.sort();
    let deployment = space.get("deployment", "orders-keylane")?;
    Ok((pods, deployment["spec"].clone()))
}

fn term(space: &Space) -> Result<String> {
    let lease = space.get("lease", "kl-operator")?;
    Ok(lease["spec"]["acquireTime"].to_string())
}

#[test]
fn the_next_operator_decides_in_time_when_the_leader_is_killed_and_when_it_stops() -> Result<()> {
    let space = Space::new("leaders")?;
    let user = space.grant()?;
    space.apply(&consumer("orders"))?;
    let first = Process::start(&space, &user)?;
    first.until_decisions(1.0, Instant::now())?;
    let second = Process::start(&space, &user)?;
    second.until_ready()?;
    space.until_object("deployment", "orders-keylane", |deployment| {
        deployment["status"]["replicas"] == 1
    })?;
    let (before, first_term) = (pods(&space)?, term(&space)?);
    assert_eq!((before.0.len(), second.decisions()?), (1, 0.0));

    let killed = Instant::now();
    first.kill()?;
    let after_kill = second.until_decisions(1.0, killed)?;
    let second_term = term(&space)?;

    let third = Process::start(&space, &user)?;
    third.until_ready()?;
    assert_eq!(third.decisions()?, 0.0);
    let stopped = Instant::now();
    second.stop()?;
    let after_stop = third.until_decisions(1.0, stopped)?;
    let third_term = term(&space)?;

    println!("next decision {after_kill:.1?} after a kill, {after_stop:.1?} after a stop");
    assert!(after_kill <= KILLED, "{after_kill:?} after a kill");
    assert!(after_stop <= STOPPED, "{after_stop:?} after a stop");
    assert!(first_term < second_term && second_term < third_term);
    assert_eq!(pods(&space)?, before);
    Ok(())
}

/// Changes of replicas that were kept, as numbers of pods before and after.
pub fn kept(space: &Space) -> Result<Vec<(u32, u32)>> {
    let kept = space.get("configmap", "orders-keylane-decisions")?;
    let all = kept["data"].as_object().context("no decisions are kept")?;
    let mut changes = Vec::new();
    for text in all.values().filter_map(Value::as_str) {
        let recorded: Recorded = serde_json::from_str(text)?;
        let change = (recorded.inputs.replicas(), recorded.replicas);
        if change.0 != change.1 {
            changes.push(change);
        }
    }
    Ok(changes)
}

/// Its pods cannot start, so the change is not over when the leader is killed, nor afterwards.
#[test]
fn a_change_that_is_under_way_is_the_next_leaders_and_made_once() -> Result<()> {
    let space = Space::new("underway")?;
    let user = space.grant()?;
    let first = Process::start(&space, &user)?;
    first.until_ready()?;
    let second = Process::start(&space, &user)?;
    second.until_ready()?;
    let mut wanted = consumer("orders");
    wanted["spec"]["autoscaling"] = json!({"mode": "Auto", "minReplicas": 2, "maxReplicas": 4});
    space.apply(&wanted)?;
    space.until_object("orderedconsumer", "orders", |object| {
        object["spec"]["replicas"] == 2
    })?;
    first.kill()?;
    // The watch may be behind at the first.
    second.until_decisions(3.0, Instant::now())?;
    space.until_object("deployment", "orders-keylane", |deployment| {
        deployment["spec"]["replicas"] == 2 && deployment["status"]["replicas"] == 2
    })?;
    let object = space.get("orderedconsumer", "orders")?;
    assert_eq!(object["spec"]["replicas"], 2);
    assert_eq!(object["status"]["decision"]["replicas"], 2);
    assert_eq!(kept(&space)?, [(1, 2)]);
    assert_eq!(pods(&space)?.0.len(), 2);
    Ok(())
}

/// Waits until the API server lets the operator write replicas, or until it refuses.
fn until_may_scale(space: &Space, user: &str, may: bool) -> Result<()> {
    const ASK: [&str; 6] = [
        "auth",
        "can-i",
        "--quiet",
        "patch",
        "orderedconsumers",
        "--subresource=scale",
    ];
    let probe = || match space.kubectl(&[&ASK[..], &["--as", user]].concat()) {
        Ok(_) if may => Ok(()),
        Err(_) if !may => Ok(()),
        answer => Err(Pending::NotYet(format!("{answer:?}"))),
    };
    let what = format!("the right to write replicas: {may}");
    Ok(wait::until(&what, Duration::from_secs(60), None, probe)?)
}

/// The first leader may not write replicas, so that what it decides is recorded and not made when it is killed. It
/// decides on figures that have been missing for a minute: one that did not know since when would wait for another.
#[test]
fn a_change_that_was_only_recorded_is_made_once_by_the_next_leader_with_what_was_remembered()
-> Result<()> {
    let space = Space::new("recorded")?;
    let user = space.grant()?;
    let rules = space.get("role", "kl-operator")?["rules"].clone();
    let set_rules = |rules: &Value| {
        let patch = json!({"rules": rules}).to_string();
        space.kubectl(&["patch", "role", "kl-operator", "--type=merge", "-p", &patch])
    };
    let mut without = rules.clone();
    let all = without.as_array_mut().context("the role has no rules")?;
    all.retain(|rule| rule["resources"] != json!(["orderedconsumers/scale"]));
    set_rules(&without)?;
    until_may_scale(&space, &user, false)?;

    let mut wanted = consumer("orders");
    wanted["spec"]["autoscaling"] = json!({
        "mode": "Auto", "minReplicas": 1, "maxReplicas": 5, "fallback": {"replicas": 3}
    });
    space.apply(&wanted)?;
    let first = Process::start(&space, &user)?;
    first.until_decisions(1.0, Instant::now())?;
    let second = Process::start(&space, &user)?;
    second.until_ready()?;
    space.until_object("orderedconsumer", "orders", |object| {
        object["status"]["decision"]["replicas"] == 3
    })?;
    first.kill()?;
    let recorded = space.get("orderedconsumer", "orders")?;
    let sizes = |object: &Value| {
        let generation = object["metadata"]["generation"].clone();
        let decision = object["status"]["decision"]["replicas"].clone();
        json!([object["spec"]["replicas"], decision, generation])
    };
    assert_eq!(sizes(&recorded), json!([1, 3, 1]));

    set_rules(&rules)?;
    until_may_scale(&space, &user, true)?;
    second.until_decisions(3.0, Instant::now())?;
    let made = space.get("orderedconsumer", "orders")?;
    // A generation is a change of the spec: there was one.
    assert_eq!(sizes(&made), json!([3, 3, 2]));
    let (before, after) = (missing_since(&recorded)?, missing_since(&made)?);
    assert!((before - after).abs() < 1.0, "{before} {after}");
    let changes = kept(&space)?;
    assert!(!changes.is_empty());
    assert!(
        changes.iter().all(|change| *change == (1, 3)),
        "{changes:?}"
    );
    let up = [
        "get",
        "events",
        "-o",
        "json",
        "--field-selector=reason=ScaledUp",
    ];
    let up: Value = serde_json::from_str(&space.kubectl(&up)?)?;
    assert_eq!(up["items"].as_array().map(Vec::len), Some(1), "{up}");
    Ok(())
}

/// Since when brokers have said nothing, by what is remembered in a status.
fn missing_since(object: &Value) -> Result<f64> {
    let text = object["status"]["decision"]["history"].as_str();
    let history: Value = serde_json::from_str(text.context("nothing is remembered")?)?;
    let since = history["missing"]["brokers"].as_f64();
    since.context("no figures of brokers are missing")
}

/// The children with what the operator is recorded to have written of them, and when.
pub fn written(space: &Space) -> Result<Value> {
    let mut all = json!({});
    for (kind, name) in crate::CHILDREN {
        let args = ["get", kind, name, "-o", "json", "--show-managed-fields"];
        let object: Value = serde_json::from_str(&space.kubectl(&args)?)?;
        let fields = object["metadata"]["managedFields"].as_array();
        let ours = fields
            .into_iter()
            .flatten()
            .filter(|one| one["manager"] == keylane_operator::names::FIELD_MANAGER);
        all[kind] = ours.cloned().collect();
    }
    Ok(all)
}

/// What the API server's own log says somebody changed in the namespace: how often each verb and resource, dry runs
/// apart.
fn audited(space: &Space, user: &str) -> Result<Option<BTreeMap<String, u64>>> {
    let Some(log) = space.cluster().audit_log() else {
        return Ok(None);
    };
    let text = logged(&log).with_context(|| {
        format!(
            "{} cannot be read: the cluster was started before there was such a log; `cargo cluster down` first",
            log.display()
        )
    })?;
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains(&space.name)) {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            // The last one, while it is written.
            continue;
        };
        let of = &event["objectRef"];
        if event["impersonatedUser"]["username"] != user || of["namespace"] != space.name {
            continue;
        }
        let mut what = format!("{} {}", event["verb"], of["resource"]).replace('"', "");
        if let Some(part) = of["subresource"].as_str() {
            what = format!("{what}/{part}");
        }
        if event["requestURI"].to_string().contains("dryRun=All") {
            what = format!("{what} (dry run)");
        }
        *counts.entry(what).or_default() += 1;
    }
    Ok(Some(counts))
}

/// A log, behind what it was before the API server last began it anew.
fn logged(log: &Path) -> std::io::Result<String> {
    let stem = log.file_stem().unwrap_or_default().as_encoded_bytes();
    let mut text = String::new();
    for entry in std::fs::read_dir(log.parent().unwrap_or(log))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().as_encoded_bytes();
        if name.len() > stem.len() && name.starts_with(stem) {
            text.push_str(&std::fs::read_to_string(&path)?);
        }
    }
    text.push_str(&std::fs::read_to_string(log)?);
    Ok(text)
}

/// The same without what a round may write: status, at its own pace.
fn children_audited(space: &Space, user: &str) -> Result<Option<BTreeMap<String, u64>>> {
    let counts = audited(space, user)?;
    Ok(counts.map(|mut counts| {
        counts.retain(|what, _| !what.contains("orderedconsumers/status"));
        counts
    }))
}

#[test]
fn a_second_look_writes_no_child_and_repeats_no_event() -> Result<()> {
    const WRITES: &str = "keylane_operator_child_writes_total";
    let space = Space::new("idle")?;
    let user = space.grant()?;
    space.apply(&consumer("orders"))?;
    let operator = Process::start(&space, &user)?;
    // The first look of all makes children; the second may find the watch behind.
    operator.until_decisions(3.0, Instant::now())?;
    let (children, writes) = (written(&space)?, operator.metric(WRITES)?);
    assert!(writes >= crate::CHILDREN.len() as f64, "{writes}");
    let audit = children_audited(&space, &user)?;
    if let Some(audit) = &audit {
        let created = audit
            .keys()
            .filter(|what| what.starts_with("create ") && !what.contains("dry run"));
        assert_eq!(created.count(), crate::CHILDREN.len(), "{audit:?}");
    }
    let looks = operator.decisions()?;
    operator.until_decisions(looks + 3.0, Instant::now())?;
    assert_eq!(operator.metric(WRITES)?, writes);
    assert_eq!(written(&space)?, children);
    println!("by the API server's log: {audit:?}, and nothing more after three more looks");
    assert_eq!(children_audited(&space, &user)?, audit);

    // One that remembers nothing looks at all children again, and changes none.
    operator.stop()?;
    let operator = Process::start(&space, &user)?;
    operator.until_decisions(3.0, Instant::now())?;
    assert_eq!(written(&space)?, children);

    let object = space.get("orderedconsumer", "orders")?;
    let status = object["status"].to_string();
    assert!(status.len() <= 16 << 10, "{} bytes", status.len());
    for one in object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        assert_eq!(
            one["observedGeneration"], object["metadata"]["generation"],
            "{one}"
        );
    }
    assert!(condition(&object, "BrokerUnavailable").is_some());
    let args = [
        "get",
        "events",
        "-o",
        "json",
        "--field-selector=involvedObject.kind=OrderedConsumer",
    ];
    let events: Value = serde_json::from_str(&space.kubectl(&args)?)?;
    let mut reasons: Vec<_> = events["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|event| event["reason"].to_string())
        .collect();
    reasons.sort();
    let all = reasons.len();
    reasons.dedup();
    assert_eq!(reasons.len(), all, "{reasons:?}");
    Ok(())
}
