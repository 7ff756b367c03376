use super::*;
use crate::live::PodStats;
use crate::plugin::Paint;
use keylane_consumer::contract::admin::{LaneTarget, QueuePhase, QueueStats, Stats};
use serde_json::{Value, json};

fn condition(kind: &str, status: &str, message: &str) -> Value {
    let reason = if kind == "Ready" {
        "PodsNotReady"
    } else {
        kind
    };
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-11-11T00:00:00Z"
    })
}

fn consumer() -> Value {
    json!({
        "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer",
        "metadata": {"name": "order-status", "namespace": "shop", "generation": 3},
        "spec": {
            "rocketmq": {"nameServers": ["namesrv.mq:9876"]},
            "topic": "ORDER_STATUS", "consumerGroup": "order-status",
            "handler": {"http": {"port": 8080}}, "replicas": 4, "template": {}
        },
        "status": {
            "observedGeneration": 3, "replicas": 4, "readyReplicas": 3, "lanes": 8, "queues": 8,
            "lag": {"messages": 2300, "unfinished": 2184, "oldest": "12s", "drainedIn": "6s"},
            "rates": {"arriving": "1000.0", "completed": "1409.6"},
            "decision": {
                "lanes": 8, "replicas": 4, "reason": "Steady", "message": "8 lanes a pod, 4 pods: it fits",
                "inputs": {"busyLanes": "12.3"}, "history": "{}"
            },
            "hotKeys": [
                {"key": "order-7", "queue": "broker-a/2", "perSecond": "71.3", "waiting": "1m10s"}
            ],
            "stuckKeys": [{
                "key": "order-8", "queue": "broker-a/3", "offset": 17, "stuckFor": "2m", "attempts": 1,
                "lastError": "status 500"
            }],
            "blockedKeys": ["order-9 (broker-a/1)"],
            "offsetsReset": {
                "id": "a", "to": "earliest", "phase": "Pending", "queuesDone": 1, "skipped": 0, "replayed": 7
            },
            "conditions": [
                condition("Ready", "False", "3 of 4 pods are ready"),
                condition("BrokerUnavailable", "False", "the brokers answer"),
                condition("ScalingLimited", "True", "more than 4 pods are wanted"),
                condition("KeyStuck", "True", "the first message of key \"order-8\" is not finished"),
                condition("MetricsStale", "False", "figures are fresh")
            ]
        }
    })
}

fn pod(name: &str, ready: bool) -> Value {
    let state = if ready {
        json!({"running": {}})
    } else {
        json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
    };
    json!({
        "metadata": {"name": name, "creationTimestamp": "2026-11-11T00:00:00Z"},
        "spec": {
            "nodeName": "node-1",
            "initContainers": [
                {"name": "handler", "restartPolicy": "Always"}, {"name": "once"}
            ],
            "containers": [{"name": "executor"}]
        },
        "status": {
            "phase": "Running",
            "initContainerStatuses": [
                {"name": "once", "ready": true, "restartCount": 7, "image": "", "imageID": ""},
                {"name": "handler", "ready": ready, "restartCount": 1, "image": "", "imageID": "", "state": state}
            ],
            "containerStatuses": [
                {"name": "executor", "ready": true, "restartCount": 0, "image": "", "imageID": ""}
            ]
        }
    })
}

/// What one of the pods says of itself.
fn live() -> ConsumerStats {
    let queue = |phase, retry| QueueStats {
        phase,
        retry,
        ..QueueStats::default()
    };
    let stats = Stats {
        busy_lanes: 7,
        lanes: LaneTarget {
            lanes: 8,
            ..LaneTarget::default()
        },
        queues: vec![
            queue(QueuePhase::Owned, false),
            queue(QueuePhase::Owned, false),
            queue(QueuePhase::Owned, true),
            queue(QueuePhase::Waiting, false),
        ],
        ..Stats::default()
    };
    let pod = PodStats {
        name: "a".into(),
        stats: Some(stats),
        error: None,
    };
    ConsumerStats::new("shop", "order-status", vec![pod])
}

