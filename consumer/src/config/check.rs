//! The rules the API server checks for an OrderedConsumer in a cluster, for one that never was in one.

use crate::contract::spec::{
    Budget, ConsumerSpec, Consumption, Filter, Handler, KeyFrom, Limits, Mode, OnExhausted,
    Position, Rocketmq, Suspend,
};
use crate::message::QueueId;
use std::time::Duration;

/// Says what is wrong first, with the field, its value and what to write.
pub fn check(spec: &ConsumerSpec) -> Result<(), String> {
    endpoint(&spec.handler)?;
    check_but_handler(spec)
}

/// Where the handler is called.
fn endpoint(handler: &Handler) -> Result<(), String> {
    let (kind, port, socket) = match (&handler.http, &handler.grpc) {
        (Some(http), None) => ("http", http.port, &http.unix_socket),
        (None, Some(grpc)) => ("grpc", grpc.port, &grpc.unix_socket),
        (None, None) => {
            return Err("spec.handler has neither http nor grpc: say where the handler listens, such as http: {port: 8080} or grpc: {port: 8080}".into());
        }
        (Some(_), Some(_)) => {
            return Err(
                "spec.handler has http and grpc: a handler is called one way, take one of them out"
                    .into(),
            );
        }
    };
    if port.is_some() == socket.is_some() {
        return Err(format!(
            "spec.handler.{kind}: give exactly one of port and unixSocket"
        ));
    }
    if port == Some(0) {
        return Err(format!(
            "spec.handler.{kind}.port is 0: give the port the handler listens on"
        ));
    }
    let http = handler.http.as_ref();
    let paths = [
        ("path", http.map(|http| &http.path)),
        ("idlePath", http.and_then(|http| http.idle_path.as_ref())),
    ];
    for (field, path) in paths {
        if let Some(path) = path.filter(|path| !path.starts_with('/')) {
            return Err(format!(
                "spec.handler.http.{field} is {path:?}: it must begin with /"
            ));
        }
    }
    Ok(())
}

/// What is named of how RocketMQ lets us in.
fn secrets(rocketmq: &Rocketmq) -> Result<(), String> {
    let is_name = |text: &str, upper: bool| {
        let end = |c: char| c.is_ascii_alphanumeric() && (upper || !c.is_ascii_uppercase());
        let inside = |c: char| end(c) || "-.".contains(c);
        (1..=253).contains(&text.len())
            && text.chars().all(inside)
            && text.starts_with(end)
            && text.ends_with(end)
    };
    let tls = rocketmq.tls.as_ref();
    let secrets = [
        (
            "credentialsSecretRef",
            rocketmq.credentials_secret_ref.as_ref(),
        ),
        ("tls.caSecretRef", tls.map(|tls| &tls.ca_secret_ref)),
        (
            "tls.clientCertificateSecretRef",
            tls.and_then(|tls| tls.client_certificate_secret_ref.as_ref()),
        ),
    ];
    for (field, secret) in secrets {
        if let Some(secret) = secret.filter(|secret| !is_name(&secret.name, false)) {
            return Err(format!(
                "spec.rocketmq.{field}.name is {:?}: write the name of a Secret, of lower case letters, digits, - and . only",
                secret.name
            ));
        }
    }
    match tls.and_then(|tls| tls.server_name.as_ref()) {
        Some(name) if !is_name(name, true) => Err(format!(
            "spec.rocketmq.tls.serverName is {name:?}: write a DNS name that is in the certificates, such as rocketmq.mq.svc, without a port"
        )),
        _ => Ok(()),
    }
}

