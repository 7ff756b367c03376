#![recursion_limit = "512"]
//! `cargo demo`: the main job on a bare machine, or on an existing cluster.

mod sample;

use anyhow::Result;
use clap::Parser;
use keylane_tests::cluster::{self, Paths, Target};
use keylane_tests::judge::Verdict;
use keylane_tests::samples::Sample;
use keylane_tests::stack::{self, OrderedConsumer, Stack};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "keylane-demo";
const NAME: &str = "order-status";
const TOPIC: &str = "ORDER_STATUS";
const MESSAGES: u64 = 100_000;
const KEYS: u64 = 1_000;
const QUEUES: u32 = 8;
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Short, so that pods go while somebody looks.
const WINDOW: Duration = Duration::from_secs(60);
const AT_MOST: Duration = Duration::from_secs(720);

/// Brings up a cluster, RocketMQ and Keylane, and shows an OrderedConsumer working off a backlog.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo demo")]
struct Cli {
    /// Use this context of your kubeconfig instead of a cluster on this machine; it must have the images
    /// or be able to pull them.
    #[arg(long, value_name = "NAME", env = "KEYLANE_TEST_CONTEXT")]
    context: Option<String>,
    /// Show one of the handlers of consumer/samples instead: two pods of it work off a backlog, and what
    /// they log is judged.
    #[arg(long, value_enum, conflicts_with = "down")]
    sample: Option<Sample>,
    /// Remove everything the demo made.
    #[arg(long)]
    down: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse_from(keylane_tests::arguments());
    let target = Target::from_option(cli.context.clone());
    if cli.down {
        return tokio::task::spawn_blocking(move || down(&target)).await?;
    }
    let stack = tokio::task::spawn_blocking(move || Stack::install(&target, NAMESPACE)).await??;
    match cli.sample {
        Some(sample) => sample::show(&stack, sample).await,
        None => {
            show(&stack).await?;
            next_steps(&stack);
            Ok(())
        }
    }
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
    stack.kubectl(&[
        "delete",
        "orderedconsumer",
        NAME,
        "--ignore-not-found",
        "--timeout=120s",
    ])?;
    stack.kubectl(&[
        "wait",
        "--for=delete",
        "pod",
        "--selector=keylane.dev/ordered-consumer",
        "--timeout=120s",
    ])?;
    stack.forget().await?;
    println!("\nA backlog: {MESSAGES} orders of {KEYS} keys in {QUEUES} queues of topic {topic}.");
    stack.produce(&topic, QUEUES, KEYS, MESSAGES).await?;
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
    stack.kubectl(&["delete", "orderedconsumer", NAME, "--timeout=120s"])?;
    stack.kubectl(&[
        "wait",
        "--for=delete",
        "pod",
        "--selector=keylane.dev/ordered-consumer",
        "--timeout=120s",
    ])?;
    let verdict = stack.verdict().await?;
    println!("\nThe handlers' own verdict, all pods together:");
    tell(&verdict, MESSAGES)?;
    consumer.apply(stack)
}

/// Shows `kubectl get oc` until the backlog is gone and one pod is left.
async fn watch(stack: &Stack) -> Result<()> {
    let started = Instant::now();
    let mut interval = tokio::time::interval(LOOK_EVERY);
    let mut header = false;
    let mut last = String::new();
    let mut most = 0;
    while started.elapsed() < AT_MOST {
        interval.tick().await;
        let table = stack.kubectl(&["get", "orderedconsumer", NAME])?;
        let mut lines = table.lines();
        let (titles, row) = (
            lines.next().unwrap_or_default(),
            lines.next().unwrap_or_default(),
        );
        if !header {
            println!(" TIME  {titles}");
            header = true;
        }
        if row != last {
            println!("{:4} s  {row}", started.elapsed().as_secs());
            last = row.to_owned();
        }
        let object = stack.get("orderedconsumer", NAME)?;
        let status = &object["status"];
        let pods = status["replicas"].as_u64().unwrap_or(0);
        most = most.max(pods);
        let verdict = stack.verdict().await?;
        let left = MESSAGES.saturating_sub(verdict.distinct);
        if left == 0
            && status["lag"]["unfinished"].as_u64() == Some(0)
            && pods == 1
            && object["spec"]["replicas"] == 1
        {
            println!("The backlog is gone after at most {most} pods, one pod is left.");
            return Ok(());
        }
    }
    println!("Stopped watching after {} s.", AT_MOST.as_secs());
    Ok(())
}

fn next_steps(stack: &Stack) {
    let kubeconfig = stack.cluster().kubeconfig().display();
    println!("\nNext:");
    println!("  export KUBECONFIG={kubeconfig}");
    println!("  kubectl -n {NAMESPACE} get oc                      # the consumer, at rest");
    println!("  kubectl -n {NAMESPACE} describe oc {NAME}    # conditions, last decision, events");
    println!("  kubectl explain oc.spec                           # every field");
    println!("  cargo demo -- --down                              # remove it all");
}
