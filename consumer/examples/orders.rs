//! Consumes a topic with a function of this program, each key in order, until Ctrl-C.
//!
//! With a RocketMQ on this machine that has the topic:
//!
//! ```text
//! cargo run -p keylane-consumer --example orders -- 127.0.0.1:9876 ORDER_STATUS order-status
//! ```

use anyhow::{Context, Result};
use keylane_consumer::{Consumer, Delivery, Failure, terminated};
use tracing_subscriber::EnvFilter;

async fn handle(delivery: Delivery) -> Result<(), Failure> {
    let message = &delivery.message;
    // An error of any type is an attempt: the message comes again, its key waits, other keys do not.
    let text = std::str::from_utf8(&message.body)?;
    if text.is_empty() {
        return Err(Failure::permanent("an order without content"));
    }
    println!(
        "queue {} offset {} key {:?} attempt {}: {text}",
        delivery.queue,
        message.offset,
        delivery.key.as_str(),
        delivery.attempt
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info,rocketmq=off"))
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let mut argument = |name: &str| arguments.next().context(format!("{name} is missing"));
    let usage = "usage: orders NAME_SERVER TOPIC GROUP";
    Consumer::builder()
        .name_servers([argument("NAME_SERVER").context(usage)?])
        .topic(argument("TOPIC").context(usage)?)
        .group(argument("GROUP").context(usage)?)
        .lanes(64)
        .shutdown(terminated())
        .run(handle)
        .await?;
    Ok(())
}
