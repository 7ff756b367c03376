//! One OrderedConsumer as it works, as a picture of what its pods say. Pure.

use super::{height, sparkline};
use crate::live::{ConsumerStats, PodStats};
use crate::plugin::paint::Paint;
use keylane_consumer::contract::admin::{QueuePhase, QueueStats, Stats};
use std::fmt::Write as _;

/// Queues that are drawn side by side.
const WIDEST: usize = 100;

/// Messages finished a second by all pods.
pub(super) fn rate(before: &ConsumerStats, now: &ConsumerStats, seconds: f64) -> f64 {
    let each = now.pods.iter();
    each.filter_map(|pod| finished(before, pod, seconds)).sum()
}

/// Messages finished a second by a pod that answered both times and was not restarted in between.
fn finished(before: &ConsumerStats, pod: &PodStats, seconds: f64) -> Option<f64> {
    let now = pod.stats.as_ref()?;
    let pods = before.pods.iter();
    let mut then = pods.filter_map(|pod| pod.stats.as_ref());
    let then = then.find(|then| then.incarnation == now.incarnation)?;
    let done = now.completed.saturating_sub(then.completed);
    (seconds > 0.0).then(|| done as f64 / seconds)
}

/// A picture of it all. `behind` is how many messages are not finished, as brokers and pods together say.
pub(super) fn frame(
    before: &ConsumerStats,
    now: &ConsumerStats,
    seconds: f64,
    rates: &[f64],
    behind: Option<u64>,
    paint: Paint,
) -> String {
    let mut text = String::new();
    let answered: Vec<&Stats> = now
        .pods
        .iter()
        .filter_map(|pod| pod.stats.as_ref())
        .collect();
    let sum = |of: fn(&Stats) -> u64| answered.iter().map(|stats| of(stats)).sum::<u64>();
    let _ = writeln!(
        text,
        "{}  {} of {} pods answer; {} of {} lanes busy, {} messages in memory",
        paint.strong(&format!("{}/{}", now.metadata.namespace, now.metadata.name)),
        answered.len(),
        now.pods.len(),
        sum(|stats| stats.busy_lanes.into()),
        sum(|stats| stats.lanes.lanes.into()),
        sum(|stats| stats.buffered)
    );
    let behind = behind.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let _ = writeln!(
        text,
        "lag {behind}, oldest {}; finished {:.0}/s {}\n",
        age(oldest(now)),
        rates.last().copied().unwrap_or_default(),
        sparkline(rates)
    );
    let _ = writeln!(
        text,
        "{}",
        paint.strong(&format!(
            "{:<40} {:>9} {:>9} {:>9} {:>9} {:>8} {:>7}",
            "POD", "LANES", "BUSY", "FINISHED", "MEMORY", "CALL", "QUEUES"
        ))
    );
    for pod in &now.pods {
        let Some(stats) = &pod.stats else {
            let reason = pod.error.as_deref().unwrap_or("no answer");
            let _ = writeln!(text, "{:<40} {}", pod.name, paint.bad(reason));
            continue;
        };
        let rate = finished(before, pod, seconds);
        let rate = rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}/s"));
        let held = |queue: &&QueueStats| queue.phase == QueuePhase::Owned;
        let _ = writeln!(
            text,
            "{:<40} {:>9} {:>9} {:>9} {:>9} {:>5.0} ms {:>7}{}",
            pod.name,
            stats.lanes.lanes,
            stats.busy_lanes,
            rate,
            stats.buffered,
            stats.usual_handler_seconds * 1e3,
            stats.queues.iter().filter(held).count(),
            if stats.draining { "  draining" } else { "" }
        );
    }
    text += &heat(now, paint);
    let _ = writeln!(
        text,
        "\n{}",
        paint.strong(&format!(
            "{:<24} {:>10} {:>9} {:>9} {:>8} {:>9}  {}",
            "QUEUE", "UNFINISHED", "KEYS", "RUNNING", "OLDEST", "PHASE", "POD"
        ))
    );
    for (queue, pod) in queues(now) {
        let _ = writeln!(text, "{}", line(queue, pod, paint));
    }
    text
}

fn line(queue: &QueueStats, pod: &str, paint: Paint) -> String {
    let retry = if queue.retry { " retry" } else { "" };
    let unfinished = queue.unfinished();
    let unfinished = unfinished.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let age = age(queue.oldest_age_seconds);
    let mut line = format!(
        "{:<24} {unfinished:>10} {:>9} {:>9} {age:>8} {:>9}  {pod}",
        format!("{}/{}{retry}", queue.broker, queue.id),
        queue.live_keys,
        queue.running_lanes,
        format!("{:?}", queue.phase),
    );
    if queue.suspended {
        line += &paint.note("  suspended");
    }
    if queue.stopped_by_limit {
        line += &paint.note("  a limit is reached");
    }
    line
}

/// Every queue with its pod, in order.
fn queues(now: &ConsumerStats) -> Vec<(&QueueStats, &str)> {
    let mut queues: Vec<(&QueueStats, &str)> = now
        .pods
        .iter()
        .filter_map(|pod| Some((pod.stats.as_ref()?, pod.name.as_str())))
        .flat_map(|(stats, pod)| stats.queues.iter().map(move |queue| (queue, pod)))
        .collect();
    queues.sort_by(|(left, _), (right, _)| {
        (left.retry, &left.broker, left.id).cmp(&(right.retry, &right.broker, right.id))
    });
    queues
}

