//! The configuration file: an `OrderedConsumer` document, as a user writes it or as the operator renders
//! it. What concerns pods only (replicas, autoscaling, executor, template) is ignored here; a field that
//! nobody knows is an error.

pub(crate) mod check;

use crate::contract::spec::ConsumerSpec;
use crate::contract::{API_VERSION, KIND};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Fields of `spec` that are the operator's.
const FOR_THE_OPERATOR: [&str; 4] = ["replicas", "autoscaling", "executor", "template"];
const FOR_THE_EXECUTOR: [&str; 14] = [
    "rocketmq",
    "topic",
    "consumerGroup",
    "consumption",
    "filter",
    "startFrom",
    "ordering",
    "handler",
    "lanes",
    "retry",
    "limits",
    "drain",
    "suspend",
    "redactKeys",
];

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not YAML.
    #[error("{path} is not YAML: {source}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_norway::Error,
    },
    /// It says something that cannot be.
    #[error("{path}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Field, value, reason, and what to do.
        problem: String,
    },
}

/// An `OrderedConsumer`, as far as the executor needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    name: String,
    spec: ConsumerSpec,
}

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Checks a document; `path` is named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let document: Value = serde_norway::from_str(text).map_err(|source| ConfigError::Yaml {
            path: path.to_owned(),
            source,
        })?;
        parse(document).map_err(|problem| ConfigError::Invalid {
            path: path.to_owned(),
            problem,
        })
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The checked spec.
    pub fn spec(&self) -> &ConsumerSpec {
        &self.spec
    }
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

