//! An operator that runs, and what it uses.

use anyhow::{Context as _, Result, bail, ensure};
use keylane_tests::cluster::{Cluster, run};
use keylane_tests::images::workspace::{PROGRAMS, release_binaries};
use keylane_tests::usage::{peak_memory, processor_time};
use keylane_tests::wait;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SETTLED: Duration = Duration::from_secs(600);
/// A decision is made so often for each OrderedConsumer.
const DECIDES_EVERY: f64 = 5.0;

/// What an operator used.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// OrderedConsumers.
    pub resources: usize,
    /// How long it was measured.
    pub seconds: f64,
    /// Cores, on average.
    pub cores: f64,
    /// The largest resident memory so far.
    pub mib: f64,
    /// Requests that the API server counted and does not make itself, those of its other clients taken off.
    pub api_requests_per_second: f64,
    /// Requests to name servers and brokers.
    pub broker_requests_per_second: f64,
    /// Decisions that were carried out.
    pub decisions_per_second: f64,
    /// One for each OrderedConsumer every 5 s.
    pub expected_decisions_per_second: f64,
    /// Time from the begin of a look to its decision carried out: the bucket that 99 % are within.
    pub decision_p99_seconds: f64,
}

/// A running operator; killed when dropped.
pub struct Operator {
    child: Child,
    /// Base URLs of probes and of metrics.
    probes: String,
    metrics: String,
    client: reqwest::Client,
    /// API requests a second without it.
    others: f64,
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The operator's program.
pub async fn program(cluster: &Cluster) -> Result<PathBuf> {
    let paths = cluster.paths().clone();
    let build = move || release_binaries(&paths, &PROGRAMS);
    Ok(tokio::task::spawn_blocking(build).await??.swap_remove(0))
}

/// Values of metrics, by name with labels.
type Page = BTreeMap<String, f64>;

impl Operator {
    /// Starts one that watches a namespace, without an election.
    pub async fn start(cluster: &Cluster, namespace: &str) -> Result<Self> {
        let program = program(cluster).await?;
        let others = rate(cluster).await?;
        let mut operator = Self::run(&program, cluster, namespace, &["--no-leader-election"])?;
        operator.others = others;
        Ok(operator)
    }

    /// Starts one that stands for election in that namespace.
    pub fn start_elected(program: &Path, cluster: &Cluster, namespace: &str) -> Result<Self> {
        Self::run(
            program,
            cluster,
            namespace,
            &["--lease-namespace", namespace],
        )
    }

    fn run(program: &Path, cluster: &Cluster, namespace: &str, options: &[&str]) -> Result<Self> {
        // Held together, so that they differ.
        let free = [(); 2].map(|()| std::net::TcpListener::bind(("127.0.0.1", 0)));
        let [port, metrics_port] = free.map(|free| free?.local_addr().map(|at| at.port()));
        let (port, metrics_port) = (port?, metrics_port?);
        let child = Command::new(program)
            .args(["run", "--watch-namespace", namespace])
            .args(options)
            .args(["--port", &port.to_string()])
            .args(["--metrics-port", &metrics_port.to_string()])
            .env("KUBECONFIG", cluster.kubeconfig())
            .env("RUST_LOG", "warn,rocketmq=off")
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let client = reqwest::Client::builder().no_proxy();
        Ok(Self {
            child,
            probes: format!("http://127.0.0.1:{port}"),
            metrics: format!("http://127.0.0.1:{metrics_port}/metrics"),
            client: client.timeout(Duration::from_secs(5)).build()?,
            others: 0.0,
        })
    }

    /// Waits until it could take over.
    pub async fn until_ready(&self) -> Result<()> {
        let url = format!("{}/readyz", self.probes);
        wait::until(SETTLED, "a ready operator", async || {
            let answer = self.client.get(&url).send().await;
            let answer = answer.map_err(|error| error.to_string())?;
            answer.error_for_status().map_err(|error| error.to_string())
        })
        .await?;
        Ok(())
    }

    /// Waits until it has decided once; says how long after `since` that was.
    pub async fn until_it_decides(&self, since: Instant) -> Result<Duration> {
        wait::until(SETTLED, "a decision", async || {
            let decisions = self.decisions().await.map_err(|error| error.to_string())?;
            (decisions > 0.0)
                .then_some(())
                .ok_or_else(|| "none yet".to_owned())
        })
        .await?;
        Ok(since.elapsed())
    }

    /// Decisions that were carried out so far.
    pub async fn decisions(&self) -> Result<f64> {
        let page = self.page().await?;
        Ok(sum(&page, "keylane_operator_decision_seconds_count"))
    }

    /// Asks it to stop, and waits for its end.
    pub fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the operator ended with {status}");
        Ok(())
    }

