//! An operator beside a leader of the released version, which falls silent amid a change.
//!
//! `turns` runs the released program; this moment cannot be caught in it. What it leaves and how it renews its Lease
//! is recorded, and written here as it wrote it.

use super::versions::{LANES, children, leave_children, leave_status};
use crate::leaders::{kept, pods};
use crate::process::Process;
use crate::space::{Space, consumer};
use anyhow::{Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LEASE: &str = "kl-operator";
const HOLDER: &str = "keylane-operator-released";
/// leaseDurationSeconds of the released chart.
const SILENT: u32 = 12;
/// The released leader lives on for longer than others wait for one that is silent.
const LIVES: Duration = Duration::from_secs(20);
const RENEWS_EVERY: Duration = Duration::from_secs(2);

/// It had decided on three pods and not written that yet; figures are missing, so that this one has no other wish.
#[test]
fn a_released_leader_is_waited_for_and_the_change_that_it_recorded_is_made_once() -> Result<()> {
    let space = Space::new("beside")?;
    let user = space.grant()?;
    let mut wanted = consumer("orders");
    wanted["spec"]["autoscaling"] = json!({
        "mode": "Auto", "minReplicas": 1, "maxReplicas": 5, "fallback": {"replicas": 3}
    });
    space.apply(&wanted)?;
    let uid = space.get("orderedconsumer", "orders")?["metadata"]["uid"].clone();
    leave_children(&space, &uid)?;
    leave_status(&space, &uid, 3, Some(90.0))?;
    leave_lease(&space)?;
    space.until_object("deployment", "orders-keylane", |deployment| {
        deployment["status"]["replicas"] == 1
    })?;
    let (running, before) = (pods(&space)?.0, children(&space)?);
    ensure!(running.len() == 1, "{running:?}");

    let began = Instant::now();
    let operator = Process::start(&space, &user)?;
    while began.elapsed() < LIVES {
        renew(&space)?;
        std::thread::sleep(RENEWS_EVERY);
    }
    operator.until_ready()?;
    renew(&space)?;
    assert_eq!(operator.decisions()?, 0.0);
    assert_eq!(sizes(&space)?, json!([1, 3, 1]));
    assert_eq!(children(&space)?, before);
    let led = space.get("lease", LEASE)?["spec"].clone();
    assert_eq!(led["holderIdentity"], HOLDER);

    operator.until_decisions(3.0, Instant::now())?;
    let leads = space.get("lease", LEASE)?["spec"].clone();
    assert_ne!(leads["holderIdentity"], HOLDER);
    let terms = (
        led["acquireTime"].to_string(),
        leads["acquireTime"].to_string(),
    );
    ensure!(terms.0 < terms.1, "{terms:?}");
    // A generation is a change of the spec: there was one.
    assert_eq!(sizes(&space)?, json!([3, 3, 2]));
    let changes = kept(&space)?;
    ensure!(
        !changes.is_empty() && changes.iter().all(|change| *change == (1, 3)),
        "{changes:?}"
    );
    let object = space.get("orderedconsumer", "orders")?;
    assert_eq!(object["status"]["decision"]["lanes"], LANES);
    space.until_object("deployment", "orders-keylane", |deployment| {
        deployment["status"]["replicas"] == 3
    })?;
    let now = pods(&space)?.0;
    ensure!(now.len() == 3 && now.contains(&running[0]), "{now:?}");
    Ok(())
}

/// Pods that are asked for, pods that were decided on, and the generation.
fn sizes(space: &Space) -> Result<Value> {
    let object = space.get("orderedconsumer", "orders")?;
    let generation = &object["metadata"]["generation"];
    let decision = &object["status"]["decision"]["replicas"];
    Ok(json!([object["spec"]["replicas"], decision, generation]))
}

/// Writes the Lease as a released leader did that has led for a while.
fn leave_lease(space: &Space) -> Result<()> {
    let now = Timestamp::now();
    let acquired = now - SignedDuration::from_secs(300);
    space.apply(&json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": LEASE},
        "spec": {
            "holderIdentity": HOLDER, "leaseDurationSeconds": SILENT,
            "acquireTime": MicroTime(acquired), "renewTime": MicroTime(now),
        },
    }))?;
    Ok(())
}

fn renew(space: &Space) -> Result<()> {
    let patch = json!({"spec": {"renewTime": MicroTime(Timestamp::now())}}).to_string();
    let change = ["--type=merge", "--patch", &patch];
    space.kubectl(&[&["patch", "lease", LEASE], &change[..]].concat())?;
    Ok(())
}
