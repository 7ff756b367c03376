//! Connections to RocketMQ that consumers share. Each costs megabytes and threads of its own, so hundreds of
//! consumers of one RocketMQ have a few together. Only those share that are let in by the same Secrets.

use super::{BrokerError, SECRETS_EVERY, SecretError, access, secrets};
use keylane_consumer::contract::spec::ConsumerSpec;
use keylane_consumer::source::rocketmq::{Access, RocketmqSource, wanted};
use kube::Client;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::Mutex;
use tracing::info;

/// Lines to one RocketMQ. A line makes one request of a kind at a time: with several, a slow answer keeps
/// only some of the consumers waiting.
const LINES: u64 = 4;

/// The lines that are in use.
#[derive(Default)]
pub struct Lines(Mutex<HashMap<(String, u64), Weak<Line>>>);

/// A connection, and what opens it.
pub(super) struct Line {
    source: RocketmqSource,
    access: Access,
    /// When Secrets were read last; none if they are to be read before brokers are asked again.
    read: StdMutex<Option<Instant>>,
}

impl Lines {
    /// The line of a consumer. Unreachable brokers show at the first question.
    pub(super) async fn line(
        &self,
        client: &Client,
        namespace: &str,
        spec: &ConsumerSpec,
    ) -> Result<Arc<Line>, BrokerError> {
        let key = key(namespace, spec);
        let mut lines = self.0.lock().await;
        if let Some(line) = lines.get(&key).and_then(Weak::upgrade) {
            return Ok(line);
        }
        // Not a member of a group: it never sends a heartbeat.
        let id = format!("keylane-operator:{:016x}", rand::random::<u64>());
        let access = access(client, namespace, spec).await?;
        let line = Arc::new(Line {
            source: RocketmqSource::connect_with(spec, &id, access.clone()).await?,
            access,
            read: StdMutex::new(Some(Instant::now())),
        });
        lines.retain(|_, line| line.strong_count() > 0);
        lines.insert(key, Arc::downgrade(&line));
        Ok(line)
    }
}

/// Consumers with the same key may share: they name the same brokers, and the same Secrets if any.
fn key(namespace: &str, spec: &ConsumerSpec) -> (String, u64) {
    let rocketmq = &spec.rocketmq;
    let whose = if wanted(rocketmq).is_empty() {
        ""
    } else {
        namespace
    };
    let mut hasher = DefaultHasher::new();
    (&spec.topic, &spec.consumer_group).hash(&mut hasher);
    (format!("{whose} {rocketmq:?}"), hasher.finish() % LINES)
}

impl Line {
    /// The topic and group of a consumer, over this line.
    pub fn source(&self, spec: &ConsumerSpec) -> RocketmqSource {
        self.source.beside(spec)
    }

    /// Takes over what Secrets hold now, if it is time to look.
    pub async fn refresh(
        &self,
        client: &Client,
        namespace: &str,
        spec: &ConsumerSpec,
    ) -> Result<(), SecretError> {
        let is_recent = |read: Instant| read.elapsed() < SECRETS_EVERY;
        if wanted(&spec.rocketmq).is_empty() || self.read().is_some_and(is_recent) {
            return Ok(());
        }
        let parts = secrets::read(client, namespace, &spec.rocketmq).await?;
        if self.access.replace(parts)? {
            info!("{namespace}: what lets us into RocketMQ has changed and was taken over");
        }
        self.set(Some(Instant::now()));
        Ok(())
    }

    /// Brokers refused what the Secrets said: they are to be read before the next question.
    pub fn refused(&self) {
        self.set(None);
    }

    fn read(&self) -> Option<Instant> {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, read: Option<Instant>) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = read;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(number: u32, rocketmq: &serde_json::Value) -> ConsumerSpec {
        serde_json::from_value(json!({
            "rocketmq": rocketmq, "topic": format!("t{number}"), "consumerGroup": format!("g{number}"),
            "handler": {"http": {"port": 8080}},
        }))
        .unwrap()
    }

    #[test]
    fn hundreds_of_consumers_share_a_few_lines_and_secrets_are_not_shared_between_namespaces() {
        let open = json!({"nameServers": ["a:9876"]});
        let keys = |namespace: &str, rocketmq: &serde_json::Value| {
            let keys = (0..500).map(|number| key(namespace, &spec(number, rocketmq)));
            keys.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(keys("one", &open).len(), LINES as usize);
        assert_eq!(keys("one", &open), keys("other", &open));
        let closed = json!({"nameServers": ["a:9876"], "credentialsSecretRef": {"name": "mq"}});
        assert_eq!(keys("one", &closed).len(), LINES as usize);
        assert!(keys("one", &closed).is_disjoint(&keys("other", &closed)));
        assert!(keys("one", &closed).is_disjoint(&keys("one", &open)));
    }
}
