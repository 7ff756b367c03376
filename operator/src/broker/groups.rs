//! A running group that is to be taken over: who its members are, what they subscribe, how far they are.

use keylane_consumer::contract::spec::ConsumerSpec;
use keylane_consumer::ownership::membership::CLIENT_ID_PREFIX;
use keylane_consumer::source::SourceError;
use keylane_consumer::source::rocketmq::RocketmqSource;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Topics of RocketMQ and of Keylane that belong to a group.
const OF_GROUPS: [&str; 4] = ["%RETRY%", "%DLQ%", "KEYLANE_", "KEYLANE%"];

/// Which group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wanted {
    /// Its name.
    pub group: String,
    /// Name servers that know its brokers, as host:port, at most 16.
    pub name_servers: Vec<String>,
}

/// A member of a group that is not Keylane's.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Member {
    /// Its client id: address@process id, usually.
    pub client_id: String,
    /// Its address, as a broker sees it.
    pub address: String,
    /// What its client is written in.
    pub language: String,
}

/// What of a topic a group consumes, and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Topic {
    /// The expression; absent if no member is connected that says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// TAG or SQL92.
    pub expression_type: String,
    /// Queues with a committed offset.
    pub committed_queues: u64,
    /// Messages behind the committed offsets of these.
    pub behind: u64,
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Group {
    /// Its members that are not Keylane's.
    pub members: Vec<Member>,
    /// Keylane's members.
    pub keylane_members: u64,
    /// What it consumes, by topic.
    pub topics: BTreeMap<String, Topic>,
    /// Whether each member gets every message.
    pub broadcasting: bool,
}

/// Why nothing is known of a group.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// A broker does not answer or refuses.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It cannot be asked for.
    #[error("{0}")]
    Asked(String),
    /// There is none.
    #[error(
        "name server {name_servers} knows no group {group:?}: is its name right, and has a member ever consumed? (mqadmin consumerProgress lists groups)"
    )]
    NoSuch {
        /// Its name.
        group: String,
        /// Name servers, separated by semicolons.
        name_servers: String,
    },
}

/// Asks all brokers of a group. One that does not answer is an error: its members would go unseen.
pub async fn find(wanted: &Wanted) -> Result<Group, GroupError> {
    let source = Box::pin(RocketmqSource::connect(&spec(wanted)?, "keylane-groups")).await?;
    let route = source.group_route().await?;
    let Some(route) = route.filter(|route| !route.masters.is_empty()) else {
        return Err(GroupError::NoSuch {
            group: wanted.group.clone(),
            name_servers: wanted.name_servers.join(";"),
        });
    };
    let mut group = Group::default();
    let (mut members, mut ours) = (BTreeSet::new(), BTreeSet::new());
    for broker in route.masters.keys() {
        let connected = source.connected(broker).await?;
        group.broadcasting |= connected.message_model == "BROADCASTING";
        for member in connected.connection_set {
            if member.client_id.starts_with(CLIENT_ID_PREFIX) {
                ours.insert(member.client_id);
                continue;
            }
            members.insert(Member {
                client_id: member.client_id,
                address: member.client_addr,
                language: member.language,
            });
        }
        for (topic, subscribed) in connected.subscription_table {
            let known = group.topics.entry(topic).or_default();
            known.expression = Some(subscribed.sub_string);
            known.expression_type = subscribed.expression_type;
        }
        for ((topic, _), position) in source.positions(broker).await? {
            let known = group.topics.entry(topic).or_default();
            known.committed_queues += u64::from(position.consumer_offset > 0);
            let behind = position.broker_offset - position.consumer_offset;
            known.behind += u64::try_from(behind).unwrap_or_default();
        }
    }
    let of_groups = |topic: &str| OF_GROUPS.iter().any(|prefix| topic.starts_with(prefix));
    group.topics.retain(|topic, _| !of_groups(topic));
    // A member is connected to every broker, each by an address of its own.
    let mut by_id = BTreeMap::new();
    for member in members {
        by_id.entry(member.client_id.clone()).or_insert(member);
    }
    group.members = by_id.into_values().collect();
    group.keylane_members = ours.len() as u64;
    Ok(group)
}

/// The least that a connection needs.
fn spec(wanted: &Wanted) -> Result<ConsumerSpec, GroupError> {
    let named = |what: &str, text: &str, most: usize| {
        let letter = |letter: char| letter.is_ascii_alphanumeric() || "%|_-".contains(letter);
        let fits = (1..=most).contains(&text.len()) && text.chars().all(letter);
        let wrong = || {
            GroupError::Asked(format!(
                "{what} {text:?} is no name: 1 to {most} letters, digits, _, -, % and |"
            ))
        };
        fits.then_some(()).ok_or_else(wrong)
    };
    named("group", &wanted.group, 119)?;
    let servers = &wanted.name_servers;
    let fits = |server: &String| {
        let parts = server.rsplit_once(':');
        parts.is_some_and(|(host, port)| {
            !host.is_empty() && host.len() <= 255 && port.parse::<u16>().is_ok()
        })
    };
    if servers.is_empty() || servers.len() > 16 || !servers.iter().all(fits) {
        return Err(GroupError::Asked(format!(
            "name servers are {servers:?}: give 1 to 16, each as host:port, such as namesrv.mq:9876"
        )));
    }
    let spec = json!({
        "rocketmq": {"nameServers": servers},
        "topic": format!("%RETRY%{}", wanted.group), "consumerGroup": wanted.group,
        "handler": {"http": {"port": 1}},
    });
    serde_json::from_value(spec).map_err(|error| GroupError::Asked(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_asked_for_is_refused_with_what_to_write() {
        let wanted = |group: &str, servers: &[&str]| {
            let name_servers = servers.iter().map(|server| (*server).to_owned()).collect();
            let group = group.to_owned();
            spec(&Wanted {
                group,
                name_servers,
            })
        };
        let found = wanted("orders", &["namesrv.mq:9876"]).unwrap();
        assert_eq!(found.consumer_group, "orders");
        for (group, servers, says) in [
            ("", vec!["a:1"], "group \"\" is no name"),
            ("a b", vec!["a:1"], "group \"a b\" is no name"),
            ("g", vec![], "such as namesrv.mq:9876"),
            ("g", vec!["namesrv.mq"], "such as namesrv.mq:9876"),
            ("g", vec![":9876"], "such as namesrv.mq:9876"),
            ("g", vec!["a:99999"], "such as namesrv.mq:9876"),
        ] {
            let error = wanted(group, &servers).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
