use super::*;
use crate::plugin::Paint;
use crate::scale::Recorded;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn consumer() -> Value {
    json!({
        "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer",
        "metadata": {"name": "order-status", "namespace": "shop"},
        "spec": {
            "rocketmq": {"nameServers": ["namesrv.mq:9876"]},
            "topic": "ORDER_STATUS", "consumerGroup": "order-status",
            "handler": {"http": {"port": 8080}}, "replicas": 4, "template": {},
            "autoscaling": {"minReplicas": 2, "maxReplicas": 32}
        },
        "status": {
            "replicas": 4, "readyReplicas": 4, "lanes": 8, "queues": 8,
            "lag": {"messages": 2300, "unfinished": 2000},
            "rates": {"arriving": "1000.0", "completed": "1400.0"},
            "decision": {
                "lanes": 8, "replicas": 4, "reason": "Steady", "message": "it fits",
                "inputs": {
                    "expectedRate": "1100.0", "serviceMilliseconds": "10.0",
                    "podCapacity": "500.0", "startSeconds": "10.0"
                }
            },
            "conditions": [{
                "type": "DownstreamBound", "status": "True", "reason": "DownstreamBound",
                "message": "something behind the handler is the limit",
                "lastTransitionTime": "2026-11-11T00:00:00Z"
            }]
        }
    })
}

fn explained(consumer: Value) -> String {
    let consumer = serde_json::from_value(consumer).unwrap();
    text(&explain(&consumer), Paint::PLAIN)
}

