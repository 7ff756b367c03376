//! The configuration file: an `OrderedConsumer` document, as a user writes it or as the operator renders
//! it. What concerns pods only (replicas, autoscaling, executor, template) is ignored here; a field that
//! nobody knows is an error.

use crate::contract::spec::{ConsumerSpec, Position};
use crate::contract::{API_VERSION, KIND};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Fields of `spec` that are the operator's.
const FOR_THE_OPERATOR: [&str; 4] = ["replicas", "autoscaling", "executor", "template"];
const FOR_THE_EXECUTOR: [&str; 9] = [
    "rocketmq",
    "topic",
    "consumerGroup",
    "startFrom",
    "ordering",
    "handler",
    "lanes",
    "retry",
    "drain",
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
    let spec: ConsumerSpec =
        serde_json::from_value(spec).map_err(|error| format!("spec: {error}"))?;
    check(&spec)?;
    Ok(Config {
        name: metadata.name,
        spec,
    })
}

/// The rules the API server checks for an OrderedConsumer in a cluster, for one that never was in one.
fn check(spec: &ConsumerSpec) -> Result<(), String> {
    let servers = &spec.rocketmq.name_servers;
    if servers.is_empty() {
        return Err("spec.rocketmq.nameServers is empty: give at least one host:port".into());
    }
    for server in servers {
        let port = server
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty())
            .map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            return Err(format!(
                "spec.rocketmq.nameServers: {server:?} is not host:port"
            ));
        }
    }
    let name = |field: &str, value: &str, longest: usize| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "%|_-".contains(c);
        if value.is_empty() || value.len() > longest || !value.chars().all(allowed) {
            return Err(format!(
                "spec.{field} is {value:?}: it must have 1 to {longest} characters of letters, digits, %, |, _ and -"
            ));
        }
        Ok(())
    };
    name("topic", &spec.topic, 127)?;
    name("consumerGroup", &spec.consumer_group, 119)?;
    if spec.start_from.timestamp.is_some() != (spec.start_from.position == Position::Timestamp) {
        return Err("spec.startFrom.timestamp must be set exactly when spec.startFrom.position is Timestamp".into());
    }
    let key = &spec.ordering.key;
    use crate::contract::spec::KeyFrom;
    if key.property.is_some() != (key.from == KeyFrom::Property) {
        return Err("spec.ordering.key.property must be set exactly when spec.ordering.key.from is Property".into());
    }
    if key.pointer.is_some() != (key.from == KeyFrom::JsonPointer) {
        return Err("spec.ordering.key.pointer must be set exactly when spec.ordering.key.from is JsonPointer".into());
    }
    if spec.handler.http.port == 0 {
        return Err("spec.handler.http.port is 0: give the port the handler listens on".into());
    }
    if !spec.handler.http.path.starts_with('/') {
        return Err(format!(
            "spec.handler.http.path is {:?}: it must begin with /",
            spec.handler.http.path
        ));
    }
    if spec.lanes.min == 0 || spec.lanes.min > spec.lanes.max || spec.lanes.max > 10_000 {
        let (min, max) = (spec.lanes.min, spec.lanes.max);
        return Err(format!(
            "spec.lanes is {min} to {max}: min must be at least 1 and at most max, max at most 10000"
        ));
    }
    if spec.retry.max_attempts == 0 {
        return Err("spec.retry.maxAttempts is 0: it must be at least 1".into());
    }
    let backoff = &spec.retry.backoff;
    if backoff.initial.get().is_zero()
        || backoff.initial > backoff.max
        || !(1..=10).contains(&backoff.factor)
    {
        return Err(format!(
            "spec.retry.backoff: initial {} must be at least 1ms and at most max {}, factor {} from 1 to 10",
            backoff.initial, backoff.max, backoff.factor
        ));
    }
    if backoff.jitter_percent > 100 {
        return Err(format!(
            "spec.retry.backoff.jitterPercent is {}: at most 100",
            backoff.jitter_percent
        ));
    }
    for (field, value, least) in [
        ("handler.timeout", spec.handler.timeout, 10),
        ("drain.timeout", spec.drain.timeout, 1_000),
    ] {
        let millis = value.get().as_millis();
        if millis < least || millis > 3_600_000 {
            return Err(format!(
                "spec.{field} is {value}: it must be between {least}ms and 1h"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("port: 8080", "port: 99999", "99999"),
            ("path: /events", "path: events", "handler.http.path"),
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
        ] {
            let error = parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(named), "{to}: {error}");
        }
    }
}
