//! Consumes the orders of a topic with a function of this program: no handler process, no sidecar. `handle`
//! is the place for your own code.

use anyhow::{Context, Result};
use keylane_consumer::{Consumer, Delivery, Failure, terminated};
use serde_json::{Value, json};
use std::env;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing_subscriber::EnvFilter;

/// Your code. `Ok` finishes the message; an error of any type means that it comes again, in its place.
///
/// A message comes at least once: after a crash what was handled last may come again, its key's successors
/// behind it. To do a thing once, write `message.offset`, which only grows for one queue, in the transaction
/// that does the thing, beside the order: what is not greater than the stored one is done already.
async fn handle(delivery: &Delivery, fail_key: Option<&str>) -> Result<(), Failure> {
    let order = serde_json::from_slice::<Value>(&delivery.message.body);
    // No attempt will help: to the dead-letter topic at once.
    order.map_err(|error| Failure::permanent(format!("the order is not JSON: {error}")))?;
    if delivery.attempt == 1 && fail_key == Some(delivery.key.as_str()) {
        return Err("told to fail the first attempt".into());
    }
    Ok(())
}

/// Handles one message and logs a line of JSON about it.
async fn run(delivery: Delivery, topic: String, fail_key: Option<String>) -> Result<(), Failure> {
    let started = now_us();
    let result = handle(&delivery, fail_key.as_deref()).await;
    let queue = &delivery.queue;
    let line = json!({
        "source": format!("rocketmq://{}/{topic}/{}", queue.broker, queue.id),
        "key": delivery.message.key.as_deref(),
        "sequence": delivery.message.offset,
        "attempt": delivery.attempt,
        "startedUs": started,
        "endedUs": now_us(),
        "ok": result.is_ok(),
    });
    println!("{line}");
    result
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info,rocketmq=off"))
        .with_writer(std::io::stderr)
        .init();
    let needed = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
    let topic = needed("TOPIC")?;
    // To see what a failure does: the first attempt of every message of this key fails.
    let fail_key = env::var("FAIL_KEY").ok();
    Consumer::builder()
        .name_servers(needed("NAME_SERVERS")?.split(','))
        .topic(&topic)
        .group(needed("GROUP")?)
        .lanes(64)
        // SIGTERM: what runs finishes, everything finished is committed, the queues go to the next pod.
        .shutdown(terminated())
        .run(move |delivery| run(delivery, topic.clone(), fail_key.clone()))
        .await?;
    Ok(())
}
