//! Each alert of the chart fires when it should and not before: promtool evaluates the rules, as the chart renders
//! them, on series that are made up, minute by minute.

use anyhow::{Context as _, Result, ensure};
use keylane_tests::cluster::{Cluster, run};
use keylane_tests::images::workspace::workspace;
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// An alert, what leads to it, and when.
struct Case {
    alert: &'static str,
    /// Series with their values, one a minute; `a+bxn` is n more after a, each b more; `_` is none.
    series: &'static [(&'static str, &'static str)],
    /// Minutes at which it must not fire.
    quiet: &'static [u32],
    /// A minute at which it must.
    fires: u32,
    severity: &'static str,
    /// Labels it has beside the severity.
    labels: &'static [(&'static str, &'static str)],
}

/// The pod that is in trouble; another is not.
const POD: &[(&str, &str)] = &[("namespace", "shop"), ("pod", "orders-1")];

/// Everything is well for five minutes, and a rule that waits for N more is quiet until then.
const CASES: [Case; 10] = [
    Case {
        alert: "KeylaneNoLeader",
        series: &[
            (
                r#"keylane_operator_leader{pod="operator-1"}"#,
                "1+0x4 0+0x30",
            ),
            (r#"keylane_operator_leader{pod="operator-2"}"#, "0+0x34"),
        ],
        quiet: &[4, 6],
        fires: 8,
        severity: "critical",
        labels: &[],
    },
    // No operator is there at all. For five minutes its last figures count.
    Case {
        alert: "KeylaneNoLeader",
        series: &[(r#"keylane_operator_leader{pod="operator-1"}"#, "1+0x4 _x30")],
        quiet: &[4, 6],
        fires: 15,
        severity: "critical",
        labels: &[],
    },
    Case {
        alert: "KeylaneRoundsFail",
        series: &[
            (
                r#"keylane_operator_failed_rounds_total{pod="operator-1",what="lanes"}"#,
                "0+0x5 3+3x60",
            ),
            (
                r#"keylane_operator_failed_rounds_total{pod="operator-1",what="status"}"#,
                "0+0x65",
            ),
            // Somebody changed the object meanwhile: that is no fault.
            (
                r#"keylane_operator_failed_rounds_total{pod="operator-1",what="changed"}"#,
                "0+9x65",
            ),
        ],
        quiet: &[5, 20],
        fires: 40,
        severity: "warning",
        labels: &[("what", "lanes")],
    },
    Case {
        alert: "KeylaneBrokerUnavailable",
        series: &[
            (
                r#"keylane_broker_available{namespace="shop",pod="orders-1"}"#,
                "1+0x4 0+0x10 1+0x10",
            ),
            (
                r#"keylane_broker_available{namespace="shop",pod="orders-2"}"#,
                "1+0x26",
            ),
        ],
        quiet: &[4, 9, 20],
        fires: 11,
        severity: "critical",
        labels: POD,
    },
    Case {
        alert: "KeylaneHandlerUnavailable",
        series: &[
            (
                r#"keylane_handler_available{namespace="shop",pod="orders-1"}"#,
                "1+0x4 0+0x10 1+0x10",
            ),
            (
                r#"keylane_handler_available{namespace="shop",pod="orders-2"}"#,
                "1+0x26",
            ),
        ],
        quiet: &[4, 9, 20],
        fires: 11,
        severity: "critical",
        labels: POD,
    },
    Case {
        alert: "KeylaneKeysBlocked",
        series: &[
            (
                r#"keylane_blocked_keys{namespace="shop",pod="orders-1"}"#,
                "0+0x4 2+0x20 0+0x10",
            ),
            (
                r#"keylane_blocked_keys{namespace="shop",pod="orders-2"}"#,
                "0+0x36",
            ),
        ],
        quiet: &[4, 14, 30],
        fires: 16,
        severity: "warning",
        labels: POD,
    },
    Case {
        alert: "KeylaneKeysStuck",
        series: &[
            (
                r#"keylane_stuck_keys{namespace="shop",pod="orders-1"}"#,
                "0+0x4 1+0x20 0+0x10",
            ),
            (
                r#"keylane_stuck_keys{namespace="shop",pod="orders-2"}"#,
                "0+0x36",
            ),
        ],
        quiet: &[4, 19, 30],
        fires: 21,
        severity: "warning",
        labels: POD,
    },
    Case {
        alert: "KeylaneDeadLetters",
        series: &[
            (
                r#"keylane_messages_dead_lettered_total{namespace="shop",pod="orders-1"}"#,
                "0+0x4 1+0x40",
            ),
            (
                r#"keylane_messages_dead_lettered_total{namespace="shop",pod="orders-2"}"#,
                "7+0x45",
            ),
        ],
        quiet: &[4, 30],
        fires: 6,
        severity: "warning",
        labels: POD,
    },
    Case {
        alert: "KeylaneMessagesLost",
        series: &[
            (
                r#"keylane_offsets_expired_total{namespace="shop",pod="orders-1"}"#,
                "0+0x4 1+0x40",
            ),
            (
                r#"keylane_offsets_expired_total{namespace="shop",pod="orders-2"}"#,
                "0+0x45",
            ),
        ],
        quiet: &[4, 30],
        fires: 6,
        severity: "critical",
        labels: POD,
    },
    Case {
        alert: "KeylaneMessagesOld",
        series: &[
            (
                r#"keylane_queue_oldest_age_seconds{namespace="shop",pod="orders-1",queue="b/0"}"#,
                "60+0x4 900+0x30",
            ),
            (
                r#"keylane_queue_oldest_age_seconds{namespace="shop",pod="orders-2",queue="b/1"}"#,
                "60+0x35",
            ),
        ],
        quiet: &[4, 19],
        fires: 21,
        severity: "warning",
        labels: POD,
    },
];

/// Every alert of the chart is tried.
pub fn fire(cluster: &Cluster, promtool: &Path) -> Result<()> {
    let rules = rendered(cluster)?;
    let alerts: BTreeSet<&str> = rules["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
        .filter_map(|rule| rule["alert"].as_str())
        .collect();
    let tried: BTreeSet<&str> = CASES.iter().map(|case| case.alert).collect();
    ensure!(alerts == tried, "alerts {alerts:?}, tried {tried:?}");
    let dir = tempfile::tempdir()?;
    let (file, tests) = (dir.path().join("rules.yml"), dir.path().join("tests.yml"));
    std::fs::write(&file, rules.to_string())?;
    let cases: Result<Vec<_>> = CASES.iter().map(|case| case.test(&rules)).collect();
    let all = json!({"rule_files": [file], "evaluation_interval": "1m", "tests": cases?});
    std::fs::write(&tests, all.to_string())?;
    let mut test = run::command(promtool);
    run::output("promtool", test.args(["test", "rules"]).arg(&tests))?;
    println!("each of {} alerts fires when it should", alerts.len());
    Ok(())
}

/// What the chart gives the Prometheus operator.
fn rendered(cluster: &Cluster) -> Result<Value> {
    let mut helm = cluster.helm()?;
    helm.args(["template", "kl"])
        .arg(workspace().join("charts/keylane"));
    helm.args(["--show-only", "templates/monitoring.yaml"]);
    helm.args(["--set", "monitoring.rules=true"]);
    let text = run::output("rendering", &mut helm)?;
    for document in serde_norway::Deserializer::from_str(&text) {
        let object = Value::deserialize(document)?;
        if object["kind"] == "PrometheusRule" {
            return Ok(object["spec"].clone());
        }
    }
    anyhow::bail!("the chart has no PrometheusRule")
}

impl Case {
    /// As promtool takes it.
    fn test(&self, rules: &Value) -> Result<Value> {
        let series = self.series.iter();
        let series: Vec<_> = series
            .map(|(series, values)| json!({"series": series, "values": values}))
            .collect();
        let mut labels = json!({"severity": self.severity});
        for (name, value) in self.labels {
            labels[name] = json!(value);
        }
        let fired = json!([{"exp_labels": labels, "exp_annotations": self.annotations(rules)?}]);
        let at = |minute: &u32, alerts: Value| json!({"eval_time": format!("{minute}m"), "alertname": self.alert, "exp_alerts": alerts});
        let mut checks: Vec<_> = self
            .quiet
            .iter()
            .map(|quiet| at(quiet, json!([])))
            .collect();
        checks.push(at(&self.fires, fired));
        Ok(json!({"interval": "1m", "input_series": series, "alert_rule_test": checks}))
    }

    /// What a person reads, with this case's labels in it.
    fn annotations(&self, rules: &Value) -> Result<Value> {
        let groups = rules["groups"].as_array().into_iter().flatten();
        let mut all = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let rule = all.find(|rule| rule["alert"] == self.alert);
        let mut annotations = rule.context("there is no such alert")?["annotations"].clone();
        for text in annotations
            .as_object_mut()
            .into_iter()
            .flat_map(|all| all.values_mut())
        {
            let mut filled = text.as_str().unwrap_or_default().to_owned();
            for (name, value) in self.labels {
                filled = filled.replace(&format!("{{{{ $labels.{name} }}}}"), value);
            }
            ensure!(!filled.contains("$labels"), "{}: {filled}", self.alert);
            *text = json!(filled);
        }
        Ok(annotations)
    }
}