fn parse(mut document: Value) -> Result<Config, String> {
    for (field, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let found = document
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default();
        if found != expected {
            return Err(format!("{field} is {found:?} but must be {expected:?}"));
        }
    }
    let metadata: Metadata = serde_json::from_value(document["metadata"].take())
        .map_err(|error| format!("metadata: {error}; give the consumer a name in metadata.name"))?;
    let mut spec = document["spec"].take();
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|field, _| !FOR_THE_OPERATOR.contains(&field.as_str()));
        if let Some(unknown) = fields
            .keys()
            .find(|field| !FOR_THE_EXECUTOR.contains(&field.as_str()))
        {
            return Err(format!(
                "spec.{unknown} is not a field; known are {}",
                FOR_THE_EXECUTOR.join(", ")
            ));
        }
    }
    let spec: ConsumerSpec = serde_path_to_error::deserialize(spec)
        .map_err(|error| format!("spec.{}: {}", error.path(), error.inner()))?;
    check::check(&spec)?;
    Ok(Config {
        name: metadata.name,
        spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::spec::{Mode, OnExhausted, Position};

    const GOOD: &str = "
apiVersion: keylane.dev/v1alpha1
kind: OrderedConsumer
metadata: {name: order-status}
spec:
  rocketmq: {nameServers: [\"namesrv.mq:9876\"]}
  topic: ORDER_STATUS
  consumerGroup: order-status
  handler: {http: {port: 8080, path: /events}}
  replicas: 2
  template: {spec: {containers: [{name: handler, image: example}]}}
";

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("oc.yaml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_minimal_document_gets_the_defaults() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.name(), "order-status");
        let spec = config.spec();
        assert_eq!(
            (spec.lanes.min, spec.lanes.max, spec.retry.max_attempts),
            (4, 512, 16)
        );
        assert_eq!(spec.handler.timeout.to_string(), "30s");
        assert_eq!(spec.start_from.position, Position::First);
        assert_eq!(spec.retry.budget.per.to_string(), "10m");
        assert_eq!(spec.retry.on_exhausted, OnExhausted::DeadLetter);
        assert_eq!(spec.limits.bytes.to_string(), "256Mi");
        assert_eq!(spec.handler.batch.max_messages, 1);
        assert_eq!(spec.ordering.mode, Mode::Key);
        assert!(!spec.redact_keys && !spec.suspend.all);
    }

    #[test]
    fn everything_that_works_can_be_written() {
        let everything = "consumption: Broadcasting
  filter: {tags: [PAID, SHIPPED]}
  ordering: {mode: Queue, key: {from: JsonPointer, pointer: /order/id}, unkeyed: Parallel}
  retry: {onExhausted: Block, budget: {blocked: 10s, per: 1h}}
  limits: {messages: 10, bytes: 1048576, span: 100}
  suspend: {all: false, queues: [broker-a/0], keys: [order-7]}
  redactKeys: true";
        let config = parse(&GOOD.replace("replicas: 2", everything)).unwrap();
        let spec = config.spec();
        assert_eq!(spec.filter.tags, ["PAID", "SHIPPED"]);
        assert_eq!(spec.limits.bytes.get(), 1 << 20);
        assert_eq!(spec.suspend.queues, ["broker-a/0"]);
        assert!(spec.redact_keys);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        for (from, to, named) in [
            (
                "kind: OrderedConsumer",
                "kind: Deployment",
                "kind is \"Deployment\"",
            ),
            ("v1alpha1", "v9", "apiVersion"),
            (
                "metadata: {name: order-status}",
                "metadata: {}",
                "metadata.name",
            ),
            ("topic: ORDER_STATUS", "topic: \"a b\"", "spec.topic"),
            (
                "topic: ORDER_STATUS",
                "topics: x",
                "spec.topics is not a field",
            ),
            (
                "namesrv.mq:9876",
                "namesrv.mq",
                "nameServers: \"namesrv.mq\" is not host:port",
            ),
            (
                "rocketmq: {nameServers: [\"namesrv.mq:9876\"]}",
                "rocketmq: {nameServers: [\"n:1\"], credentialsSecretRef: {name: Mq}}",
                "spec.rocketmq.credentialsSecretRef.name is \"Mq\"",
            ),
            (
                "rocketmq: {nameServers: [\"namesrv.mq:9876\"]}",
                "rocketmq: {nameServers: [\"n:1\"], tls: {}}",
                "missing field `caSecretRef`",
            ),
            (
                "rocketmq: {nameServers: [\"namesrv.mq:9876\"]}",
                "rocketmq: {nameServers: [\"n:1\"], tls: {caSecretRef: {name: ca}, serverName: \"a:1\"}}",
                "spec.rocketmq.tls.serverName is \"a:1\"",
            ),
            ("port: 8080", "port: 99999", "99999"),
            ("path: /events", "path: events", "handler.http.path"),
            (
                "path: /events",
                "idlePath: idle",
                "handler.http.idlePath is \"idle\": it must begin with /",
            ),
            (
                "{http: {port: 8080, path: /events}}",
                "{}",
                "neither http nor grpc",
            ),
            (
                "{http: {port: 8080, path: /events}}",
                "{http: {port: 8080}, grpc: {port: 8081}}",
                "take one of them out",
            ),
            (
                "{http: {port: 8080, path: /events}}",
                "{grpc: {}}",
                "spec.handler.grpc: give exactly one of port and unixSocket",
            ),
            ("path: /events", "unixSocket: /run/h/s", "give exactly one"),
            (
                "port: 8080",
                "unixSocket: /run/s",
                "cannot be a handler's socket",
            ),
            (
                "replicas: 2",
                "startFrom: {position: Timestamp}",
                "startFrom.timestamp",
            ),
            (
                "replicas: 2",
                "lanes: {min: 9, max: 3}",
                "spec.lanes is 9 to 3",
            ),
            (
                "replicas: 2",
                "lanes: {minimum: 9}",
                "unknown field `minimum`",
            ),
            ("replicas: 2", "drain: {timeout: -5s}", "is not a duration"),
            (
                "replicas: 2",
                "ordering: {key: {from: Property}}",
                "ordering.key.property",
            ),
            ("replicas: 2", "retry: {maxAttempts: 0}", "maxAttempts"),
            (
                "replicas: 2",
                "retry: {onExhausted: Drop}",
                "unknown variant `Drop`, expected `DeadLetter` or `Block`",
            ),
            (
                "replicas: 2",
                "retry: {budget: {blocked: 20m}}",
                "spec.retry.budget",
            ),
            (
                "replicas: 2",
                "retry: {budget: {blocked: 500ms}}",
                "spec.retry.budget",
            ),
            (
                "replicas: 2",
                "retry: {budget: {per: 25h}}",
                "spec.retry.budget",
            ),
            (
                "replicas: 2",
                "filter: {tags: [A], sql: a = 1}",
                "give tags or sql, not both",
            ),
            (
                "replicas: 2",
                "filter: {tags: [A || B]}",
                "spec.filter.tags",
            ),
            ("replicas: 2", "filter: {tags: [\"*\"]}", "spec.filter.tags"),
            ("replicas: 2", "filter: {sql: \"\"}", "spec.filter.sql"),
            (
                "replicas: 2",
                "consumption: Everywhere",
                "expected `Clustering` or `Broadcasting`",
            ),
            (
                "replicas: 2",
                "consumption: Broadcasting\n  ordering: {mode: None}",
                "consumption Broadcasting needs",
            ),
            (
                "replicas: 2",
                "ordering: {mode: Some}",
                "expected one of `Key`, `Queue`, `None`",
            ),
            (
                "replicas: 2",
                "ordering: {unkeyed: Drop}",
                "expected `OneLane` or `Parallel`",
            ),
            (
                "replicas: 2",
                "ordering: {mode: None}\n  retry: {onExhausted: Block}",
                "retry.onExhausted Block needs",
            ),
            (
                "http: {port: 8080, path: /events}",
                "http: {port: 8080}, batch: {maxMessages: 2}}\n  ordering: {mode: None",
                "handler.batch.maxMessages above 1 needs",
            ),
            (
                "path: /events}",
                "path: /events}, batch: {maxMessages: 0}",
                "spec.handler.batch.maxMessages is 0",
            ),
            (
                "path: /events}",
                "path: /events}, batch: {maxMessages: 1025}",
                "spec.handler.batch.maxMessages is 1025",
            ),
            (
                "replicas: 2",
                "limits: {messages: 0}",
                "spec.limits.messages",
            ),
            ("replicas: 2", "limits: {span: 0}", "spec.limits.span"),
            ("replicas: 2", "limits: {bytes: 1Ki}", "spec.limits.bytes"),
            (
                "replicas: 2",
                "limits: {bytes: many}",
                "is not a number of bytes",
            ),
            (
                "replicas: 2",
                "suspend: {queues: [\"3\"]}",
                "spec.suspend.queues: \"3\"",
            ),
            (
                "replicas: 2",
                "suspend: {keys: [\"\"]}",
                "spec.suspend.keys",
            ),
            (
                "replicas: 2",
                "suspend: {every: true}",
                "unknown field `every`",
            ),
            (
                "replicas: 2",
                "redactKeys: perhaps",
                "spec.redactKeys: invalid type",
            ),
        ] {
            let error = parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(named), "{to}: {error}");
        }
    }
}
