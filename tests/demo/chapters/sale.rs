//! Arrivals multiplied by eight.

use crate::look::Look;
use crate::story::{Story, USUAL, stretch};
use crate::tell as tell_verdict;
use anyhow::{Result, ensure};
use std::time::Duration;

const BEFORE: u32 = 20;
const SALE: u32 = 60;
const AFTER: u32 = 30;
const FACTOR: u32 = 8;

/// Lanes follow within seconds, pods when lanes are not enough.
pub async fn tell(story: &Story<'_>) -> Result<()> {
    let peak = FACTOR * USUAL;
    println!(
        "\nA sale: {USUAL} orders/s arrive for {BEFORE} s, {peak}/s for {SALE} s, then {USUAL}/s again. A call takes 20 ms."
    );
    story.say_where_to_look(&["top", "status", "explain"]);
    let sending = story.produce(&[
        &stretch(USUAL, BEFORE),
        &stretch(peak, SALE),
        &stretch(USUAL, AFTER),
    ])?;
    let mut look = Look::new(story.stack);
    let late = BEFORE + SALE - 15;
    look.on(Duration::from_secs(late.into())).await?;
    story.keylane(&["top"], &["--once"]).await?;
    story.keylane(&["explain"], &[]).await?;
    let sent = sending.finish().await?;
    let verdict = story.finish(&mut look, sent).await?;
    println!(
        "\nWhat came of it: {} lanes a pod and {} pods at most.",
        look.most_lanes, look.most_pods
    );
    tell_verdict(&verdict, sent)?;
    ensure!(
        look.most_lanes > 2,
        "lanes did not follow: {} a pod",
        look.most_lanes
    );
    println!(
        "Before the night, without a cluster: kubectl get oc order-status -n keylane-demo -o yaml > order-status.yaml"
    );
    println!(
        "  kubectl keylane simulate -f order-status.yaml --rate {USUAL} --peak {peak} --work 20ms"
    );
    Ok(())
}
