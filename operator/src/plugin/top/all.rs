//! All OrderedConsumers side by side: what their status says, and what their pods say at this moment where that
//! is served.

use super::{one, remember, sparkline};
use crate::crd::OrderedConsumer;
use crate::live::ConsumerStats;
use crate::plugin::PluginError;
use crate::plugin::connect::Cluster;
use crate::plugin::paint::Paint;
use futures::StreamExt as _;
use kube::ResourceExt as _;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Instant;

/// Consumers whose pods are asked at once.
const AT_ONCE: usize = 8;

/// Namespace and name.
type Name = (String, String);

/// One of them. What is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    namespace: String,
    name: String,
    ready_pods: i32,
    pods: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    lanes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    busy_lanes: Option<u32>,
    /// Messages a second, as the operator saw last.
    #[serde(skip_serializing_if = "Option::is_none")]
    arriving: Option<f64>,
    /// Messages a second between two looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished: Option<f64>,
    /// Messages that are not finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_age_seconds: Option<f64>,
    /// Of the last decision.
    reason: String,
}

#[derive(Default)]
struct One {
    row: Row,
    live: Option<(Instant, ConsumerStats)>,
    rates: VecDeque<f64>,
}

/// What was seen so far.
#[derive(Default)]
pub(super) struct Seen {
    consumers: BTreeMap<Name, One>,
    /// Why pods cannot be asked.
    silent: Option<String>,
}

impl Seen {
    /// Looks once.
    pub(super) async fn look(
        &mut self,
        cluster: &Cluster,
        everywhere: bool,
    ) -> Result<(), PluginError> {
        let consumers = cluster.all_consumers(everywhere).await?;
        let asked = consumers.into_iter().map(|consumer| async move {
            let namespace = consumer.namespace().unwrap_or_default();
            let live = cluster.live_in(&namespace, &consumer.name_any()).await;
            (consumer, live)
        });
        let found: Vec<_> = futures::stream::iter(asked)
            .buffered(AT_ONCE)
            .collect()
            .await;
        let mut before = std::mem::take(&mut self.consumers);
        self.silent = None;
        for (consumer, live) in found {
            let name = (
                consumer.namespace().unwrap_or_default(),
                consumer.name_any(),
            );
            let live = match live {
                Ok(live) => Some((Instant::now(), live)),
                Err(error) => {
                    self.silent = Some(error.to_string());
                    None
                }
            };
            let known = before.remove(&name).unwrap_or_default();
            self.consumers.insert(name, after(known, &consumer, live));
        }
        Ok(())
    }

    /// What there is to tell, in order.
    pub(super) fn rows(&self) -> Vec<&Row> {
        self.consumers.values().map(|one| &one.row).collect()
    }
}

/// What is known after another look.
fn after(before: One, consumer: &OrderedConsumer, live: Option<(Instant, ConsumerStats)>) -> One {
    let mut rates = before.rates;
    let mut row = of_status(consumer);
    if let Some((now, stats)) = &live {
        let pods = stats.pods.iter().filter_map(|pod| pod.stats.as_ref());
        row.busy_lanes = Some(pods.map(|stats| stats.busy_lanes).sum());
        row.oldest_age_seconds = one::oldest(stats);
        row.finished = before.live.map(|(then, earlier)| {
            let seconds = (*now - then).as_secs_f64();
            one::rate(&earlier, stats, seconds)
        });
        if let Some(rate) = row.finished {
            remember(&mut rates, rate);
        }
    }
    One { row, live, rates }
}

fn of_status(consumer: &OrderedConsumer) -> Row {
    let unseen = Default::default();
    let status = consumer.status.as_ref().unwrap_or(&unseen);
    let rates = status.rates.as_ref();
    let arriving = rates.and_then(|rates| rates.arriving.as_ref()?.parse().ok());
    let decision = status.decision.as_ref();
    Row {
        namespace: consumer.namespace().unwrap_or_default(),
        name: consumer.name_any(),
        ready_pods: status.ready_replicas.unwrap_or(0),
        pods: status.replicas.unwrap_or(0),
        lanes: status.lanes,
        arriving,
        lag: status.lag.map(|lag| lag.unfinished),
        reason: decision.map_or_else(String::new, |decision| decision.reason.clone()),
        ..Row::default()
    }
}

