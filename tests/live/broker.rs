//! The broker cannot be reached for two minutes: what is not known is no reason to take pods down.
//!
//! Its cable is pulled: the end of its pod's link on this machine is set down, and up again. Nothing of the
//! broker ends, and no message is lost.

use crate::course::Moment;
use crate::figure::Figure;
use crate::load::Rates;
use crate::scene::{Plan, Scene};
use anyhow::{Context as _, Result, bail};
use keylane_tests::cluster::run;
use keylane_tests::stack::Stack;
use keylane_tests::wait;
use std::fs;
use std::time::{Duration, Instant};

/// Name of the scene.
pub const NAME: &str = "broker";
const RATE: f64 = 600.0;
const OUTAGE: Duration = Duration::from_secs(120);
/// Fewer pods are enough after half of the outage: were it not for the missing figures they would go.
const WINDOW: Duration = Duration::from_secs(60);
/// How long pods may take to go once figures are back.
const GO_WITHIN: Duration = Duration::from_secs(240);
/// How long pods that stay may say what their end would have cost.
const TOLD_FOR: Duration = Duration::from_secs(90);
const SELECTOR: &str = "--selector=keylane.dev/ordered-consumer=broker";
const COSTS: &str = r"--output=jsonpath={.items[*].metadata.annotations.controller\.kubernetes\.io/pod-deletion-cost}";

/// Measures it.
pub async fn gone(stack: &Stack) -> Result<Vec<Figure>> {
    let scene = Scene::begin(
        stack,
        Plan {
            window: WINDOW,
            ..Plan::usual(NAME, RATE, 2)
        },
    )
    .await?;
    // From now on nothing arrives: one pod would do.
    scene.load.set(Rates::default());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let cable = Cable::pull(stack)?;
    let pulled = Instant::now();
    eprintln!(
        "{NAME:9} cut off for {} s: {}",
        OUTAGE.as_secs(),
        cable.link
    );
    // Whoever does not want to wait is not to leave it unplugged.
    tokio::select! {
        () = tokio::time::sleep(OUTAGE) => {}
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            bail!("interrupted while the broker was cut off");
        }
    }
    let pods = scene.course.pods_since(pulled);
    let unknown =
        |moment: &Moment| !moment.lag_known && moment.condition("BrokerUnavailable").is_some();
    // Since then the lag has been unknown all the time.
    let said = scene.course.first(pulled, unknown).filter(|said| {
        let known_again = scene.course.first(said.at, |moment| moment.lag_known);
        known_again.is_none()
    });
    let stale = |moment: &Moment| moment.condition("MetricsStale").is_some();
    let stale = scene.course.first(pulled, stale);
    drop(cable);
    let back = Instant::now();
    eprintln!("{NAME:9} back");
    let fewer = |moment: &Moment| moment.wanted < scene.settled.wanted;
    let went = wait::until(GO_WITHIN, "fewer pods", async || {
        scene.course.first(back, fewer).ok_or("as many as before")
    });
    let went = went.await.ok();
    let told = told_their_cost(stack).await?;
    let busy = scene.settled.wanted;
    scene.end().await?;
    let seconds = OUTAGE.as_secs();
    Ok(vec![
        Figure::most(
            NAME,
            format!("unreachable for {seconds} s, {busy} pods, nothing to do: pods taken down"),
            f64::from(pods.falls),
            0.0,
        ),
        Figure::most(
            NAME,
            "the status says that the lag is unknown, s",
            said.map(|moment| (moment.at - pulled).as_secs_f64()),
            15.0,
        ),
        Figure::most(
            NAME,
            "MetricsStale says that figures have been missing for more than a minute, s",
            stale.map(|moment| (moment.at - pulled).as_secs_f64()),
            90.0,
        ),
        Figure::most(
            NAME,
            "and for comparison: the first pods go once figures are back, s",
            went.map(|moment| (moment.at - back).as_secs_f64()),
            GO_WITHIN.as_secs_f64(),
        ),
        Figure::most(
            NAME,
            "pods are told what their end would cost before some go, and those that stay lose it, s",
            told,
            TOLD_FOR.as_secs_f64(),
        ),
    ])
}

/// Pods have just gone: seconds after which no other says what its end would have cost. None if none says so
/// now, or one does for too long.
async fn told_their_cost(stack: &Stack) -> Result<Option<f64>> {
    let costs = || stack.kubectl(&["get", "pods", SELECTOR, COSTS]);
    let began = Instant::now();
    if costs()?.trim().is_empty() {
        return Ok(None);
    }
    let gone = wait::until(TOLD_FOR, "costs taken away", async || {
        let left = costs().map_err(|error| error.to_string())?;
        left.trim().is_empty().then_some(()).ok_or(left)
    });
    Ok(gone.await.ok().map(|()| began.elapsed().as_secs_f64()))
}

/// The broker's link to the others; plugged in again when dropped.
struct Cable {
    link: String,
}

impl Cable {
    fn pull(stack: &Stack) -> Result<Self> {
        let peer = ["exec", "rocketmq-0", "--container=namesrv", "--"];
        let peer = [&peer[..], &["cat", "/sys/class/net/eth0/iflink"]].concat();
        let index = stack.kubectl(&peer)?;
        let cable = Self {
            link: link(index.trim())?,
        };
        cable.set("down")?;
        Ok(cable)
    }

    fn set(&self, state: &str) -> Result<()> {
        let mut ip = run::command("ip");
        ip.args(["link", "set", "dev", &self.link, state]);
        run::output(&format!("setting link {} {state}", self.link), &mut ip)?;
        Ok(())
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        if let Err(error) = self.set("up") {
            eprintln!("{NAME}: {error:#}");
        }
    }
}

/// Name of this machine's link with that index.
fn link(index: &str) -> Result<String> {
    for link in fs::read_dir("/sys/class/net")?.flatten() {
        let found = fs::read_to_string(link.path().join("ifindex"));
        if found.is_ok_and(|found| found.trim() == index) {
            return Ok(link.file_name().to_string_lossy().into_owned());
        }
    }
    None.with_context(|| format!("this machine has no link with index {index}"))
}
