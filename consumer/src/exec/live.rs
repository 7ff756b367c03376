//! From the spec to what the core obeys, and what of it can change while the executor runs. Pure.

use crate::contract::CANCEL_GRACE_SECONDS;
use crate::contract::spec::{self, ConsumerSpec, LIVE_FIELDS, Mode, OnExhausted, Unkeyed};
use crate::lane::{
    Backoff, Budget, Incoming, Limits, OnFailure, Place, RetryPolicy, Settings, Suspension,
};
use crate::message::Message;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Finds the key of a message, and where it belongs in this mode.
#[derive(Clone, Debug)]
pub struct Placing(spec::Ordering);

impl Placing {
    pub fn new(ordering: &spec::Ordering) -> Self {
        Self(ordering.clone())
    }

    pub fn incoming(&self, mut message: Message) -> Incoming {
        message.key = message.find_key(&self.0.key);
        let place = match (self.0.mode, self.0.unkeyed) {
            (Mode::Key, _) if message.key.is_some() => Place::Key,
            (Mode::Key, Unkeyed::OneLane) | (Mode::Queue, _) => Place::Shared,
            (Mode::Key, Unkeyed::Parallel) | (Mode::None, _) => Place::Own,
        };
        Incoming {
            place,
            message: Arc::new(message),
        }
    }
}

/// The call bound B: how long after it was sent a call may run.
pub fn call_bound(spec: &ConsumerSpec) -> Duration {
    spec.handler.timeout.get() + Duration::from_secs(CANCEL_GRACE_SECONDS)
}

/// What the core is started with.
pub fn settings(spec: &ConsumerSpec, lanes: u32) -> Settings {
    Settings {
        retry: retry(&spec.retry),
        on_failure: match spec.ordering.mode {
            Mode::None => OnFailure::SendBack,
            Mode::Key | Mode::Queue => OnFailure::InPlace,
        },
        batch: spec.handler.batch.max_messages,
        limits: limits(&spec.limits),
        timeout: spec.handler.timeout.get(),
        cancel_grace: Duration::from_secs(CANCEL_GRACE_SECONDS),
        lanes,
    }
}

pub fn retry(retry: &spec::Retry) -> RetryPolicy {
    RetryPolicy {
        max_attempts: retry.max_attempts,
        backoff: Backoff {
            initial: retry.backoff.initial.get(),
            factor: retry.backoff.factor,
            max: retry.backoff.max.get(),
            jitter_percent: retry.backoff.jitter_percent,
        },
        budget: Some(Budget {
            blocked: retry.budget.blocked.get(),
            per: retry.budget.per.get(),
        }),
        on_exhausted: match retry.on_exhausted {
            OnExhausted::DeadLetter => crate::lane::OnExhausted::DeadLetter,
            OnExhausted::Block => crate::lane::OnExhausted::Block,
        },
    }
}

/// The limits of the spec; how much one pull asks for is ours to say.
pub fn limits(limits: &spec::Limits) -> Limits {
    Limits {
        messages: limits.messages,
        bytes: limits.bytes.get(),
        span: limits.span,
        ..Limits::default()
    }
}

/// What is suspended; entries that name no queue were refused when the document was read.
pub fn suspension(suspend: &spec::Suspend) -> Suspension {
    Suspension {
        all: suspend.all,
        queues: suspend
            .queues
            .iter()
            .filter_map(|queue| queue.parse().ok())
            .collect(),
        keys: suspend.keys.iter().cloned().collect(),
    }
}

/// Names of the fields that differ and that a running executor cannot take over.
pub fn need_restart(before: &ConsumerSpec, after: &ConsumerSpec) -> Vec<String> {
    let fields = |spec| match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (before, after) = (fields(before), fields(after));
    before
        .iter()
        .filter(|(name, value)| {
            // The operator sets lanes; their bounds are its business.
            after.get(*name) != Some(value)
                && *name != "lanes"
                && !LIVE_FIELDS.contains(&name.as_str())
        })
        .map(|(name, _)| name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::path::Path;

    fn spec(more: &str) -> ConsumerSpec {
        let text = format!(
            "{{apiVersion: keylane.dev/v1alpha1, kind: OrderedConsumer, metadata: {{name: n}}, spec: {{rocketmq: \
             {{nameServers: [\"n:1\"]}}, topic: T, consumerGroup: G, handler: {{http: {{port: 80}}}}{more}}}}}"
        );
        Config::parse(&text, Path::new("x")).unwrap().spec().clone()
    }

    #[test]
    fn the_mode_says_where_a_message_belongs() {
        let keyed = Message {
            properties: [("KEYS", "k")].into_iter().collect(),
            ..Message::default()
        };
        let bare = Message::default();
        for (ordering, with_key, without) in [
            ("{mode: Key}", Place::Key, Place::Shared),
            ("{mode: Key, unkeyed: Parallel}", Place::Key, Place::Own),
            ("{mode: Queue}", Place::Shared, Place::Shared),
            ("{mode: None}", Place::Own, Place::Own),
        ] {
            let placing = Placing::new(&spec(&format!(", ordering: {ordering}")).ordering);
            let incoming = placing.incoming(keyed.clone());
            assert_eq!(incoming.place, with_key, "{ordering}");
            assert_eq!(incoming.message.key.as_deref(), Some("k"));
            let incoming = placing.incoming(bare.clone());
            assert_eq!(incoming.place, without, "{ordering}");
        }
    }

    #[test]
    fn the_defaults_of_the_spec_and_of_the_core_agree() {
        let spec = spec("");
        assert_eq!(retry(&spec.retry), RetryPolicy::default());
        assert_eq!(limits(&spec.limits), Limits::default());
        assert_eq!(suspension(&spec.suspend), Suspension::default());
    }

    #[test]
    fn only_what_cannot_change_in_a_running_process_asks_for_a_restart() {
        let before = spec("");
        let live = spec(
            ", retry: {maxAttempts: 3}, limits: {span: 9}, suspend: {queues: [b/1], keys: [k]}, redactKeys: true, \
             lanes: {max: 9}",
        );
        assert_eq!(need_restart(&before, &live), [""; 0]);
        let suspended = suspension(&live.suspend);
        assert_eq!((suspended.queues.len(), suspended.keys.len()), (1, 1));
        let other = spec(", drain: {timeout: 9s}, ordering: {mode: Queue}");
        assert_eq!(need_restart(&before, &other), ["drain", "ordering"]);
    }
}
