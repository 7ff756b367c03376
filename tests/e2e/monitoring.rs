//! The chart's alerts and dashboard, asked of a real Prometheus that scrapes the operator and the consumer's
//! pods: each query gives data. That each alert fires when it should is tried on series that are made up.

mod alerts;

use crate::NAME;
use anyhow::{Context as _, Result, ensure};
use keylane_tests::cluster::{packages, run};
use keylane_tests::images::workspace::workspace;
use keylane_tests::stack::{SYSTEM, Stack};
use keylane_tests::wait;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Rates need some.
const SCRAPED_EVERY: &str = "1s";
const LIMIT: Duration = Duration::from_secs(60);

/// A Prometheus of its own; ended when dropped.
struct Prometheus {
    process: Child,
    url: String,
    client: reqwest::Client,
    /// Configuration and data.
    _dir: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Every query of the alerts and of the dashboard gives data while a consumer has messages to handle.
pub async fn every_query_gives_data(stack: &Stack) -> Result<()> {
    let rules = workspace().join("charts/keylane/rules.yaml");
    alerts::fire(stack.cluster(), &programs(stack)?.join("promtool"))?;
    let prometheus = Prometheus::start(stack, &rules)?;
    let mut queries = compared(&rules)?;
    queries.extend(panels()?);
    ensure!(
        queries.len() > 20,
        "only {} queries were found",
        queries.len()
    );
    let count = queries.len();
    // Some have data at times only: a queue that is empty has no oldest message.
    wait::until(LIMIT, "data for every query", async || {
        let mut index = 0;
        while let Some(query) = queries.get(index) {
            match prometheus.ask(query).await {
                Ok(0) => index += 1,
                Ok(_) => drop(queries.remove(index)),
                Err(error) => return Err(format!("{query}: {error:#}")),
            }
        }
        if queries.is_empty() {
            Ok(())
        } else {
            Err(format!("no data for {}", queries.join(" and ")))
        }
    })
    .await?;
    let variables = variables()?;
    ensure!(!variables.is_empty(), "the dashboard has no variables");
    for (metric, label) in variables {
        let values = prometheus.values(&metric, &label).await?;
        ensure!(
            values.iter().any(|value| value == stack.namespace()),
            "label_values({metric}, {label}) gives {values:?}"
        );
    }
    prometheus.rules_are_evaluated().await?;
    println!("a Prometheus has data for all {count} queries of the alerts and the dashboard");
    Ok(())
}

/// Where the programs of Prometheus are.
fn programs(stack: &Stack) -> Result<PathBuf> {
    Ok(packages::unpacked(stack.cluster().paths(), "prometheus")?.join("usr/bin"))
}

impl Prometheus {
    fn start(stack: &Stack, rules: &Path) -> Result<Self> {
        let paths = stack.cluster().paths();
        let programs = programs(stack)?;
        let mut check = run::command(programs.join("promtool"));
        run::output("promtool", check.args(["check", "rules"]).arg(rules))?;
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("prometheus.yml");
        std::fs::write(&config, configuration(stack, rules)?.to_string())?;
        let mut check = run::command(programs.join("promtool"));
        run::output("promtool", check.args(["check", "config"]).arg(&config))?;
        let free = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        let address = free.local_addr()?;
        drop(free);
        let log = run::create_log(&paths.build_logs().join("prometheus.log"))?;
        let process = Command::new(programs.join("prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("Prometheus cannot be started")?;
        let client = reqwest::Client::builder().no_proxy();
        Ok(Self {
            process,
            url: format!("http://{address}/api/v1"),
            client: client.timeout(Duration::from_secs(10)).build()?,
            _dir: dir,
        })
    }

    async fn get(&self, url: &str) -> Result<Value> {
        let answer: Value = self.client.get(url).send().await?.json().await?;
        ensure!(answer["status"] == "success", "{url}: {answer}");
        Ok(answer["data"].clone())
    }

    /// How many series a query gives.
    async fn ask(&self, query: &str) -> Result<usize> {
        let url = format!("{}/query", self.url);
        let url = reqwest::Url::parse_with_params(&url, [("query", query)])?;
        let data = self.get(url.as_str()).await?;
        Ok(data["result"].as_array().map_or(0, Vec::len))
    }

    /// The values that a label of a metric has.
    async fn values(&self, metric: &str, label: &str) -> Result<Vec<Value>> {
        let url = format!("{}/label/{label}/values", self.url);
        let url = reqwest::Url::parse_with_params(&url, [("match[]", metric)])?;
        let data = self.get(url.as_str()).await?;
        Ok(data.as_array().cloned().unwrap_or_default())
    }

    async fn rules_are_evaluated(&self) -> Result<()> {
        let url = format!("{}/rules", self.url);
        wait::until(LIMIT, "all alerts evaluated", async || {
            let data = self.get(&url).await.map_err(|error| error.to_string())?;
            let groups = data["groups"].as_array().into_iter().flatten();
            let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
            let health: Vec<_> = rules.map(|rule| rule["health"].clone()).collect();
            if !health.is_empty() && health.iter().all(|health| health == "ok") {
                Ok(())
            } else {
                Err(data.to_string())
            }
        })
        .await?;
        Ok(())
    }
}

/// What a ServiceMonitor and a PodMonitor of the chart would make of the pods there are.
fn configuration(stack: &Stack, rules: &Path) -> Result<Value> {
    let consumers = format!("keylane.dev/ordered-consumer={NAME}");
    let mut targets = pods(stack, stack.namespace(), &consumers, "kl-metrics")?;
    ensure!(!targets.is_empty(), "the consumer has no pods");
    let operators = "app.kubernetes.io/name=keylane";
    let operators = pods(stack, SYSTEM, operators, "metrics")?;
    ensure!(!operators.is_empty(), "there is no operator");
    targets.extend(operators);
    Ok(json!({
        "global": {"scrape_interval": SCRAPED_EVERY, "evaluation_interval": SCRAPED_EVERY},
        "rule_files": [rules],
        "scrape_configs": [{"job_name": "keylane", "static_configs": targets}],
    }))
}

/// Targets: the pods of a selector, by the port of that name.
fn pods(stack: &Stack, namespace: &str, selector: &str, port: &str) -> Result<Vec<Value>> {
    let mut kubectl = stack.cluster().kubectl();
    kubectl.args(["--namespace", namespace, "get", "pods", "--output=json"]);
    kubectl.args(["--selector", selector]);
    let list: Value = serde_json::from_str(&run::output("listing pods", &mut kubectl)?)?;
    let target = |pod: &Value| {
        let containers = pod["spec"]["containers"].as_array()?;
        let mut ports = containers
            .iter()
            .flat_map(|container| container["ports"].as_array().into_iter().flatten());
        let port = &ports.find(|found| found["name"] == port)?["containerPort"];
        let address = format!("{}:{port}", pod["status"]["podIP"].as_str()?);
        Some(json!({
            "targets": [address],
            "labels": {"namespace": namespace, "pod": pod["metadata"]["name"]},
        }))
    };
    let pods = list["items"].as_array().into_iter().flatten();
    Ok(pods.filter_map(target).collect())
}

/// The alerts' queries; what they compare gives data whether they fire or not.
fn compared(rules: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(rules)?;
    let file: Value = serde_norway::from_str(&text)?;
    let groups = file["groups"].as_array().into_iter().flatten();
    let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
    let queries = rules.filter_map(|rule| rule["expr"].as_str());
    Ok(queries
        .map(|query| query.replace(" < ", " < bool ").replace(" > ", " > bool "))
        .collect())
}

/// The dashboard's queries, for all namespaces.
fn panels() -> Result<Vec<String>> {
    let path = workspace().join("charts/keylane/dashboard.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries = targets.filter_map(|target| target["expr"].as_str());
    Ok(queries
        .map(|query| query.replace("$namespace", ".*"))
        .collect())
}

/// What the dashboard's variables are asked of: a metric and its label.
fn variables() -> Result<Vec<(String, String)>> {
    let path = workspace().join("charts/keylane/dashboard.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let all = dashboard["templating"]["list"].as_array();
    let asked = all
        .into_iter()
        .flatten()
        .filter(|one| one["type"] == "query");
    let of = |one: &Value| {
        let query = one["query"].as_str()?;
        let query = query.strip_prefix("label_values(")?.strip_suffix(')')?;
        let (metric, label) = query.split_once(',')?;
        Some((metric.trim().to_owned(), label.trim().to_owned()))
    };
    asked
        .map(|one| of(one).with_context(|| format!("this is no label_values: {one}")))
        .collect()
}
