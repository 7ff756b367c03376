//! The few keys that stand out, by name: the only labels that come from messages.
//!
//! A key is named only while it has at least a [`SHARE`] of all there is (hot, long) or is stuck, and at
//! most [`NAMED`] for each reason at a time, so ordinary keys never become labels. With `redactKeys` names
//! are hashes, as in [`Stats`].

use super::Page;
use crate::contract::admin::Stats;

/// Most keys named for one reason.
const NAMED: usize = 5;
/// Less than this share of what there is does not stand out.
const SHARE: f64 = 0.1;
const LABELS: [&str; 4] = ["key", "topic", "broker", "queue"];
const LONGEST_NAME: usize = 255;

pub fn add(page: &Page, stats: &Stats) -> Result<(), prometheus::Error> {
    let certain = stats.hot_keys.iter().map(|hot| {
        let rate = (hot.rate - hot.error).max(0.0);
        (hot.key.as_str(), hot.queue.as_str(), rate)
    });
    let all = stats.hot_keys.iter().map(|hot| hot.rate).sum::<f64>();
    page.gauge(
        "keylane_hot_key_messages_per_second",
        "Arrival rate of a key that has a large share of the messages, by the name of the key; at most 5.",
        &LABELS,
        named(certain, all * SHARE),
    )?;
    let long = stats.long_keys.iter().map(|long| {
        let messages = long.messages as f64;
        (long.key.as_str(), long.queue.as_str(), messages)
    });
    page.gauge(
        "keylane_long_key_messages",
        "Messages in memory of a key that has a large share of them, by the name of the key; at most 5.",
        &LABELS,
        named(long, stats.buffered as f64 * SHARE),
    )?;
    let stuck = stats.stuck_keys.iter().map(|stuck| {
        let key = stuck.key.as_str();
        (key, stuck.queue.as_str(), stuck.seconds)
    });
    page.gauge(
        "keylane_stuck_key_seconds",
        "Time since the first message of a key that does not get done was first handed out, by the name of \
         the key; at most 5.",
        &LABELS,
        named(stuck, 0.0),
    )
}

/// The first keys with at least so much; the keys come with the most first.
fn named<'k>(keys: impl Iterator<Item = (&'k str, &'k str, f64)>, least: f64) -> super::Values<'k> {
    let enough = keys.filter(|(_, _, value)| *value > 0.0 && *value >= least);
    let labelled = enough.take(NAMED).map(|(key, queue, value)| {
        let key = &key[..key.floor_char_boundary(LONGEST_NAME)];
        let (topic, queue) = match queue.strip_prefix("retry/") {
            Some(queue) => ("retry", queue),
            None => ("main", queue),
        };
        let (broker, id) = queue.rsplit_once('/').unwrap_or((queue, ""));
        (vec![key, topic, broker, id], value)
    });
    labelled.collect()
}

#[cfg(test)]
mod tests {
    use crate::contract::admin::{HotKey, LongKey, Stats, StuckKey};
    use crate::exec::Measures;
    use crate::metrics::Metrics;

    fn lines(stats: &Stats) -> Vec<String> {
        let text = Metrics::new(Measures::new().unwrap()).render(stats);
        let named = text
            .lines()
            .filter(|line| line.contains("_key_") && line.contains("key=\""));
        named.map(str::to_owned).collect()
    }

    fn hot(key: &str, rate: f64, error: f64) -> HotKey {
        HotKey {
            key: key.into(),
            queue: "b-1/3".into(),
            rate,
            error,
        }
    }

    #[test]
    fn a_key_that_stands_out_is_named_and_ordinary_ones_are_not() {
        let mut stats = Stats {
            hot_keys: vec![hot("hot", 500.0, 20.0), hot("new", 510.0, 505.0)],
            buffered: 1_000,
            long_keys: vec![
                LongKey {
                    key: "long".into(),
                    queue: "retry/b-1/0".into(),
                    messages: 900,
                },
                LongKey {
                    key: "short".into(),
                    queue: "b-1/3".into(),
                    messages: 99,
                },
            ],
            ..Stats::default()
        };
        stats
            .hot_keys
            .extend((0..30).map(|key| hot(&format!("other-{key}"), 20.0, 10.0)));
        assert_eq!(
            lines(&stats),
            [
                r#"keylane_hot_key_messages_per_second{broker="b-1",key="hot",queue="3",topic="main"} 480"#,
                r#"keylane_long_key_messages{broker="b-1",key="long",queue="0",topic="retry"} 900"#,
            ]
        );
    }

    #[test]
    fn however_many_are_stuck_few_are_named_and_names_are_cut() {
        let stuck = |number: usize| StuckKey {
            key: format!("{number}{}", "é".repeat(500)),
            queue: "b/0".into(),
            offset: 7,
            seconds: 90.0 - number as f64,
            state: crate::contract::admin::LaneState::Running,
            attempts: 1,
            messages: 1,
            last_error: "secret".into(),
        };
        let stats = Stats {
            stuck_keys: (0..32).map(stuck).collect(),
            ..Stats::default()
        };
        let lines = lines(&stats);
        assert_eq!(lines.len(), super::NAMED);
        assert!(lines[0].starts_with("keylane_stuck_key_seconds{") && lines[0].ends_with(" 90"));
        assert!(lines.iter().all(|line| line.len() < 400), "{lines:?}");
        assert!(lines.iter().all(|line| !line.contains("secret")));
    }
}
