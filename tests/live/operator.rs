//! The operator is killed while pods are busy: the next one goes on where it was.

use crate::figure::Figure;
use crate::scene::{Plan, Scene};
use anyhow::{Context as _, Result};
use keylane_tests::cluster::run;
use keylane_tests::stack::{SYSTEM, Stack};
use keylane_tests::wait;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Name of the scene.
pub const NAME: &str = "operator";
const RATE: f64 = 600.0;
const LIMIT: Duration = Duration::from_secs(60);
/// How long the next one is watched.
const WATCHED: Duration = Duration::from_secs(60);

/// Measures it.
pub async fn restarted(stack: &Stack) -> Result<Vec<Figure>> {
    let scene = Scene::begin(
        stack,
        Plan {
            name: NAME,
            rate: RATE,
            pods: 2,
            window: Plan::WINDOW,
            handler: Vec::new(),
        },
    )
    .await?;
    let (busy, before) = (scene.settled.wanted, leader(stack)?);
    eprintln!("{NAME:9} {before} is killed");
    let killed = Instant::now();
    system(
        stack,
        &[
            "delete",
            "pod",
            "--selector=app.kubernetes.io/name=keylane",
            "--grace-period=0",
            "--force",
        ],
    )?;
    let after = wait::until(LIMIT, "another operator that decides", async || {
        let after = leader(stack).map_err(|error| error.to_string())?;
        (after != before).then_some(after.clone()).ok_or(after)
    })
    .await?;
    let took_over = killed.elapsed().as_secs_f64();
    eprintln!("{NAME:9} {after} decides after {took_over:.0} s");
    tokio::time::sleep(WATCHED).await;
    let pods = scene.course.pods_since(killed);
    scene.end().await?;
    let what = format!(
        "killed at {RATE} messages/s on {busy} pods, the next one leads after {took_over:.0} s: changes of replicas in {} s more",
        WATCHED.as_secs()
    );
    Ok(vec![Figure::most(NAME, what, f64::from(pods.changes), 0.0)])
}

/// Who decides.
fn leader(stack: &Stack) -> Result<String> {
    let lease = system(
        stack,
        &["get", "lease", "keylane-operator", "--output=json"],
    )?;
    let lease: Value = serde_json::from_str(&lease)?;
    let holder = lease["spec"]["holderIdentity"].as_str();
    let holder = holder.filter(|holder| !holder.is_empty());
    Ok(holder.context("nobody holds the lease")?.to_owned())
}

/// kubectl in the operator's namespace.
fn system(stack: &Stack, args: &[&str]) -> Result<String> {
    let mut command = stack.cluster().kubectl();
    command.args(["--namespace", SYSTEM]).args(args);
    Ok(run::output(
        &format!("kubectl {}", args.join(" ")),
        &mut command,
    )?)
}