/// The same for a handler in this process, which has no endpoint.
pub fn check_but_handler(spec: &ConsumerSpec) -> Result<(), String> {
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
    secrets(&spec.rocketmq)?;
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
    if key.property.is_some() != (key.from == KeyFrom::Property) {
        return Err("spec.ordering.key.property must be set exactly when spec.ordering.key.from is Property".into());
    }
    if key.pointer.is_some() != (key.from == KeyFrom::JsonPointer) {
        return Err("spec.ordering.key.pointer must be set exactly when spec.ordering.key.from is JsonPointer".into());
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
    let batch = spec.handler.batch.max_messages;
    if !(1..=1024).contains(&batch) {
        return Err(format!(
            "spec.handler.batch.maxMessages is {batch}: it must be between 1 and 1024"
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
    budget(spec)?;
    filter(&spec.filter)?;
    limits(&spec.limits)?;
    suspend(&spec.suspend)?;
    together(spec)
}

fn budget(spec: &ConsumerSpec) -> Result<(), String> {
    let Budget { blocked, per } = &spec.retry.budget;
    let longest = Duration::from_secs(24 * 3600);
    if blocked.get() < Duration::from_secs(1) || blocked > per || per.get() > longest {
        return Err(format!(
            "spec.retry.budget is {blocked} per {per}: blocked must be at least 1s and at most per, per at most 24h"
        ));
    }
    Ok(())
}

fn filter(filter: &Filter) -> Result<(), String> {
    if !filter.tags.is_empty() && filter.sql.is_some() {
        return Err("spec.filter: give tags or sql, not both".into());
    }
    let wrong = |c: char| c.is_whitespace() || "|*".contains(c);
    if filter.tags.len() > 64 {
        return Err(format!(
            "spec.filter.tags has {} tags: at most 64; use sql",
            filter.tags.len()
        ));
    }
    for tag in &filter.tags {
        if tag.is_empty() || tag.len() > 127 || tag.contains(wrong) {
            return Err(format!(
                "spec.filter.tags: {tag:?} is not a tag: write one tag an entry, 1 to 127 characters without spaces, | and *"
            ));
        }
    }
    match &filter.sql {
        Some(sql) if sql.is_empty() || sql.len() > 4096 => Err(
            "spec.filter.sql must have 1 to 4096 characters; leave it out to consume all".into(),
        ),
        _ => Ok(()),
    }
}

fn limits(limits: &Limits) -> Result<(), String> {
    for (field, value, most) in [
        ("messages", limits.messages, 10_000_000),
        ("span", limits.span, 100_000_000),
    ] {
        if !(1..=most).contains(&value) {
            return Err(format!(
                "spec.limits.{field} is {value}: it must be between 1 and {most}"
            ));
        }
    }
    if limits.bytes.get() < 1 << 20 {
        return Err(format!(
            "spec.limits.bytes is {}: it must be at least 1Mi",
            limits.bytes
        ));
    }
    Ok(())
}

fn suspend(suspend: &Suspend) -> Result<(), String> {
    for queue in &suspend.queues {
        if queue.parse::<QueueId>().is_err() {
            return Err(format!(
                "spec.suspend.queues: {queue:?} is not a queue: write broker name/queue id, such as broker-a/3"
            ));
        }
    }
    if suspend.keys.iter().any(String::is_empty) {
        return Err("spec.suspend.keys has an empty key: take it out".into());
    }
    Ok(())
}

/// What cannot go together.
fn together(spec: &ConsumerSpec) -> Result<(), String> {
    if spec.ordering.mode != Mode::None {
        return Ok(());
    }
    let problem = if spec.consumption == Consumption::Broadcasting {
        "spec.consumption Broadcasting needs spec.ordering.mode Key or Queue: what is sent back to the broker would come to every pod again"
    } else if spec.retry.on_exhausted == OnExhausted::Block {
        "spec.retry.onExhausted Block needs spec.ordering.mode Key or Queue: in mode None messages wait at the broker"
    } else if spec.handler.batch.max_messages > 1 {
        "spec.handler.batch.maxMessages above 1 needs spec.ordering.mode Key or Queue: in mode None no two messages belong together"
    } else {
        return Ok(());
    };
    Err(problem.into())
}
