//! What the conditions of OrderedConsumers say, and what to do about it. Pure.

use super::Line;
use crate::controller::status::{
    BROKER_UNAVAILABLE, DOWNSTREAM_BOUND, GROUP_SHARED, HANDLER_UNAVAILABLE, HOT_KEY_BOUND,
    KEY_STUCK, METRICS_STALE, READY, SCALING_LIMITED, TEMPLATE_INVALID,
};
use crate::crd::{Mode, OrderedConsumer};
use crate::names;
use crate::plugin::{PluginError, suspend};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keylane_consumer::contract::spec::Consumption;
use kube::ResourceExt;

/// Conditions under which everything works, as far as it can.
const LIMITS: [&str; 3] = [SCALING_LIMITED, HOT_KEY_BOUND, DOWNSTREAM_BOUND];

/// A line for each thing worth one.
pub(super) fn check(found: Result<Vec<OrderedConsumer>, PluginError>) -> Vec<Line> {
    let consumers = match found {
        Ok(consumers) => consumers,
        Err(error) => return vec![Line::failed(error.to_string(), "")],
    };
    if consumers.is_empty() {
        return vec![Line::note(
            "there are none",
            "kubectl explain orderedconsumer.spec says what to write; -A looks into all namespaces",
        )];
    }
    consumers.iter().flat_map(about).collect()
}

fn about(consumer: &OrderedConsumer) -> Vec<Line> {
    let (namespace, name) = (
        consumer.namespace().unwrap_or_default(),
        consumer.name_any(),
    );
    let command = |words: &str| format!("kubectl keylane {words} {name} -n {namespace}");
    let of = |text: &str| format!("{namespace}/{name}: {text}");
    let status = consumer.status.as_ref();
    let conditions = status
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let mut lines = Vec::new();
    let Some(ready) = conditions.iter().find(|one| one.type_ == READY) else {
        return vec![Line::failed(
            of("no operator has looked at it"),
            "see what is said of the operator above",
        )];
    };
    let bad = |kind: &str| {
        conditions
            .iter()
            .any(|one| one.type_ == kind && one.status == "True")
    };
    match (ready.status.as_str(), ready.reason.as_str()) {
        ("True", _) => lines.push(Line::well(of(&ready.message))),
        (_, "ScaledToZero") => lines.push(Line::note(
            of(&ready.message),
            format!("kubectl -n {namespace} scale oc/{name} --replicas=1 starts it"),
        )),
        // The condition it names says it.
        (_, reason) if bad(reason) => {}
        (_, reason) => lines.push(Line::failed(
            of(&format!("{reason}: {}", ready.message)),
            format!("{} shows each pod and what keeps it", command("status")),
        )),
    }
    lines.extend(
        works(consumer, conditions)
            .into_iter()
            .map(|text| Line::well(of(&text))),
    );
    let generation = consumer.metadata.generation;
    if status.is_some_and(|status| status.observed_generation < generation) {
        lines.push(Line::note(
            of("the spec was changed, and no operator has looked at it since"),
            "check again in a few seconds",
        ));
    }
    let bad = conditions
        .iter()
        .filter(|one| one.type_ != READY && one.status == "True");
    for condition in bad {
        let text = of(&format!("{}: {}", condition.type_, condition.message));
        let hint = hint(&condition.type_, consumer, &namespace, &name);
        lines.push(if LIMITS.contains(&condition.type_.as_str()) {
            Line::note(text, command("explain"))
        } else {
            Line::failed(text, hint)
        });
    }
    for key in status.iter().flat_map(|status| &status.blocked_keys) {
        lines.push(Line::failed(
            of(&format!("{key} waits: its message has used up its attempts")),
            "let the handler take it, it is tried again once a minute; or set retry.onExhausted: DeadLetter",
        ));
    }
    let held = suspend::held(&consumer.spec.consumer.suspend);
    if !held.is_empty() {
        lines.push(Line::note(
            of(&format!("suspended: {}", held.join(", "))),
            format!("{} lets it go on", command("resume")),
        ));
    }
    lines
}