fn told(consumer: Value, pods: &[Value]) -> Report {
    let pods: Vec<Pod> = pods
        .iter()
        .map(|pod| serde_json::from_value(pod.clone()).unwrap())
        .collect();
    let now = "2026-11-11T00:02:27Z".parse().unwrap();
    let consumer = serde_json::from_value(consumer).unwrap();
    report(&consumer, Some(&pods), Some(&live()), now)
}

#[test]
fn the_tree_has_load_size_pods_keys_decision_and_conditions() {
    let report = told(consumer(), &[pod("b", false), pod("a", true)]);
    assert_eq!(
        text(&report, Paint::PLAIN),
        "\
OrderedConsumer shop/order-status  PodsNotReady: 3 of 4 pods are ready
├─ topic ORDER_STATUS (8 queues), group order-status, ordering Key, Clustering
├─ load
│  ├─ lag: 2184 messages not finished (the oldest for 12s), 2300 after the committed offsets
│  ├─ rates: 1000.0/s arrive, 1409.6/s are finished
│  └─ at these rates the backlog is gone in about 6s
├─ size (autoscaling Auto)
│  ├─ pods: 4 wanted, 4 there, 3 ready (autoscaling allows 1 to 10)
│  └─ lanes: 8 a pod, 12.3 busy over all pods (4 to 512 allowed)
├─ pods
│  ├─ a  Running, 2/2 containers ready, 1 restart, 2m27s old, on node-1; 2 queues, 7 of 8 lanes busy
│  └─ b  Running, 1/2 containers ready, 1 restart, 2m27s old, on node-1
│     └─ handler: ImagePullBackOff no such image
├─ keys
│  ├─ KeyStuck: the first message of key \"order-8\" is not finished (for 2m27s)
│  ├─ hot: \"order-7\" (broker-a/2) gets 71.3/s and has 1m10s of work waiting
│  ├─ stuck: \"order-8\" (broker-a/3 at 17) for 2m, 1 failed attempt: status 500
│  └─ order-9 (broker-a/1) waits for a person: its message has used up its attempts (retry.onExhausted is Block)
├─ offsets reset to earliest (a): Pending, 1 queue done, 0 offsets skipped, 7 consumed again
├─ last decision: Steady
│  └─ 8 lanes a pod, 4 pods: it fits
└─ conditions
   ├─ ScalingLimited: more than 4 pods are wanted (for 2m27s)
   └─ 2 others as they should be (-o yaml shows them)
"
    );
}

#[test]
fn what_nobody_has_looked_at_is_said_to_be_unseen_and_has_no_figures() {
    let mut fresh = consumer();
    fresh.as_object_mut().unwrap().remove("status");
    let text = text(&told(fresh, &[]), Paint::PLAIN);
    for part in [
        "Unseen: no operator",
        "lag: unknown",
        "lanes: unknown",
        "pods: none",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("conditions"), "{text}");
}

#[test]
fn what_is_suspended_or_out_of_date_is_said() {
    let mut held = consumer();
    held["metadata"]["generation"] = json!(4);
    held["spec"]["suspend"] = json!({"all": true, "queues": ["broker-a/3"], "keys": ["order-7"]});
    held["status"]["conditions"][0] = condition("Ready", "True", "4 of 4 pods are ready");
    let text = text(&told(held, &[]), Paint::PLAIN);
    assert!(text.contains("Suspended: nothing is handed"), "{text}");
    assert!(
        text.contains("suspended: everything, queue broker-a/3, key \"order-7\""),
        "{text}"
    );
    assert!(text.contains("the spec was changed"), "{text}");
}

#[test]
fn programs_get_the_same_without_the_controllers_memory() {
    let json = serde_json::to_value(told(consumer(), &[pod("a", true)])).unwrap();
    assert_eq!(json["size"]["ready"], 3);
    assert_eq!(json["pods"][0]["containers"], 2);
    assert_eq!(json["decision"]["reason"], "Steady");
    assert_eq!(json["decision"].get("history"), None);
}
