//! The keys that matter now, from what the pods say.

use super::paint::Paint;
use crate::live::ConsumerStats;
use keylane_consumer::contract::admin::{BlockedKey, HotKey, LongKey, SplitKey, StuckKey};
use serde::Serialize;
use std::fmt::Write as _;

/// Keys of each kind told at most.
const MOST: usize = 32;

/// The keys, most of what they are named for first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Keys {
    /// A person must act.
    pub blocked: Vec<BlockedKey>,
    /// Their first message does not get done while others move.
    pub stuck: Vec<StuckKey>,
    /// Most messages arriving.
    pub hot: Vec<HotKey>,
    /// Most messages in memory.
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
        keys.hot.extend(stats.hot_keys.iter().cloned());
        keys.long.extend(stats.long_keys.iter().cloned());
        keys.split.extend(stats.split_keys.iter().cloned());
    }
    keys.stuck
        .sort_by(|left, right| right.seconds.total_cmp(&left.seconds));
    keys.hot
        .sort_by(|left, right| right.rate.total_cmp(&left.rate));
    keys.long.sort_by_key(|key| std::cmp::Reverse(key.messages));
    keys.blocked.truncate(MOST);
    keys.stuck.truncate(MOST);
    keys.hot.truncate(MOST);
    keys.long.truncate(MOST);
    keys.split.truncate(MOST);
    keys
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
    let hot = keys.hot.iter().map(|key| {
        format!(
            "{} in {}: {:.1}/s arrive (at most {:.1} of it are others\')",
            named(&key.key),
            key.queue,
            key.rate,
            key.error
        )
    });
    section("Hot: most arriving", hot.collect());
    let long = keys.long.iter().map(|key| {
        format!(
            "{} in {}: {} messages in memory",
            named(&key.key),
            key.queue,
            key.messages
        )
    });
    section("Long: most waiting", long.collect());
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
    use keylane_consumer::contract::admin::{LaneState, Stats};

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
            long_keys: vec![LongKey {
                key: "order-2".into(),
                queue: "broker-a/2".into(),
                messages: 900,
            }],
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
Long: most waiting
  order-2 in broker-a/2: 900 messages in memory
Pods that say nothing
  c: no answer
"
        );
    }

    #[test]
    fn where_nothing_stands_out_that_is_said() {
        let live = ConsumerStats::new("shop", "orders", vec![pod("a", Some(Stats::default()))]);
        assert_eq!(text(&keys(&live), Paint::PLAIN), "No key stands out.\n");
    }
}
