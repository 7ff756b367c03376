//! The keys that matter now, from what the pods say. Pods name the keys that have most of all, as some always do;
//! here are those that have much in their own right.

use super::paint::Paint;
use crate::live::ConsumerStats;
use keylane_consumer::contract::admin::{BlockedKey, HotKey, LongKey, SplitKey, Stats, StuckKey};
use serde::Serialize;
use std::fmt::Write as _;

/// Keys of each kind told at most.
const MOST: usize = 32;
/// Part of what a lane can do from which on a key is hot.
const HOT: f64 = 0.5;
/// Work, in seconds of calls, that waits of a key that is long.
const LONG: f64 = 1.0;
/// Part of a running lane's share of what is in memory that a long key has.
const SHARE: f64 = 0.9;
/// With so many seconds of work for each running lane a pod has a backlog: how fast messages of a key are pulled
/// says nothing then of how fast they are sent.
const BACKLOG: f64 = 20.0;

/// A key that gets much of what its lane can do, or more.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hot {
    #[serde(flatten)]
    key: HotKey,
    /// Lanes that its messages keep busy, one message a call. It has one.
    lanes: f64,
}

/// The keys, most of what they are named for first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Keys {
    /// A person must act.
    pub blocked: Vec<BlockedKey>,
    /// Their first message does not get done while others move.
    pub stuck: Vec<StuckKey>,
    /// They need half of their lane, or more.
    pub hot: Vec<Hot>,
    /// More waits of them than is a lane's part.
    pub long: Vec<LongKey>,
    /// In more than one queue: no consumer can keep their order.
    pub split: Vec<SplitKey>,
    /// Pods that said nothing, and why.
    pub silent: Vec<String>,
}

/// The keys that matter.
pub(super) fn keys(live: &ConsumerStats) -> Keys {
    let mut keys = Keys::default();
    for pod in &live.pods {
        let Some(stats) = &pod.stats else {
            let reason = pod.error.as_deref().unwrap_or_default();
            keys.silent.push(format!("{}: {reason}", pod.name));
            continue;
        };
        keys.blocked.extend(stats.blocked.iter().cloned());
        keys.stuck.extend(stats.stuck_keys.iter().cloned());
        let (hot, long) = outstanding(stats);
        keys.hot.extend(hot);
        keys.long.extend(long);
        keys.split.extend(stats.split_keys.iter().cloned());
    }
    keys.stuck
        .sort_by(|left, right| right.seconds.total_cmp(&left.seconds));
    keys.hot
        .sort_by(|left, right| right.lanes.total_cmp(&left.lanes));
    keys.long.sort_by_key(|key| std::cmp::Reverse(key.messages));
    keys.blocked.truncate(MOST);
    keys.stuck.truncate(MOST);
    keys.hot.truncate(MOST);
    keys.long.truncate(MOST);
    keys.split.truncate(MOST);
    keys
}

/// The keys of a pod that are hot, and those that are long.
fn outstanding(stats: &Stats) -> (Vec<Hot>, Vec<LongKey>) {
    let usual = stats.usual_handler_seconds;
    let busy = f64::from(stats.busy_lanes.max(1));
    let at_hand = stats.buffered as f64;
    // When the running lanes are done with everything else, such a key is not.
    let long = stats.long_keys.iter().filter(|key| {
        let waiting = key.messages as f64;
        waiting * busy >= SHARE * at_hand && waiting * usual >= LONG
    });
    let long: Vec<LongKey> = long.cloned().collect();
    let backlog = at_hand * usual > BACKLOG * busy;
    let hot = stats.hot_keys.iter().filter_map(|key| {
        let same = |long: &LongKey| long.key == key.key && long.queue == key.queue;
        let lanes = (key.rate - key.error).max(0.0) * usual;
        let is_hot = lanes >= HOT && (!backlog || long.iter().any(same));
        let key = key.clone();
        is_hot.then_some(Hot { key, lanes })
    });
    let hot = hot.collect();
    (hot, long)
}

/// The same for people.
pub(super) fn text(keys: &Keys, paint: Paint) -> String {
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = writeln!(text, "{}", paint.strong(title));
            for line in lines {
                let _ = writeln!(text, "  {line}");
            }
        }
    };
    let blocked = keys.blocked.iter().map(|key| {
        format!(
            "{} in {}/{} at {}: {} attempts, {}",
            paint.bad(named(&key.key)),
            key.broker,
            key.queue_id,
            key.offset,
            key.attempts,
            key.last_error
        )
    });
    section("Blocked: a person must act", blocked.collect());
    let stuck = keys.stuck.iter().map(|key| {
        let mut line = format!(
            "{} in {} at {}: {:?} for {:.0} s, {} attempts, {} messages wait",
            paint.note(named(&key.key)),
            key.queue,
            key.offset,
            key.state,
            key.seconds,
            key.attempts,
            key.messages
        );
        if !key.last_error.is_empty() {
            let _ = write!(line, "; {}", key.last_error);
        }
        line
    });
    section("Stuck while others move", stuck.collect());
    let hot = keys.hot.iter().map(|Hot { key, lanes }| {
        let much = format!("{:.0} % of what its lane can do", lanes * 100.0);
        format!(
            "{} in {}: {:.1}/s arrive, {}",
            named(&key.key),
            key.queue,
            key.rate,
            if *lanes >= 1.0 {
                paint.note(&much)
            } else {
                much
            }
        )
    });
    section(
        "Hot: a key has one lane, whatever the number of lanes and pods",
        hot.collect(),
    );
    let long = keys.long.iter().map(|key| {
        format!(
            "{} in {}: {} messages in memory",
            named(&key.key),
            key.queue,
            key.messages
        )
    });
    section("Long: more waits than is a lane's part", long.collect());
    let split = keys.split.iter().map(|key| {
        let [first, second] = &key.queues;
        format!(
            "{} in {first} and {second}: let producers select the queue by the key",
            paint.bad(named(&key.key))
        )
    });
    section(
        "In more than one queue: their order cannot be kept",
        split.collect(),
    );
    section("Pods that say nothing", keys.silent.clone());
    if text.is_empty() {
        text.push_str("No key stands out.\n");
    }
    text
}

