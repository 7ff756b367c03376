//! An OrderedConsumer as it works: what its pods say, and how that changes between two looks.

use super::PluginError;
use super::connect::Cluster;
use super::paint::Paint;
use crate::live::{ConsumerStats, PodStats};
use clap::Args;
use keylane_consumer::contract::admin::{QueuePhase, QueueStats, Stats};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(2);
/// Looks of which the rate is drawn.
const DRAWN: usize = 40;
/// Nothing, and eight heights.
const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Cursor to the top left, and everything below cleared.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// What is to be seen.
#[derive(Args, Clone, Debug)]
pub(super) struct Top {
    /// Name of the OrderedConsumer.
    name: String,
    /// Print it once, after two looks two seconds apart.
    #[arg(long)]
    once: bool,
}

/// Looks until interrupted.
pub(super) async fn top(
    cluster: &Cluster,
    what: &Top,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<(), PluginError> {
    let once = what.once || !std::io::stdout().is_terminal();
    let mut before = cluster.live(&what.name).await?;
    let mut looked = Instant::now();
    let mut rates = VecDeque::new();
    loop {
        tokio::time::sleep(EVERY).await;
        let now = cluster.live(&what.name).await?;
        let seconds = looked.elapsed().as_secs_f64();
        looked = Instant::now();
        rates.push_back(rate(&before, &now, seconds));
        if rates.len() > DRAWN {
            rates.pop_front();
        }
        let frame = frame(&before, &now, seconds, rates.make_contiguous(), paint);
        if once {
            return Ok(write!(out, "{frame}")?);
        }
        write!(out, "{CLEAR}{frame}")?;
        out.flush()?;
        before = now;
    }
}

/// Messages finished a second by all pods.
fn rate(before: &ConsumerStats, now: &ConsumerStats, seconds: f64) -> f64 {
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

/// A picture of it all.
fn frame(
    before: &ConsumerStats,
    now: &ConsumerStats,
    seconds: f64,
    rates: &[f64],
    paint: Paint,
) -> String {
    let mut text = String::new();
    let answered: Vec<&Stats> = now
        .pods
        .iter()
        .filter_map(|pod| pod.stats.as_ref())
        .collect();
    let sum = |of: fn(&Stats) -> u64| answered.iter().map(|stats| of(stats)).sum::<u64>();
    let most = rates.iter().copied().fold(0.0, f64::max);
    let drawn: String = rates.iter().map(|rate| height(*rate, most)).collect();
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
    let _ = writeln!(
        text,
        "finished {:.0}/s {drawn}\n",
        rates.last().copied().unwrap_or_default()
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
    let _ = writeln!(
        text,
        "\n{}",
        paint.strong(&format!(
            "{:<24} {:>10} {:>9} {:>9} {:>8} {:>9}  {}",
            "QUEUE", "UNFINISHED", "KEYS", "RUNNING", "OLDEST", "PHASE", "POD"
        ))
    );
    let mut queues: Vec<(&QueueStats, &str)> = now
        .pods
        .iter()
        .filter_map(|pod| Some((pod.stats.as_ref()?, pod.name.as_str())))
        .flat_map(|(stats, pod)| stats.queues.iter().map(move |queue| (queue, pod)))
        .collect();
    queues.sort_by(|(left, _), (right, _)| {
        (left.retry, &left.broker, left.id).cmp(&(right.retry, &right.broker, right.id))
    });
    for (queue, pod) in queues {
        let _ = writeln!(text, "{}", line(queue, pod, paint));
    }
    text
}

fn line(queue: &QueueStats, pod: &str, paint: Paint) -> String {
    let retry = if queue.retry { " retry" } else { "" };
    let unfinished = queue.unfinished();
    let unfinished = unfinished.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let age = queue
        .oldest_age_seconds
        .map_or_else(|| "-".to_owned(), |age| format!("{age:.0} s"));
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

/// What is there at all is seen.
fn height(value: f64, most: f64) -> char {
    if value <= 0.0 || most <= 0.0 {
        return HEIGHTS[0];
    }
    let height = (value / most * 8.0).round() as usize;
    HEIGHTS[height.clamp(1, 8)]
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
    fn a_frame_tells_pods_and_queues_and_who_is_silent() {
        let before = look(&[("pod-a", Some(stats("a1", 100))), ("pod-b", None)]);
        let now = look(&[("pod-a", Some(stats("a1", 160))), ("pod-b", None)]);
        let text = frame(&before, &now, 2.0, &[15.0, 30.0], Paint::PLAIN);
        for part in [
            "shop/orders  1 of 2 pods answer; 3 of 8 lanes busy, 40 messages in memory",
            "finished 30/s ▄█",
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
