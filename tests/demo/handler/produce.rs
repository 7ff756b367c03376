//! Sends orders from inside the cluster, where name server and brokers are reached whatever the machine of
//! who looks can reach.

use anyhow::{Context, Result, ensure};
use keylane_tests::rocketmq::{Message, Producer, create_topic};
use serde_json::json;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(50);

/// Options of `produce`.
#[derive(clap::Args)]
pub struct Options {
    /// Name server, as host:port.
    #[arg(long, value_name = "ADDRESS")]
    name_server: String,
    /// Topic.
    #[arg(long)]
    topic: String,
    /// Make the topic first, with so many queues.
    #[arg(long, value_name = "NUMBER")]
    queues: Option<u32>,
    /// Orders that take turns; each is a key.
    #[arg(long, default_value_t = 1_000)]
    orders: u64,
    /// Messages to send at once, before those of --rate.
    #[arg(long, default_value_t = 0)]
    messages: u64,
    /// Then so many messages a second for so many seconds, as rate:seconds; may be given more than once, one
    /// after the other.
    #[arg(long = "rate", value_name = "RATE:SECONDS", value_parser = stretch)]
    rates: Vec<Stretch>,
    /// A key that gets messages beside the orders, as long as there are stretches.
    #[arg(long, requires = "key_rates")]
    key: Option<String>,
    /// How many of them, as rate:seconds like --rate.
    #[arg(long = "key-rate", value_name = "RATE:SECONDS", value_parser = stretch, requires = "key")]
    key_rates: Vec<Stretch>,
    /// One message more at the beginning, as key=body; may be given more than once.
    #[arg(long = "message", value_name = "KEY=BODY")]
    extra: Vec<String>,
}

/// So many messages a second, for so long.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretch {
    rate: f64,
    length: Duration,
}

fn stretch(text: &str) -> Result<Stretch, String> {
    let wrong = || format!("{text:?} is not messages a second and seconds, such as 100:30");
    let (rate, seconds) = text.split_once(':').ok_or_else(wrong)?;
    let rate: f64 = rate.parse().map_err(|_| wrong())?;
    let seconds: f64 = seconds.parse().map_err(|_| wrong())?;
    let fits = (0.0..=1e6).contains(&rate) && (0.0..=86_400.0).contains(&seconds);
    fits.then(|| Stretch {
        rate,
        length: Duration::from_secs_f64(seconds),
    })
    .ok_or_else(wrong)
}

/// Messages that should have been sent after a time.
fn due(stretches: &[Stretch], mut after: Duration) -> u64 {
    let mut due = 0.0;
    for stretch in stretches {
        let part = after.min(stretch.length);
        due += stretch.rate * part.as_secs_f64();
        after -= part;
    }
    due as u64
}

fn length(stretches: &[Stretch]) -> Duration {
    stretches.iter().map(|stretch| stretch.length).sum()
}

/// Numbers the events of each key.
#[derive(Default)]
struct Events(HashMap<String, u64>);

impl Events {
    fn next(&mut self, key: String) -> Message {
        let number = self.0.entry(key.clone()).or_default();
        let body = json!({"order": key, "event": *number}).to_string();
        *number += 1;
        Message::keyed(&key, body)
    }
}

/// Sends, and prints how many messages were stored.
pub async fn run(options: Options) -> Result<()> {
    ensure!(options.orders > 0, "--orders is 0: at least 1");
    let extra = options.extra.iter().map(|text| -> Result<Message> {
        let parts = text.split_once('=');
        let (key, body) = parts.with_context(|| format!("--message {text:?} is not key=body"))?;
        Ok(Message::keyed(key, body.to_owned()))
    });
    let extra = extra.collect::<Result<Vec<_>>>()?;
    if let Some(queues) = options.queues {
        create_topic(&options.name_server, &options.topic, queues).await?;
    }
    let producer = Producer::connect(&options.name_server, &options.topic).await?;
    let (mut events, mut sent) = (Events::default(), 0);
    sent += send(&producer, extra).await?;
    let order = |number: u64| format!("order-{}", number % options.orders);
    if options.messages > 0 {
        let backlog = (0..options.messages).map(|number| events.next(order(number)));
        let counts = producer.send_all(backlog).await?;
        // Whoever begins with this topic now is not to take for an arrival what its broker shows late.
        producer.until_visible(&counts).await?;
        sent += counts.iter().sum::<u64>();
    }

    let whole = length(&options.rates).max(length(&options.key_rates));
    let (mut orders, mut keys) = (0, 0);
    let mut ticks = tokio::time::interval(EVERY);
    let began = Instant::now();
    loop {
        let after = began.elapsed();
        let mut batch = Vec::new();
        while orders < due(&options.rates, after) {
            batch.push(events.next(order(options.messages + orders)));
            orders += 1;
        }
        if let Some(key) = &options.key {
            while keys < due(&options.key_rates, after) {
                batch.push(events.next(key.clone()));
                keys += 1;
            }
        }
        sent += send(&producer, batch).await?;
        if after >= whole {
            break;
        }
        ticks.tick().await;
    }
    println!("{}", json!({"sent": sent}));
    Ok(())
}

async fn send(producer: &Producer, messages: Vec<Message>) -> Result<u64> {
    if messages.is_empty() {
        return Ok(0);
    }
    Ok(producer.send_all(messages).await?.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_follow_each_other() {
        let stretches = [stretch("100:30").unwrap(), stretch("800:60").unwrap()];
        assert_eq!(length(&stretches), Duration::from_secs(90));
        let due = |seconds| due(&stretches, Duration::from_secs(seconds));
        assert_eq!((due(0), due(10), due(30)), (0, 1_000, 3_000));
        assert_eq!((due(31), due(90), due(500)), (3_800, 51_000, 51_000));
        for wrong in ["100", "a:1", "1:b", "-1:3", "1:-3"] {
            assert!(stretch(wrong).unwrap_err().contains("100:30"), "{wrong}");
        }
    }

    #[test]
    fn each_key_counts_its_own_events() {
        let mut events = Events::default();
        let first = events.next("a".into());
        assert_eq!(first.key(), Some("a"));
        events.next("b".into());
        events.next("a".into());
        assert_eq!(events.0, HashMap::from([("a".into(), 2), ("b".into(), 1)]));
    }
}
