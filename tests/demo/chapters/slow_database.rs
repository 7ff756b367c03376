//! What is behind the handlers can do less than arrives.

use crate::look::{Look, condition, wanted_pods};
use crate::story::{Story, USUAL, stretch};
use crate::tell as tell_verdict;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const CONNECTIONS: u32 = 4;
const WORK_MS: u32 = 100;
const BEFORE: Duration = Duration::from_secs(15);
const LOAD: u32 = 200;
const NAMED_WITHIN: Duration = Duration::from_secs(170);
const WATCHED: Duration = Duration::from_secs(20);

/// It is named, and gets no more calls than it can use, and no pods are added for it.
pub async fn tell(story: &Story<'_>) -> Result<()> {
    let can = CONNECTIONS * 1_000 / WORK_MS;
    println!(
        "\nA slow database: {USUAL} orders/s arrive; after {} s it has {CONNECTIONS} connections left and takes {WORK_MS} ms a statement: {can}/s at best, whoever asks.",
        BEFORE.as_secs()
    );
    story.say_where_to_look(&["status", "explain", "top"]);
    let sending = story.produce(&[&stretch(USUAL, LOAD)])?;
    let mut look = Look::new(story.stack);
    look.on(BEFORE).await?;
    story.database(CONNECTIONS, WORK_MS)?;
    println!("      The database is slow now.");
    let slow_at = look.seconds();
    let named = look
        .until(NAMED_WITHIN, |object| {
            Ok(condition(object, "DownstreamBound").is_some())
        })
        .await?;
    let named = named.with_context(|| {
        format!("DownstreamBound is not true after {NAMED_WITHIN:?}; kubectl keylane explain says what was decided")
    })?;
    let (after, pods) = (look.seconds() - slow_at, wanted_pods(&named));
    println!(
        "\nNamed after {after} s: {}",
        condition(&named, "DownstreamBound").unwrap_or_default()
    );
    story.keylane(&["explain"], &[]).await?;
    look.most_wanted = pods;
    look.on(WATCHED).await?;
    let most = look.most_wanted;
    story.database(32, 20)?;
    println!("      The database is well again.");
    let sent = sending.finish().await?;
    let verdict = story.finish(&mut look, sent).await?;
    ensure!(
        most <= pods,
        "pods were added for a database that is full: {pods} -> {most}"
    );
    println!(
        "\nWhat came of it: the limit was named after {after} s, and no pod was added from then on ({pods} were wanted, {most} at most)."
    );
    tell_verdict(&verdict, sent)
}