#[test]
fn the_rules_are_told_with_the_numbers_of_the_decision() {
    let text = explained(consumer());
    for part in [
        "shop/order-status: 8 lanes a pod, 4 pods (Steady)",
        "decided: it fits",
        // (1000 + 2000 / 20) / 4 x 0.01 / 0.8 = 3.4
        "(1000.0/s that arrive + 2000 unfinished / 20 s) / 4 pods x 10.0 ms / 0.8 = 4\n",
        "2 to 8 are possible (the topic has 8 queues)",
        // 2000 + 1050 x 10 s - 4 x 500 x 10 s is nothing: 1100 / 400 = 2.75.
        "1100.0/s expected in 10 s + 0.0/s for 0 messages left then = 1100.0/s; / (80 % of 500.0/s that a pod can do) = 3\n",
        "more lanes: when the busiest pod has to finish more than 640.0/s",
        // Fewer than 6 of 8 would do: those 5 carry 5 x 0.8 / 0.01.
        "fewer lanes: when it has to finish no more than 400.0/s",
        "more pods: when more than 1800.0/s are expected",
        "fewer pods: when no more than 975.0/s (65 % of what 3 pods can do) have arrived for 11m",
        "DownstreamBound: something behind the handler is the limit",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn bounds_modes_and_what_is_not_known_are_named() {
    let with = |path: &str, value: Value| {
        let mut consumer = consumer();
        *consumer.pointer_mut(path).unwrap() = value;
        explained(consumer)
    };
    let most = with("/spec/replicas", json!(8));
    assert!(
        most.contains("the topic has 8 queues, and a pod without one"),
        "{most}"
    );
    let least = with("/spec/replicas", json!(2));
    assert!(
        least.contains("fewer pods: autoscaling.minReplicas is 2"),
        "{least}"
    );
    let bound = with(
        "/spec/autoscaling",
        json!({"minReplicas": 4, "maxReplicas": 4}),
    );
    assert!(bound.contains("= 3, within the bounds 4"), "{bound}");
    assert!(
        bound.contains("autoscaling.maxReplicas is 4, raise it"),
        "{bound}"
    );
    // More pods would finish no more, so raising their maximum is not what helps.
    let mut limited = consumer();
    limited["spec"]["autoscaling"] = json!({"minReplicas": 4, "maxReplicas": 4});
    let state = json!({"bound": {"most": 900.0, "next_try": 0.0, "trying": 0, "idle": 0}});
    let history = json!({"at": 1000.0, "link": {"state": state}});
    limited["status"]["decision"]["history"] = json!(history.to_string());
    let limited = explained(limited);
    assert!(
        limited.contains("more pods: something behind the handler is the limit")
            && limited.contains("more lanes: something behind the handler is the limit")
            && !limited.contains("raise it"),
        "{limited}"
    );
    let mut all = consumer();
    all["spec"]["consumption"] = json!("Broadcasting");
    let all = explained(all);
    assert!(
        all.contains("each pod gets all messages") && !all.contains("more pods:"),
        "{all}"
    );
    let held = with("/spec/autoscaling", json!({"mode": "Hold"}));
    assert!(
        held.contains("autoscaling.mode is Hold") && !held.contains("more pods"),
        "{held}"
    );
    let stopped = with("/spec/replicas", json!(0));
    assert!(
        stopped.contains("kubectl scale oc/order-status --replicas=1"),
        "{stopped}"
    );
    let few = with("/status/decision/lanes", json!(5));
    assert!(few.contains("fewer lanes: lanes.min is 4"), "{few}");
    let learning = with("/status/decision/inputs", json!({}));
    assert!(
        learning.contains("how long a call takes is not known yet"),
        "{learning}"
    );
    assert!(
        learning.contains("fewer pods: only once it was seen"),
        "{learning}"
    );
    let model = json!({
        "service": 0.01, "completions": 500.0, "watched": 60.0, "shown": 0.0, "capacity": 400.0,
        "seen": true, "starts": [10.0]
    });
    let mut full = consumer();
    full["status"]["decision"]["history"] = json!(json!({"model": model}).to_string());
    let full = explained(full);
    assert!(
        full.contains("gained nothing beyond 5: no more are given"),
        "{full}"
    );
    assert!(
        full.contains("more lanes: a pod gained nothing beyond 5; more CPU"),
        "{full}"
    );
    let bound = with("/status/decision/reason", json!("DownstreamBound"));
    assert!(
        bound.contains("instead of the rule, pods share the lanes"),
        "{bound}"
    );
    let fresh = with("/status", json!({}));
    assert!(fresh.contains("nothing is decided yet"), "{fresh}");
}

#[test]
fn the_bound_that_limits_is_named() {
    let with = |changes: &[(&str, Value)]| {
        let mut consumer = consumer();
        for (path, value) in changes {
            *consumer.pointer_mut(path).unwrap() = value.clone();
        }
        explained(consumer)
    };
    let bounds = |min: u32, max: u32| {
        let bounds = json!({"minReplicas": min, "maxReplicas": max});
        ("/spec/autoscaling", bounds)
    };
    let few = ("/status/rates/arriving", json!("100.0"));
    for (changes, part) in [
        (
            vec![bounds(4, 8)],
            "= 3, within the bounds 4 (autoscaling.minReplicas)",
        ),
        (
            vec![bounds(1, 2)],
            "= 3, within the bounds 2 (autoscaling.maxReplicas)",
        ),
        (
            vec![("/status/queues", json!(2))],
            "= 3, within the bounds 2 (the topic's queues)",
        ),
        // (100 + 2000 / 20) / 4 x 0.01 / 0.8 is less than one.
        (vec![few], "= 1, within the bounds 4 (lanes.min)"),
        (
            vec![("/spec/replicas", json!(8)), bounds(2, 8)],
            "autoscaling.maxReplicas is 8, and the topic has 8 queues; raise both",
        ),
    ] {
        let text = with(&changes);
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_mode_that_changes_nothing_is_told_with_what_auto_would_have() {
    for mode in ["Advise", "Hold"] {
        let mut advised = consumer();
        advised["spec"]["autoscaling"] = json!({"mode": mode});
        advised["status"]["decision"]["advisedReplicas"] = json!(6);
        advised["status"]["decision"]["advisedLanes"] = json!(16);
        let advised = explained(advised);
        for part in [
            format!("it has 8 and keeps them: autoscaling.mode is {mode}"),
            format!("rule of mode Auto, not followed in {mode}: the fewest pods"),
            "nothing is changed; Auto would have 6 pods with 16 lanes a pod".to_owned(),
        ] {
            assert!(advised.contains(&part), "{part}: {advised}");
        }
        let mut learning = consumer();
        learning["spec"]["autoscaling"] = json!({"mode": mode});
        learning["status"]["decision"]["inputs"] = json!({});
        let learning = explained(learning);
        assert!(learning.contains("it has 8 and keeps them"), "{learning}");
    }
    let mut alone = consumer();
    alone["spec"]["autoscaling"] = json!({"mode": "LanesOnly"});
    let alone = explained(alone);
    for part in [
        "it has 8: more at once when more are needed",
        "not followed in LanesOnly",
        "spec.replicas (4) is yours; Auto would have 4 pods",
    ] {
        assert!(alone.contains(part), "{part}: {alone}");
    }
    let mut blind = consumer();
    blind["spec"]["autoscaling"] = json!({"fallback": {"replicas": 3}});
    blind["status"]["decision"]["inputs"] = json!({});
    let blind = explained(blind);
    assert!(
        blind.contains("at least 3 pods (autoscaling.fallback)"),
        "{blind}"
    );
}

#[test]
fn what_keeps_pods_from_following_the_rule_is_told() {
    let mut braked = consumer();
    braked["status"]["lag"]["unfinished"] = json!(90_000);
    let free = explained(braked.clone());
    // Within the 30 s of maxMessageAge: (80500 - 10000) / 30.
    assert!(
        free.contains("2350.0/s for 80500 messages left then"),
        "{free}"
    );
    let history = json!({
        "at": 1000.0,
        "link": {"rememberedUntil": 1300.0},
        "calm": {"noUpBefore": 1147.0},
        "change": {"at": 990.0, "from": 1, "to": 4, "before": null, "arrived": null}
    });
    braked["status"]["decision"]["history"] = json!(history.to_string());
    let braked = explained(braked);
    for part in [
        "0.0/s for 80500 messages left then",
        "so it asks for none for another 5m",
        "the step from 1 to 4 pods is still under way",
        "none are added for another 2m27s",
    ] {
        assert!(braked.contains(part), "{part}: {braked}");
    }
    assert!(!braked.contains("calls are slower"), "{braked}");
}

#[test]
fn a_kept_decision_comes_out_the_same_and_a_changed_one_does_not() {
    let honest = Recorded::example(1_700_000_000, 8);
    let changed = Recorded {
        replicas: 2,
        ..honest.clone()
    };
    let json = |recorded: &Recorded| serde_json::to_string(recorded).unwrap();
    let data = BTreeMap::from([
        ("1".to_owned(), json(&honest)),
        ("2".to_owned(), json(&changed)),
        ("3".to_owned(), "{}".to_owned()),
    ]);
    let replayed = replay::replay(&data);
    assert!(!replay::all_same(&replayed) && replay::all_same(&replayed[..1]));
    let text = replay::tree(&replayed, Paint::PLAIN).to_string();
    for part in [
        "replay: 1 of 3 come out the same",
        "1  Learning: the same",
        "2  Learning: differs",
        "then: pods 1 -> 2, ",
        "now: pods 1 -> 3, ",
        "3  cannot be read",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        replay::tree(&[], Paint::PLAIN)
            .to_string()
            .contains("no decision is kept yet")
    );
}
