//! A steady load, and how old its oldest message is that is not finished.
//!
//! It is sent by a thread of its own: nothing that a scene waits for holds it up.

use anyhow::{Context as _, Result, ensure};
use keylane_tests::rocketmq::{Message, Offsets, Producer};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

/// Orders whose messages make up the load.
const ORDERS: u64 = 2_000;
const EVERY: Duration = Duration::from_millis(50);

/// Messages a second.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// Of all orders together.
    pub orders: f64,
    /// Of one key more.
    pub key: Option<(String, f64)>,
}

/// Sends until it is dropped.
pub struct Load {
    shared: Arc<Shared>,
    /// Address of the broker, topic and group.
    asked: [String; 3],
    /// Its thread ends when this is dropped.
    _wanted: oneshot::Sender<()>,
}

struct Shared {
    rates: Mutex<Rates>,
    ledger: Mutex<Ledger>,
}

/// What was sent when.
#[derive(Default)]
struct Ledger {
    queues: Vec<Queue>,
    failed: Option<String>,
}

#[derive(Clone, Default)]
struct Queue {
    /// Offset of the next message.
    end: u64,
    /// Ends of batches that may be unfinished, with the time before each was sent.
    sent: VecDeque<(u64, Instant)>,
}

impl Queue {
    fn add(&mut self, count: u64, at: Instant) {
        if count > 0 {
            self.end += count;
            self.sent.push_back((self.end, at));
        }
    }

    /// When the oldest message at or after this offset was sent.
    fn oldest(&mut self, committed: u64) -> Option<Instant> {
        while self.sent.front().is_some_and(|(end, _)| *end <= committed) {
            self.sent.pop_front();
        }
        self.sent.front().map(|(_, at)| *at)
    }
}

impl Load {
    /// Begins to send to a topic that has no messages yet.
    pub async fn begin(name_server: &str, topic: &str, group: &str, rates: Rates) -> Result<Self> {
        let (host, _) = name_server.rsplit_once(':').context("no port")?;
        let asked = [&format!("{host}:10911"), topic, group].map(str::to_owned);
        let shared = Arc::new(Shared {
            rates: Mutex::new(rates),
            ledger: Mutex::default(),
        });
        let (wanted, unwanted) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        // What is sent belongs to the runtime it is sent in.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (to, topic, by) = (name_server.to_owned(), topic.to_owned(), shared.clone());
        std::thread::spawn(move || {
            runtime.block_on(async {
                let producer = match Producer::connect(&to, &topic).await {
                    Ok(producer) => producer,
                    Err(error) => {
                        let _ = tell.send(Err(error));
                        return;
                    }
                };
                lock(&by.ledger).queues = vec![Queue::default(); producer.queues()];
                let _ = tell.send(Ok(()));
                tokio::select! {
                    () = send(producer, by) => {}
                    _ = unwanted => {}
                }
            });
        });
        told.await.context("the load did not begin")??;
        Ok(Self {
            shared,
            asked,
            _wanted: wanted,
        })
    }

    /// Sends so much from now on.
    pub fn set(&self, rates: Rates) {
        *lock(&self.shared.rates) = rates;
    }

    /// Age of the oldest message that is not known to be finished: what has been committed is, which is 2 s
    /// behind. An error if the load is not what it should be.
    pub async fn oldest(&self) -> Result<Duration> {
        let queues = {
            let ledger = lock(&self.shared.ledger);
            ensure!(
                ledger.failed.is_none(),
                "the load broke off: {:?}",
                ledger.failed
            );
            ledger.queues.len()
        };
        // A new connection each time: the broker closes one that says nothing for two minutes.
        let [broker, topic, group] = &self.asked;
        let offsets = Offsets::connect(broker, topic, group).await?;
        let mut oldest: Option<Instant> = None;
        for queue in 0..queues {
            let committed = offsets.committed(u32::try_from(queue)?).await?;
            let sent = lock(&self.shared.ledger).queues[queue].oldest(committed.unwrap_or(0));
            oldest = [oldest, sent].into_iter().flatten().min();
        }
        Ok(oldest.map_or(Duration::ZERO, |at| at.elapsed()))
    }
}

async fn send(producer: Producer, shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut orders, mut key) = (0.0, 0.0);
    loop {
        ticks.tick().await;
        let rates = lock(&shared.rates).clone();
        orders += rates.orders * EVERY.as_secs_f64();
        let mut batch: Vec<Message> = Vec::new();
        while orders >= 1.0 {
            orders -= 1.0;
            batch.push(message(&format!("order-{}", rand::random_range(0..ORDERS))));
        }
        if let Some((name, rate)) = &rates.key {
            key += rate * EVERY.as_secs_f64();
            while key >= 1.0 {
                key -= 1.0;
                batch.push(message(name));
            }
        }
        let at = Instant::now();
        let sent = producer.send_all(batch).await;
        let mut ledger = lock(&shared.ledger);
        match sent {
            Ok(counts) => {
                for (queue, count) in ledger.queues.iter_mut().zip(counts) {
                    queue.add(count, at);
                }
            }
            Err(error) => {
                // Which of them were stored is not known: ages would be wrong from here on.
                ledger.failed = Some(error.to_string());
                return;
            }
        }
    }
}

fn message(key: &str) -> Message {
    Message::keyed(key, format!(r#"{{"order":"{key}"}}"#))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_message_is_the_first_that_is_not_committed() {
        let first = Instant::now();
        let later = first + Duration::from_secs(1);
        let mut queue = Queue::default();
        queue.add(10, first);
        queue.add(0, later);
        queue.add(5, later);
        assert_eq!(queue.oldest(0), Some(first));
        assert_eq!(queue.oldest(9), Some(first));
        assert_eq!(queue.oldest(10), Some(later));
        assert_eq!(queue.oldest(15), None);
    }
}