/// Which pod has which queues, and how much is in each: a row a pod, a column a queue.
fn heat(now: &ConsumerStats, paint: Paint) -> String {
    let queues: Vec<_> = queues(now);
    let queues = queues.iter().filter(|(queue, _)| !queue.retry);
    let queues: Vec<_> = queues.take(WIDEST).collect();
    let unfinished = |queue: &QueueStats| queue.unfinished().unwrap_or(0) as f64;
    let most = queues
        .iter()
        .map(|(queue, _)| unfinished(queue))
        .fold(0.0, f64::max);
    let mut text = String::new();
    if queues.is_empty() {
        return text;
    }
    let _ = writeln!(
        text,
        "\n{}",
        paint.strong(
            "QUEUES OF EACH POD, BY MESSAGES NOT FINISHED (. is another pod's, _ is empty)"
        )
    );
    for pod in now.pods.iter().filter(|pod| pod.stats.is_some()) {
        let cell = |(queue, owner): &&(&QueueStats, &str)| {
            let count = unfinished(queue);
            if *owner != pod.name {
                '.'
            } else if count <= 0.0 {
                '_'
            } else {
                height(count, most)
            }
        };
        let row: String = queues.iter().map(cell).collect();
        let _ = writeln!(text, "{:<40} {row}", pod.name);
    }
    text
}

/// Age of the oldest message that is not finished, as far as pods know.
pub(super) fn oldest(now: &ConsumerStats) -> Option<f64> {
    let stats = now.pods.iter().filter_map(|pod| pod.stats.as_ref());
    let ages = stats.flat_map(|stats| &stats.queues);
    ages.filter_map(|queue| queue.oldest_age_seconds)
        .reduce(f64::max)
}

pub(super) fn age(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |age| format!("{age:.0} s"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keylane_consumer::contract::admin::LaneTarget;

    fn stats(incarnation: &str, completed: u64) -> Stats {
        Stats {
            incarnation: incarnation.into(),
            completed,
            busy_lanes: 3,
            lanes: LaneTarget {
                lanes: 8,
                ..LaneTarget::default()
            },
            buffered: 40,
            usual_handler_seconds: 0.05,
            queues: vec![QueueStats {
                broker: "broker-a".into(),
                id: 1,
                phase: QueuePhase::Owned,
                watermark: Some(10),
                pulled: Some(50),
                oldest_age_seconds: Some(12.4),
                stopped_by_limit: true,
                ..QueueStats::default()
            }],
            ..Stats::default()
        }
    }

    fn look(pods: &[(&str, Option<Stats>)]) -> ConsumerStats {
        let pods = pods.iter().map(|(name, stats)| PodStats {
            name: (*name).into(),
            error: stats.is_none().then(|| "it does not answer".into()),
            stats: stats.clone(),
        });
        ConsumerStats::new("shop", "orders", pods.collect())
    }

    #[test]
    fn rates_are_of_processes_that_were_there_both_times() {
        let before = look(&[("a", Some(stats("a1", 100))), ("b", Some(stats("b1", 5)))]);
        let now = look(&[("a", Some(stats("a1", 160))), ("b", Some(stats("b2", 900)))]);
        assert_eq!(rate(&before, &now, 2.0), 30.0);
        assert_eq!(finished(&before, &now.pods[1], 2.0), None);
        assert_eq!(rate(&before, &now, 0.0), 0.0);
    }

    #[test]
    fn each_queue_is_drawn_in_the_row_of_its_pod() {
        let queue = |id, pulled| QueueStats {
            broker: "broker-a".into(),
            id,
            watermark: Some(10),
            pulled: Some(pulled),
            ..QueueStats::default()
        };
        let has = |queues: Vec<QueueStats>| Stats {
            queues,
            ..Stats::default()
        };
        let now = look(&[
            ("pod-a", Some(has(vec![queue(2, 10), queue(0, 90)]))),
            ("pod-b", Some(has(vec![queue(1, 50)]))),
            ("pod-c", None),
        ]);
        let text = heat(&now, Paint::PLAIN);
        let rows: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("pod"))
            .collect();
        let drawn: Vec<_> = rows.iter().map(|row| &row[41..]).collect();
        assert_eq!(drawn, ["█._", ".▄."]);
    }

    #[test]
    fn a_frame_tells_pods_and_queues_and_who_is_silent() {
        let before = look(&[("pod-a", Some(stats("a1", 100))), ("pod-b", None)]);
        let now = look(&[("pod-a", Some(stats("a1", 160))), ("pod-b", None)]);
        let text = frame(&before, &now, 2.0, &[15.0, 30.0], Some(93), Paint::PLAIN);
        for part in [
            "shop/orders  1 of 2 pods answer; 3 of 8 lanes busy, 40 messages in memory",
            "lag 93, oldest 12 s; finished 30/s ▄█",
            "it does not answer",
            "a limit is reached",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        let words = |begin: &str| -> Vec<&str> {
            let line = text.lines().find(|line| line.starts_with(begin)).unwrap();
            line.split_whitespace().collect()
        };
        assert_eq!(
            words("pod-a"),
            ["pod-a", "8", "3", "30/s", "40", "50", "ms", "1"]
        );
        assert_eq!(
            words("broker-a/1")[..7],
            ["broker-a/1", "40", "0", "0", "12", "s", "Owned"]
        );
    }
}
