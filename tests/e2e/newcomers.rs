//! What newcomers do wrong that only shows once pods run, side by side: each is told what is wrong and what to do.

use crate::people::Person;
use crate::shared::with_stack;
use anyhow::{Result, ensure};
use keylane_consumer::contract::spec::ConsumerSpec;
use keylane_consumer::source::Source as _;
use keylane_consumer::source::rocketmq::RocketmqSource;
use keylane_tests::rocketmq::create_topic;
use keylane_tests::stack::{OrderedConsumer, Stack};
use keylane_tests::wait;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::block_in_place;

const NAMESPACE: &str = "keylane-e2e-newcomers";
const QUEUES: u32 = 2;
const BROKER: &str = "broker-a";
const OTHER: &str = "10.0.0.7@4711";
const LIMIT: Duration = Duration::from_secs(240);

/// What is done wrong: a name for it, how, the command that tells, and parts of what is said.
type Mistake = (
    &'static str,
    fn(&mut Value),
    &'static [&'static str],
    &'static [&'static str],
);

const MISTAKES: [Mistake; 5] = [
    (
        "no-topic",
        |spec| spec["topic"] = json!("NO_SUCH_TOPIC"),
        &["check"],
        &[
            "FAIL",
            "no-topic: BrokerUnavailable",
            "NO_SUCH_TOPIC",
            "create it (mqadmin updateTopic) or correct spec.topic",
        ],
    ),
    (
        "exits",
        |spec| spec["template"]["spec"]["containers"][0]["args"] = json!(["serve", "--wrong"]),
        &["status"],
        &["exits", "handler", "CrashLoopBackOff"],
    ),
    (
        "wrong-port",
        |spec| spec["handler"]["http"]["port"] = json!(8081),
        &["check"],
        &[
            "FAIL",
            "wrong-port: HandlerUnavailable",
            "find their handler not available",
            "does it listen where spec.handler says?",
        ],
    ),
    (
        "more-pods-than-queues",
        |spec| spec["autoscaling"] = json!({"mode": "Auto", "maxReplicas": 5}),
        &["check"],
        &["no more than 2 pods", "autoscaling.maxReplicas is 5"],
    ),
    (
        "shared",
        |_| {},
        &["check"],
        &[
            "FAIL",
            "shared: GroupShared",
            OTHER,
            "stop them or use another group",
        ],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn newcomers_are_told_what_is_wrong_with_what_runs_and_what_to_do() -> Result<()> {
    with_stack(async |stack: &Stack| {
        let stack = block_in_place(|| stack.beside(NAMESPACE))?;
        case(&stack).await?;
        block_in_place(|| stack.remove_namespace())
    })
    .await
}

async fn case(stack: &Stack) -> Result<()> {
    let topic = format!("NEWCOMERS_{:08x}", rand::random::<u32>());
    create_topic(&stack.name_server()?, &topic, QUEUES).await?;
    let other = other_client(stack, &topic, "shared").await?;
    other.heartbeat(BROKER).await?;
    for (name, wrong, ..) in MISTAKES {
        apply(stack, name, &topic, wrong)?;
    }
    let viewer = Person::with_role(stack, "view")?;
    for (name, _, command, parts) in MISTAKES {
        let words = [command, &[name]].concat();
        let what = format!("{} told", words.join(" "));
        let text = wait::until(LIMIT, &what, async || {
            // A client is a member as long as it says so.
            let alive = other.heartbeat(BROKER).await;
            alive.map_err(|error| error.to_string())?;
            let told = viewer.tries(&words).await;
            let (_, text) = told.map_err(|error| format!("{error:#}"))?;
            let missing = parts.iter().find(|part| !text.contains(**part));
            match missing {
                None => Ok(text),
                Some(part) => Err(format!("{part:?} is not in {text}")),
            }
        })
        .await?;
        let told = text.lines().filter(|line| line.contains(parts[1]));
        println!(
            "{name}: {}",
            told.map(str::trim).collect::<Vec<_>>().join(" ")
        );
    }
    // None of it is taken for something that scaling could help.
    for (name, ..) in MISTAKES {
        let wanted = stack.get("orderedconsumer", name)?["spec"]["replicas"].clone();
        ensure!(wanted == 1, "{name}: {wanted} pods are wanted");
    }
    Ok(())
}

async fn other_client(stack: &Stack, topic: &str, group: &str) -> Result<RocketmqSource> {
    let spec: ConsumerSpec = serde_json::from_value(json!({
        "rocketmq": {"nameServers": [stack.name_server()?]},
        "topic": topic, "consumerGroup": group, "handler": {"http": {"port": 1}},
    }))?;
    let source = RocketmqSource::connect(&spec, OTHER).await?;
    source.route().await?;
    Ok(source)
}

fn apply(stack: &Stack, name: &str, topic: &str, wrong: fn(&mut Value)) -> Result<()> {
    let consumer = OrderedConsumer {
        name: name.to_owned(),
        topic: topic.to_owned(),
        work: Duration::ZERO,
        timeout: Duration::from_secs(5),
        lanes: (4, 16),
        mode: "LanesOnly",
        max_replicas: 1,
        stabilization_window: Duration::from_secs(660),
        handler: Vec::new(),
    };
    let mut manifest = consumer.manifest(stack.namespace(), stack.brokers_in());
    wrong(&mut manifest["spec"]);
    stack.apply(name, &serde_norway::to_string(&manifest)?)
}
