//! What newcomers do wrong, and what each is told: what is wrong, and what to do. One row each, in the order in which
//! they meet it. Whatever needs no cluster is tried without one.

use crate::plugin::run_with;
use crate::space::{Space, consumer};
use anyhow::Result;
use clap::Parser as _;
use keylane_consumer::contract::spec::ConsumerSpec;
use keylane_consumer::source::rocketmq::Access;
use keylane_operator::broker::groups::{self, Wanted};
use keylane_operator::broker::letters::Letters;
use keylane_operator::controller::validate::validate;
use keylane_operator::plugin::Cli;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What is done wrong, and parts of what is said.
type Mistake<T> = (&'static str, T, &'static [&'static str]);

/// Collects rows that say something else.
fn faults<T>(rows: &[Mistake<T>], said: impl Fn(&T) -> Option<String>) -> String {
    let mut faults = String::new();
    for (mistake, row, parts) in rows {
        let said = said(row);
        let missing = |text: &String| parts.iter().any(|part| !text.contains(part));
        if said.as_ref().is_none_or(missing) {
            let _ = writeln!(faults, "{mistake}: {parts:?} is not in {said:?}");
        }
    }
    faults
}

/// The consumer with one field of its spec set; a `null` takes it out.
fn with(field: &str, value: Value) -> Value {
    let mut object = consumer("orders");
    let path = format!("/spec/{field}");
    let (parent, last) = path.rsplit_once('/').unwrap_or_default();
    if let Some(parent) = object.pointer_mut(parent).and_then(Value::as_object_mut) {
        match value {
            Value::Null => drop(parent.remove(last)),
            value => drop(parent.insert(last.to_owned(), value)),
        }
    }
    object
}

#[test]
fn what_the_api_server_refuses_says_what_to_write() -> Result<()> {
    let space = Space::new("newcomers")?;
    let long = {
        let mut object = consumer("orders");
        object["metadata"]["name"] = json!("o".repeat(41));
        object
    };
    let rows: Vec<Mistake<Value>> = vec![
        (
            "1 a name server without its port",
            with("rocketmq/nameServers", json!(["namesrv.mq"])),
            &[
                "spec.rocketmq.nameServers",
                "host:port, such as namesrv.mq:9876",
            ],
        ),
        (
            "2 a topic as it is spoken of",
            with("topic", json!("order status")),
            &["spec.topic", "write the topic's name as RocketMQ has it"],
        ),
        (
            "3 a group with dots",
            with("consumerGroup", json!("shop.orders")),
            &["spec.consumerGroup", "choose a group of letters"],
        ),
        (
            "4 no way to the handler",
            with("handler", json!({})),
            &[
                "exactly one of handler.http and handler.grpc",
                "http: {port: 8080}",
            ],
        ),
        (
            "5 a handler without a port",
            with("handler/http", json!({"path": "/events"})),
            &["exactly one of handler.http.port and handler.http.unixSocket"],
        ),
        (
            "6 a path that is a URL",
            with("handler/http/path", json!("http://localhost/events")),
            &["begin the path with /", "such as /events"],
        ),
        (
            "7 lanes.max 0",
            with("lanes", json!({"min": 1, "max": 0})),
            &["spec.lanes.max", "greater than or equal to 1"],
        ),
        (
            "8 lanes.min above lanes.max",
            with("lanes", json!({"min": 8, "max": 4})),
            &["lanes.min must not be larger than lanes.max"],
        ),
        (
            "9 minReplicas above maxReplicas",
            with("autoscaling", json!({"minReplicas": 4, "maxReplicas": 2})),
            &["autoscaling.minReplicas must not be larger than autoscaling.maxReplicas"],
        ),
        (
            "10 a time without its unit",
            with("handler/timeout", json!("30")),
            &["spec.handler.timeout", "each with its unit h, m, s or ms"],
        ),
        (
            "11 tags as the Java client takes them",
            with("filter", json!({"tags": ["PAID || SHIPPED"]})),
            &["write each tag as an entry of its own"],
        ),
        (
            "12 a start at a time that is not said",
            with("startFrom", json!({"position": "Timestamp"})),
            &["startFrom.timestamp must be set exactly when startFrom.position is Timestamp"],
        ),
        (
            "13 a key in a property that is not named",
            with("ordering", json!({"key": {"from": "Property"}})),
            &["ordering.key.property must be set exactly when ordering.key.from is Property"],
        ),
        (
            "14 a field that is misspelled",
            with("lane", json!({"max": 64})),
            &["unknown field \"spec.lane\""],
        ),
        (
            "15 a name that is too long for what is named after it",
            long,
            &["40"],
        ),
        (
            "16 no template",
            with("template", Value::Null),
            &["spec.template: Required"],
        ),
    ];
    let faults = faults(&rows, |object| space.refusal(object));
    assert!(faults.is_empty(), "{faults}");
    Ok(())
}

#[test]
fn what_the_operator_finds_in_a_template_says_what_to_change() {
    let container = |container: Value| with("template/spec/containers", json!([container]));
    let handler = |field: &str, value: Value| {
        container(json!({"name": "handler", "image": "a", field: value}))
    };
    let rows: Vec<Mistake<Value>> = vec![
        (
            "17 the handler's container has another name",
            container(json!({"name": "app", "image": "a"})),
            &[
                "no container named \"handler\" (found: app)",
                "spec.handler.container",
            ],
        ),
        (
            "18 a field of the pod that is misspelled",
            handler("imagePullPolcy", json!("Never")),
            &["imagePullPolcy", "correct its name or take it out"],
        ),
        (
            "19 a preStop hook that sleeps",
            handler(
                "lifecycle",
                json!({"preStop": {"exec": {"command": ["sleep", "5"]}}}),
            ),
            &["preStop", "handle SIGTERM instead"],
        ),
        (
            "20 the handler listens where the executor does",
            with("handler/http/port", json!(9402)),
            &["port 9402 is the executor's own", "choose another"],
        ),
    ];
    let faults = faults(&rows, |object| {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!("shop");
        object["metadata"]["uid"] = json!("1");
        let consumer = serde_json::from_value(object).expect("an OrderedConsumer");
        validate(&consumer).err().map(|error| error.to_string())
    });
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn a_command_that_is_mistyped_says_how_it_is_typed() {
    let rows: Vec<Mistake<&str>> = vec![
        (
            "21 an offset for all queues at once",
            "offsets reset orders --to 700",
            &[
                "means something else in each queue",
                "earliest, latest or a time",
            ],
        ),
        (
            "22 a queue by its number",
            "suspend orders --queue 3",
            &["broker name/queue id, such as broker-a/3"],
        ),
        (
            "23 a dead letter by its number",
            "dlq show orders 17",
            &["such as broker-a/0/17, as dlq list shows it"],
        ),
        (
            "24 a group without a way to it",
            "migrate orders",
            &["--name-server <ADDRESS>"],
        ),
    ];
    let faults = faults(&rows, |line| {
        let words = ["kubectl-keylane"].into_iter().chain(line.split(' '));
        Cli::try_parse_from(words)
            .err()
            .map(|error| error.to_string())
    });
    assert!(faults.is_empty(), "{faults}");
}

/// A kubeconfig with one context, `there`, of a cluster where nobody listens.
const NOBODY: &str = r#"
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
contexts: [{name: there, context: {cluster: c, user: u}}]
current-context: there
"#;

#[test]
fn whoever_looks_in_the_wrong_place_is_told_where_to_look() -> Result<()> {
    let space = Space::new("lost")?;
    space.apply(&consumer("orders"))?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), NOBODY)?;
    let (real, nobody) = (space.cluster().kubeconfig(), file.path());
    let missing = std::path::Path::new("/nowhere/kubeconfig");
    let rows: Vec<Mistake<(_, &[&str])>> = vec![
        (
            "25 no kubeconfig",
            (missing, &["status", "orders"]),
            &[
                "no cluster to ask",
                "set KUBECONFIG, or name a file with --kubeconfig",
            ],
        ),
        (
            "26 a context that is not there",
            (nobody, &["status", "orders", "--context", "here"]),
            &["no context \"here\"; it has: there"],
        ),
        (
            "27 a cluster that does not run",
            (nobody, &["status", "orders"]),
            &[
                "https://127.0.0.1:1/ does not answer",
                "kubectl config current-context",
            ],
        ),
        (
            "28 the wrong name, or namespace",
            (real, &["status", "order"]),
            &["there is no OrderedConsumer \"order\"", "there are: orders"],
        ),
        (
            "29 live figures where nobody serves them",
            (real, &["dlq", "list", "orders"]),
            &[
                "does not serve live.keylane.dev",
                "--set liveApi.enabled=true",
            ],
        ),
    ];
    let faults = faults(&rows, |(kubeconfig, args)| {
        run_with(&space, kubeconfig, args)
            .err()
            .map(|error| error.to_string())
    });
    assert!(faults.is_empty(), "{faults}");
    Ok(())
}

/// The API server's own answer where nobody knows of a group.
#[test]
fn who_has_not_installed_keylane_is_told_how() -> Result<()> {
    let space = Space::new("bare")?;
    let text = std::fs::read_to_string(space.cluster().kubeconfig())?;
    let mut kubeconfig: Value = serde_norway::from_str(&text)?;
    for cluster in kubeconfig["clusters"].as_array_mut().into_iter().flatten() {
        let server = cluster["cluster"]["server"].as_str().unwrap_or_default();
        cluster["cluster"]["server"] = json!(format!("{server}/nowhere"));
    }
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), kubeconfig.to_string())?;
    let commands: [&[&str]; 7] = [
        &["status", "orders"],
        &["explain", "orders"],
        &["suspend", "orders"],
        &["dlq", "list", "orders"],
        &["top"],
        &["top", "-A"],
        &["migrate", "orders", "--name-server", "namesrv.mq:9876"],
    ];
    let rows = commands.map(|command| -> Mistake<&[&str]> {
        (
            "31 Keylane is not installed",
            command,
            &[
                "Keylane is not installed",
                "helm install keylane charts/keylane",
            ],
        )
    });
    let faults = faults(&rows, |args| {
        run_with(&space, file.path(), args)
            .err()
            .map(|error| error.to_string())
    });
    assert!(faults.is_empty(), "{faults}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_server_that_does_not_answer_is_named_with_what_to_check() -> Result<()> {
    let spec: ConsumerSpec = serde_json::from_value(json!({
        "rocketmq": {"nameServers": ["127.0.0.1:1"]}, "topic": "T", "consumerGroup": "g",
        "handler": {"http": {"port": 8080}},
    }))?;
    let wanted = Wanted {
        group: "g".to_owned(),
        name_servers: vec!["127.0.0.1:1".to_owned()],
    };
    let access = Access::open(&spec.rocketmq)?;
    let (letters, group) = tokio::join!(Letters::connect(&spec, access), groups::find(&wanted));
    let said = [
        letters.err().map(|error| error.to_string()),
        group.err().map(|error| error.to_string()),
    ];
    let rows: Vec<Mistake<usize>> = vec![
        (
            "30 a name server that does not answer",
            0,
            &[
                "127.0.0.1:1 did not answer",
                "check that the address is right and reachable",
            ],
        ),
        (
            "30 the same before there is a consumer",
            1,
            &[
                "127.0.0.1:1 did not answer",
                "check that the address is right and reachable",
            ],
        ),
    ];
    let faults = faults(&rows, |at| said[*at].clone());
    assert!(faults.is_empty(), "{faults}");
    Ok(())
}
