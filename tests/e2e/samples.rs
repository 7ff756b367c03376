//! The samples as users deploy them, each with the image of its Containerfile and the object beside it. The
//! one in Go is called through a socket in a volume of the pod.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use keylane_tests::samples::{Deployed, Sample};
use keylane_tests::stack::Stack;
use std::time::Duration;

const MESSAGES: u64 = 4_000;
const KEYS: u64 = 200;
const QUEUES: u32 = 4;
const FAIL_KEY: &str = "order-7";
const LIMIT: Duration = Duration::from_secs(240);

/// Not all samples at once: their pods share the machine with those of other tests.
pub async fn keep_order(stack: &Stack) -> Result<()> {
    keeps_order(stack, Sample::Go).await?;
    let others = [Sample::Python, Sample::Rust].map(|sample| keeps_order(stack, sample));
    try_join_all(others).await?;
    Ok(())
}

async fn keeps_order(stack: &Stack, sample: Sample) -> Result<()> {
    let kept = deployed_keeps_order(stack, sample).await;
    kept.with_context(|| format!("the sample in {}", sample.name()))
}

/// Two pods handle a topic of their own; what they log is judged.
async fn deployed_keeps_order(stack: &Stack, sample: Sample) -> Result<()> {
    let topic = format!("SAMPLE_{:08x}", rand::random::<u32>());
    stack.produce(&topic, QUEUES, KEYS, MESSAGES).await?;
    let mut deployed = Deployed::new(sample, stack, &topic, FAIL_KEY)?;
    if sample == Sample::Go {
        deployed = deployed.through_a_socket();
    }
    deployed.remove(stack)?;
    deployed.apply(stack)?;
    let verdict = deployed
        .until_handled(stack, MESSAGES, LIMIT, |_| {})
        .await?;
    println!("the sample in {}: {verdict:?}", sample.name());
    ensure!(
        verdict.inversions + verdict.overlaps == 0,
        "order was broken: {:?}",
        verdict.examples
    );
    ensure!(verdict.keys == KEYS, "{} keys", verdict.keys);
    let told = MESSAGES / KEYS;
    ensure!(
        verdict.failed >= told,
        "{} attempts failed where {told} were told to",
        verdict.failed
    );
    deployed.remove(stack)
}
