//! A sample in a cluster: its image, the object beside it with what differs here, and its calls, judged
//! from the logs of its pods.

use super::{Record, Sample};
use crate::cluster::Paths;
use crate::images::{self, Base, Image, Recipe};
use crate::judge::Verdict;
use crate::stack::Stack;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The path that handler and executor share, where a sample is called through a socket.
const SOCKET: &str = "/run/orders/handler.sock";
/// How long pods have to end.
const END: &str = "--timeout=120s";
/// How often their logs are read.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A sample's workload. Two pods, so that queues are shared and none of what they log is gone before it
/// is read.
#[derive(Debug)]
pub struct Deployed {
    sample: Sample,
    manifest: Value,
}

impl Deployed {
    /// The sample over a topic of the stack's RocketMQ. The first attempt of each message of `fail_key`
    /// fails.
    pub fn new(sample: Sample, stack: &Stack, topic: &str, fail_key: &str) -> Result<Self> {
        let mut manifest = sample.manifest()?;
        let name_server = format!("rocketmq.{}:9876", stack.namespace());
        let fail_key = json!({"name": "FAIL_KEY", "value": fail_key});
        manifest["metadata"]["namespace"] = json!(stack.namespace());
        if sample == Sample::Rust {
            let env = json!([
                {"name": "NAME_SERVERS", "value": name_server},
                {"name": "TOPIC", "value": topic},
                {"name": "GROUP", "value": sample.name()},
                fail_key,
            ]);
            manifest["spec"]["template"]["spec"]["containers"][0]["env"] = env;
        } else {
            let spec = &mut manifest["spec"];
            spec["rocketmq"]["nameServers"] = json!([name_server]);
            spec["topic"] = json!(topic);
            spec["replicas"] = json!(2);
            spec["autoscaling"] = json!({"mode": "LanesOnly"});
            spec["template"]["spec"]["containers"][0]["env"] = json!([fail_key]);
        }
        Ok(Self { sample, manifest })
    }

    /// Has the sample in Go called through a Unix socket in a volume that its container shares with the
    /// executor's.
    #[must_use]
    pub fn through_a_socket(mut self) -> Self {
        let spec = &mut self.manifest["spec"];
        spec["handler"]["grpc"] = json!({"unixSocket": SOCKET});
        let env = &mut spec["template"]["spec"]["containers"][0]["env"];
        if let Some(env) = env.as_array_mut() {
            env.push(json!({"name": "SOCKET", "value": SOCKET}));
        }
        self
    }

    /// The object's kind, as kubectl takes it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.sample {
            Sample::Rust => "deployment",
            Sample::Python | Sample::Go => "orderedconsumer",
        }
    }

    /// The object's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.manifest["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
    }

    /// Builds the image and creates the object.
    pub fn apply(&self, stack: &Stack) -> Result<()> {
        let image = self.image(stack.cluster().paths())?;
        let text = serde_norway::to_string(&self.manifest)?;
        let what = format!("{} {}", self.kind(), self.name());
        stack.apply_with(&what, &text, &image)
    }

    /// Removes the object and waits until its pods are gone.
    pub fn remove(&self, stack: &Stack) -> Result<()> {
        stack.kubectl(&[
            "delete",
            self.kind(),
            self.name(),
            "--ignore-not-found",
            END,
        ])?;
        stack.kubectl(&["wait", "--for=delete", "pod", &self.selector(), END])?;
        Ok(())
    }

    /// What a judge says of the pods' calls once so many messages are handled, or an error when `limit` has
    /// passed. `progress` is told how many are.
    pub async fn until_handled(
        &self,
        stack: &Stack,
        messages: u64,
        limit: Duration,
        progress: impl Fn(u64),
    ) -> Result<Verdict> {
        let end = Instant::now() + limit;
        let mut interval = tokio::time::interval(LOOK_EVERY);
        loop {
            interval.tick().await;
            // Pods that have not begun have no log.
            let verdict = self.record(stack).map(|record| record.judge().verdict());
            match verdict {
                Ok(verdict) if verdict.distinct >= messages => return Ok(verdict),
                Ok(verdict) => progress(verdict.distinct),
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => {}
            }
            ensure!(
                Instant::now() < end,
                "{} {}: not all of {messages} messages handled within {limit:?}",
                self.kind(),
                self.name()
            );
        }
    }

    /// What the pods logged of their calls so far.
    fn record(&self, stack: &Stack) -> Result<Record> {
        let container = match self.sample {
            Sample::Rust => "--container=orders",
            Sample::Python | Sample::Go => "--container=handler",
        };
        let selector = self.selector();
        let logs = stack.kubectl(&["logs", &selector, container, "--prefix", "--tail=-1"])?;
        let mut record = Record::default();
        for line in logs.lines() {
            let Some((pod, said)) = line.split_once(' ') else {
                continue;
            };
            // What it says of itself is no call.
            if said.starts_with('{') {
                record
                    .take(pod, said)
                    .with_context(|| format!("{pod} logged {said}"))?;
            }
        }
        Ok(record)
    }

    fn selector(&self) -> String {
        let label = match self.sample {
            Sample::Rust => "app",
            Sample::Python | Sample::Go => "keylane.dev/ordered-consumer",
        };
        format!("--selector={label}={}", self.name())
    }

    fn image(&self, paths: &Paths) -> Result<Image> {
        let dir = self.sample.dir();
        let containerfile = dir.join("Containerfile");
        let text = std::fs::read_to_string(&containerfile)
            .with_context(|| format!("{} cannot be read", containerfile.display()))?;
        let template = &self.manifest["spec"]["template"]["spec"];
        let name = template["containers"][0]["image"].as_str();
        let name = name.context("the first container of the sample has no image")?;
        let program = self.sample.program(paths)?;
        // As the Containerfile copies it.
        let (file, base) = match self.sample {
            Sample::Python => ("handler.py", Base::Python),
            Sample::Go | Sample::Rust => ("order-handler", Base::Runtime),
        };
        Ok(images::build(
            paths,
            &Recipe {
                name,
                containerfile: &text,
                base: Some(base),
                files: &[(file, &program)],
            },
        )?)
    }
}
