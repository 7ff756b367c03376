//! Takes over a group from RocketMQ's own clients: writes its OrderedConsumer, and starts that once nobody else is
//! a member. A group is never shared.

use super::connect::Cluster;
use super::paint::Paint;
use super::{Format, PluginError, Verdict};
use crate::broker::groups::{Group, Topic, Wanted};
use crate::crd::OrderedConsumer;
use crate::live::groups_path;
use clap::Args;
use hyper::Request;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::io::Write;

/// Who writes, in metadata.managedFields.
const MANAGER: &str = "kubectl-keylane";

/// Which group is taken over, and how far it is.
#[derive(Args, Clone, Debug)]
pub(super) struct Migrate {
    /// The consumer group.
    group: String,
    /// Name server of its brokers, as host:port; may be given more than once. Not needed with --start.
    #[arg(
        long = "name-server",
        value_name = "ADDRESS",
        required_unless_present = "start"
    )]
    name_servers: Vec<String>,
    /// Which of its topics, if it consumes more than one.
    #[arg(long)]
    topic: Option<String>,
    /// Name of the OrderedConsumer. Default: made of the group's.
    #[arg(long)]
    name: Option<String>,
    /// Image of the handler.
    #[arg(long, default_value = "your/handler:1")]
    image: String,
    /// Start the OrderedConsumer of the group, which exists and has no pods yet: refused as long as others are
    /// members of the group.
    #[arg(long, conflicts_with_all = ["name_servers", "topic", "image"])]
    start: bool,
    /// Print what was found of the group for programs, in place of the OrderedConsumer.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Carries it out; what there is to say goes to `out`.
pub(super) async fn migrate(
    cluster: &Cluster,
    what: &Migrate,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<Verdict, PluginError> {
    let name = what.name.clone().unwrap_or_else(|| name_of(&what.group));
    if what.start {
        return start(cluster, what, &name, paint, out).await;
    }
    let group = ask(cluster, &what.group, &what.name_servers).await?;
    if let Some(format) = what.output {
        format.write(&group, out)?;
        return Ok(Verdict::Well);
    }
    let (topic, subscribed) = chosen(&group, what)?;
    let object = object(cluster, what, &name, topic, subscribed, group.broadcasting);
    let yaml = serde_norway::to_string(&object).map_err(std::io::Error::other)?;
    let comments = comments(&group, what, &name, &cluster.namespace, subscribed);
    write!(out, "{comments}{yaml}")?;
    Ok(Verdict::Well)
}

async fn ask(
    cluster: &Cluster,
    group: &str,
    name_servers: &[String],
) -> Result<Group, PluginError> {
    let wanted = Wanted {
        group: group.to_owned(),
        name_servers: name_servers.to_vec(),
    };
    let body = serde_json::to_vec(&wanted).map_err(std::io::Error::from)?;
    let request = Request::post(groups_path(&cluster.namespace))
        .header("content-type", "application/json")
        .body(body);
    let doing = format!("read group {group:?}");
    match cluster.ask_live_of(&doing, request).await {
        Err(PluginError::NotLive(reason)) => {
            // Perhaps nothing of Keylane is there.
            cluster.installed().await?;
            Err(PluginError::NotLive(reason))
        }
        answered => answered,
    }
}

/// A name of an object, made of a group's.
fn name_of(group: &str) -> String {
    let plain = group.chars().map(|letter| match letter {
        'a'..='z' | '0'..='9' => letter,
        'A'..='Z' => letter.to_ascii_lowercase(),
        _ => '-',
    });
    let plain: String = plain.take(40).collect();
    let plain = plain.trim_matches(|letter: char| !letter.is_ascii_lowercase());
    if plain.is_empty() {
        "consumer".to_owned()
    } else {
        plain.to_owned()
    }
}

fn wrong(group: &str, reason: String) -> PluginError {
    PluginError::Input {
        path: group.to_owned(),
        reason,
    }
}

/// The one topic that is taken over.
fn chosen<'g>(group: &'g Group, what: &Migrate) -> Result<(&'g str, &'g Topic), PluginError> {
    let names: Vec<&str> = group.topics.keys().map(String::as_str).collect();
    let named = |name: &str| {
        let found = group.topics.get_key_value(name);
        found.map(|(name, topic)| (name.as_str(), topic))
    };
    match (&what.topic, names.as_slice()) {
        (Some(name), _) => named(name).ok_or_else(|| {
            wrong(
                &what.group,
                format!("it does not consume topic {name:?}, but: {}", names.join(", ")),
            )
        }),
        (None, [one]) => named(one).ok_or_else(|| wrong(&what.group, String::new())),
        (None, []) => Err(wrong(
            &what.group,
            "no member is connected and it never committed an offset, so that nobody knows its topic: start its client once, or write the OrderedConsumer yourself".to_owned(),
        )),
        (None, many) => Err(wrong(
            &what.group,
            format!(
                "it consumes {} topics ({}), and an OrderedConsumer one: name it with --topic, and give each other one a group of its own, with the offsets it has",
                many.len(),
                many.join(", ")
            ),
        )),
    }
}

