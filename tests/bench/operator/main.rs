#![recursion_limit = "512"]
//! `cargo bench-operator`: what one operator costs with more and more OrderedConsumers.
//!
//! The real program looks after so many resources without pods on a real API server, each with a topic and a
//! group of its own on a real broker. Told are its processor time and memory, its requests to the API server
//! and to the broker, and how long after its time a decision is made. Each size is measured once everything
//! is settled, for a minute. In the end each goal is told with its figure: memory and processor time at 500,
//! decisions on time at every size that has enough of them to judge by, and that one OrderedConsumer more costs
//! as much among many as among few. The exit status is 1 if one is missed.
//!
//! With `--hand-over N` something else is measured, N times: how long after the operator that decides was killed,
//! stopped beside another, or stopped and started again the next decision is made, and whether pods notice.

mod goals;
mod hand_over;
mod measure;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use goals::{goals, verdict};
use keylane_tests::cluster::{Cluster, Target, run};
use keylane_tests::goal::Goal;
use keylane_tests::rocketmq::Broker;
use measure::{Figures, Operator};
use serde_json::{Value, json};
use std::time::Duration;

const NAMESPACE: &str = "keylane-bench-operator";
/// Applied at once.
const AT_ONCE: usize = 50;

/// Measures an operator with more and more OrderedConsumers.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench-operator")]
struct Cli {
    /// Numbers of OrderedConsumers, growing.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 500])]
    resources: Vec<usize>,
    /// How long each size is measured, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(15..=3600))]
    seconds: u64,
    /// Measure hand-overs instead, so many times, with as many OrderedConsumers as the first of --resources says and a pod of each.
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..=100))]
    hand_over: Option<u32>,
    /// One JSON object a size and then the verdict on standard output; all else goes to standard error.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse_from(keylane_tests::arguments());
    ensure!(
        cli.resources.is_sorted() && cli.resources.first().is_some_and(|first| *first > 0),
        "--resources is {:?}: numbers of at least 1 that grow",
        cli.resources
    );
    let target = Target::from_env();
    let cluster =
        tokio::task::spawn_blocking(move || target.up(&keylane_tests::cluster::Paths::from_env()))
            .await??;
    eprintln!("==> Starting RocketMQ");
    let broker = Broker::start().await?;
    prepare(&cluster)?;
    let outcome = match cli.hand_over {
        Some(times) => {
            let resources = cli.resources[0];
            hand_over::measure(times, resources, cli.json, &cluster, &broker).await
        }
        None => measure(&cli, &cluster, &broker).await,
    };
    remove(&cluster)?;
    if outcome? {
        Ok(())
    } else {
        anyhow::bail!("a goal is missed")
    }
}

/// Measures each size; says whether the goals are reached.
async fn measure(cli: &Cli, cluster: &Cluster, broker: &Broker) -> Result<bool> {
    let operator = Operator::start(cluster, NAMESPACE).await?;
    let mut there = 0;
    let mut curve: Vec<Figures> = Vec::new();
    for size in &cli.resources {
        eprintln!("==> {size} OrderedConsumers");
        for number in there..*size {
            broker.create_topic(&format!("BENCH_{number}"), 4).await?;
        }
        let new: Vec<_> = (there..*size)
            .map(|number| consumer(number, &broker.name_server(), 0))
            .collect();
        for some in new.chunks(AT_ONCE) {
            apply(cluster, some)?;
        }
        there = *size;
        operator.until_settled(cluster, there).await?;
        let figures = operator
            .measure(cluster, there, Duration::from_secs(cli.seconds))
            .await?;
        tell(cli.json, &figures)?;
        curve.push(figures);
    }
    let first = &curve[0];
    let last = &curve[curve.len() - 1];
    if last.resources > first.resources {
        let more = (last.resources - first.resources) as f64;
        eprintln!(
            "\nEach OrderedConsumer more costs {:.3} % of a core and {:.0} KiB",
            (last.cores - first.cores) * 100.0 / more,
            (last.mib - first.mib) * 1024.0 / more
        );
    }
    let goals = goals(&curve);
    for goal in &goals {
        if cli.json {
            eprintln!("{goal}");
        } else {
            println!("{goal}");
        }
    }
    if cli.json {
        println!("{}", verdict(&goals));
    }
    Ok(goals.iter().all(Goal::is_reached))
}

fn tell(json: bool, figures: &Figures) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(figures)?);
    } else {
        println!(
            "  {:>4} OrderedConsumers: {:.3} of a core, {:.0} MiB, {:.1} API requests/s, {:.1} broker requests/s, \
             {:.2} decisions/s ({:.2} expected), 99 % within {:.3} s",
            figures.resources,
            figures.cores,
            figures.mib,
            figures.api_requests_per_second,
            figures.broker_requests_per_second,
            figures.decisions_per_second,
            figures.expected_decisions_per_second,
            figures.decision_p99_seconds
        );
    }
    Ok(())
}

fn consumer(number: usize, name_server: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "keylane.dev/v1alpha1",
        "kind": "OrderedConsumer",
        "metadata": {"name": format!("bench-{number}"), "namespace": NAMESPACE},
        "spec": {
            "rocketmq": {"nameServers": [name_server]},
            "topic": format!("BENCH_{number}"),
            "consumerGroup": format!("bench-{number}"),
            "handler": {"http": {"port": 8080}},
            "replicas": replicas,
            "autoscaling": {"mode": "LanesOnly"},
            "template": {"spec": {"containers": [{"name": "handler", "image": "localhost/not-there:1"}]}},
        }
    })
}

fn apply(cluster: &Cluster, objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let mut kubectl = cluster.kubectl();
    kubectl.args(["apply", "--server-side", "--field-manager=bench", "-f", "-"]);
    run::feed("applying OrderedConsumers", &mut kubectl, &list.to_string())?;
    Ok(())
}

fn prepare(cluster: &Cluster) -> Result<()> {
    remove(cluster)?;
    let definition = keylane_operator::crd::yaml().context("the definition cannot be written")?;
    cluster.apply("the definition of OrderedConsumer", &definition)?;
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n");
    Ok(cluster.apply(&format!("namespace {NAMESPACE}"), &namespace)?)
}

fn remove(cluster: &Cluster) -> Result<()> {
    let mut kubectl = cluster.kubectl();
    kubectl.args(["delete", "namespace", NAMESPACE, "--ignore-not-found"]);
    run::output("removing the namespace", kubectl.arg("--timeout=300s"))?;
    Ok(())
}
