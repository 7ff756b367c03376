//! Keys that no lane and no pod can help, hot ones and such as do not move: what they ask for in vain is no
//! demand, what others of their queues ask for is.

use super::made::{EVERY, Group, SERVICE};
use super::*;

const QUEUES: usize = 8;
const PODS: usize = 2;
/// The queue of the key.
const ITS: usize = 3;
/// Messages a second that a pod is known to do: 288 are the most before there are more pods.
const CAPACITY: f64 = 320.0;
/// What one lane can do, a second.
const LANE: f64 = 1.0 / SERVICE;
/// So long, in looks: what waits of the key would ask for pods by then if it counted.
const LOOKS: u32 = 96;

/// A group on which one key has much more than it can do.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// Messages of all other keys of each queue, a second.
    others: f64,
    /// Messages of the key, and how many of them are finished.
    key: (f64, f64),
    /// Messages of other keys that are behind in its queue.
    behind: f64,
}

/// What is said of the key.
#[derive(Clone, Copy, Debug)]
enum Told {
    Nothing,
    Hot,
    /// Stuck, with how much of it arrives.
    Stuck,
    /// Stuck, of which only the head is told; the rest with the hot keys, as pods do.
    StuckAndHot,
}

/// Decisions at each look, whatever they are: the group stays as it is.
fn looks(load: Load, told: Told, count: u32) -> Vec<Decision> {
    let policy = Policy {
        max_lanes: 32,
        max_replicas: 8,
        max_message_age: Duration::from_secs(60),
        ..Policy::default()
    };
    let mut history = History::with_model(Model::given(SERVICE, CAPACITY, 40.0));
    let mut group = Group::new(QUEUES, PODS, 17);
    group.queues[ITS].unfinished = load.behind;
    let mut decisions = Vec::new();
    for look in 1..=count {
        group.pass(|queue| {
            let here = queue == ITS;
            let (asks, gets) = if here { load.key } else { (0.0, 0.0) };
            (load.others + asks, load.others + gets)
        });
        let mut snapshot = group.snapshot();
        let (per_second, done) = load.key;
        let known = KeyLoad {
            key: "key".to_owned(),
            queue: snapshot.queues[ITS].id.clone(),
            per_second,
            waiting: ((per_second - done) * EVERY * f64::from(look)) as u64,
        };
        match told {
            Told::Nothing => {}
            Told::Hot => snapshot.hot_keys.push(known),
            Told::Stuck => snapshot.stuck_keys.push(known),
            Told::StuckAndHot => {
                snapshot.stuck_keys.push(KeyLoad {
                    per_second: 0.0,
                    waiting: 1,
                    ..known.clone()
                });
                snapshot.hot_keys.push(known);
            }
        }
        let (decision, next) = decide(&snapshot, &policy, &history);
        history = next;
        decisions.push(decision);
    }
    decisions
}

/// The first look at which more pods are asked for.
fn more_pods(decisions: &[Decision]) -> Option<usize> {
    decisions
        .iter()
        .position(|decision| decision.replicas > PODS as u32)
}

/// 272/s a pod, 85 % of what it can do, and 30/s of a key that does not move: 302/s where it is.
const POISON: Load = Load {
    others: 68.0,
    key: (30.0, 0.0),
    behind: 0.0,
};

#[test]
fn what_arrives_for_a_key_that_does_not_move_asks_for_pods_only_while_it_is_not_known() {
    let unknown = looks(POISON, Told::Nothing, 4);
    // Rates are known from the second look on.
    assert_eq!(more_pods(&unknown), Some(1), "{unknown:?}");
    assert_eq!(unknown[1].reason, Reason::ReplicasUp);
    for told in [Told::Stuck, Told::StuckAndHot] {
        let known = looks(POISON, told, LOOKS);
        assert_eq!(more_pods(&known), None, "{told:?}");
        for decision in &known {
            assert_eq!(decision.limits.stuck_key.as_deref(), Some("key"));
            assert!(decision.limits.hot_keys.is_empty(), "{decision:?}");
        }
    }
}

/// 265/s a pod. Of the key 15/s arrive, and pods are not needed for that: 280/s where it is.
const SLOW_POISON: Load = Load {
    others: 66.25,
    key: (15.0, 0.0),
    behind: 0.0,
};

#[test]
fn what_waits_for_a_key_that_does_not_move_asks_for_pods_only_while_it_is_not_known() {
    let unknown = looks(SLOW_POISON, Told::Nothing, 2 * LOOKS);
    let asked = more_pods(&unknown).expect("what waits is a backlog as any other");
    // Not for what arrives: only once more waits than the two pods would do in a start.
    assert!(asked > 20, "at look {asked}");
    for told in [Told::Stuck, Told::StuckAndHot] {
        let known = looks(SLOW_POISON, told, asked as u32 + 20);
        assert_eq!(more_pods(&known), None, "{told:?}");
    }
}

