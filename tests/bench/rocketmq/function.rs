//! Keylane with a Rust handler, in a process of its own: what a user of the library runs.

use crate::count::{self, Count, Place};
use crate::printed::Printed;
use anyhow::Result;
use keylane_consumer::{Consumer, Delivery, Failure};
use std::sync::Arc;

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[arg(long)]
    name_server: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    lanes: u32,
    #[command(flatten)]
    count: count::Expected,
}

async fn handle(count: &Count, delivery: &Delivery) -> Result<(), Failure> {
    let place = Place {
        queue: delivery.queue.id,
        key: delivery.key.as_str(),
        offset: delivery.message.offset,
    };
    Ok(count.handle(place, &delivery.message.body).await?)
}

/// Consumes the topic from its begin, prints what was measured, and drains.
pub async fn run(options: Options) -> Result<()> {
    let total = options.count.total();
    let count = Arc::new(Count::new(options.count));
    let handler = count.clone();
    let running = Consumer::builder()
        .name_servers([options.name_server])
        .topic(&options.topic)
        .group(&options.topic)
        .lanes(options.lanes)
        .start(move |delivery| {
            let count = handler.clone();
            async move { handle(&count, &delivery).await }
        })
        .await?;
    let printed = count.result().await?;
    let pulled = running.control().stats().await?.pulled_messages;
    let printed = Printed {
        pulled_per_message: Some(pulled as f64 / f64::from(total)),
        ..printed
    };
    println!("{}", serde_json::to_string(&printed)?);
    running.stop().await?;
    Ok(())
}
