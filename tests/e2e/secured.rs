//! Pods that get into RocketMQ by what Secrets hold, mounted by a kubelet: a broker with ACL 2.0 and TLS in
//! enforcing mode that wants certificates of clients, and a user who may no more than is needed.

use crate::shared::with_stack;
use crate::until;
use anyhow::{Context as _, Result, ensure};
use keylane_tests::cluster::NODE_IP;
use keylane_tests::rocketmq::{Authority, Broker, Message, Secured};
use keylane_tests::stack::{OrderedConsumer, Stack};
use keylane_tests::wait;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::block_in_place;

const NAMESPACE: &str = "keylane-e2e-secured";
const NAME: &str = "secured";
const PASSWORD: &str = "a-password-of-a-test";
const QUEUES: u32 = 4;
const KEYS: u64 = 100;
/// Handled before anything is changed.
const BEFORE: u64 = 1_000;
const LIMIT: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread")]
async fn pods_get_in_by_mounted_secrets_and_go_on_in_order_when_these_are_exchanged() -> Result<()>
{
    with_stack(async |stack: &Stack| {
        if !stack.cluster().is_local() {
            println!(
                "left out: the broker runs on this machine, which pods elsewhere do not reach"
            );
            return Ok(());
        }
        let stack = block_in_place(|| stack.beside(NAMESPACE))?;
        case(&stack).await?;
        block_in_place(|| stack.remove_namespace())
    })
    .await
}

async fn case(stack: &Stack) -> Result<()> {
    let authority = Authority::new("of the brokers");
    let secured = Secured {
        acl: true,
        tls: Some(authority.clone()),
        asks_clients: true,
    };
    let broker = Broker::start_secured_at(NODE_IP.parse()?, &secured).await?;
    let topic = format!("SECURED_{:08x}", rand::random::<u32>());
    broker.create_topic(&topic, QUEUES).await?;
    broker
        .permit("first", PASSWORD, (&topic, NAME), false)
        .await?;
    let (certificate, key) = authority.issue(&["client.test"]);
    apply_secret(stack, "mq-acl", credentials("first"))?;
    apply_secret(stack, "mq-ca", json!({"ca.crt": authority.certificate()}))?;
    let client = json!({"tls.crt": certificate, "tls.key": key});
    apply_secret(stack, "mq-client", client)?;
    apply_consumer(stack, &topic, &broker.name_server())?;

    let producer = broker.producer(&topic).await?;
    let message =
        |number: u64| Message::keyed(&format!("order-{}", number % KEYS), format!("{number}"));
    producer.send_all((0..BEFORE).map(message)).await?;
    until(stack, "handled over TLS, as a user", |verdict| {
        verdict.distinct >= BEFORE
    })
    .await?;
    until_lag_is_known(stack).await?;
    let pods = pods(stack)?;
    for pod in &pods {
        only_the_executor_mounts_them(pod)?;
    }

    let exchanged = AtomicBool::new(false);
    let sending = async {
        let mut clock = tokio::time::interval(Duration::from_millis(20));
        let mut sent = BEFORE;
        while !exchanged.load(Ordering::SeqCst) {
            clock.tick().await;
            producer.send(&message(sent)).await?;
            sent += 1;
        }
        anyhow::Ok(sent)
    };
    let exchanging = async {
        let outcome = exchange(stack, &broker, &topic, &pods).await;
        exchanged.store(true, Ordering::SeqCst);
        outcome
    };
    let (sent, outcome) = tokio::join!(sending, exchanging);
    outcome?;
    let sent = sent?;
    until(stack, "everything handled as another user", |verdict| {
        verdict.distinct >= sent
    })
    .await?;
    until_lag_is_known(stack).await?;
    let uids = |pods: &[Value]| -> Vec<String> {
        let all = pods.iter().map(|pod| pod["metadata"]["uid"].to_string());
        all.collect()
    };
    ensure!(
        uids(&self::pods(stack)?) == uids(&pods),
        "pods were replaced"
    );

    stack.kubectl(&["delete", "orderedconsumer", NAME])?;
    let selector = "--selector=keylane.dev/ordered-consumer";
    stack.kubectl(&["wait", "--for=delete", "pod", selector, "--timeout=120s"])?;
    let verdict = stack.verdict().await?;
    println!("{sent} messages, two users, no pod replaced: {verdict:?}");
    ensure!(
        verdict.inversions == 0 && verdict.overlaps == 0 && verdict.duplicates == 0,
        "{verdict:?}"
    );
    Ok(())
}

