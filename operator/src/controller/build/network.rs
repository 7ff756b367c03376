//! Who may reach the ports of an executor. Ports of the user's containers are not ours to close: everything
//! else stays open.

use super::{metadata, selector};
use crate::controller::validate::Consumer;
use crate::names;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer};
use keylane_consumer::contract::{ADMIN_PORT, METRICS_PORT, PROBE_PORT};
use serde::Deserialize;
use serde_json::{Value, json};
use std::str::FromStr;

/// Who may come in; written as JSON in the operator's options.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Guests {
    /// The operator, at the admin port.
    pub operator: NetworkPolicyPeer,
    /// Those who read metrics; nobody named means everybody.
    #[serde(default)]
    pub metrics_from: Vec<NetworkPolicyPeer>,
}

impl FromStr for Guests {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

/// The NetworkPolicy of a consumer's pods. Without guests nothing is closed: for one that was made when there
/// were some.
pub fn network_policy(
    consumer: &Consumer,
    guests: Option<&Guests>,
) -> Result<NetworkPolicy, serde_json::Error> {
    let ingress = match guests {
        Some(guests) => rules(guests),
        None => vec![json!({})],
    };
    serde_json::from_value(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(consumer, names::child(consumer.name())),
        "spec": {
            "podSelector": {"matchLabels": selector(consumer)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }))
}

fn rules(guests: &Guests) -> Vec<Value> {
    let range = |protocol: &str, first: u16, last: u16| json!({"protocol": protocol, "port": first, "endPort": last});
    let mut metrics = json!({"ports": [{"protocol": "TCP", "port": METRICS_PORT}]});
    if !guests.metrics_from.is_empty() {
        metrics["from"] = json!(guests.metrics_from);
    }
    vec![
        json!({
            "ports": [{"protocol": "TCP", "port": ADMIN_PORT}],
            "from": [guests.operator],
        }),
        metrics,
        // Probes tell nothing and come from the node.
        json!({"ports": [
            range("TCP", 1, PROBE_PORT), range("TCP", ADMIN_PORT + 1, u16::MAX),
            range("UDP", 1, u16::MAX), range("SCTP", 1, u16::MAX),
        ]}),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::validate::{tests, validate};

    /// Whether a rule lets somebody in at a port of TCP, and who: none is everybody.
    fn at(policy: &NetworkPolicy, port: i64) -> Vec<Value> {
        let spec = serde_json::to_value(&policy.spec).unwrap();
        let matches = |of: &Value| {
            let (first, last) = (of["port"].as_i64(), of["endPort"].as_i64());
            let last = last.or(first).unwrap_or_default();
            of["protocol"] == "TCP" && (first.unwrap_or_default()..=last).contains(&port)
        };
        let rules = spec["ingress"].as_array().unwrap().iter();
        let open = rules.filter(|rule| match rule["ports"].as_array() {
            Some(ports) => ports.iter().any(matches),
            None => true,
        });
        open.map(|rule| rule["from"].clone()).collect()
    }

    #[test]
    fn the_operator_alone_reaches_the_admin_port_and_nothing_of_the_users_is_closed() {
        let consumer = validate(&tests::object(tests::template())).unwrap();
        let operator = json!({"podSelector": {"matchLabels": {"a": "b"}}});
        let scraper = json!({"namespaceSelector": {"matchLabels": {"c": "d"}}});
        let text = json!({"operator": operator, "metricsFrom": [scraper]}).to_string();
        let guests: Guests = text.parse().unwrap();
        let policy = network_policy(&consumer, Some(&guests)).unwrap();
        assert_eq!(at(&policy, ADMIN_PORT.into()), [json!([operator])]);
        assert_eq!(at(&policy, METRICS_PORT.into()), [json!([scraper])]);
        for port in [1, 8080, PROBE_PORT.into(), 9404, 65_535] {
            assert_eq!(at(&policy, port), [Value::Null], "port {port}");
        }
        let everybody: Guests = json!({"operator": operator}).to_string().parse().unwrap();
        let policy = network_policy(&consumer, Some(&everybody)).unwrap();
        assert_eq!(at(&policy, METRICS_PORT.into()), [Value::Null]);
        let open = network_policy(&consumer, None).unwrap();
        assert_eq!(at(&open, ADMIN_PORT.into()), [Value::Null]);
    }
}
