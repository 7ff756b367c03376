//! A pod is gone from one moment to the next.

use crate::look::Look;
use crate::story::{Story, USUAL, stretch};
use crate::{NAME, NAMESPACE, QUEUES, tell as tell_verdict};
use anyhow::{Context, Result};
use keylane_consumer::contract::admin::QueuePhase;
use keylane_operator::live::{self, ConsumerStats};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const BACKLOG: &str = "--messages=30000";
const LOAD: u32 = 60;
const SCALED_WITHIN: Duration = Duration::from_secs(120);
const BACK_WITHIN: Duration = Duration::from_secs(120);

/// Others take its queues over once nothing of it can run any more.
pub async fn tell(story: &Story<'_>) -> Result<()> {
    println!(
        "\nA killed pod: 30,000 orders wait, {USUAL}/s more arrive. Once there are two pods or more, one is gone from one moment to the next: nobody hears how it ended."
    );
    story.say_where_to_look(&["top", "offsets show"]);
    let sending = story.produce(&[BACKLOG, &stretch(USUAL, LOAD)])?;
    let mut look = Look::new(story.stack);
    look.until(SCALED_WITHIN, |object| {
        Ok(object["status"]["readyReplicas"].as_u64() >= Some(2) && owners(story)?.len() >= 2)
    })
    .await?
    .with_context(|| {
        format!("there are no two pods with queues after {SCALED_WITHIN:?}; kubectl keylane explain says why")
    })?;
    story.keylane(&["top"], &["--once"]).await?;
    let victim = owners(story)?.pop_first().context("no pod has a queue")?;
    println!("$ kubectl -n {NAMESPACE} delete pod {victim} --force --grace-period=0");
    story.stack.kill_pod(&victim)?;
    let killed = Instant::now();
    let back = look
        .until(BACK_WITHIN, |_| {
            let stats = stats(story)?;
            Ok(held(&stats) == QUEUES as usize && !names(&stats).contains(&victim))
        })
        .await?;
    back.with_context(|| format!("its queues are not taken over after {BACK_WITHIN:?}"))?;
    let seconds = killed.elapsed().as_secs();
    println!("\nAll {QUEUES} queues have an owner again after {seconds} s:");
    story.keylane(&["offsets", "show"], &[]).await?;
    let sent = sending.finish().await?;
    let verdict = story.finish(&mut look, sent).await?;
    println!(
        "\nWhat came of it: its queues were taken over within {seconds} s. Of a pod that ends in order they are handed over within one; of one that nobody hears of they wait until nothing of it can run any more, 10 s and handler.timeout (3 s) + 5 s."
    );
    tell_verdict(&verdict, sent)?;
    println!("Handled twice are those that it had finished and not yet told the broker.");
    Ok(())
}

/// What pods say of themselves.
fn stats(story: &Story<'_>) -> Result<ConsumerStats> {
    let path = live::path(NAMESPACE, NAME);
    let text = story.stack.kubectl(&["get", "--raw", &path])?;
    Ok(serde_json::from_str(&text)?)
}

fn names(stats: &ConsumerStats) -> BTreeSet<String> {
    stats.pods.iter().map(|pod| pod.name.clone()).collect()
}

/// Queues that pods dispatch from.
fn held(stats: &ConsumerStats) -> usize {
    let queues = stats.pods.iter().filter_map(|pod| pod.stats.as_ref());
    let queues = queues.flat_map(|stats| &stats.queues);
    queues
        .filter(|queue| queue.phase == QueuePhase::Owned && !queue.retry)
        .count()
}

/// Pods that dispatch from a queue.
fn owners(story: &Story<'_>) -> Result<BTreeSet<String>> {
    let stats = stats(story)?.pods.into_iter();
    let owns = |pod: &live::PodStats| {
        let mut queues = pod.stats.iter().flat_map(|stats| &stats.queues);
        queues.any(|queue| queue.phase == QueuePhase::Owned)
    };
    Ok(stats.filter(owns).map(|pod| pod.name).collect())
}
