//! What a consumer is to do.

use super::{ConsumerError, Running, Tls};
use crate::config::check::check_but_handler;
use crate::contract::duration::DurationText;
use crate::contract::spec::{
    Batch, ConsumerSpec, Consumption, Drain, Filter, Handler, LaneBounds, Limits, Ordering,
    Position, Retry, Rocketmq, StartFrom, Suspend,
};
use crate::handler::{Delivery, Outcome};
use crate::source::rocketmq::{Access, AccessError, Part, Parts};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Default of [`Builder::lanes`].
const LANES: u32 = 256;
/// Names of the fields of an OrderedConsumer as they are called here.
const NAMES: [(&str, &str); 7] = [
    ("spec.rocketmq.nameServers", "name_servers"),
    ("spec.consumerGroup", "group"),
    ("spec.startFrom", "start_from"),
    ("spec.handler.timeout", "timeout"),
    ("spec.handler.batch.maxMessages", "batch"),
    ("spec.drain.timeout", "drain_timeout"),
    ("spec.", ""),
];

/// A consumer that is described and not started; see [`Consumer`](crate::Consumer).
pub struct Builder {
    name_servers: Vec<String>,
    credentials: Option<(String, String)>,
    tls: Option<Tls>,
    topic: String,
    group: String,
    lanes: u32,
    consumption: Consumption,
    start_from: StartFrom,
    filter: Filter,
    ordering: Ordering,
    retry: Retry,
    limits: Limits,
    batch: u32,
    timeout: Duration,
    drain_timeout: Duration,
    redact_keys: bool,
    shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            name_servers: Vec::new(),
            credentials: None,
            tls: None,
            topic: String::new(),
            group: String::new(),
            lanes: LANES,
            consumption: Consumption::default(),
            start_from: StartFrom::default(),
            filter: Filter::default(),
            ordering: Ordering::default(),
            retry: Retry::default(),
            limits: Limits::default(),
            batch: 1,
            timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(60),
            redact_keys: false,
            shutdown: Box::pin(std::future::pending()),
        }
    }
}

impl Builder {
    /// Addresses of the name servers, each as host:port. They are replaced, not added.
    #[must_use]
    pub fn name_servers<S: Into<String>>(mut self, servers: impl IntoIterator<Item = S>) -> Self {
        self.name_servers = servers.into_iter().map(Into::into).collect();
        self
    }

    /// Access key and secret key of a user of RocketMQ's ACL: requests are signed with them. Default: they
    /// are not signed.
    #[must_use]
    pub fn credentials(
        mut self,
        access_key: impl Into<String>,
        secret_key: impl Into<String>,
    ) -> Self {
        self.credentials = Some((access_key.into(), secret_key.into()));
        self
    }