/// What was tried and works, in the order in which a newcomer gets it wrong.
fn works(consumer: &OrderedConsumer, conditions: &[Condition]) -> Vec<String> {
    let spec = &consumer.spec.consumer;
    let fine = |kind: &str| {
        conditions
            .iter()
            .any(|one| one.type_ == kind && one.status == "False")
    };
    let status = consumer.status.as_ref();
    let mut works = Vec::new();
    if let Some(queues) = status.and_then(|status| status.queues)
        && fine(BROKER_UNAVAILABLE)
    {
        works.push(format!(
            "name server {} and the brokers answer; topic {} has {queues} queues",
            spec.rocketmq.name_servers.join(", "),
            spec.topic
        ));
    }
    if let Some(most) = status.and_then(|status| most_pods(consumer, status.queues?)) {
        works.push(most);
    }
    if fine(GROUP_SHARED) {
        works.push(format!("nobody else is in group {}", spec.consumer_group));
    }
    // Pods are ready once their handlers answer.
    let ready = conditions
        .iter()
        .any(|one| one.type_ == READY && one.status == "True");
    if let Some(port) = spec
        .handler
        .port()
        .filter(|_| ready && fine(HANDLER_UNAVAILABLE))
    {
        works.push(format!("the handler takes calls on port {port}"));
    }
    works
}

/// That the topic has work for fewer pods than the spec allows or demands, if it is so.
fn most_pods(consumer: &OrderedConsumer, queues: u32) -> Option<String> {
    let autoscaling = &consumer.spec.autoscaling;
    let shared = consumer.spec.consumer.consumption == Consumption::Clustering;
    if !shared || autoscaling.mode != Mode::Auto {
        return None;
    }
    let few = |pods: i32| i64::from(pods) > i64::from(queues);
    if few(autoscaling.min_replicas) {
        return Some(format!(
            "the topic has {queues} queues, and pods without one have nothing to do: autoscaling.minReplicas is {}",
            autoscaling.min_replicas
        ));
    }
    few(autoscaling.max_replicas).then(|| {
        format!(
            "no more than {queues} pods are ever made, one for each queue of the topic: autoscaling.maxReplicas is {}",
            autoscaling.max_replicas
        )
    })
}

