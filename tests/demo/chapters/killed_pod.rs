//! A pod is gone from one moment to the next.

use crate::look::Look;
use crate::story::{Story, TIMEOUT, USUAL, stretch};
use crate::{NAME, NAMESPACE, tell as tell_verdict};
use anyhow::{Context, Result, ensure};
use keylane_consumer::contract::admin::QueuePhase;
use keylane_consumer::ownership::LEASE;
use keylane_operator::live::{self, ConsumerStats};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const BACKLOG: &str = "--messages=30000";
const LOAD: u32 = 60;
const SCALED_WITHIN: Duration = Duration::from_secs(120);
/// A call is over so long after `handler.timeout`.
const CALL_IS_OVER: Duration = Duration::from_secs(5);
/// Later than it is so, it is seen: looks are three seconds apart, and the machine is busy.
const SEEN_WITHIN: Duration = Duration::from_secs(12);
const BACK_WITHIN: Duration = Duration::from_secs(120);

/// Name of its broker, and its number there.
type Queue = (String, u32);

/// Others take its queues over once nothing of it can run any more, and no later.
pub async fn tell(story: &Story<'_>) -> Result<()> {
    println!(
        "\nA killed pod: 30,000 orders wait, {USUAL}/s more arrive. Once two pods or more have queues, one is gone from one moment to the next: nobody hears how it ended."
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
    let (victim, queues) = busiest(owners(story)?).context("no pod has a queue")?;
    println!(
        "It has {} queues: {}.\n$ kubectl -n {NAMESPACE} delete pod {victim} --force --grace-period=0",
        queues.len(),
        names(&queues)
    );
    let killed = Instant::now();
    story.stack.kill_pod(&victim)?;
    let back = look
        .until(BACK_WITHIN, |_| {
            Ok(are_taken_over(&owners(story)?, &victim, &queues))
        })
        .await?;
    let took = killed.elapsed();
    back.with_context(|| format!("its queues are not taken over after {BACK_WITHIN:?}"))?;
    let (seconds, bound) = (took.as_secs(), LEASE + TIMEOUT + CALL_IS_OVER);
    println!("\nOthers dispatch from its queues, {seconds} s after the kill:");
    story.keylane(&["offsets", "show"], &[]).await?;
    let sent = sending.finish().await?;
    let verdict = story.finish(&mut look, sent).await?;
    println!(
        "\nWhat came of it: its queues were taken over within {seconds} s. Of a pod that ends in order they are handed over within one; of one that nobody hears of they wait until nothing of it can run any more: {} s, which are {} s and handler.timeout ({} s) + {} s. A look every three seconds sees it a little later.",
        bound.as_secs(),
        LEASE.as_secs(),
        TIMEOUT.as_secs(),
        CALL_IS_OVER.as_secs()
    );
    tell_verdict(&verdict, sent)?;
    println!("Handled twice are those that it had finished and not yet told the broker.");
    ensure!(
        took <= bound + SEEN_WITHIN,
        "its queues stood still for {seconds} s, and no more than {} s are promised",
        bound.as_secs()
    );
    Ok(())
}

/// The pods that dispatch, each with the queues it dispatches from, by what they say of themselves.
fn owners(story: &Story<'_>) -> Result<BTreeMap<String, BTreeSet<Queue>>> {
    let path = live::path(NAMESPACE, NAME);
    let text = story.stack.kubectl(&["get", "--raw", &path])?;
    let stats: ConsumerStats = serde_json::from_str(&text)?;
    Ok(owned(stats))
}

fn owned(stats: ConsumerStats) -> BTreeMap<String, BTreeSet<Queue>> {
    let mut owners = BTreeMap::new();
    for pod in stats.pods {
        let all = pod.stats.into_iter().flat_map(|stats| stats.queues);
        let dispatched = all.filter(|queue| queue.phase == QueuePhase::Owned && !queue.retry);
        let queues: BTreeSet<Queue> = dispatched.map(|queue| (queue.broker, queue.id)).collect();
        if !queues.is_empty() {
            owners.insert(pod.name, queues);
        }
    }
    owners
}

/// The pod with most queues: most stands still without it.
fn busiest(owners: BTreeMap<String, BTreeSet<Queue>>) -> Option<(String, BTreeSet<Queue>)> {
    owners.into_iter().max_by_key(|(_, queues)| queues.len())
}

/// Whether others dispatch from all these queues, and the pod from none of any.
fn are_taken_over(
    owners: &BTreeMap<String, BTreeSet<Queue>>,
    victim: &str,
    queues: &BTreeSet<Queue>,
) -> bool {
    let taken: BTreeSet<_> = owners.values().flatten().collect();
    !owners.contains_key(victim) && queues.iter().all(|queue| taken.contains(queue))
}

fn names(queues: &BTreeSet<Queue>) -> String {
    let names = queues.iter().map(|(broker, id)| format!("{broker}/{id}"));
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use keylane_consumer::contract::admin::{QueueStats, Stats};
    use keylane_operator::live::PodStats;

    fn pod(name: &str, queues: &[(u32, QueuePhase)]) -> PodStats {
        let queues = queues.iter().map(|(id, phase)| QueueStats {
            broker: "broker-a".to_owned(),
            id: *id,
            phase: *phase,
            ..QueueStats::default()
        });
        PodStats {
            name: name.to_owned(),
            stats: Some(Stats {
                queues: queues.collect(),
                ..Stats::default()
            }),
            error: None,
        }
    }

    #[test]
    fn queues_are_taken_over_once_others_dispatch_from_each_of_them() {
        use QueuePhase::{Owned, Waiting};
        let owners = |pods| owned(ConsumerStats::new(NAMESPACE, NAME, pods));
        let before = owners(vec![
            pod("a", &[(0, Owned), (3, Waiting)]),
            pod("b", &[(1, Owned), (2, Owned)]),
            pod("c", &[]),
        ]);
        assert_eq!(before.len(), 2);
        let (victim, queues) = busiest(before.clone()).expect("one has queues");
        assert_eq!(
            (victim.as_str(), names(&queues).as_str()),
            ("b", "broker-a/1, broker-a/2")
        );
        assert!(!are_taken_over(&before, &victim, &queues));
        let waits = owners(vec![pod("a", &[(0, Owned), (1, Owned), (2, Waiting)])]);
        assert!(!are_taken_over(&waits, &victim, &queues));
        let back = owners(vec![
            pod("a", &[(0, Owned), (1, Owned)]),
            pod("d", &[(2, Owned)]),
        ]);
        assert!(are_taken_over(&back, &victim, &queues));
    }
}
