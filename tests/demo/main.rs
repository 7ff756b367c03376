#![recursion_limit = "512"]
//! `cargo demo`: the main job on a bare machine, or on an existing cluster; then, on what is up, chapters of a
//! peak night.

mod chapters;
mod look;
mod sample;
mod story;

use anyhow::{Context, Result};
use chapters::Chapter;
use clap::Parser;
use keylane_tests::cluster::{self, Paths, Target};
use keylane_tests::images::Registry;
use keylane_tests::images::workspace::release_directory;
use keylane_tests::judge::Verdict;
use keylane_tests::samples::Sample;
use keylane_tests::stack::{self, OrderedConsumer, Stack};
use keylane_tests::wait;
use look::{Look, condition};
use std::time::Duration;

const NAMESPACE: &str = "keylane-demo";
const NAME: &str = "order-status";
const TOPIC: &str = "ORDER_STATUS";
const MESSAGES: u64 = 100_000;
const KEYS: u64 = 1_000;
const QUEUES: u32 = 8;
/// Short, so that pods go while somebody looks.
const WINDOW: Duration = Duration::from_secs(60);
const AT_MOST: Duration = Duration::from_secs(720);
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Brings up a cluster, RocketMQ and Keylane, and shows an OrderedConsumer working off a backlog; tells a chapter
/// of a peak night on what is up.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo demo")]
struct Cli {
    /// Tell this chapter on the demo that is up.
    #[arg(value_enum)]
    chapter: Option<Chapter>,
    /// Use this context of your kubeconfig instead of a cluster on this machine; it must have the images, or
    /// pull them (--registry).
    #[arg(long, value_name = "NAME", env = "KEYLANE_TEST_CONTEXT")]
    context: Option<String>,
    /// Push the images there, and have the cluster pull them: host and path, such as
    /// registry.example.com/shop or localhost:5001.
    #[arg(long, value_name = "REGISTRY", requires = "context", conflicts_with_all = ["chapter", "down"])]
    registry: Option<Registry>,
    /// Show one of the handlers of consumer/samples instead: two pods of it work off a backlog, and what
    /// they log is judged.
    #[arg(long, value_enum, conflicts_with_all = ["chapter", "down"])]
    sample: Option<Sample>,
    /// Remove everything the demo made.
    #[arg(long, conflicts_with = "chapter")]
    down: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse_from(keylane_tests::arguments());
    let target = Target::from_option(cli.context.clone());
    if cli.down {
        return tokio::task::spawn_blocking(move || down(&target)).await?;
    }
    if let Some(chapter) = cli.chapter {
        let found = tokio::task::spawn_blocking(move || Stack::find(&target, NAMESPACE)).await?;
        let stack = found.context("the demo is not up; `cargo demo` brings it up")?;
        return chapters::tell(&stack, chapter).await;
    }
    let install = move || Stack::install_from(&target, NAMESPACE, cli.registry);
    let stack = tokio::task::spawn_blocking(install).await??;
    renew(&stack).await?;
    match cli.sample {
        Some(sample) => sample::show(&stack, sample).await,
        None => {
            show(&stack).await?;
            next_steps(&stack, cli.context.as_deref());
            Ok(())
        }
    }
}

/// What runs of an earlier build is made anew, as the operator is: the images keep their names.
async fn renew(stack: &Stack) -> Result<()> {
    stack.kubectl(&[
        "delete",
        "pod",
        "--selector=app in (judge, database)",
        "--timeout=60s",
    ])?;
    stack.rollout(NAMESPACE, "deployment/judge")?;
    // It is ready a moment before its Service leads to it.
    let limit = Duration::from_secs(60);
    wait::until(limit, "an answer of the judge", async || stack.judged()).await?;
    Ok(())
}

/// A topic of its own for each run: the backlog is then exactly what was sent.
fn new_topic() -> String {
    format!("{TOPIC}_{:06x}", rand::random::<u32>() & 0xff_ffff)
}

/// Tells what a judge says of a backlog that was handled; an error if something is missing or order was
/// broken.
fn tell(verdict: &Verdict, messages: u64) -> Result<()> {
    println!(
        "  {} orders handled, {} keys, {} handled twice, {} failed attempts",
        verdict.distinct, verdict.keys, verdict.duplicates, verdict.failed
    );
    println!(
        "  {} inversions of a key, {} overlaps of a key",
        verdict.inversions, verdict.overlaps
    );
    anyhow::ensure!(
        verdict.distinct == messages,
        "{} of {messages} orders were handled",
        verdict.distinct
    );
    anyhow::ensure!(
        verdict.inversions + verdict.overlaps == 0,
        "order was broken: {:?}",
        verdict.examples
    );
    Ok(())
}

fn down(target: &Target) -> Result<()> {
    let paths = Paths::from_env();
    if *target == Target::Local {
        cluster::down(&paths)?;
        return Ok(());
    }
    stack::remove(&target.up(&paths)?, NAMESPACE)
}

