//! The operator of the last release and this one, both running: one leads after the other, there and back, as an
//! upgrade and a rollback of the chart let them, amid a change of pods.

use crate::leaders::{kept, pods};
use crate::process::Process;
use crate::space::{Space, consumer};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::time::{Duration, Instant};

/// A killed leader is waited for so long, and one that stops hands over in so long.
const KILLED: Duration = Duration::from_secs(20);
const STOPPED: Duration = Duration::from_secs(10);

/// The change: somebody wants more pods at least, which cannot start, so that it is under way when the leader is
/// killed and afterwards. With the definitions and rights of this tree, which an upgrade brings before the program.
#[test]
fn the_released_operator_and_this_one_lead_in_turn_and_a_change_is_made_once() -> Result<()> {
    let space = Space::new("turns")?;
    let user = space.grant()?;
    let mut wanted = consumer("orders");
    wanted["spec"]["autoscaling"] = json!({"mode": "Auto", "minReplicas": 1, "maxReplicas": 5});
    space.apply(&wanted)?;
    let released = Process::start_released(&space, &user)?;
    released.until_decisions(1.0, Instant::now())?;
    space.until_object("deployment", "orders-keylane", |deployment| {
        deployment["status"]["replicas"] == 1
    })?;
    let first = pods(&space)?.0;
    ensure!(first.len() == 1, "{first:?}");
    let this = Process::start(&space, &user)?;
    this.until_ready()?;

    wanted["spec"]["autoscaling"]["minReplicas"] = json!(3);
    space.apply(&wanted)?;
    space.until_object("orderedconsumer", "orders", |object| {
        object["spec"]["replicas"] == 3
    })?;
    let killed = Instant::now();
    released.kill()?;
    assert_eq!(this.decisions()?, 0.0);
    let changed = generation(&space)?;
    let took = this.until_decisions(1.0, killed)?;
    ensure!(took <= KILLED, "{took:?} after a kill");
    // The watch may be behind at the first.
    this.until_decisions(3.0, Instant::now())?;
    let (three, kept_changes) = (settled(&space)?, kept(&space)?);
    ensure!(three.contains(&first[0]), "{three:?}");
    assert_eq!(generation(&space)?, changed);

    let back = Process::start_released(&space, &user)?;
    hand_over(this, &back)?;
    assert_eq!(settled(&space)?, three);
    let again = Process::start(&space, &user)?;
    hand_over(back, &again)?;
    assert_eq!(settled(&space)?, three);
    assert_eq!(generation(&space)?, changed);
    assert_eq!(kept(&space)?, kept_changes);
    Ok(())
}

/// One stops, as when its pod is replaced, and the other leads.
fn hand_over(from: Process, to: &Process) -> Result<()> {
    to.until_ready()?;
    assert_eq!(to.decisions()?, 0.0);
    let stopped = Instant::now();
    from.stop()?;
    let took = to.until_decisions(1.0, stopped)?;
    ensure!(took <= STOPPED, "{took:?} after a stop");
    to.until_decisions(3.0, Instant::now())?;
    Ok(())
}

/// A generation is a change of the spec.
fn generation(space: &Space) -> Result<i64> {
    let object = space.get("orderedconsumer", "orders")?;
    let generation = object["metadata"]["generation"].as_i64();
    generation.context("no generation")
}

/// The three pods, their restarts with them, once there is nothing left to change.
fn settled(space: &Space) -> Result<Vec<(String, i64)>> {
    let object = space.until_object("orderedconsumer", "orders", |object| {
        object["status"]["decision"]["replicas"] == 3
    })?;
    assert_eq!(object["spec"]["replicas"], 3);
    space.until_object("deployment", "orders-keylane", |deployment| {
        let (spec, status) = (&deployment["spec"], &deployment["status"]);
        let all = |field: &str| status[field] == 3;
        let seen = status["observedGeneration"] == deployment["metadata"]["generation"];
        spec["replicas"] == 3 && all("replicas") && all("updatedReplicas") && seen
    })?;
    let pods = pods(space)?.0;
    ensure!(pods.len() == 3, "{pods:?}");
    Ok(pods)
}
