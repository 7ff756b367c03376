//! What the consumers are to do, and the messages for it.

use anyhow::Result;
use futures::stream::{FuturesUnordered, StreamExt};
use keylane_tests::rocketmq::{Broker, Message};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::MissedTickBehavior;

/// Bytes of a message.
const BODY: usize = 256;
/// Digits of the time at the begin of a message, microseconds since the Unix epoch; 0 if it is not timed.
pub const TIME_DIGITS: usize = 16;
/// The key that has a share of the load to itself, if one has.
pub const HOT_KEY: &str = "order-0";
/// Messages that are there beforehand when others are sent at a rate: they let a virtual machine compile.
const WARM_UP: u32 = 20_000;
/// How long after them the others begin.
const PAUSE: Duration = Duration::from_secs(2);

/// What a consumer is to do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub messages: u32,
    pub keys: u64,
    pub queues: u32,
    /// Percent of the messages that the first key has.
    pub hot: u32,
    /// Without the first key's messages: only the others.
    pub others_only: bool,
    pub work_ms: u32,
    pub lanes: u32,
    pub rate: Option<u32>,
}

impl Load {
    /// Messages that the consumer gets, timed or not.
    pub fn total(&self) -> u32 {
        self.messages + self.beforehand_extra()
    }

    fn beforehand_extra(&self) -> u32 {
        self.rate.map_or(0, |_| WARM_UP)
    }

    /// The share of the hot key, if it takes part.
    pub fn hot_percent(&self) -> Option<u32> {
        (self.hot > 0 && !self.others_only).then_some(self.hot)
    }

    /// How many messages the other keys have.
    pub fn others(&self) -> u32 {
        let hot = self
            .numbers(self.total())
            .filter(|number| self.is_hot(*number));
        self.total() - hot.count() as u32
    }

    /// What the other keys have of this load, alone.
    pub fn of_others(self) -> Self {
        Self {
            messages: self.others(),
            others_only: true,
            ..self
        }
    }

    fn is_hot(&self, number: u32) -> bool {
        number % 100 < self.hot
    }

    /// The numbers of so many messages.
    fn numbers(&self, count: u32) -> impl Iterator<Item = u32> {
        (0..)
            .filter(|number| !self.others_only || !self.is_hot(*number))
            .take(count as usize)
    }

    /// What is there before the consumer starts.
    pub fn beforehand(&self) -> impl Iterator<Item = Message> {
        let count = self.rate.map_or(self.messages, |_| WARM_UP);
        self.numbers(count).map(|number| self.message(number, 0))
    }

    fn message(&self, number: u32, at: u64) -> Message {
        let hot = self.is_hot(number);
        let number = u64::from(number);
        let key = if hot {
            0
        } else if self.hot > 0 {
            1 + number % (self.keys - 1).max(1)
        } else {
            number % self.keys
        };
        let body = format!("{at:0TIME_DIGITS$}{:x<1$}", "", BODY - TIME_DIGITS);
        Message::keyed(&format!("order-{key}"), body)
    }
}

/// The load of most goals.
#[cfg(test)]
pub const USUAL: Load = Load {
    messages: 200_000,
    keys: 1_000,
    queues: 8,
    hot: 0,
    others_only: false,
    work_ms: 0,
    lanes: 100,
    rate: None,
};

/// Makes the topic, with what is to be there beforehand.
pub async fn prepare(broker: &Broker, topic: &str, load: &Load) -> Result<()> {
    tell(topic, load);
    broker.create_topic(topic, load.queues).await?;
    let producer = broker.producer(topic).await?;
    producer.send_all(load.beforehand()).await?;
    Ok(())
}

/// Tells people what a topic is made with.
pub fn tell(topic: &str, load: &Load) {
    eprintln!(
        "==> {topic}: {} messages of {} keys in {} queues",
        load.beforehand().count(),
        load.keys,
        load.queues
    );
}

/// Sends the messages of a load that has a rate, each with the time of its sending. `before` is asked when the
/// messages that count begin.
pub async fn send<T>(
    broker: &Broker,
    topic: &str,
    load: &Load,
    before: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let Some(rate) = load.rate else {
        return before();
    };
    tokio::time::sleep(PAUSE).await;
    let told = before()?;
    let producer = broker.producer(topic).await?;
    let mut interval = tokio::time::interval(Duration::from_secs(1) / rate);
    interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = FuturesUnordered::new();
    for number in load.numbers(load.messages) {
        interval.tick().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let message = load.message(number, u64::try_from(now.as_micros())?);
        let producer = &producer;
        under_way.push(async move { producer.send(&message).await });
        // What has been answered meanwhile.
        while let Some(Some(sent)) = futures::FutureExt::now_or_never(under_way.next()) {
            sent?;
        }
    }
    while let Some(sent) = under_way.next().await {
        sent?;
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn keys(load: &Load) -> BTreeMap<String, usize> {
        let mut keys = BTreeMap::new();
        for number in load.numbers(load.messages) {
            let key = load.message(number, 0).key().map(str::to_owned);
            *keys.entry(key.unwrap_or_default()).or_default() += 1;
        }
        keys
    }

    #[test]
    fn keys_have_the_same_share_but_the_hot_one() {
        let load = Load {
            messages: 10_000,
            ..USUAL
        };
        let even = keys(&load);
        assert_eq!(even.len(), 1_000);
        assert!(even.values().all(|count| *count == 10));
        let load = Load { hot: 50, ..load };
        assert_eq!(keys(&load)[HOT_KEY], 5_000);
        assert_eq!(load.others(), 5_000);
        let others = load.of_others();
        assert_eq!((others.messages, others.hot_percent()), (5_000, None));
        let others = keys(&others);
        assert!(!others.contains_key(HOT_KEY));
        assert_eq!(others.values().sum::<usize>(), 5_000);
    }
}