async fn show(stack: &Stack) -> Result<()> {
    let topic = new_topic();
    remove(stack)?;
    stack.judge_anew()?;
    println!("\nA backlog: {MESSAGES} orders of {KEYS} keys in {QUEUES} queues of topic {topic}.");
    backlog(stack, &topic, MESSAGES).await?;
    let consumer = OrderedConsumer {
        name: NAME.to_owned(),
        topic: topic.clone(),
        work: Duration::from_millis(5),
        timeout: Duration::from_secs(2),
        lanes: (2, 8),
        mode: "Auto",
        max_replicas: 4,
        stabilization_window: WINDOW,
        handler: Vec::new(),
    };
    consumer.apply(stack)?;
    println!(
        "The handler works 5 ms a message; RocketMQ's ordered mode would take one at a time per queue."
    );
    println!(
        "Pods come fast and go slowly: fewer must have been enough for {} s here (11 minutes by default).\n",
        WINDOW.as_secs()
    );
    watch(stack).await?;
    remove(stack)?;
    let verdict = stack.judged()?;
    println!("\nThe handlers' own verdict, all pods together:");
    tell(&verdict, MESSAGES)?;
    // What comes next begins with a consumer that is well.
    consumer.apply(stack)?;
    let ready = Look::quiet(stack)
        .until(READY_WITHIN, |object| {
            Ok(condition(object, "Ready").is_some())
        })
        .await?;
    ready.map(drop).with_context(|| {
        format!(
            "the consumer is not ready after {READY_WITHIN:?}; kubectl keylane status {NAME} -n {NAMESPACE} says why"
        )
    })
}

/// Removes the consumer and waits until its pods are gone: they tell the judge of their last calls. A sample's
/// may be beside it.
fn remove(stack: &Stack) -> Result<()> {
    stack.kubectl(&[
        "delete",
        "orderedconsumer",
        NAME,
        "--ignore-not-found",
        "--timeout=120s",
    ])?;
    let pods = format!("--selector=keylane.dev/ordered-consumer={NAME}");
    stack.kubectl(&["wait", "--for=delete", "pod", &pods, "--timeout=120s"])?;
    Ok(())
}

/// Sends a backlog to a new topic.
async fn backlog(stack: &Stack, topic: &str, messages: u64) -> Result<()> {
    let sending = stack.producing(
        topic,
        &[
            &format!("--queues={QUEUES}"),
            &format!("--orders={KEYS}"),
            &format!("--messages={messages}"),
        ],
    )?;
    let sent = sending.finish().await?;
    anyhow::ensure!(sent == messages, "{sent} of {messages} orders were sent");
    Ok(())
}

/// Shows `kubectl get oc` until the backlog is gone and one pod is left.
async fn watch(stack: &Stack) -> Result<()> {
    let mut look = Look::new(stack);
    let gone = look
        .until(AT_MOST, |object| {
            let status = &object["status"];
            let one = status["replicas"] == 1 && object["spec"]["replicas"] == 1;
            let rest = status["lag"]["unfinished"] == 0;
            Ok(rest && one && stack.judged()?.distinct >= MESSAGES)
        })
        .await?;
    match gone {
        Some(_) => println!(
            "The backlog is gone after at most {} pods, one pod is left.",
            look.most_pods
        ),
        None => println!("Stopped watching after {} s.", AT_MOST.as_secs()),
    }
    Ok(())
}

/// What a terminal needs to look at the demo: kubectl, which was built if there was none, and its plugin.
fn say_environment(stack: &Stack) {
    let cluster = stack.cluster();
    println!("  export KUBECONFIG={}", cluster.kubeconfig().display());
    println!(
        "  export PATH=$PATH:{}:{}",
        release_directory().display(),
        cluster.paths().bin().display()
    );
}

fn next_steps(stack: &Stack, context: Option<&str>) {
    let there = context.map_or_else(String::new, |name| format!(" --context {name}"));
    println!("\nNext:");
    say_environment(stack);
    println!("  kubectl -n {NAMESPACE} get oc                      # the consumer, at rest");
    println!("  kubectl -n {NAMESPACE} describe oc {NAME}    # conditions, last decision, events");
    println!(
        "  kubectl keylane status {NAME} -n {NAMESPACE}   # all of it in a tree; explain, top, keys tell more"
    );
    println!("  kubectl explain oc.spec                           # every field");
    println!(
        "  cargo demo -- sale{there}         # chapters of a peak night: hot-seller, poison-order, slow-database, killed-pod"
    );
    println!("  cargo demo -- --down{there}                              # remove it all");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_chapter_is_a_command_and_what_excludes_each_other_is_refused() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        for chapter in [
            "sale",
            "hot-seller",
            "poison-order",
            "slow-database",
            "killed-pod",
        ] {
            let cli = parse(&format!("demo {chapter}")).expect(chapter);
            assert!(cli.chapter.is_some());
        }
        let registry = "demo --context kind-demo --registry localhost:5001";
        assert!(parse(registry).is_ok_and(|cli| cli.registry.is_some()));
        for wrong in [
            "demo sale --down",
            "demo sale --sample go",
            "demo --context a --registry https://a",
            "demo sales",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
