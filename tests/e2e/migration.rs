//! A group that another client consumes is taken over: its OrderedConsumer is written, and started once nobody
//! else is a member.

use crate::people::Person;
use crate::shared::with_stack;
use anyhow::{Context as _, Result, ensure};
use keylane_consumer::contract::spec::ConsumerSpec;
use keylane_consumer::message::QueueId;
use keylane_consumer::source::rocketmq::RocketmqSource;
use keylane_consumer::source::{Commit, Source as _};
use keylane_operator::plugin::Verdict;
use keylane_tests::stack::{OrderedConsumer, Stack};
use keylane_tests::wait;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::block_in_place;

const NAMESPACE: &str = "keylane-e2e-migration";
const NAME: &str = "order-status";
const QUEUES: u32 = 2;
const ORDERS: u64 = 10;
const MESSAGES: u64 = 100;
/// What the other client has committed of queue 0.
const HANDLED: u64 = 5;
const BROKER: &str = "broker-a";
/// What a client of RocketMQ's own calls itself.
const OTHER: &str = "10.0.0.7@4711";
const LIMIT: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_taken_over_where_it_was_once_its_other_clients_are_stopped() -> Result<()> {
    with_stack(async |stack: &Stack| {
        let stack = block_in_place(|| stack.beside(NAMESPACE))?;
        case(&stack).await?;
        block_in_place(|| stack.remove_namespace())
    })
    .await
}

async fn case(stack: &Stack) -> Result<()> {
    let topic = format!("MIGRATED_{:08x}", rand::random::<u32>());
    stack.produce(&topic, QUEUES, ORDERS, MESSAGES).await?;
    let group = format!("Order_Status_{:08x}", rand::random::<u32>());
    let other = other_client(stack, &topic, &group).await?;
    other.heartbeat(BROKER).await?;
    let stored = other.commit(&QueueId::new(BROKER, 0), HANDLED).await?;
    ensure!(stored == Commit::Stored, "{stored:?}");

    let editor = Person::with_role(stack, "edit")?;
    let name_server = format!("rocketmq.{}:9876", stack.brokers_in());
    let migrate = [
        "migrate",
        &group,
        "--name-server",
        &name_server,
        "--name",
        NAME,
    ];
    let written = wait::until(LIMIT, "the group read", async || {
        let text = editor
            .asks(&migrate)
            .await
            .map_err(|error| error.to_string())?;
        text.contains(OTHER).then_some(text.clone()).ok_or(text)
    })
    .await?;
    let manifest = with_handler(stack, &written)?;
    ensure!(
        manifest["spec"]["topic"] == topic.as_str()
            && manifest["spec"]["consumerGroup"] == group.as_str()
            && manifest["spec"]["replicas"] == 0,
        "{written}"
    );
    stack.apply(
        "the OrderedConsumer that was written",
        &serde_norway::to_string(&manifest)?,
    )?;

    let start = ["migrate", &group, "--start", "--name", NAME];
    let (verdict, text) = editor.tries(&start).await?;
    ensure!(
        verdict == Verdict::Failed && text.contains("Not started") && text.contains(OTHER),
        "{text}"
    );
    let replicas =
        || Ok::<_, anyhow::Error>(stack.get("orderedconsumer", NAME)?["spec"]["replicas"].clone());
    ensure!(replicas()? == 0, "it was started");
    println!("{}", text.trim());

    other.leave(BROKER).await?;
    let text = wait::until(LIMIT, "the group started", async || {
        let (verdict, text) = editor
            .tries(&start)
            .await
            .map_err(|error| error.to_string())?;
        (verdict == Verdict::Well)
            .then_some(text.clone())
            .ok_or(text)
    })
    .await?;
    println!("{}", text.trim());
    ensure!(replicas()? == 1, "it was not started");

    // From where the other client was, and nothing before.
    let left = MESSAGES - HANDLED;
    let verdict = wait::until(LIMIT, "what was left handled", async || {
        let verdict = stack.verdict().await.map_err(|error| error.to_string())?;
        (verdict.distinct >= left)
            .then_some(verdict.clone())
            .ok_or_else(|| format!("{verdict:?}"))
    })
    .await?;
    ensure!(
        verdict.distinct == left && verdict.inversions + verdict.overlaps == 0,
        "{verdict:?}"
    );
    Ok(())
}

/// A client that is a member of the group, as those of RocketMQ are.
async fn other_client(stack: &Stack, topic: &str, group: &str) -> Result<RocketmqSource> {
    let spec: ConsumerSpec = serde_json::from_value(json!({
        "rocketmq": {"nameServers": [stack.name_server()?]},
        "topic": topic, "consumerGroup": group, "handler": {"http": {"port": 1}},
    }))?;
    let source = RocketmqSource::connect(&spec, OTHER).await?;
    source.route().await?;
    Ok(source)
}

/// What was written, with the handler that a person puts in.
fn with_handler(stack: &Stack, written: &str) -> Result<Value> {
    let mut manifest: Value = serde_norway::from_str(written).context("no YAML was written")?;
    let handler = OrderedConsumer {
        name: NAME.to_owned(),
        topic: String::new(),
        work: Duration::ZERO,
        timeout: Duration::from_secs(5),
        lanes: (4, 16),
        mode: "LanesOnly",
        max_replicas: 1,
        stabilization_window: Duration::from_secs(660),
        handler: Vec::new(),
    };
    let ours = handler.manifest(stack.namespace(), stack.brokers_in());
    for field in ["handler", "template"] {
        manifest["spec"][field] = ours["spec"][field].clone();
    }
    Ok(manifest)
}
