//! A handler of `consumer/samples` in the cluster: what a user would copy, working.

use crate::{KEYS, NAMESPACE, QUEUES, backlog, new_topic, say_environment, tell};
use anyhow::Result;
use keylane_tests::samples::{Deployed, Sample};
use keylane_tests::stack::Stack;
use std::time::Duration;

const MESSAGES: u64 = 20_000;
/// The first attempt of each of its messages fails.
const FAIL_KEY: &str = "order-7";
const AT_MOST: Duration = Duration::from_secs(300);

/// Deploys a sample over a backlog, tells how it gets on, and judges what its pods log.
pub async fn show(stack: &Stack, sample: Sample) -> Result<()> {
    let topic = new_topic();
    println!("\nA backlog: {MESSAGES} orders of {KEYS} keys in {QUEUES} queues of topic {topic}.");
    backlog(stack, &topic, MESSAGES).await?;
    let deployed = Deployed::new(sample, stack, &topic, FAIL_KEY)?;
    deployed.remove(stack)?;
    deployed.apply(stack)?;
    println!(
        "Two pods of consumer/samples/{}; the first attempt of each message of {FAIL_KEY} fails.",
        sample.name()
    );
    let progress = |handled| println!("  {handled} of {MESSAGES} handled");
    let verdict = deployed
        .until_handled(stack, MESSAGES, AT_MOST, progress)
        .await?;
    println!("\nWhat the pods logged of their calls, judged together:");
    tell(&verdict, MESSAGES)?;
    let (kind, name) = (deployed.kind(), deployed.name());
    println!("\nNext:");
    say_environment(stack);
    println!("  kubectl -n {NAMESPACE} get {kind} {name}");
    println!(
        "  ls consumer/samples/{}    # what to copy, with its Containerfile",
        sample.name()
    );
    println!("  cargo demo -- --down    # remove it all");
    Ok(())
}