#[test]
fn others_in_the_queue_of_a_key_that_does_not_move_still_ask_for_pods() {
    let behind = Load {
        behind: 20_000.0,
        ..POISON
    };
    assert_eq!(more_pods(&looks(behind, Told::Stuck, 4)), Some(1));
}

/// 260/s a pod, and 60/s of a key of which one lane does 20: 320/s where it is, of which 280 can be helped.
const HOT: Load = Load {
    others: 65.0,
    key: (3.0 * LANE, LANE),
    behind: 0.0,
};

#[test]
fn what_a_hot_key_gets_beyond_its_lane_asks_for_pods_only_while_it_is_not_known() {
    let unknown = looks(HOT, Told::Nothing, 4);
    assert_eq!(more_pods(&unknown), Some(1), "{unknown:?}");
    let known = looks(HOT, Told::Hot, LOOKS);
    assert_eq!(more_pods(&known), None);
    for decision in &known {
        assert_eq!(decision.limits.hot_keys.len(), 1, "{decision:?}");
    }
}

/// 264/s a pod, and 24/s of a key of which one lane does 20.
const WARM: Load = Load {
    others: 66.0,
    key: (24.0, LANE),
    behind: 0.0,
};

#[test]
fn what_waits_for_a_hot_key_asks_for_pods_only_while_it_is_not_known() {
    let unknown = looks(WARM, Told::Nothing, 600);
    let asked = more_pods(&unknown).expect("what waits is a backlog as any other");
    assert!(asked > 20, "at look {asked}");
    let known = looks(WARM, Told::Hot, asked as u32 + 20);
    assert_eq!(more_pods(&known), None);
}

#[test]
fn a_single_key_gets_no_more_pods_whatever_its_backlog_and_whether_it_is_named_or_not() {
    for keys in [true, false] {
        let one = Trace {
            hot_key_rate: Some(vec![100.0]),
            ..trace(5.0, 0.0)
        };
        let (run, decisions) = play(&one, 2, |setup| setup.keys = keys);
        assert_eq!(run.score.most_pods, 2, "{keys}");
        let last = decisions.last().unwrap();
        assert_eq!(last.reason, Reason::KeyBound, "{}", last.message);
        assert_eq!(!last.limits.hot_keys.is_empty(), keys);
    }
}

/// What is said of key "long", of which so many of 90,000 messages at hand are, and so many arrive a second,
/// while 50 lanes work on calls of 300 ms.
fn hot(waiting: u64, per_second: f64, at_hand: u64) -> Option<HotKey> {
    let mut history = History::default();
    let mut said = None;
    for round in 1..8u32 {
        let seconds = f64::from(round) * 5.0;
        let snapshot = Snapshot {
            now: Duration::from_secs_f64(seconds),
            replicas: 1,
            ready: 1,
            queues: vec![QueueSample {
                id: QueueId::new("b", 0),
                max_offset: Some(100_000),
                unfinished: Some(at_hand),
                owner: Some(0),
            }],
            pods: vec![PodSample {
                incarnation: "pod".to_owned(),
                lanes: 50,
                busy_lanes: 50,
                waiting_lanes: 900,
                busy_lane_seconds: 50.0 * seconds,
                completed: (50.0 / 0.3 * seconds) as u64,
                buffered: at_hand,
                uptime_seconds: seconds,
                cpu: None,
            }],
            hot_keys: vec![KeyLoad {
                key: "long".to_owned(),
                queue: QueueId::new("b", 0),
                per_second,
                waiting,
            }],
            stuck_keys: Vec::new(),
        };
        let (decision, next) = decide(&snapshot, &Policy::default(), &history);
        (said, history) = (decision.limits.hot_keys.into_iter().next(), next);
    }
    said
}

#[test]
fn a_key_of_many_in_a_backlog_is_not_hot_however_fast_it_was_fetched_and_however_slow_calls_are() {
    // 1,000 keys, one of them with half more than the others: 41 s of work, where all takes 540 s.
    assert_eq!(hot(135, 0.0, 90_000), None);
    assert_eq!(hot(135, 40.0, 90_000), None);
    // Three of a hundred: more than one of fifty lanes has.
    let named = hot(2700, 0.0, 90_000).unwrap();
    assert_eq!(named.key, "long");
    assert!((named.waiting_seconds - 810.0).abs() < 10.0, "{named:?}");
    // Without a backlog what arrives counts: a lane does 3.3 a second.
    assert!(hot(10, 5.0, 200).is_some());
    assert_eq!(hot(10, 2.0, 200), None);
}
