//! What is done from inside the cluster, through the API server: it works with every cluster, also where pods
//! and Services cannot be reached from this machine, as with kind and k3d.

use super::Stack;
use crate::cluster::run;
use crate::judge::Verdict;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::Stdio;
use tokio::process::{Child, Command};

/// The program in the containers.
const PROGRAM: &str = "/sample-handler";
const VERDICT: &str = "proxy/verdict";

/// A producer in the cluster. It ends by itself when this is dropped: what it sends is bounded.
#[derive(Debug)]
pub struct Producing(Child);

impl Producing {
    /// Waits until everything is sent; tells how many messages were stored.
    pub async fn finish(self) -> Result<u64> {
        let output = self.0.wait_with_output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "the producer broke off: {}",
            run::tail(&errors)
        );
        let text = String::from_utf8_lossy(&output.stdout);
        let told: Value = serde_json::from_str(text.trim())
            .with_context(|| format!("the producer said {text:?}"))?;
        told["sent"]
            .as_u64()
            .context("the producer does not say how many")
    }
}

impl Stack {
    /// Has orders sent to a topic from inside the cluster; `args` are those of `sample-handler produce`.
    pub fn producing(&self, topic: &str, args: &[&str]) -> Result<Producing> {
        let mut kubectl = self.cluster.kubectl();
        kubectl.args(["--namespace", &self.namespace, "exec", "deployment/judge"]);
        kubectl.args(["--", PROGRAM, "produce", "--topic", topic]);
        kubectl.arg(format!("--name-server=rocketmq.{}:9876", self.brokers));
        kubectl
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = Command::from(kubectl).spawn();
        Ok(Producing(child.context("kubectl cannot be run")?))
    }

    /// Tells a process of the sample handler's image what to do, in a pod or a workload's.
    pub fn control(&self, what: &str, container: &str, control: &Value) -> Result<()> {
        let text = control.to_string();
        let container = format!("--container={container}");
        self.kubectl(&["exec", what, &container, "--", PROGRAM, "control", &text])?;
        Ok(())
    }

    /// What the judge says of all handlers together, asked through the API server.
    pub fn judged(&self) -> Result<Verdict> {
        let text = self.kubectl(&["get", "--raw", &self.judge_path()])?;
        serde_json::from_str(&text).with_context(|| format!("the judge said {text:?}"))
    }

    /// Makes the judge forget everything, asked through the API server.
    pub fn judge_anew(&self) -> Result<()> {
        self.kubectl(&["delete", "--raw", &self.judge_path()])?;
        Ok(())
    }

    fn judge_path(&self) -> String {
        let namespace = &self.namespace;
        format!("/api/v1/namespaces/{namespace}/services/judge:8080/{VERDICT}")
    }
}
