use super::*;
use crate::scale::Stale;

fn condition<'s>(status: &'s OrderedConsumerStatus, kind: &str) -> &'s Condition {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .unwrap()
}

#[test]
fn what_is_not_known_is_absent() {
    let found = Findings {
        replicas: 1,
        ..Findings::default()
    };
    let (status, _) = status(
        Timestamp::UNIX_EPOCH,
        &OrderedConsumerStatus::default(),
        &found,
    );
    let json = serde_json::to_value(&status).unwrap();
    for field in ["lag", "lanes", "rates", "queues", "decision", "replicas"] {
        assert!(json.get(field).is_none(), "{field}");
    }
}

#[test]
fn each_limit_is_a_condition_whose_text_does_not_change_with_every_figure() {
    let snapshot = crate::scale::Snapshot::default();
    let (mut decision, history) = crate::scale::decide(
        &snapshot,
        &crate::scale::Policy::default(),
        &crate::scale::History::default(),
    );
    let hot = |per_second, waiting_seconds| {
        vec![HotKey {
            key: "order-7".into(),
            queue: "broker-a/3".into(),
            per_second,
            waiting_seconds,
        }]
    };
    let stale = |seconds| Stale {
        brokers: None,
        pods: Some(seconds),
    };
    decision.limits = Limits {
        scaling: Some(40),
        heavy_queue: None,
        hot_keys: hot(71.3, 10.0),
        stuck_key: Some("order-8".into()),
        downstream: Some(1000.0),
        stale: Some(stale(61.0)),
    };
    let mut found = Findings {
        history: Some(history),
        decision: Some(decision),
        ..Findings::default()
    };
    let last = OrderedConsumerStatus::default();
    let (limited, events) = status(Timestamp::UNIX_EPOCH, &last, &found);
    for (kind, part) in [
        (SCALING_LIMITED, "maxReplicas"),
        (HOT_KEY_BOUND, "order-7"),
        (DOWNSTREAM_BOUND, "behind the handler"),
        (KEY_STUCK, "order-8"),
        (METRICS_STALE, "pods that are ready"),
    ] {
        let condition = condition(&limited, kind);
        assert_eq!(condition.status, "True", "{kind}");
        assert!(condition.message.contains(part), "{}", condition.message);
        assert!(
            events
                .iter()
                .any(|event| event.reason == kind && event.warning)
        );
    }
    assert!(limited.decision.as_ref().unwrap().history.is_some());
    if let Some(decision) = &mut found.decision {
        decision.limits.hot_keys = hot(80.1, 15.0);
        decision.limits.downstream = Some(990.0);
        decision.limits.stale = Some(stale(66.0));
    }
    let (again, events) = status(Timestamp::UNIX_EPOCH, &limited, &found);
    assert_eq!(again.conditions, limited.conditions);
    assert!(events.is_empty());
}

#[test]
fn what_limits_a_group_still_does_in_a_round_right_after_the_last() {
    let stuck = |now| crate::scale::Snapshot {
        now: std::time::Duration::from_secs(now),
        replicas: 1,
        stuck_keys: vec![crate::scale::KeyLoad {
            key: "order-8".into(),
            queue: keylane_consumer::message::QueueId::new("broker-a", 3),
            per_second: 0.0,
            waiting: 7,
        }],
        ..crate::scale::Snapshot::default()
    };
    let policy = crate::scale::Policy::default();
    let mut found = Findings::default();
    let mut round = |now, last: &OrderedConsumerStatus| {
        let before = found.history.clone().unwrap_or_default();
        let (decision, history) = crate::scale::decide(&stuck(now), &policy, &before);
        (found.decision, found.history) = (Some(decision), Some(history));
        status(Timestamp::UNIX_EPOCH, last, &found)
    };
    let (first, _) = round(100, &OrderedConsumerStatus::default());
    assert_eq!(condition(&first, KEY_STUCK).status, "True");
    let (soon, events) = round(101, &first);
    assert_eq!(soon.conditions, first.conditions);
    assert_eq!(events, []);
}

#[test]
fn a_status_stays_within_its_size_whatever_there_is_to_tell() {
    let queues = |round: u64| crate::scale::Snapshot {
        now: std::time::Duration::from_secs(1_700_000_000 + round * 5),
        replicas: 1,
        queues: (0..4096)
            .map(|id| crate::scale::QueueSample {
                id: keylane_consumer::message::QueueId::new("broker-a", id),
                max_offset: Some(round * (600 + u64::from(id))),
                unfinished: Some(0),
                owner: None,
            })
            .collect(),
        ..crate::scale::Snapshot::default()
    };
    let policy = crate::scale::Policy::default();
    let mut found = Findings::default();
    for round in 0..200 {
        let before = found.history.take().unwrap_or_default();
        let (decision, history) = crate::scale::decide(&queues(round), &policy, &before);
        (found.decision, found.history) = (Some(decision), Some(history));
    }
    let long = "ö".repeat(2000);
    for text in [
        &mut found.template_invalid,
        &mut found.broker_unavailable,
        &mut found.handler_unavailable,
        &mut found.queue_gone,
        &mut found.foreign_members,
        &mut found.key_spans_queues,
    ] {
        *text = Some(long.clone());
    }
    found.blocked_keys = vec![long.clone(); 30];
    found.stuck_keys = vec![
        StuckKey {
            key: long.clone(),
            queue: "broker-a/3".into(),
            offset: 1,
            seconds: 7200.0,
            state: keylane_consumer::contract::admin::LaneState::Blocked,
            attempts: 3,
            messages: 9,
            last_error: long,
        };
        30
    ];
    let last = OrderedConsumerStatus::default();
    let (status, _) = status(Timestamp::UNIX_EPOCH, &last, &found);
    let size = serde_json::to_vec(&status).unwrap().len();
    assert!(size <= figures::LARGEST, "{size} bytes");
    // Something of everything is there.
    assert!(!status.blocked_keys.is_empty() && !status.stuck_keys.is_empty());
    let text = status.decision.unwrap().history.unwrap();
    let history: History = serde_json::from_str(&text).unwrap();
    assert_eq!(history.model(), found.history.unwrap().model());
    assert!(text.len() > 1000, "arrivals are remembered: {text}");
}