/// What to do, where the condition's own message does not say it.
fn hint(kind: &str, consumer: &OrderedConsumer, namespace: &str, name: &str) -> String {
    let spec = &consumer.spec.consumer;
    let logs = format!(
        "kubectl -n {namespace} logs -l {}={name} -c {} --prefix",
        names::NAME_LABEL,
        spec.handler.container
    );
    match kind {
        BROKER_UNAVAILABLE => format!(
            "does topic {} exist, and can the operator and the pods reach spec.rocketmq.nameServers ({})?",
            spec.topic,
            spec.rocketmq.name_servers.join(", ")
        ),
        HANDLER_UNAVAILABLE => format!("does it listen where spec.handler says? {logs}"),
        KEY_STUCK => format!(
            "{logs}; kubectl keylane suspend {name} -n {namespace} --key KEY holds back that key alone"
        ),
        METRICS_STALE => {
            format!("kubectl keylane status {name} -n {namespace} shows which pods are not ready")
        }
        TEMPLATE_INVALID => "correct spec.template; pods of the last right one stay".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::check::Level::{self, Failed, Note, Well};
    use serde_json::{Value, json};

    fn consumer(ready: (&str, &str), others: &[(&str, &str)]) -> Value {
        let condition = |kind: &str, status: &str, reason: &str| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": "so it is",
                "lastTransitionTime": "2026-11-11T00:00:00Z"
            })
        };
        let mut conditions = vec![condition(READY, ready.0, ready.1)];
        let others = others
            .iter()
            .map(|(kind, status)| condition(kind, status, kind));
        conditions.extend(others);
        json!({
            "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer",
            "metadata": {"name": "orders", "namespace": "shop", "generation": 1},
            "spec": {
                "rocketmq": {"nameServers": ["namesrv.mq:9876"]},
                "topic": "ORDERS", "consumerGroup": "orders",
                "handler": {"http": {"port": 8080}}, "template": {},
                "autoscaling": {"maxReplicas": 8}
            },
            "status": {"observedGeneration": 1, "conditions": conditions}
        })
    }

    fn levels(consumer: Value) -> Vec<Level> {
        let lines = check(Ok(vec![serde_json::from_value(consumer).unwrap()]));
        lines.iter().map(|line| line.level).collect()
    }

    #[test]
    fn what_is_broken_fails_what_is_at_its_limit_does_not() {
        let well = ("True", "AllPodsReady");
        assert_eq!(levels(consumer(well, &[(KEY_STUCK, "False")])), [Well]);
        assert_eq!(
            levels(consumer(well, &[(HOT_KEY_BOUND, "True")])),
            [Well, Note]
        );
        assert_eq!(
            levels(consumer(well, &[(BROKER_UNAVAILABLE, "True")])),
            [Well, Failed]
        );
        assert_eq!(levels(consumer(("False", "PodsNotReady"), &[])), [Failed]);
        assert_eq!(levels(consumer(("False", "ScaledToZero"), &[])), [Note]);
        // Ready repeats a reason that has a condition of its own: one line is enough.
        let invalid = consumer(("False", TEMPLATE_INVALID), &[(TEMPLATE_INVALID, "True")]);
        assert_eq!(levels(invalid), [Failed]);
    }

    #[test]
    fn what_was_not_looked_at_waits_or_is_suspended_is_said() {
        let mut fresh = consumer(("True", ""), &[]);
        fresh.as_object_mut().unwrap().remove("status");
        assert_eq!(levels(fresh), [Failed]);
        let mut late = consumer(("True", ""), &[]);
        late["metadata"]["generation"] = json!(2);
        assert_eq!(levels(late), [Well, Note]);
        let mut waits = consumer(("True", ""), &[]);
        waits["status"]["blockedKeys"] = json!(["k"]);
        waits["spec"]["suspend"] = json!({"all": true});
        assert_eq!(levels(waits), [Well, Failed, Note]);
        assert_eq!(check(Ok(vec![]))[0].level, Note);
    }

    #[test]
    fn what_was_tried_and_works_is_said_and_what_is_not_known_is_not() {
        let others = [BROKER_UNAVAILABLE, GROUP_SHARED, HANDLER_UNAVAILABLE];
        let fine: Vec<_> = others.iter().map(|kind| (*kind, "False")).collect();
        let mut object = consumer(("True", "AllPodsReady"), &fine);
        let said = |object: &Value| {
            let lines = check(Ok(vec![serde_json::from_value(object.clone()).unwrap()]));
            assert!(lines.iter().all(|line| line.level == Well), "{lines:?}");
            lines[1..]
                .iter()
                .map(|line| line.text.clone())
                .collect::<Vec<_>>()
        };
        let group = "shop/orders: nobody else is in group orders";
        let port = "shop/orders: the handler takes calls on port 8080";
        assert_eq!(said(&object), [group, port]);
        object["status"]["queues"] = json!(8);
        let topic = "shop/orders: name server namesrv.mq:9876 and the brokers answer; topic ORDERS has 8 queues";
        assert_eq!(said(&object), [topic, group, port]);
        object["spec"]["autoscaling"]["maxReplicas"] = json!(9);
        let most = "shop/orders: no more than 8 pods are ever made, one for each queue of the topic: autoscaling.maxReplicas is 9";
        assert_eq!(said(&object), [topic, most, group, port]);
        object["spec"]["autoscaling"]["minReplicas"] = json!(9);
        let least = "shop/orders: the topic has 8 queues, and pods without one have nothing to do: autoscaling.minReplicas is 9";
        assert_eq!(said(&object), [topic, least, group, port]);
        let mut none = consumer(("False", "ScaledToZero"), &fine);
        none["status"]["queues"] = json!(8);
        let lines = check(Ok(vec![serde_json::from_value(none).unwrap()]));
        assert!(!lines.iter().any(|line| line.text.contains("takes calls")));
    }

    #[test]
    fn the_hint_names_the_consumers_own_things() {
        let object = consumer(
            ("True", ""),
            &[(BROKER_UNAVAILABLE, "True"), (KEY_STUCK, "True")],
        );
        let lines = check(Ok(vec![serde_json::from_value(object).unwrap()]));
        let hints: Vec<_> = lines
            .iter()
            .filter_map(|line| line.hint.as_deref())
            .collect();
        assert!(hints[0].contains("topic ORDERS") && hints[0].contains("namesrv.mq:9876"));
        assert!(hints[1].contains("-l keylane.dev/ordered-consumer=orders -c handler"));
    }
}