fn object(
    cluster: &Cluster,
    what: &Migrate,
    name: &str,
    topic: &str,
    subscribed: &Topic,
    broadcasting: bool,
) -> Value {
    let mut object = json!({
        "apiVersion": "keylane.dev/v1alpha1",
        "kind": "OrderedConsumer",
        "metadata": {"name": name, "namespace": cluster.namespace},
        "spec": {
            "rocketmq": {"nameServers": what.name_servers},
            "topic": topic,
            "consumerGroup": what.group,
            "handler": {"http": {"port": 8080, "path": "/events"}},
            "replicas": 0,
            "autoscaling": {"mode": "LanesOnly"},
            "template": {"spec": {"containers": [{"name": "handler", "image": what.image}]}},
        },
    });
    if let Some(filter) = filter(subscribed) {
        object["spec"]["filter"] = filter;
    }
    if broadcasting {
        object["spec"]["consumption"] = json!("Broadcasting");
    }
    object
}

/// The filter that a subscription means; none for everything, or where nobody says what it is.
fn filter(subscribed: &Topic) -> Option<Value> {
    let expression = subscribed.expression.as_deref()?.trim();
    if subscribed.expression_type == "SQL92" {
        return Some(json!({"sql": expression}));
    }
    let tags = expression.split("||").map(str::trim);
    let tags: Vec<_> = tags.filter(|tag| !tag.is_empty()).collect();
    (!tags.is_empty() && tags != ["*"]).then(|| json!({"tags": tags}))
}

/// What to do, above the manifest.
fn comments(
    group: &Group,
    what: &Migrate,
    name: &str,
    namespace: &str,
    subscribed: &Topic,
) -> String {
    let mut lines = vec![format!(
        "Group {}: {} messages behind, {} queues with a committed offset. Keylane goes on from there.",
        what.group, subscribed.behind, subscribed.committed_queues
    )];
    if subscribed.expression.is_none() {
        lines.push(
            "No member is connected that says what it filters: add filter, if it does.".into(),
        );
    }
    lines.push("If its listener is MessageListenerConcurrently and order does not matter: ordering: {mode: None}.".into());
    lines.push(format!(
        "1. Put your handler in, and: kubectl apply -f FILE. It has no pods yet; kubectl keylane check {name} -n {namespace}"
    ));
    lines.push(match group.members.len() {
        0 => "2. Nobody else is a member of the group now.".to_owned(),
        number => format!("2. Stop the {number} members of the group:"),
    });
    lines.extend(members(group));
    lines.push(format!(
        "3. kubectl keylane migrate {} --start --name {name} -n {namespace}",
        what.group
    ));
    lines.iter().map(|line| format!("# {line}\n")).collect()
}

fn members(group: &Group) -> Vec<String> {
    let members = group.members.iter();
    members
        .map(|member| {
            format!(
                "   {} at {} ({})",
                member.client_id, member.address, member.language
            )
        })
        .collect()
}