    /// Talk to name servers and brokers over TLS, and check that it is them. Default: in clear.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The topic to consume. It must exist, or come to exist. Topics of `queue.type` BatchCQ are not supported.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = topic.into();
        self
    }

    /// The consumer group. It must not be used by consumers that are not Keylane's.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = group.into();
        self
    }

    /// How many messages are handled at once, each of another key. Default: 256.
    #[must_use]
    pub fn lanes(mut self, lanes: u32) -> Self {
        self.lanes = lanes;
        self
    }

    /// Where to begin when the group has never committed an offset. Default: the oldest message kept.
    #[must_use]
    pub fn start_from(mut self, position: Position) -> Self {
        self.start_from = StartFrom {
            position,
            timestamp: None,
        };
        self
    }

    /// The same with messages stored at this time or later.
    #[must_use]
    pub fn start_from_time(mut self, time: jiff::Timestamp) -> Self {
        self.start_from = StartFrom {
            position: Position::Timestamp,
            timestamp: Some(time),
        };
        self
    }

    /// Whether the processes of the group share the messages or each gets all. Default: they share.
    #[must_use]
    pub fn consumption(mut self, consumption: Consumption) -> Self {
        self.consumption = consumption;
        self
    }

    /// Only messages with one of these tags.
    #[must_use]
    pub fn tags<S: Into<String>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.filter.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Only messages that fulfil this SQL92 expression over their properties.
    #[must_use]
    pub fn sql(mut self, expression: impl Into<String>) -> Self {
        self.filter.sql = Some(expression.into());
        self
    }

    /// What keeps its order, and where the key of a message is found.
    #[must_use]
    pub fn ordering(mut self, ordering: Ordering) -> Self {
        self.ordering = ordering;
        self
    }

    /// What to do with messages that the handler fails.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// What is in memory at most.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Most messages of one call; they are consecutive messages of one key. Default: 1.
    #[must_use]
    pub fn batch(mut self, messages: u32) -> Self {
        self.batch = messages;
        self
    }

    /// Longest time of one call, in whole milliseconds. Default: 30 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Longest time that running calls may take to finish at the end, in whole milliseconds. Default: 60 s.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Show keys only as hashes in logs, stats and metrics. Default: false.
    #[must_use]
    pub fn redact_keys(mut self, redact: bool) -> Self {
        self.redact_keys = redact;
        self
    }

    /// When [`run`](Self::run) is to drain and return: once this future is ready, such as
    /// [`terminated()`](crate::terminated). Default: never. [`start`](Self::start) does not look at it.
    #[must_use]
    pub fn shutdown(mut self, when: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Box::pin(when);
        self
    }

    /// Consumes with this handler until [`shutdown`](Self::shutdown) says so, then drains.
    pub async fn run<F, R, O>(mut self, handler: F) -> Result<(), ConsumerError>
    where
        F: Fn(Delivery) -> R + Send + Sync + 'static,
        R: Future<Output = O> + Send + 'static,
        O: Into<Outcome> + Send + 'static,
    {
        let shutdown = std::mem::replace(&mut self.shutdown, Box::pin(std::future::pending()));
        let mut running = self.start(handler).await?;
        tokio::select! {
            () = shutdown => running.stop().await,
            error = running.broken() => Err(error),
        }
    }

    /// Starts to consume with this handler and returns at once.
    pub async fn start<F, R, O>(self, handler: F) -> Result<Running, ConsumerError>
    where
        F: Fn(Delivery) -> R + Send + Sync + 'static,
        R: Future<Output = O> + Send + 'static,
        O: Into<Outcome> + Send + 'static,
    {
        Running::start(self, handler).await
    }

    /// What lets it into the cluster; the error names what was said wrong.
    pub(super) fn access(&self) -> Result<Access, AccessError> {
        let credentials = self.credentials.clone().map(|(access_key, secret_key)| {
            [
                (Part::AccessKey, access_key.into_bytes()),
                (Part::SecretKey, secret_key.into_bytes()),
            ]
        });
        let tls = self.tls.clone();
        let server_name = tls.as_ref().and_then(|tls| tls.server_name.clone());
        let tls = tls.map(|tls| tls.parts).into_iter().flatten();
        let parts: Parts = credentials.into_iter().flatten().chain(tls).collect();
        Access::given(server_name, parts)
    }

    /// The OrderedConsumer that this describes, and its lanes; the error names what was said wrong.
    pub(super) fn check(self) -> Result<(ConsumerSpec, u32), String> {
        for (name, missing) in [
            ("name_servers", self.name_servers.is_empty()),
            ("topic", self.topic.is_empty()),
            ("group", self.group.is_empty()),
        ] {
            if missing {
                return Err(format!(
                    "{name} is missing: call {name}(...) on the builder of the consumer"
                ));
            }
        }
        if !(1..=10_000).contains(&self.lanes) {
            return Err(format!(
                "lanes is {}: it must be between 1 and 10000",
                self.lanes
            ));
        }
        let spec = ConsumerSpec {
            rocketmq: Rocketmq {
                name_servers: self.name_servers,
                // A program has no Secrets: it gives what would be in them.
                credentials_secret_ref: None,
                tls: None,
            },
            topic: self.topic,
            consumer_group: self.group,
            consumption: self.consumption,
            filter: self.filter,
            start_from: self.start_from,
            ordering: self.ordering,
            handler: Handler {
                timeout: text(self.timeout),
                batch: Batch {
                    max_messages: self.batch,
                },
                ..Handler::default()
            },
            lanes: LaneBounds {
                min: 1,
                max: self.lanes,
            },
            retry: self.retry,
            limits: self.limits,
            drain: Drain {
                timeout: text(self.drain_timeout),
            },
            suspend: Suspend::default(),
            redact_keys: self.redact_keys,
        };
        check_but_handler(&spec).map_err(|problem| {
            NAMES.iter().fold(problem, |problem, (field, name)| {
                problem.replace(field, name)
            })
        })?;
        Ok((spec, self.lanes))
    }
}

