//! A constant load that takes more than one pod: once it has settled, nothing changes, though pods might go soon.

use crate::figure::Figure;
use crate::scene::{Plan, Scene};
use anyhow::Result;
use keylane_tests::stack::Stack;
use std::time::{Duration, Instant};

/// Name of the scene.
pub const NAME: &str = "constant";
const RATE: f64 = 600.0;
/// Pods may go many times within the time it is watched: that none does is not for a hold that lasts longer.
const WINDOW: Duration = Duration::from_secs(60);
/// What was too much for the cold start has gone by then: after a turn pods stay three times as long.
const QUIET: Duration = Duration::from_secs(240);
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Measures it for so long.
pub async fn constant(stack: &Stack, length: Duration) -> Result<Vec<Figure>> {
    let scene = Scene::begin(
        stack,
        Plan {
            window: WINDOW,
            quiet: QUIET,
            ..Plan::usual(NAME, RATE, 2)
        },
    )
    .await?;
    let began = Instant::now();
    let mut worst = Duration::ZERO;
    while began.elapsed() < length {
        tokio::time::sleep(LOOK_EVERY.min(length - began.elapsed())).await;
        worst = worst.max(scene.load.oldest().await?);
        eprintln!(
            "{NAME:9} {:4.1} min of constant load, {:?}",
            began.elapsed().as_secs_f64() / 60.0,
            scene.course.pods_since(began)
        );
    }
    let (pods, busy) = (scene.course.pods_since(began), scene.settled.wanted);
    scene.end().await?;
    let what = format!(
        "{RATE} messages/s on {busy} pods for {:.0} minutes: changes of replicas (oldest message at most {:.1} s)",
        length.as_secs_f64() / 60.0,
        worst.as_secs_f64()
    );
    Ok(vec![Figure::most(NAME, what, f64::from(pods.changes), 0.0)])
}
