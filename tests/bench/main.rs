#![recursion_limit = "512"]
//! `cargo bench-rocketmq`: Keylane beside RocketMQ's own ordered consumer, on the same broker in one run.
//!
//! Both get the same messages and do the same work; Keylane through its HTTP handler in another process,
//! RocketMQ's consumer in its own. Rates are from the first to the last handled message.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use keylane_tests::baseline::Run;
use keylane_tests::cluster::Paths;
use keylane_tests::images::workspace::{PROGRAMS, release_binaries};
use keylane_tests::judge::Verdict;
use keylane_tests::rocketmq::{Broker, Message, jars};
use keylane_tests::wait;
use serde_json::json;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Measures Keylane beside RocketMQ's own ordered consumer.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench-rocketmq")]
struct Cli {
    /// Messages for Keylane.
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Messages for RocketMQ's ordered consumer.
    #[arg(long, default_value_t = 8_000)]
    baseline_messages: u64,
    /// Keys.
    #[arg(long, default_value_t = 1_000)]
    keys: u64,
    /// Queues.
    #[arg(long, default_value_t = 8)]
    queues: u32,
    /// Work of each message, in milliseconds.
    #[arg(long, default_value_t = 10)]
    work_ms: u64,
    /// Lanes that run at once.
    #[arg(long, default_value_t = 256)]
    lanes: u32,
}

/// A process that ends with this one's use of it.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let binaries =
        tokio::task::spawn_blocking(|| release_binaries(&Paths::from_env(), &PROGRAMS)).await??;
    let [_, consumer, handler] = &binaries[..] else {
        anyhow::bail!("three programs are built")
    };
    println!("==> Starting RocketMQ");
    let broker = Broker::start().await?;
    let baseline = ordered(&cli, &broker).await?;
    let (verdict, rate) = keylane(&cli, &broker, consumer, handler).await?;
    println!(
        "\n{} queues, {} keys, {} ms of work a message:",
        cli.queues, cli.keys, cli.work_ms
    );
    println!("  RocketMQ ordered consumer  {baseline:8.0} messages/s");
    println!(
        "  Keylane, {:4} lanes        {rate:8.0} messages/s   {:.1} times",
        cli.lanes,
        rate / baseline
    );
    println!(
        "  {} inversions, {} overlaps, {} handled twice",
        verdict.inversions, verdict.overlaps, verdict.duplicates
    );
    ensure!(
        verdict.inversions + verdict.overlaps == 0,
        "order was broken: {:?}",
        verdict.examples
    );
    ensure!(
        verdict.distinct == cli.messages,
        "{} of {} messages were handled",
        verdict.distinct,
        cli.messages
    );
    Ok(())
}

async fn fill(broker: &Broker, topic: &str, cli: &Cli, messages: u64) -> Result<()> {
    println!("==> Sending {messages} messages to {topic}");
    broker.create_topic(topic, cli.queues).await?;
    let body = "x".repeat(256);
    let messages = (0..messages)
        .map(|number| Message::keyed(&format!("order-{}", number % cli.keys), body.clone()));
    broker.producer(topic).await?.send_all(messages).await?;
    Ok(())
}

async fn ordered(cli: &Cli, broker: &Broker) -> Result<f64> {
    fill(broker, "BASELINE", cli, cli.baseline_messages).await?;
    println!("==> RocketMQ's ordered consumer");
    let lib = tokio::task::spawn_blocking(jars).await??;
    let run = Run {
        name_server: &broker.name_server(),
        topic: "BASELINE",
        group: "baseline",
        messages: cli.baseline_messages,
        work: Duration::from_millis(cli.work_ms),
        limit: Duration::from_secs(300),
    };
    Ok(run.ordered(&lib).await?.per_second)
}

async fn keylane(
    cli: &Cli,
    broker: &Broker,
    consumer: &std::path::Path,
    handler: &std::path::Path,
) -> Result<(Verdict, f64)> {
    fill(broker, "KEYLANE", cli, cli.messages).await?;
    println!("==> Keylane (it waits 10 s at the very first start of a group)");
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port();
    let _handler = Ends(
        Command::new(handler)
            .args([
                "serve",
                "--port",
                &port.to_string(),
                "--work-ms",
                &cli.work_ms.to_string(),
            ])
            .stdout(Stdio::null())
            .spawn()
            .context("the sample handler cannot be started")?,
    );
    let document = json!({
        "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer", "metadata": {"name": "bench"},
        "spec": {
            "rocketmq": {"nameServers": [broker.name_server()]},
            "topic": "KEYLANE", "consumerGroup": "bench", "handler": {"http": {"port": port}},
        }
    });
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), document.to_string())?;
    let _consumer = Ends(
        Command::new(consumer)
            .args([
                "run",
                "--probe-port=0",
                "--metrics-port=0",
                "--lanes",
                &cli.lanes.to_string(),
                "--file",
            ])
            .arg(file.path())
            .env("RUST_LOG", "warn,rocketmq=off")
            .spawn()
            .context("the executor cannot be started")?,
    );
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://127.0.0.1:{port}/verdict");
    // Asked for seldom: judging a large record takes time from the handler.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mut interval = tokio::time::interval(Duration::from_secs(3));
    let verdict = wait::until(Duration::from_secs(600), "everything handled", async || {
        interval.tick().await;
        let answer = client
            .get(&url)
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let verdict: Verdict = answer.json().await.map_err(|error| error.to_string())?;
        if verdict.distinct >= cli.messages {
            Ok(verdict)
        } else {
            Err(format!("{} handled", verdict.distinct))
        }
    })
    .await?;
    let (Some(first), Some(last)) = (verdict.first_at, verdict.last_at) else {
        anyhow::bail!("the record has no times")
    };
    let seconds = last.saturating_sub(first).max(1) as f64 / 1e3;
    let rate = cli.messages as f64 / seconds;
    Ok((verdict, rate))
}