/// Another user with the same rights takes the place of the first, who is deleted once nobody needs him.
async fn exchange(stack: &Stack, broker: &Broker, topic: &str, pods: &[Value]) -> Result<()> {
    let second = "second";
    broker
        .permit(second, PASSWORD, (topic, NAME), false)
        .await?;
    apply_secret(stack, "mq-acl", credentials(second))?;
    until_taken_over(stack, pods, second).await?;
    broker
        .mqadmin(&["deleteUser", "-c", "keylane", "-u", "first"])
        .await?;
    // For longer than a lease lasts: locks are renewed, progress is committed and more is pulled as the second.
    let more = stack.verdict().await?.distinct + 600;
    until(stack, "600 more without the first user", |verdict| {
        verdict.distinct >= more
    })
    .await?;
    Ok(())
}

fn credentials(user: &str) -> Value {
    json!({"accessKey": user, "secretKey": PASSWORD})
}

fn apply_secret(stack: &Stack, name: &str, data: Value) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": stack.namespace()}, "stringData": data,
    });
    apply(stack, &format!("Secret {name}"), &secret)
}

fn apply_consumer(stack: &Stack, topic: &str, name_server: &str) -> Result<()> {
    let consumer = OrderedConsumer {
        name: NAME.to_owned(),
        topic: topic.to_owned(),
        work: Duration::from_millis(5),
        timeout: Duration::from_secs(5),
        lanes: (4, 16),
        mode: "LanesOnly",
        max_replicas: 2,
        stabilization_window: Duration::from_secs(660),
        handler: Vec::new(),
    };
    let mut manifest = consumer.manifest(stack.namespace(), stack.namespace());
    manifest["spec"]["replicas"] = json!(2);
    manifest["spec"]["rocketmq"] = json!({
        "nameServers": [name_server],
        "credentialsSecretRef": {"name": "mq-acl"},
        "tls": {
            "caSecretRef": {"name": "mq-ca"}, "serverName": "rocketmq.test",
            "clientCertificateSecretRef": {"name": "mq-client"},
        },
    });
    apply(stack, "the OrderedConsumer", &manifest)
}

fn apply(stack: &Stack, what: &str, object: &Value) -> Result<()> {
    // kubectl reads JSON as YAML only if it does not begin with a brace.
    let text = serde_norway::to_string(object)?;
    Ok(stack.cluster().apply(what, &text)?)
}

/// The operator gets in too.
async fn until_lag_is_known(stack: &Stack) -> Result<()> {
    wait::until(LIMIT, "the lag known to the operator", async || {
        let object = stack
            .get("orderedconsumer", NAME)
            .map_err(|error| error.to_string())?;
        let status = &object["status"];
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let mut trouble = conditions.filter(|condition| {
            condition["type"] == "BrokerUnavailable" && condition["status"] == "True"
        });
        if status["lag"]["unfinished"].is_u64() && trouble.next().is_none() {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await?;
    Ok(())
}

/// The consumer's pods, in order of their names.
fn pods(stack: &Stack) -> Result<Vec<Value>> {
    let selector = "--selector=keylane.dev/ordered-consumer";
    let text = stack.kubectl(&["get", "pods", selector, "--output=json"])?;
    let list: Value = serde_json::from_str(&text)?;
    let mut pods = list["items"].as_array().context("no list")?.clone();
    pods.sort_by_key(|pod| pod["metadata"]["name"].to_string());
    ensure!(pods.len() == 2, "{} pods", pods.len());
    Ok(pods)
}

fn only_the_executor_mounts_them(pod: &Value) -> Result<()> {
    let mounted = |containers: &Value| -> Vec<String> {
        let containers = containers.as_array().into_iter().flatten();
        let with =
            containers.filter(|one| one["volumeMounts"].to_string().contains("keylane-rocketmq"));
        with.map(|one| one["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let spec = &pod["spec"];
    ensure!(
        mounted(&spec["containers"]) == ["executor"] && mounted(&spec["initContainers"]).is_empty(),
        "{spec}"
    );
    Ok(())
}

/// Waits until the kubelet has shown the Secret to all pods and each said who it is now.
async fn until_taken_over(stack: &Stack, pods: &[Value], user: &str) -> Result<()> {
    let began = std::time::Instant::now();
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let what = format!("the new Secret taken over by {name}");
        wait::until(LIMIT, what, async || {
            let log = stack
                .kubectl(&["logs", name, "--container=executor", "--tail=-1"])
                .map_err(|error| error.to_string())?;
            // Passwords are never told.
            assert!(!log.contains(PASSWORD));
            let mut lines = log.lines().filter(|line| line.contains("was taken over"));
            match lines.any(|line| line.contains(user)) {
                true => Ok(()),
                false => Err("not yet".to_owned()),
            }
        })
        .await?;
    }
    println!(
        "all pods took the Secret over after {:.0?}",
        began.elapsed()
    );
    Ok(())
}