/// The same for people.
pub(super) fn frame(seen: &Seen, paint: Paint) -> String {
    let rows = seen.consumers.values();
    let name = |row: &Row| format!("{}/{}", row.namespace, row.name);
    let widest = rows.clone().map(|one| name(&one.row).len()).max();
    let widest = widest.unwrap_or(0).max(8);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}",
        paint.strong(&format!(
            "{:<widest$} {:>7} {:>6} {:>6} {:>10} {:>10} {:>10} {:>8}  {:<15} {}",
            "CONSUMER",
            "PODS",
            "LANES",
            "BUSY",
            "ARRIVING",
            "FINISHED",
            "LAG",
            "OLDEST",
            "REASON",
            "FINISHED SINCE"
        ))
    );
    let known = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
    let rate = |rate: Option<f64>| known(rate.map(|rate| format!("{rate:.0}/s")));
    for one in rows {
        let row = &one.row;
        let rates: Vec<f64> = one.rates.iter().copied().collect();
        let _ = writeln!(
            text,
            "{:<widest$} {:>7} {:>6} {:>6} {:>10} {:>10} {:>10} {:>8}  {:<15} {}",
            name(row),
            format!("{}/{}", row.ready_pods, row.pods),
            known(row.lanes.map(|lanes| lanes.to_string())),
            known(row.busy_lanes.map(|lanes| lanes.to_string())),
            rate(row.arriving),
            rate(row.finished),
            known(row.lag.map(|lag| lag.to_string())),
            one::age(row.oldest_age_seconds),
            row.reason,
            sparkline(&rates)
        );
    }
    if seen.consumers.is_empty() {
        text.push_str("there are no OrderedConsumers; -A looks into all namespaces\n");
    }
    if let Some(silent) = &seen.silent {
        let _ = writeln!(
            text,
            "{}",
            paint.note(&format!("pods do not tell: {silent}"))
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::PodStats;
    use keylane_consumer::contract::admin::Stats;
    use serde_json::json;
    use std::time::Duration;

    fn consumer() -> OrderedConsumer {
        serde_json::from_value(json!({
            "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer",
            "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {
                "rocketmq": {"nameServers": ["a:1"]}, "topic": "T", "consumerGroup": "g",
                "handler": {"http": {"port": 8080}}, "template": {}
            },
            "status": {
                "replicas": 2, "readyReplicas": 1, "lanes": 8,
                "lag": {"messages": 120, "unfinished": 100}, "rates": {"arriving": "60.0"},
                "decision": {
                    "lanes": 8, "replicas": 2, "reason": "Steady", "message": "it fits",
                    "inputs": {}, "history": "{}"
                }
            }
        }))
        .unwrap()
    }

    fn live(completed: u64) -> ConsumerStats {
        let stats = Stats {
            incarnation: "a".into(),
            completed,
            busy_lanes: 3,
            ..Stats::default()
        };
        let pod = PodStats {
            name: "pod-a".into(),
            stats: Some(stats),
            error: None,
        };
        ConsumerStats::new("shop", "orders", vec![pod])
    }

    #[test]
    fn a_line_has_what_the_status_and_the_pods_say() {
        let began = Instant::now();
        let first = after(One::default(), &consumer(), Some((began, live(100))));
        assert_eq!((first.row.finished, first.row.busy_lanes), (None, Some(3)));
        let later = began + Duration::from_secs(2);
        let second = after(first, &consumer(), Some((later, live(180))));
        assert_eq!(second.row.finished, Some(40.0));
        let name = ("shop".to_owned(), "orders".to_owned());
        let seen = Seen {
            consumers: BTreeMap::from([(name, second)]),
            silent: None,
        };
        let text = frame(&seen, Paint::PLAIN);
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            words,
            [
                "shop/orders",
                "1/2",
                "8",
                "3",
                "60/s",
                "40/s",
                "100",
                "-",
                "Steady",
                "█"
            ]
        );
    }

    #[test]
    fn without_the_live_api_the_status_is_told_and_the_rest_is_not_known() {
        let one = after(One::default(), &consumer(), None);
        assert_eq!((one.row.busy_lanes, one.row.lag), (None, Some(100)));
        let name = ("shop".to_owned(), "orders".to_owned());
        let seen = Seen {
            consumers: BTreeMap::from([(name, one)]),
            silent: Some("nobody serves it".to_owned()),
        };
        let text = frame(&seen, Paint::PLAIN);
        assert!(text.contains(" ? ") && text.contains("pods do not tell: nobody serves it"));
        assert!(frame(&Seen::default(), Paint::PLAIN).contains("-A looks"));
    }
}
