//! Offsets of an OrderedConsumer's group: where each queue is, and how to have them go on from elsewhere.
//! Whatever changes them is asked for by an annotation, written over what was read, and done by the pods that
//! hold the queues.

use super::connect::Cluster;
use super::paint::Paint;
use super::{Format, PluginError};
use crate::controller::status::GROUP_SHARED;
use crate::crd::{OrderedConsumer, ResetPhase};
use crate::live::ConsumerStats;
use crate::names;
use clap::{Args, Subcommand};
use k8s_openapi::jiff::Timestamp;
use keylane_consumer::contract::admin::QueueStats;
use keylane_consumer::contract::offsets::{ResetTo, is_id};
use keylane_consumer::contract::spec::Consumption;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write;

/// Who writes, in metadata.managedFields.
const MANAGER: &str = "kubectl-keylane";

/// What is to be done with offsets.
#[derive(Debug, Subcommand)]
pub(super) enum Offsets {
    /// Where each queue is, as the pod that holds it says.
    #[command(after_help = "\
Examples:
  kubectl keylane offsets show order-status -n shop
  kubectl keylane offsets show order-status -n shop -o json")]
    Show(Show),
    /// Have the group go on from elsewhere in all queues. Says what would happen, and does it with --yes.
    ///
    /// Back, messages are handled again, each key in its order; forward, messages are skipped. Running calls
    /// finish first.
    #[command(after_help = "\
Examples:
  kubectl keylane offsets reset order-status -n shop --to earliest
  kubectl keylane offsets reset order-status -n shop --to earliest --yes
  kubectl keylane offsets reset order-status -n shop --to 2026-11-11T00:00:00+08:00 --yes -o json")]
    Reset(Reset),
}

