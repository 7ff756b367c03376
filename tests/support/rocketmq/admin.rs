//! Requests about topics: create one, and where its queues are.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::door::Door;
use super::error::{Result, RocketMqError};
use super::remoting::{Answer, Connection, Fields};
use crate::wait;

const UPDATE_AND_CREATE_TOPIC: i32 = 17;
const GET_ROUTE_BY_TOPIC: i32 = 105;
/// Every broker has this topic from its first start; its route names the brokers of a name server.
const TOPIC_OF_EVERY_BROKER: &str = "SELF_TEST_TOPIC";
const KNOWN_LIMIT: Duration = Duration::from_secs(60);

/// Where a topic's queues are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Route {
    broker_datas: Vec<BrokerData>,
    queue_datas: Vec<QueueData>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BrokerData {
    broker_name: String,
    broker_addrs: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueueData {
    broker_name: String,
    write_queue_nums: u32,
}

/// A master broker that has queues of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Master {
    pub(super) broker: String,
    pub(super) address: String,
    pub(super) queues: u32,
}

impl Route {
    /// Masters in the order of their names.
    fn masters(&self) -> Vec<Master> {
        let mut masters: Vec<Master> = self
            .queue_datas
            .iter()
            .filter_map(|queue| {
                let data = self
                    .broker_datas
                    .iter()
                    .find(|data| data.broker_name == queue.broker_name)?;
                Some(Master {
                    broker: queue.broker_name.clone(),
                    address: data.broker_addrs.get("0")?.clone(),
                    queues: queue.write_queue_nums,
                })
            })
            .collect();
        masters.sort_by(|a, b| a.broker.cmp(&b.broker));
        masters
    }
}

/// Creates a topic with that many queues on each master broker the name server knows (or changes the
/// topic to that), and waits until the name server tells everybody so.
///
/// # Errors
/// When no broker is known after 60 s, when one refuses, or when the route is not there after 60 s.
pub async fn create_topic(name_server: &str, topic: &str, queues: u32) -> Result<()> {
    create_topic_through(&Door::default(), name_server, topic, queues).await
}

/// The same of servers that do not let everybody in.
pub(super) async fn create_topic_through(
    door: &Door,
    name_server: &str,
    topic: &str,
    queues: u32,
) -> Result<()> {
    // A broker that started before its name server registers only half a minute later.
    let what = format!("a broker known to {name_server}");
    let brokers = wait::until(KNOWN_LIMIT, what, async || {
        masters(door, name_server, TOPIC_OF_EVERY_BROKER).await
    })
    .await?;
    for master in &brokers {
        create_on(door, &master.address, topic, queues).await?;
    }
    let what = format!("topic {topic} with {queues} queues known to {name_server}");
    wait::until(KNOWN_LIMIT, what, async || {
        let found = masters(door, name_server, topic)
            .await
            .map_err(|error| error.to_string())?;
        let complete = found.len() == brokers.len() && found.iter().all(|m| m.queues == queues);
        if complete {
            Ok(())
        } else {
            Err(format!("its route is {found:?}"))
        }
    })
    .await?;
    Ok(())
}

/// Creates a topic, or changes it to that many queues, on the broker at this address.
pub(super) async fn create_on(door: &Door, address: &str, topic: &str, queues: u32) -> Result<()> {
    let fields = Fields::from([
        ("topic", topic.to_owned()),
        ("defaultTopic", "TBW102".to_owned()),
        ("readQueueNums", queues.to_string()),
        ("writeQueueNums", queues.to_string()),
        ("perm", "6".to_owned()),
        ("topicFilterType", "SINGLE_TAG".to_owned()),
        ("topicSysFlag", "0".to_owned()),
        ("order", "false".to_owned()),
        ("attributes", String::new()),
    ]);
    let broker = Connection::open(address, door).await?;
    broker
        .request(UPDATE_AND_CREATE_TOPIC, &fields, b"")
        .await?;
    Ok(())
}

/// The masters that have queues of this topic, never none.
pub(super) async fn masters(door: &Door, name_server: &str, topic: &str) -> Result<Vec<Master>> {
    let fields = Fields::from([
        ("topic", topic.to_owned()),
        ("acceptStandardJsonOnly", "true".to_owned()),
    ]);
    let answer = Connection::open(name_server, door)
        .await?
        .request(GET_ROUTE_BY_TOPIC, &fields, b"")
        .await?;
    let masters = parse_route(name_server, &answer)?.masters();
    if masters.is_empty() {
        return Err(unreadable(name_server, "no master in it", &answer));
    }
    Ok(masters)
}

fn parse_route(name_server: &str, answer: &Answer) -> Result<Route> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| unreadable(name_server, &error.to_string(), answer))
}

fn unreadable(from: &str, reason: &str, answer: &Answer) -> RocketMqError {
    RocketMqError::Unreadable {
        from: from.to_owned(),
        reason: reason.to_owned(),
        text: String::from_utf8_lossy(&answer.body)
            .chars()
            .take(400)
            .collect(),
    }
}