#[test]
fn the_lag_has_its_age_and_when_it_will_be_gone() {
    let mut found = Findings {
        lag: Some(Lag {
            max_offsets: 0,
            messages: 130,
            unfinished: 120,
            oldest: Some(12.4),
        }),
        ..Findings::default()
    };
    let lag = |found: &Findings| {
        let last = OrderedConsumerStatus::default();
        let (status, _) = status(Timestamp::UNIX_EPOCH, &last, found);
        let lag = status.lag.unwrap();
        let text = |span: Option<keylane_consumer::contract::duration::DurationText>| {
            span.map(|span| span.to_string())
        };
        (text(lag.oldest), text(lag.drained_in))
    };
    assert_eq!(lag(&found), (Some("12s".into()), None));
    let (mut decision, _) = crate::scale::decide(
        &crate::scale::Snapshot::default(),
        &crate::scale::Policy::default(),
        &History::default(),
    );
    decision.inputs.arrival_rate = Some(10.0);
    decision.inputs.completion_rate = Some(10.02);
    found.decision = Some(decision.clone());
    // 120 / 0.02 s are 100 minutes.
    let gone = Some("1h40m".to_owned());
    let (_, drained_in) = lag(&found);
    assert_eq!(drained_in, gone);
    // No more is finished than arrives.
    decision.inputs.completion_rate = Some(9.0);
    found.decision = Some(decision);
    assert_eq!(lag(&found).1, None);
}

#[test]
fn a_reset_is_told_when_it_begins_and_when_it_is_done() {
    let of = |phase, queues_done| OffsetsReset {
        id: "a".into(),
        to: "earliest".into(),
        phase,
        queues_done,
        skipped: 0,
        replayed: 7,
        completed_at: None,
    };
    let mut found = Findings::default();
    let mut last = OrderedConsumerStatus::default();
    let mut next = |reset: OffsetsReset| {
        found.offsets_reset = Some(reset);
        let (status, happened) = status(Timestamp::UNIX_EPOCH, &last, &found);
        last = status;
        let of_it = happened
            .into_iter()
            .filter(|of| of.reason != "ScaledToZero");
        of_it.map(|of| (of.reason, of.note)).collect::<Vec<_>>()
    };
    let begun = next(of(ResetPhase::Pending, 0));
    assert_eq!(begun[0].0, "ResettingOffsets");
    assert_eq!(next(of(ResetPhase::Pending, 1)), []);
    let done = next(of(ResetPhase::Done, 2));
    assert_eq!(done[0].0, "OffsetsReset");
    assert!(
        done[0].1.contains("2 queues: 0 offsets are skipped, 7 are"),
        "{done:?}"
    );
    assert_eq!(next(of(ResetPhase::Done, 2)), []);
    let again = OffsetsReset {
        id: "b".into(),
        ..of(ResetPhase::Pending, 0)
    };
    assert_eq!(next(again).len(), 1);
}

#[test]
fn a_condition_keeps_its_time_and_makes_one_event_until_it_changes() {
    let first = Timestamp::UNIX_EPOCH;
    let later = first + std::time::Duration::from_secs(60);
    let mut found = Findings {
        replicas: 1,
        ready: Some(1),
        ..Findings::default()
    };
    let (before, events) = status(first, &OrderedConsumerStatus::default(), &found);
    assert_eq!(events.len(), 1);
    assert_eq!(condition(&before, READY).status, "True");
    let (same, events) = status(later, &before, &found);
    assert!(events.is_empty());
    assert_eq!(condition(&same, READY).last_transition_time, Time(first));
    found.broker_unavailable = Some("no answer".into());
    let (bad, events) = status(later, &same, &found);
    assert_eq!(
        (events.len(), events[0].warning, events[0].reason.as_str()),
        (1, true, BROKER_UNAVAILABLE)
    );
    assert_eq!(
        condition(&bad, BROKER_UNAVAILABLE).last_transition_time,
        Time(later)
    );
    found.broker_unavailable = None;
    let (_, events) = status(later, &bad, &found);
    assert_eq!((events.len(), events[0].warning), (1, false));
}
