//! The operator is killed while pods are busy: the next one goes on where it was.

use crate::course::Moment;
use crate::figure::Figure;
use crate::load::Rates;
use crate::scene::{MOST_PODS, Plan, Scene};
use anyhow::{Context as _, Result};
use keylane_tests::cluster::run;
use keylane_tests::stack::{SYSTEM, Stack};
use keylane_tests::wait;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Name of the scene.
pub const NAME: &str = "operator";
/// More than one pod is believed to do, and less than all may: some are left to ask for.
const RATE: f64 = 200.0;
/// What only all pods can do.
const PEAK: f64 = 900.0;
/// Most lanes: a pod can do 320/s.
const LANES: u32 = 16;
const LIMIT: Duration = Duration::from_secs(60);
/// How long the next one is watched.
const WATCHED: Duration = Duration::from_secs(60);

/// Measures it, once when everything has settled and once while pods are on their way.
pub async fn restarted(stack: &Stack) -> Result<Vec<Figure>> {
    let plan = Plan {
        lanes: LANES,
        ..Plan::usual(NAME, RATE, 2)
    };
    let scene = Scene::begin(stack, plan).await?;
    let (busy, killed) = (scene.settled.wanted, Instant::now());
    let took_over = kill(stack).await?;
    tokio::time::sleep(WATCHED).await;
    let settled = scene.course.pods_since(killed);

    scene.load.set(Rates {
        orders: PEAK,
        key: None,
    });
    let stepped = Instant::now();
    // Nothing more can be asked for then, so that any change is one too many.
    let on_their_way =
        |moment: &Moment| moment.wanted.unsigned_abs() == MOST_PODS && moment.ready < moment.wanted;
    let asked = wait::until(LIMIT, "all pods are asked for", async || {
        let found = scene.course.first(stepped, on_their_way);
        found.ok_or("not yet")
    })
    .await?;
    let killed = Instant::now();
    let took_over_then = kill(stack).await?;
    let ready = wait::until(LIMIT, "they are there", async || {
        let all = |moment: &Moment| moment.ready >= asked.wanted;
        scene.course.first(killed, all).ok_or("not yet")
    })
    .await?;
    tokio::time::sleep(WATCHED).await;
    let moving = scene.course.pods_since(killed);
    scene.end().await?;
    let seconds = WATCHED.as_secs();
    Ok(vec![
        Figure::most(
            NAME,
            format!(
                "killed at {RATE} messages/s on {busy} pods, the next one leads after {took_over:.0} s: changes of replicas in {seconds} s more"
            ),
            f64::from(settled.changes),
            0.0,
        ),
        Figure::most(
            NAME,
            format!(
                "killed while {} of {} pods were ready, the next one leads after {took_over_then:.0} s: changes of replicas until all are ready and {seconds} s more",
                asked.ready, asked.wanted
            ),
            f64::from(moving.changes),
            0.0,
        ),
        Figure::most(
            NAME,
            "and all of them are ready after the kill, s",
            (ready.at - killed).as_secs_f64(),
            LIMIT.as_secs_f64(),
        ),
    ])
}

/// Kills the operator; seconds until the next one decides.
async fn kill(stack: &Stack) -> Result<f64> {
    let before = leader(stack)?;
    eprintln!("{NAME:9} {before} is killed");
    let killed = Instant::now();
    let pods = ["delete", "pod", "--selector=app.kubernetes.io/name=keylane"];
    let now = ["--grace-period=0", "--force"];
    system(stack, &[&pods[..], &now].concat())?;
    let after = wait::until(LIMIT, "another operator that decides", async || {
        let after = leader(stack).map_err(|error| error.to_string())?;
        (after != before).then_some(after.clone()).ok_or(after)
    })
    .await?;
    let took_over = killed.elapsed().as_secs_f64();
    eprintln!("{NAME:9} {after} decides after {took_over:.0} s");
    Ok(took_over)
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
