//! What happens all the while: messages are sent, committed offsets and members are looked at.

use crate::gaps::Arrivals;
use crate::record::now;
use keylane_tests::judge::Micros;
use keylane_tests::rocketmq::{Message, Offsets, Producer, RocketMqError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often committed offsets are looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// A committed offset that was lower than one seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regression {
    /// The queue's id.
    pub queue: u32,
    /// The highest seen before, and the lowest seen since.
    pub from: u64,
    /// The lowest seen since.
    pub to: u64,
    /// When it was first seen lower.
    pub since: Micros,
    /// When it was first seen as high again; none if it never was.
    pub until: Option<Micros>,
}

/// Clients that the broker listed in the group: when each was first and last seen there.
pub type Listed = BTreeMap<String, (Micros, Micros)>;

/// Committed offsets and members as they were seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The members.
    pub listed: Listed,
    highest: BTreeMap<u32, u64>,
    open: BTreeMap<u32, Regression>,
    closed: Vec<Regression>,
}

impl Seen {
    /// A queue's committed offset now.
    pub fn see(&mut self, now: Micros, queue: u32, committed: u64) {
        let highest = self.highest.entry(queue).or_insert(committed);
        if committed >= *highest {
            *highest = committed;
            if let Some(over) = self.open.remove(&queue) {
                self.closed.push(Regression {
                    until: Some(now),
                    ..over
                });
            }
            return;
        }
        let open = self.open.entry(queue).or_insert(Regression {
            queue,
            from: *highest,
            to: committed,
            since: now,
            until: None,
        });
        open.to = open.to.min(committed);
    }

    /// The members are listed now.
    fn list(&mut self, now: Micros, clients: Vec<String>) {
        for client in clients {
            self.listed.entry(client).or_insert((now, now)).1 = now;
        }
    }

    /// All regressions, in the order of time.
    pub fn regressions(&self) -> Vec<Regression> {
        let mut all: Vec<Regression> = self
            .closed
            .iter()
            .chain(self.open.values())
            .cloned()
            .collect();
        all.sort_by_key(|regression| regression.since);
        all
    }
}

/// Where brokers are, and what is sent there.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name server.
    pub name_server: String,
    /// The broker's address and name.
    pub broker: (String, &'static str),
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Queues of the topic.
    pub queues: u32,
}

/// Sends `rate` messages a second with `keys` keys until `stop`; gives when each was stored.
pub async fn produce(target: Target, rate: u32, keys: u64, stop: CancellationToken) -> Arrivals {
    let mut arrivals = Arrivals::new();
    let mut producer: Option<Producer> = None;
    let mut interval = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0u64.. {
        tokio::select! {
            _ = interval.tick() => {}
            () = stop.cancelled() => break,
        }
        // Spread, so that neighbours have different keys and keys have neighbours.
        let key = number.wrapping_mul(2_654_435_761) % keys;
        let message = Message::keyed(&format!("order-{key}"), format!("{number}"));
        if producer.is_none() {
            producer = Producer::connect(&target.name_server, &target.topic)
                .await
                .ok();
        }
        let sent = match &producer {
            Some(producer) => producer.send(&message).await.ok(),
            None => None,
        };
        let Some(sent) = sent else {
            // What was sent may have been stored all the same; the broker's offsets tell.
            producer = None;
            tokio::time::sleep(TRY_AGAIN).await;
            continue;
        };
        let queue = format!("{}/{}", sent.broker, sent.queue);
        arrivals
            .entry(queue)
            .or_default()
            .insert(sent.offset.unsigned_abs(), now());
    }
    arrivals
}

/// Looks at committed offsets and members until `stop`.
pub async fn watch(target: Target, seen: Arc<Mutex<Seen>>, stop: CancellationToken) {
    let mut connection: Option<Offsets> = None;
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = stop.cancelled() => return,
        }
        if connection.is_none() {
            connection = Offsets::connect(&target.broker.0, &target.topic, &target.group)
                .await
                .ok();
        }
        if let Some(offsets) = &connection
            && look(offsets, target.queues, &seen).await.is_err()
        {
            connection = None;
        }
    }
}

async fn look(offsets: &Offsets, queues: u32, seen: &Mutex<Seen>) -> Result<(), RocketMqError> {
    let seen = || seen.lock().unwrap_or_else(PoisonError::into_inner);
    for queue in 0..queues {
        if let Some(committed) = offsets.committed(queue).await? {
            seen().see(now(), queue, committed);
        }
    }
    let members = offsets.members().await?;
    seen().list(now(), members);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regression_lasts_until_the_offset_is_as_high_again() {
        let mut seen = Seen::default();
        for (now, committed) in [(1, 10), (2, 20), (3, 15), (4, 12), (5, 19)] {
            seen.see(now, 0, committed);
        }
        let open = Regression {
            queue: 0,
            from: 20,
            to: 12,
            since: 3,
            until: None,
        };
        assert_eq!(seen.regressions(), vec![open.clone()]);
        seen.see(6, 0, 20);
        let over = Regression {
            until: Some(6),
            ..open
        };
        assert_eq!(seen.regressions(), [over]);
    }
}