/// Messages without a key are one lane of their queue.
fn named(key: &str) -> &str {
    if key.is_empty() { "(no key)" } else { key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::PodStats;
    use keylane_consumer::contract::admin::LaneState;
    use serde_json::json;

    const NOTHING: &str = "No key stands out.\n";

    fn stuck(key: &str, seconds: f64) -> StuckKey {
        StuckKey {
            key: key.into(),
            queue: "broker-a/1".into(),
            offset: 7,
            seconds,
            state: LaneState::Backoff,
            attempts: 3,
            messages: 12,
            last_error: "500 no stock".into(),
        }
    }

    fn hot(key: &str, rate: f64, error: f64) -> HotKey {
        HotKey {
            key: key.into(),
            queue: "broker-a/2".into(),
            rate,
            error,
        }
    }

    fn long(key: &str, messages: u64) -> LongKey {
        LongKey {
            key: key.into(),
            queue: "broker-a/2".into(),
            messages,
        }
    }

    fn pod(name: &str, stats: Option<Stats>) -> PodStats {
        PodStats {
            name: name.into(),
            error: stats.is_none().then(|| "no answer".into()),
            stats,
        }
    }

    #[test]
    fn keys_of_all_pods_are_told_most_first_and_silent_pods_named() {
        let one = Stats {
            stuck_keys: vec![stuck("order-1", 5.0)],
            ..Stats::default()
        };
        let other = Stats {
            stuck_keys: vec![stuck("", 40.0)],
            long_keys: vec![long("order-2", 900)],
            usual_handler_seconds: 0.02,
            buffered: 912,
            ..Stats::default()
        };
        let pods = vec![pod("a", Some(one)), pod("b", Some(other)), pod("c", None)];
        let keys = keys(&ConsumerStats::new("shop", "orders", pods));
        assert_eq!(
            text(&keys, Paint::PLAIN),
            "\
Stuck while others move
  (no key) in broker-a/1 at 7: Backoff for 40 s, 3 attempts, 12 messages wait; 500 no stock
  order-1 in broker-a/1 at 7: Backoff for 5 s, 3 attempts, 12 messages wait; 500 no stock
Long: more waits than is a lane's part
  order-2 in broker-a/2: 900 messages in memory
Pods that say nothing
  c: no answer
"
        );
    }

    /// The keys of a pod with these, 20 ms a call and two lanes that run.
    fn found(hot_keys: &[HotKey], long_keys: &[LongKey], buffered: u64) -> Keys {
        let stats = Stats {
            hot_keys: hot_keys.to_vec(),
            long_keys: long_keys.to_vec(),
            usual_handler_seconds: 0.02,
            busy_lanes: 2,
            buffered,
            ..Stats::default()
        };
        let pods = vec![pod("a", Some(stats))];
        keys(&ConsumerStats::new("shop", "orders", pods))
    }

    fn told(hot_keys: &[HotKey], long_keys: &[LongKey], buffered: u64) -> String {
        text(&found(hot_keys, long_keys, buffered), Paint::PLAIN)
    }

    #[test]
    fn beside_a_hot_key_others_are_told_only_if_they_are_hot_themselves() {
        let arriving = [
            hot("order-1", 1.0, 0.8),
            hot("order-2", 26.0, 0.0),
            hot("seller-42", 150.0, 0.0),
            hot("order-3", 60.0, 59.0),
        ];
        let waiting = [long("seller-42", 748), long("order-2", 3)];
        assert_eq!(
            told(&arriving, &waiting, 755),
            "\
Hot: a key has one lane, whatever the number of lanes and pods
  seller-42 in broker-a/2: 150.0/s arrive, 300 % of what its lane can do
  order-2 in broker-a/2: 26.0/s arrive, 52 % of what its lane can do
Long: more waits than is a lane's part
  seller-42 in broker-a/2: 748 messages in memory
"
        );
        let hottest = &found(&arriving, &waiting, 755).hot[0];
        let hottest = serde_json::to_value(hottest).unwrap();
        assert_eq!(
            (&hottest["key"], &hottest["lanes"]),
            (&json!("seller-42"), &json!(3.0))
        );
        // Half of what waits is the other lane's, and little is not much for being all there is.
        assert_eq!(told(&[], &[long("a", 300), long("b", 40)], 1_000), NOTHING);
        assert_eq!(told(&[], &[long("a", 30)], 30), NOTHING);
    }

    #[test]
    fn in_a_backlog_of_many_keys_none_stands_out_for_how_fast_it_is_pulled() {
        let pulled = [hot("order-1", 90.0, 0.0), hot("order-2", 90.0, 0.0)];
        let waiting = [long("order-1", 120), long("order-2", 90)];
        assert_eq!(told(&pulled, &waiting, 40_000), NOTHING);
        let one = [long("order-1", 30_000), long("order-2", 90)];
        let text = told(&pulled, &one, 40_000);
        assert!(text.contains("order-1 in broker-a/2: 90.0/s"), "{text}");
        assert!(!text.contains("order-2"), "{text}");
    }

    #[test]
    fn where_nothing_stands_out_that_is_said() {
        let live = ConsumerStats::new("shop", "orders", vec![pod("a", Some(Stats::default()))]);
        assert_eq!(text(&keys(&live), Paint::PLAIN), NOTHING);
    }
}
