//! Loads that were announced: they are met whatever else is not known at that time.

use super::*;
use crate::simulate::{EPOCH, Scheduled};
use serde_json::{Value, json};

/// When the announced load begins, in seconds.
const START: u64 = 100;
/// A look at which it is near: a pod is believed to take 40 s to start.
const NEAR: u64 = 45;
/// What a pod is believed to do is 320 messages a second, of which four fifths are used: 256.
const ANNOUNCED: f64 = 2000.0;
const NEEDED: u32 = 8;

fn policy() -> Policy {
    let at = |second: u64| Duration::from_secs(EPOCH + second);
    Policy {
        max_lanes: 32,
        max_replicas: 24,
        schedules: vec![Window {
            start: at(START),
            end: at(START + 600),
            per_second: ANNOUNCED,
        }],
        ..Policy::default()
    }
}

/// A group with so many pods at a second: 24 queues with 240 messages a second in all, and 12 calls at once.
/// During an outage brokers say nothing.
fn look(second: u64, replicas: u32, outage: bool) -> Snapshot {
    let pod = |pod: u32| PodSample {
        incarnation: format!("pod-{pod}"),
        lanes: 16,
        busy_lanes: 12 / replicas,
        waiting_lanes: 0,
        busy_lane_seconds: second as f64 * 12.0 / f64::from(replicas),
        completed: second * 240 / u64::from(replicas),
        buffered: 0,
        uptime_seconds: 1000.0 + second as f64,
        cpu: None,
    };
    let queue = |id: u32| QueueSample {
        id: QueueId::new("b", id),
        max_offset: (!outage).then_some(second * 10),
        unfinished: (!outage).then_some(0),
        owner: Some((id % replicas) as usize),
    };
    Snapshot {
        now: Duration::from_secs(EPOCH + second),
        replicas,
        ready: replicas,
        queues: (0..24).map(queue).collect(),
        pods: (0..replicas).map(pod).collect(),
        ..Snapshot::default()
    }
}

/// What two pods have learned before the announced load is near.
fn before() -> History {
    let mut history = History::with_model(Model::given(0.05, 320.0, 40.0));
    for second in (0..NEAR).step_by(5) {
        let (decision, next) = decide(&look(second, 2, false), &policy(), &history);
        assert_eq!(decision.replicas, 2, "{}", decision.message);
        history = next;
    }
    history
}

/// An operator that starts with what its predecessor wrote, where something is known of the downstream.
fn restarted(history: &History, link: &Value) -> History {
    let mut written = serde_json::to_value(history).unwrap();
    if !link.is_null() {
        written["link"]["state"] = link.clone();
    }
    serde_json::from_value(written).unwrap()
}

fn met(decision: &Decision, pods: u32) {
    assert_eq!(decision.replicas, pods, "{}", decision.message);
    assert_eq!(decision.reason, Reason::Scheduled, "{}", decision.message);
    assert!(decision.message.contains("announced"));
}

#[test]
fn brokers_that_say_nothing_before_an_announced_load_do_not_keep_its_pods_away() {
    let (decision, next) = decide(&look(NEAR, 2, true), &policy(), &before());
    met(&decision, NEEDED);
    // Nothing else is asked for once they are there.
    let (decision, _) = decide(&look(NEAR + 5, NEEDED, true), &policy(), &next);
    assert_eq!(decision.replicas, NEEDED);
    assert_eq!(decision.reason, Reason::MetricsMissing);
    // Earlier it is too early.
    let soon = decide(&look(NEAR - 1, 2, true), &policy(), &before()).0;
    assert_eq!(soon.replicas, 2, "{}", soon.message);
}

#[test]
fn an_operator_that_starts_during_an_outage_knows_of_no_queue_and_meets_what_was_announced() {
    let mut silent = look(NEAR, 2, true);
    silent.queues.clear();
    let history = restarted(&before(), &Value::Null);
    met(&decide(&silent, &policy(), &history).0, NEEDED);
    // Also where no pod answers.
    silent.pods.clear();
    met(&decide(&silent, &policy(), &history).0, NEEDED);
}

#[test]
fn an_operator_that_has_seen_nothing_arrive_yet_meets_what_was_announced() {
    let history = History::with_model(Model::given(0.05, 320.0, 40.0));
    met(
        &decide(&look(NEAR, 2, false), &policy(), &history).0,
        NEEDED,
    );
}

#[test]
fn calls_that_are_slow_do_not_keep_the_pods_of_an_announced_load_away() {
    for link in [
        json!({"free": {"slow": 1}}),
        json!({"probing": {"call": 0.1, "rate": 240.0, "lanes": 16, "looks": 0}}),
    ] {
        let history = restarted(&before(), &link);
        assert!(history.link.suspicious());
        met(
            &decide(&look(NEAR, 2, false), &policy(), &history).0,
            NEEDED,
        );
    }
}

#[test]
fn a_downstream_that_is_the_limit_gets_no_pods_for_what_was_announced() {
    let bound = json!({"bound": {"most": 240.0, "next_try": 1e12, "trying": 0, "idle": 0}});
    let history = restarted(&before(), &bound);
    assert!(history.link.bound().is_some());
    for outage in [false, true] {
        let (decision, _) = decide(&look(NEAR, 2, outage), &policy(), &history);
        assert_eq!(decision.replicas, 2, "{}", decision.message);
        assert_ne!(decision.reason, Reason::Scheduled, "{}", decision.message);
    }
}

#[test]
fn what_was_announced_is_met_within_the_bounds_and_only_where_something_is_known_of_a_pod() {
    let few = Policy {
        max_replicas: 5,
        ..policy()
    };
    met(&decide(&look(NEAR, 2, true), &few, &before()).0, 5);
    let nothing = History::default();
    let (decision, _) = decide(&look(NEAR, 2, true), &policy(), &nothing);
    assert_eq!(decision.replicas, 2, "{}", decision.message);
    // Where pods are somebody else's it is only said.
    let advised = Policy {
        mode: Mode::Advise,
        ..policy()
    };
    let (decision, _) = decide(&look(NEAR, 2, true), &advised, &before());
    assert_eq!((decision.replicas, decision.advised), (2, NEEDED));
}

#[test]
fn an_outage_over_the_start_of_an_announced_load_delays_no_pod_of_it() {
    const BEGINS: u32 = 600;
    let sale = Trace {
        queues: 24,
        rate: (0..900)
            .map(|second| if second < BEGINS { 200.0 } else { ANNOUNCED })
            .collect(),
        metrics_outage: Some(Span { from: 400, to: 800 }),
        schedule: Some(Scheduled {
            from: BEGINS,
            to: 900,
            rate: ANNOUNCED,
        }),
        ..trace(0.0, 0.0)
    };
    for restarts in [None, Some(4)] {
        let (run, decisions) = play(&sale, 1, |setup| setup.restarts = restarts);
        let pods = pods(&run);
        assert!(pods[BEGINS as usize] >= 7, "{:?}", run.score);
        assert!(pods[400] <= 2, "{:?}", run.score);
        let scheduled = |decision: &Decision| decision.reason == Reason::Scheduled;
        assert!(decisions.iter().any(scheduled));
    }
}