/// Whose offsets are shown.
#[derive(Args, Clone, Debug)]
pub(super) struct Show {
    /// Name of the OrderedConsumer.
    name: String,
    /// Print it for programs.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

/// What is to be reset.
#[derive(Args, Clone, Debug)]
pub(super) struct Reset {
    /// Name of the OrderedConsumer.
    name: String,
    /// earliest, latest, or a time: the first message stored then or later.
    #[arg(long, value_name = "POSITION", value_parser = position)]
    to: ResetTo,
    /// Names the request, so that it is carried out once. Default: made of the time.
    #[arg(long, value_name = "ID", value_parser = id)]
    id: Option<String>,
    /// Do it.
    #[arg(long)]
    yes: bool,
    /// Print it for programs.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

fn position(text: &str) -> Result<ResetTo, String> {
    match text.parse::<ResetTo>() {
        Ok(ResetTo::Offset(_)) => Err(
            "an offset means something else in each queue: write earliest, latest or a time such as 2026-11-11T00:00:00+08:00"
                .to_owned(),
        ),
        Ok(position) => Ok(position),
        Err(error) => Err(error.to_string()),
    }
}

fn id(text: &str) -> Result<String, String> {
    if is_id(text) {
        Ok(text.to_owned())
    } else {
        Err("write 1 to 63 letters, digits, '.', '_' and '-'".to_owned())
    }
}

/// Carries it out; what there is to say goes to `out`.
pub(super) async fn offsets(
    cluster: &Cluster,
    what: &Offsets,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<(), PluginError> {
    match what {
        Offsets::Show(show) => {
            let queues = queues(&cluster.live(&show.name).await?);
            match show.output {
                Some(format) => format.write(&queues, out),
                None => Ok(write!(out, "{}", table(&queues, paint))?),
            }
        }
        Offsets::Reset(what) => reset(cluster, what, out).await,
    }
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Queue {
    /// Broker name/queue id.
    queue: String,
    /// Whether it is one of the group's retry topic.
    retry: bool,
    pod: String,
    /// First message that is not finished.
    watermark: Option<u64>,
    /// What the broker has.
    committed: Option<u64>,
    /// Messages finished beyond the watermark: they are not run again.
    finished_beyond: u64,
    /// First offset that is not pulled yet.
    pulled: Option<u64>,
}

fn queues(live: &ConsumerStats) -> Vec<Queue> {
    let pods = live
        .pods
        .iter()
        .filter_map(|pod| Some((pod.stats.as_ref()?, &pod.name)));
    let of = |queue: &QueueStats, pod: &String| Queue {
        queue: format!("{}/{}", queue.broker, queue.id),
        retry: queue.retry,
        pod: pod.clone(),
        watermark: queue.watermark,
        committed: queue.committed,
        finished_beyond: queue.finished_above_watermark,
        pulled: queue.pulled,
    };
    let mut queues: Vec<_> = pods
        .flat_map(|(stats, pod)| stats.queues.iter().map(move |queue| of(queue, pod)))
        .collect();
    queues.sort_by(|left, right| (left.retry, &left.queue).cmp(&(right.retry, &right.queue)));
    queues
}

fn table(queues: &[Queue], paint: Paint) -> String {
    let mut text = String::new();
    let known = |offset: Option<u64>| offset.map_or_else(|| "?".to_owned(), |at| at.to_string());
    let _ = writeln!(
        text,
        "{}",
        paint.strong(&format!(
            "{:<24} {:>14} {:>14} {:>16} {:>14}  {}",
            "QUEUE", "COMMITTED", "WATERMARK", "FINISHED BEYOND", "PULLED", "POD"
        ))
    );
    for queue in queues {
        let retry = if queue.retry { " retry" } else { "" };
        let _ = writeln!(
            text,
            "{:<24} {:>14} {:>14} {:>16} {:>14}  {}",
            format!("{}{retry}", queue.queue),
            known(queue.committed),
            known(queue.watermark),
            queue.finished_beyond,
            known(queue.pulled),
            queue.pod
        );
    }
    if queues.is_empty() {
        text.push_str("no pod holds a queue\n");
    }
    text
}

/// What is asked for, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    /// Names the request.
    id: String,
    to: String,
    /// Messages that are not finished now; none if that is not known.
    unfinished: Option<u64>,
    /// What it means.
    effect: String,
    /// Whether it is written; else nothing is changed.
    written: bool,
}

async fn reset(cluster: &Cluster, what: &Reset, out: &mut dyn Write) -> Result<(), PluginError> {
    let consumer = cluster.consumer(&what.name).await?;
    let now = || Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let id = what.id.clone().unwrap_or_else(now);
    if let Some(reason) = unsafe_now(&consumer, &id) {
        return Err(PluginError::Input {
            path: what.name.clone(),
            reason: format!("its offsets are not reset: {reason}"),
        });
    }
    let value = format!("{id}: {}", what.to);
    if what.yes {
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api = cluster.consumers();
        let patch = Patch::Merge(patch(&consumer, &value));
        let written = api.patch(&what.name, &parameters, &patch).await;
        let doing = format!("reset the offsets of OrderedConsumer {:?}", what.name);
        written.map_err(|error| cluster.error(&doing, error))?;
    }
    let effect = effect(&consumer, &what.to);
    if let Some(format) = what.output {
        let asked = Asked {
            id,
            to: what.to.to_string(),
            unfinished: unfinished(&consumer),
            effect,
            written: what.yes,
        };
        return format.write(&asked, out);
    }
    writeln!(out, "{}/{}: {effect}", cluster.namespace, what.name)?;
    if consumer.spec.replicas == 0 {
        writeln!(out, "There are no pods: it is done once there are.")?;
    }
    Ok(if what.yes {
        writeln!(
            out,
            "It is asked for as {id}. How far it is: kubectl get oc {} -n {} -o jsonpath='{{.status.offsetsReset}}'",
            what.name, cluster.namespace
        )
    } else {
        writeln!(
            out,
            "Nothing is changed. With --yes it writes the annotation {}: {value:?}",
            names::RESET_OFFSETS
        )
    }?)
}

/// The annotation alone, over what was read.
fn patch(consumer: &OrderedConsumer, value: &str) -> Value {
    json!({"metadata": {
        "resourceVersion": consumer.resource_version(),
        "uid": consumer.uid(),
        "annotations": {names::RESET_OFFSETS: value},
    }})
}

/// Why nobody should ask for it now.
fn unsafe_now(consumer: &OrderedConsumer, id: &str) -> Option<String> {
    if consumer.spec.consumer.consumption == Consumption::Broadcasting {
        return Some("with consumption Broadcasting no offsets are kept".to_owned());
    }
    let Some(status) = &consumer.status else {
        return Some(
            "no operator has looked at it, so nobody would do it (kubectl keylane check says why)"
                .to_owned(),
        );
    };
    if let Some(reset) = &status.offsets_reset {
        if reset.phase == ResetPhase::Pending {
            return Some(format!(
                "the reset {} to {} is not done yet; wait for it, or remove the annotation {}",
                reset.id,
                reset.to,
                names::RESET_OFFSETS
            ));
        }
        if reset.id == id {
            return Some(format!(
                "the id {id} was used for the reset to {}, and an id is obeyed once; choose another --id",
                reset.to
            ));
        }
    }
    let shared = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == GROUP_SHARED && condition.status == "True");
    shared.map(|shared| {
        format!(
            "others are members of its group and would commit their own: {}",
            shared.message
        )
    })
}

fn unfinished(consumer: &OrderedConsumer) -> Option<u64> {
    let status = consumer.status.as_ref()?;
    status.lag.as_ref().map(|lag| lag.unfinished)
}

/// What will happen.
fn effect(consumer: &OrderedConsumer, to: &ResetTo) -> String {
    let unfinished = unfinished(consumer).map_or_else(
        || "an unknown number of".to_owned(),
        |number| number.to_string(),
    );
    let then = match to {
        ResetTo::Earliest => {
            "every queue goes on at the oldest message that is kept: all that is kept is handled again, each key in its order"
                .to_owned()
        }
        ResetTo::Latest => format!(
            "every queue goes on behind its last message: {unfinished} unfinished messages are skipped and never handled"
        ),
        _ => format!(
            "every queue goes on at the first message stored at {to} or later: what was finished since is handled again, each key in its order, and what is older and unfinished is skipped (now {unfinished} are unfinished)"
        ),
    };
    format!("{then}. Running calls finish first.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::PodStats;
    use keylane_consumer::contract::admin::Stats;

    fn consumer(status: Value) -> OrderedConsumer {
        serde_json::from_value(json!({
            "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer",
            "metadata": {"name": "orders", "namespace": "shop", "uid": "u", "resourceVersion": "7"},
            "spec": {
                "rocketmq": {"nameServers": ["a:9876"]}, "topic": "T", "consumerGroup": "g",
                "handler": {"http": {"port": 8080}},
                "template": {"spec": {"containers": [{"name": "handler", "image": "a"}]}},
            },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn positions_that_mean_the_same_in_every_queue_can_be_asked_for() {
        assert_eq!(position("latest"), Ok(ResetTo::Latest));
        assert!(position("2026-11-11T00:00:00+08:00").is_ok());
        assert!(position("700").unwrap_err().contains("each queue"));
        assert!(position("yesterday").is_err());
        assert!(id("night-1").is_ok() && id("a b").is_err());
    }

    #[test]
    fn what_is_unsafe_is_refused_with_its_reason() {
        assert_eq!(unsafe_now(&consumer(json!({})), "two"), None);
        let reset = |phase: &str| {
            consumer(json!({"offsetsReset": {
                "id": "one", "to": "latest", "phase": phase, "queuesDone": 3, "skipped": 0, "replayed": 0,
            }}))
        };
        let refused = |consumer: &OrderedConsumer, id| unsafe_now(consumer, id).unwrap();
        assert_eq!(unsafe_now(&reset("Done"), "two"), None);
        assert!(refused(&reset("Done"), "one").contains("choose another --id"));
        assert!(refused(&reset("Pending"), "two").contains("reset one to latest"));
        let shared = |status| {
            consumer(json!({"conditions": [{
                "type": GROUP_SHARED, "status": status, "reason": "Foreign", "message": "192.168.0.7@4711",
                "lastTransitionTime": "2026-11-11T00:00:00Z"
            }]}))
        };
        assert_eq!(unsafe_now(&shared("False"), "two"), None);
        assert!(refused(&shared("True"), "two").contains("192.168.0.7@4711"));
        let mut unseen = consumer(json!({}));
        unseen.status = None;
        assert!(refused(&unseen, "two").contains("no operator has looked"));
        let mut broadcasting = consumer(json!({}));
        broadcasting.spec.consumer.consumption = Consumption::Broadcasting;
        assert!(refused(&broadcasting, "two").contains("Broadcasting"));
    }

    #[test]
    fn what_will_happen_is_said_with_numbers_and_only_the_annotation_is_written() {
        let orders = consumer(json!({"lag": {"messages": 15, "unfinished": 12}}));
        let said = effect(&orders, &ResetTo::Latest);
        assert!(
            said.contains("12 unfinished messages are skipped"),
            "{said}"
        );
        let unknown = effect(&consumer(json!({})), &ResetTo::Latest);
        assert!(
            unknown.contains("an unknown number of unfinished"),
            "{unknown}"
        );
        let patch = patch(&orders, "one: latest");
        let wanted = json!({"metadata": {
            "resourceVersion": "7", "uid": "u", "annotations": {names::RESET_OFFSETS: "one: latest"}
        }});
        assert_eq!(patch, wanted);
    }

    #[test]
    fn queues_are_shown_with_what_is_known_of_them() {
        let queue = |id, watermark| QueueStats {
            broker: "broker-a".into(),
            id,
            watermark,
            committed: watermark,
            finished_above_watermark: 4,
            ..QueueStats::default()
        };
        let stats = Stats {
            queues: vec![queue(1, None), queue(0, Some(70))],
            ..Stats::default()
        };
        let pods = vec![PodStats {
            name: "pod-a".into(),
            stats: Some(stats),
            error: None,
        }];
        let queues = queues(&ConsumerStats::new("shop", "orders", pods));
        let text = table(&queues, Paint::PLAIN);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[1], ["broker-a/0", "70", "70", "4", "?", "pod-a"]);
        assert_eq!(rows[2][1..3], ["?", "?"]);
    }
}