/// Gives the OrderedConsumer its first pod, once it is alone.
async fn start(
    cluster: &Cluster,
    what: &Migrate,
    name: &str,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<Verdict, PluginError> {
    let consumer = cluster.consumer(name).await?;
    let spec = &consumer.spec.consumer;
    if spec.consumer_group != what.group {
        let reason = format!(
            "OrderedConsumer {name:?} consumes as group {:?}; name that of this group with --name",
            spec.consumer_group
        );
        return Err(wrong(&what.group, reason));
    }
    let group = ask(cluster, &what.group, &spec.rocketmq.name_servers).await?;
    if !group.members.is_empty() {
        let line = format!(
            "Not started: others are members of group {}, and would get a part of its queues. Stop them first:",
            what.group
        );
        writeln!(out, "{}", paint.bad(&line))?;
        for member in members(&group) {
            writeln!(out, "{member}")?;
        }
        return Ok(Verdict::Failed);
    }
    let namespace = &cluster.namespace;
    if consumer.spec.replicas > 0 {
        writeln!(
            out,
            "{namespace}/{name} has {} pods already.",
            consumer.spec.replicas
        )?;
        return Ok(Verdict::Well);
    }
    let parameters = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(one_pod(&consumer));
    let started = cluster.consumers().patch(name, &parameters, &patch).await;
    let doing = format!("start OrderedConsumer {name:?}");
    started.map_err(|error| cluster.error(&doing, error))?;
    writeln!(
        out,
        "Nobody else is a member of group {}. {namespace}/{name} gets its first pod.\nNext: kubectl keylane status {name} -n {namespace}",
        what.group
    )?;
    Ok(Verdict::Well)
}

/// `spec.replicas` alone, over what was read.
fn one_pod(consumer: &OrderedConsumer) -> Value {
    json!({
        "metadata": {"resourceVersion": consumer.resource_version(), "uid": consumer.uid()},
        "spec": {"replicas": 1},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::groups::Member;

    fn topic(expression: Option<&str>, kind: &str) -> Topic {
        Topic {
            expression: expression.map(str::to_owned),
            expression_type: kind.to_owned(),
            committed_queues: 8,
            behind: 12,
        }
    }

    fn migrate(topic: Option<&str>) -> Migrate {
        Migrate {
            group: "Order_Status".into(),
            name_servers: vec!["namesrv.mq:9876".into()],
            topic: topic.map(str::to_owned),
            name: None,
            image: "a".into(),
            start: false,
            output: None,
        }
    }

    #[test]
    fn a_subscription_becomes_the_filter_it_means() {
        let tags = |tags: &[&str]| Some(json!({"tags": tags}));
        assert_eq!(filter(&topic(Some("*"), "TAG")), None);
        assert_eq!(filter(&topic(Some(""), "TAG")), None);
        assert_eq!(filter(&topic(None, "")), None);
        assert_eq!(filter(&topic(Some("PAID"), "TAG")), tags(&["PAID"]));
        assert_eq!(
            filter(&topic(Some("A || B||C"), "TAG")),
            tags(&["A", "B", "C"])
        );
        let sql = filter(&topic(Some("a > 1"), "SQL92"));
        assert_eq!(sql, Some(json!({"sql": "a > 1"})));
    }

    #[test]
    fn a_name_is_made_that_kubernetes_takes() {
        assert_eq!(name_of("Order_Status"), "order-status");
        assert_eq!(name_of("%9_"), "consumer");
        assert_eq!(name_of(&"x".repeat(90)).len(), 40);
        assert_eq!(name_of("GID-orders-"), "gid-orders");
    }

    #[test]
    fn the_topic_is_known_or_it_is_said_what_to_do() {
        let mut group = Group::default();
        let error = |group: &Group, named| chosen(group, &migrate(named)).unwrap_err().to_string();
        assert!(error(&group, None).contains("start its client once"));
        group.topics.insert("A".into(), topic(None, ""));
        assert_eq!(chosen(&group, &migrate(None)).unwrap().0, "A");
        assert!(error(&group, Some("B")).contains("but: A"));
        group.topics.insert("B".into(), topic(None, ""));
        assert!(error(&group, None).contains("2 topics (A, B)"));
        assert_eq!(chosen(&group, &migrate(Some("B"))).unwrap().0, "B");
    }

    #[test]
    fn what_to_do_stands_above_the_manifest_with_who_must_be_stopped() {
        let group = Group {
            members: vec![Member {
                client_id: "10.0.0.7@4711".into(),
                address: "10.0.0.7:51234".into(),
                language: "JAVA".into(),
            }],
            ..Group::default()
        };
        let said = comments(
            &group,
            &migrate(None),
            "order-status",
            "shop",
            &topic(None, ""),
        );
        assert!(said.lines().all(|line| line.starts_with("# ")), "{said}");
        for part in [
            "12 messages behind",
            "add filter",
            "Stop the 1 members",
            "10.0.0.7@4711 at 10.0.0.7:51234 (JAVA)",
            "migrate Order_Status --start --name order-status -n shop",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
