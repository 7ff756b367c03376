//! A sample as a user deploys it: the one in Go, called through a socket in a volume of the pod.

use anyhow::{Result, ensure};
use keylane_tests::samples::{Deployed, Sample};
use keylane_tests::stack::Stack;
use std::time::Duration;

const MESSAGES: u64 = 4_000;
const KEYS: u64 = 200;
const QUEUES: u32 = 4;
const FAIL_KEY: &str = "order-7";
const LIMIT: Duration = Duration::from_secs(240);

/// Two pods handle a topic of their own; what they log is judged.
pub async fn keep_order_behind_a_socket(stack: &Stack) -> Result<()> {
    let topic = format!("SAMPLE_{:08x}", rand::random::<u32>());
    stack.produce(&topic, QUEUES, KEYS, MESSAGES).await?;
    let deployed = Deployed::new(Sample::Go, stack, &topic, FAIL_KEY)?.through_a_socket();
    deployed.remove(stack)?;
    deployed.apply(stack)?;
    let verdict = deployed
        .until_handled(stack, MESSAGES, LIMIT, |_| {})
        .await?;
    println!("the sample behind a socket: {verdict:?}");
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