fn text(duration: Duration) -> DurationText {
    DurationText::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Consumer;

    fn good() -> Builder {
        Consumer::builder()
            .name_servers(["n:9876"])
            .topic("T")
            .group("G")
    }

    #[test]
    fn what_is_left_out_is_what_an_ordered_consumer_defaults_to() {
        let (spec, lanes) = good().check().unwrap();
        let document = "{apiVersion: keylane.dev/v1alpha1, kind: OrderedConsumer, metadata: {name: n}, spec: {rocketmq: \
             {nameServers: [\"n:9876\"]}, topic: T, consumerGroup: G, handler: {http: {port: 80}}, lanes: {min: 1, max: 256}}}";
        let config = crate::config::Config::parse(document, std::path::Path::new("x")).unwrap();
        let mut expected = config.spec().clone();
        expected.handler.http = None;
        assert_eq!((spec, lanes), (expected, 256));
    }

    #[test]
    fn what_is_wrong_is_named_as_the_builder_names_it() {
        let timestamp = Position::Timestamp;
        for (builder, named) in [
            (Consumer::builder(), "name_servers is missing"),
            (good().topic(""), "topic is missing"),
            (good().group(""), "group is missing"),
            (
                good().name_servers(["n"]),
                "name_servers: \"n\" is not host:port",
            ),
            (good().topic("a b"), "topic is \"a b\""),
            (good().group("a b"), "group is \"a b\""),
            (good().lanes(0), "lanes is 0"),
            (good().batch(0), "batch is 0"),
            (good().timeout(Duration::ZERO), "timeout is 0s"),
            (good().timeout(Duration::MAX), "timeout is"),
            (good().drain_timeout(Duration::ZERO), "drain_timeout is 0s"),
            (good().start_from(timestamp), "start_from.timestamp"),
            (good().tags(["*"]), "filter.tags"),
        ] {
            let problem = builder.check().unwrap_err();
            assert!(problem.starts_with(named), "{problem}");
        }
    }

    #[test]
    fn what_is_wrong_with_keys_and_certificates_is_named_and_nothing_of_them_is_told() {
        let made = rcgen::generate_simple_self_signed(["rocketmq.test".to_owned()]).unwrap();
        let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let trusting = || Tls::trusting(pem.as_str());
        for (builder, named) in [
            (
                good().credentials("", "hush"),
                "Builder::credentials: the access key",
            ),
            (
                good().credentials("orders", "hush\nhush"),
                "Builder::credentials: the secret key",
            ),
            (
                good().tls(Tls::trusting("hush")),
                "Builder::tls: what is to be the authorities'",
            ),
            (
                good().tls(trusting().server_name("a..b")),
                "Tls::server_name is \"a..b\"",
            ),
            (
                good().tls(trusting().client_certificate("hush", key.as_str())),
                "Tls::client_certificate: what is to be the certificate chain",
            ),
            (
                good().tls(trusting().client_certificate(pem.as_str(), other)),
                "Tls::client_certificate: what is to be the private key",
            ),
        ] {
            let problem = builder.access().unwrap_err().to_string();
            assert!(problem.starts_with(named), "{problem}");
            assert!(!problem.contains("hush"), "{problem}");
        }
        let tls = trusting().client_certificate(pem.as_str(), key);
        let shown = format!("{tls:?}");
        assert!(!shown.contains("BEGIN"), "{shown}");
        good()
            .credentials("orders", "hush")
            .tls(tls)
            .access()
            .unwrap();
        good().access().unwrap();
    }
}
