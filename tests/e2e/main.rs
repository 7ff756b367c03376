#![recursion_limit = "512"]
//! The main job from end to end: an OrderedConsumer on a real Kubernetes consumes a real RocketMQ while
//! pods come and go. Order and completeness are judged from the handlers' side, offsets by mqadmin.
//!
//! All cases share one stack and run side by side, some at once, in the order of their names: `chaos` comes first
//! and `slow_database`, which waits for its end, last.

mod chaos;
mod deletion;
mod hpa;
mod letters;
mod live;
mod migration;
mod monitoring;
mod newcomers;
mod people;
mod resets;
mod samples;
mod secured;
mod shared;
mod slow_database;

use anyhow::{Result, ensure};
use keylane_tests::judge::Verdict;
use keylane_tests::stack::{OrderedConsumer, Stack};
use keylane_tests::wait;
use std::time::Duration;

const MESSAGES: u64 = 50_000;
const KEYS: u64 = 1_000;
const QUEUES: u32 = 8;
const LONG: Duration = Duration::from_secs(600);
const NAME: &str = "orders";

async fn until(stack: &Stack, what: &str, condition: impl Fn(&Verdict) -> bool) -> Result<Verdict> {
    let verdict = wait::until(LONG, what, async || {
        let verdict = stack.verdict().await.map_err(|error| error.to_string())?;
        if condition(&verdict) {
            Ok(verdict)
        } else {
            Err(format!("{verdict:?}"))
        }
    })
    .await?;
    println!(
        "{what}: {} handled, {} keys",
        verdict.distinct, verdict.keys
    );
    Ok(verdict)
}

async fn until_ready(stack: &Stack, pods: u64) -> Result<()> {
    let what = format!("{pods} ready pods");
    wait::until(LONG, what, async || {
        let object = stack
            .get("orderedconsumer", NAME)
            .map_err(|error| error.to_string())?;
        let status = &object["status"];
        let (ready, all) = (
            status["readyReplicas"].as_u64(),
            status["replicas"].as_u64(),
        );
        if ready == Some(pods) && all == Some(pods) {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await?;
    println!("{pods} pods are ready");
    Ok(())
}

/// Waits until another pod was told that the kubelet reported every container of a pod as terminated.
async fn until_told(stack: &Stack, victim: &str, uid: &str) -> Result<()> {
    let proof = format!("every container of pod {uid} is reported terminated");
    let args = [
        "logs",
        "--selector=keylane.dev/ordered-consumer",
        "--container=executor",
        "--tail=-1",
    ];
    wait::until(LONG, "others told of the end of a pod", async || {
        let log = stack.kubectl(&args).map_err(|error| error.to_string())?;
        if log.contains(&proof) {
            Ok(())
        } else {
            Err(format!("{victim} is not named"))
        }
    })
    .await?;
    println!("the others know that nothing of {victim} runs any more");
    Ok(())
}

/// 1, 3 and 1 pods while messages are handled, and one of them deleted.
async fn scale_and_delete(stack: &Stack) -> Result<()> {
    stack.kubectl(&["scale", "orderedconsumer", NAME, "--replicas=3"])?;
    until_ready(stack, 3).await?;
    until(stack, "25,000 handled by three pods", |verdict| {
        verdict.distinct >= 25_000
    })
    .await?;

    let pods = stack.kubectl(&[
        "get",
        "pods",
        "--selector=keylane.dev/ordered-consumer",
        "--output=name",
    ])?;
    let victim = pods.lines().next().unwrap_or_default().trim().to_owned();
    let uid = stack.kubectl(&["get", &victim, "--output=jsonpath={.metadata.uid}"])?;
    stack.kubectl(&["delete", "--wait=false", &victim])?;
    // Its queues go on without a wait, because the others hear that nothing of it runs any more.
    until_told(stack, &victim, &uid).await?;
    until(
        stack,
        "35,000 handled after one pod was deleted",
        |verdict| verdict.distinct >= 35_000,
    )
    .await?;

    stack.kubectl(&["scale", "orderedconsumer", NAME, "--replicas=1"])?;
    until(stack, "everything handled", |verdict| {
        verdict.distinct >= MESSAGES
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_messages_keep_their_order_while_pods_come_and_go() -> Result<()> {
    shared::with_stack(pods_come_and_go).await
}

async fn pods_come_and_go(stack: &Stack) -> Result<()> {
    // What an earlier run left would be counted, or would drive the pods.
    let all = ["delete", "hpa,orderedconsumers", "--all", "--timeout=120s"];
    stack.kubectl(&all)?;
    stack.kubectl(&[
        "wait",
        "--for=delete",
        "pod",
        "--selector=keylane.dev/ordered-consumer",
        "--timeout=120s",
    ])?;
    stack.forget().await?;
    let topic = format!("ORDERS_{:08x}", rand::random::<u32>());
    let consumer = OrderedConsumer {
        name: NAME.to_owned(),
        topic: topic.clone(),
        work: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
        lanes: (4, 16),
        mode: "LanesOnly",
        max_replicas: 3,
        stabilization_window: Duration::from_secs(660),
        handler: Vec::new(),
    };
    stack.produce(&topic, QUEUES, KEYS, MESSAGES).await?;
    consumer.apply(stack)?;
    until(stack, "5,000 handled by one pod", |verdict| {
        verdict.distinct >= 5_000
    })
    .await?;

    tokio::try_join!(
        scale_and_delete(stack),
        monitoring::every_query_gives_data(stack)
    )?;
    until_ready(stack, 1).await?;

    let progress = wait::until(LONG, "everything committed", async || {
        let progress = stack
            .progress(NAME, &topic)
            .await
            .map_err(|error| error.to_string())?;
        let all = progress
            .iter()
            .all(|queue| queue.consumer_offset == queue.broker_offset);
        if all && progress.len() == QUEUES as usize {
            Ok(progress)
        } else {
            Err(format!("{progress:?}"))
        }
    })
    .await?;
    ensure!(
        progress
            .iter()
            .map(|queue| queue.broker_offset.unsigned_abs())
            .sum::<u64>()
            == MESSAGES,
        "{progress:?}"
    );

    // Beside each other, because both mostly wait.
    tokio::try_join!(
        live::a_viewer_sees_what_pods_know(stack),
        hpa::drives_the_pods(stack),
        samples::keep_order(stack)
    )?;
    resets::goes_back_to_the_beginning(stack).await?;
    until_ready(stack, 1).await?;

    // Handlers report their last calls when they end.
    stack.kubectl(&["delete", "orderedconsumer", NAME])?;
    stack.kubectl(&[
        "wait",
        "--for=delete",
        "pod",
        "--selector=keylane.dev/ordered-consumer",
        "--timeout=120s",
    ])?;
    let verdict = stack.verdict().await?;
    println!("verdict: {verdict:?}");
    ensure!(
        verdict.distinct == MESSAGES,
        "{} of {MESSAGES} messages were handled",
        verdict.distinct
    );
    ensure!(
        verdict.inversions == 0 && verdict.overlaps == 0,
        "order was broken: {:?}",
        verdict.examples
    );
    ensure!(verdict.keys == KEYS, "{} keys", verdict.keys);
    Ok(())
}
