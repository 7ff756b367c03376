//! An OrderedConsumer that is deleted while calls run: its pods drain, as at any other end of theirs.

use crate::shared::with_stack;
use crate::until;
use anyhow::{Result, ensure};
use keylane_tests::stack::{OrderedConsumer, Stack};
use std::time::Duration;
use tokio::task::block_in_place;

const NAMESPACE: &str = "keylane-e2e-deletion";
const NAME: &str = "deleted";
const QUEUES: u32 = 4;
const KEYS: u64 = 100;
/// At 16 a second, more than half a minute of work.
const MESSAGES: u64 = 600;
/// Long enough for calls to run at any moment.
const WORK: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_deleted_finishes_what_runs_and_none_of_it_comes_again() -> Result<()> {
    with_stack(async |stack: &Stack| {
        let stack = block_in_place(|| stack.beside(NAMESPACE))?;
        case(&stack).await?;
        block_in_place(|| stack.remove_namespace())
    })
    .await
}

async fn case(stack: &Stack) -> Result<()> {
    let topic = format!("DELETED_{:08x}", rand::random::<u32>());
    stack.produce(&topic, QUEUES, KEYS, MESSAGES).await?;
    consumer(&topic, WORK).apply(stack)?;
    stack.kubectl(&["scale", "orderedconsumer", NAME, "--replicas=2"])?;
    until(stack, "calls run", |verdict| {
        verdict.distinct >= 40 && verdict.unfinished >= 4
    })
    .await?;

    delete(stack)?;
    let ended = stack.verdict().await?;
    println!("after the deletion: {ended:?}");
    ensure!(
        ended.distinct < MESSAGES,
        "nothing was left to do, so nothing was interrupted"
    );
    ensure!(
        ended.unfinished == 0 && ended.failed == 0,
        "calls were cut off: {ended:?}"
    );

    // Another of the same group goes on behind what was handled.
    consumer(&topic, Duration::ZERO).apply(stack)?;
    until(stack, "everything handled", |verdict| {
        verdict.distinct >= MESSAGES
    })
    .await?;
    delete(stack)?;
    let verdict = stack.verdict().await?;
    ensure!(
        verdict.duplicates == 0,
        "what was finished was not committed: {verdict:?}"
    );
    ensure!(
        verdict.inversions == 0 && verdict.overlaps == 0,
        "order was broken: {:?}",
        verdict.examples
    );
    Ok(())
}

/// Deletes it and waits until its pods have ended, and their handlers have reported.
fn delete(stack: &Stack) -> Result<()> {
    stack.kubectl(&["delete", "orderedconsumer", NAME])?;
    let pods = "--selector=keylane.dev/ordered-consumer";
    stack.kubectl(&["wait", "--for=delete", "pod", pods, "--timeout=120s"])?;
    Ok(())
}

fn consumer(topic: &str, work: Duration) -> OrderedConsumer {
    OrderedConsumer {
        name: NAME.to_owned(),
        topic: topic.to_owned(),
        work,
        timeout: Duration::from_secs(5),
        lanes: (8, 8),
        mode: "LanesOnly",
        max_replicas: 2,
        stabilization_window: Duration::from_secs(660),
        handler: Vec::new(),
    }
}