    /// Waits until it looks after so many and writes children no more, and until the cluster's
    /// controllers are done with what is new: their requests are not the operator's.
    pub async fn until_settled(&self, cluster: &Cluster, resources: usize) -> Result<()> {
        let mut before = f64::NAN;
        wait::until(SETTLED, "everything settled", async || {
            let page = self.page().await.map_err(|error| error.to_string())?;
            let known = sum(&page, "keylane_operator_consumers");
            let written = sum(&page, "keylane_operator_child_writes_total");
            let quiet = written == before;
            before = written;
            if known as usize == resources && quiet && written > 0.0 {
                return Ok(());
            }
            tokio::time::sleep(DECISION).await;
            Err(format!("{known} known, {written} children written"))
        })
        .await?;
        let mut before = f64::INFINITY;
        wait::until(SETTLED, "a quiet API server", async || {
            let rate = rate(cluster).await.map_err(|error| error.to_string())?;
            let falls = rate < 0.9 * before - 1.0;
            before = rate;
            (!falls)
                .then_some(())
                .ok_or_else(|| format!("{rate:.1} requests/s, and fewer each time"))
        })
        .await?;
        Ok(())
    }

    /// Measures for a while.
    pub async fn measure(
        &self,
        cluster: &Cluster,
        resources: usize,
        length: Duration,
    ) -> Result<Figures> {
        let (page, asked, used) = (self.page().await?, requests(cluster)?, self.used()?);
        let begun = Instant::now();
        tokio::time::sleep(length).await;
        let (now, asked_now, using) = (self.page().await?, requests(cluster)?, self.used()?);
        let seconds = begun.elapsed().as_secs_f64();
        let more = |name: &str| (sum(&now, name) - sum(&page, name)) / seconds;
        let api = (asked_now - asked) / seconds - self.others;
        Ok(Figures {
            resources,
            seconds,
            cores: (using - used).as_secs_f64() / seconds,
            mib: peak_memory(self.child.id())?,
            api_requests_per_second: api.max(0.0),
            broker_requests_per_second: more("keylane_operator_broker_requests_total"),
            decisions_per_second: more("keylane_operator_decision_seconds_count"),
            expected_decisions_per_second: resources as f64 / DECIDES_EVERY,
            decision_p99_seconds: within(&page, &now, 0.99)?,
        })
    }

    fn used(&self) -> Result<Duration> {
        processor_time(self.child.id())
    }

    async fn page(&self) -> Result<Page> {
        let text = self.client.get(&self.metrics).send().await?.text().await?;
        Ok(page(&text))
    }
}

/// Between two looks at whether it is settled: longer than a round.
const DECISION: Duration = Duration::from_secs(6);
/// How long requests are counted.
const COUNTED: Duration = Duration::from_secs(15);

fn page(text: &str) -> Page {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let values = lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    values.collect()
}

/// The sum of a metric over its labels.
fn sum(page: &Page, name: &str) -> f64 {
    let of = page.iter().filter(|(found, _)| {
        let rest = found.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
    });
    of.map(|(_, value)| value).sum()
}

/// The bound of the bucket that this part of what was observed in between is within.
fn within(before: &Page, now: &Page, part: f64) -> Result<f64> {
    let name = "keylane_operator_decision_seconds_bucket{le=\"";
    let mut buckets: Vec<(f64, f64)> = now
        .iter()
        .filter_map(|(found, value)| {
            let bound = found.strip_prefix(name)?.strip_suffix("\"}")?;
            let bound = if bound == "+Inf" {
                f64::INFINITY
            } else {
                bound.parse().ok()?
            };
            Some((bound, value - before.get(found).copied().unwrap_or(0.0)))
        })
        .collect();
    buckets.sort_by(|left, right| left.0.total_cmp(&right.0));
    let all = buckets.last().context("no decisions are measured")?.1;
    if all <= 0.0 {
        bail!("no decision was made in the time that was measured");
    }
    let bucket = buckets.iter().find(|(_, count)| *count >= all * part);
    Ok(bucket.map_or(f64::INFINITY, |(bound, _)| *bound))
}

/// Requests that the API server has answered so far.
fn requests(cluster: &Cluster) -> Result<f64> {
    let mut kubectl = cluster.kubectl();
    kubectl.args(["get", "--raw", "/metrics"]);
    let text = run::output("asking the API server for its metrics", &mut kubectl)?;
    Ok(sum(&page(&text), "apiserver_request_total"))
}

/// Requests a second, of everybody.
async fn rate(cluster: &Cluster) -> Result<f64> {
    let (before, begun) = (requests(cluster)?, Instant::now());
    tokio::time::sleep(COUNTED).await;
    Ok((requests(cluster)? - before) / begun.elapsed().as_secs_f64())
}
