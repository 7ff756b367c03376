//! The recording process, as the harness starts it and talks to it.

use crate::record::{Call, Count, Manner, Ports};
use anyhow::{Context, Result, ensure};
use std::net::IpAddr;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};

/// The recording process.
pub struct Recorder {
    child: tokio::process::Child,
    ports: Ports,
    client: reqwest::Client,
}

impl Recorder {
    /// Starts it, with a handler for each process.
    pub async fn start(members: usize) -> Result<Self> {
        Self::with(&["--members", &members.to_string()]).await
    }

    /// Starts it for pods that reach this machine at this address.
    pub async fn for_pods(address: IpAddr) -> Result<Self> {
        Self::with(&["--pods-at", &address.to_string()]).await
    }

    async fn with(arguments: &[&str]) -> Result<Self> {
        let mut child = tokio::process::Command::new(std::env::current_exe()?)
            .arg("record")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the recording process cannot be started")?;
        let output = child.stdout.take().context("it has no output")?;
        let first = BufReader::new(output).lines().next_line().await?;
        let first = first.context("the recording process ended at once")?;
        Ok(Self {
            child,
            ports: serde_json::from_str(&first)?,
            client: reqwest::Client::builder().no_proxy().build()?,
        })
    }

    /// The port of a member's handler.
    pub fn handler(&self, member: usize) -> u16 {
        self.ports.handlers[member]
    }

    /// The port that handlers of pods hand their calls on to.
    pub fn pods(&self) -> Result<u16> {
        self.ports.pods.context("it does not record pods")
    }

    /// The member that a pod is.
    pub async fn pod(&self, name: &str) -> Result<usize> {
        self.get(&format!("/pods/{name}")).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports.control)
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.client.get(self.url(path)).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// How far everything is.
    pub async fn count(&self) -> Result<Count> {
        self.get("/count").await
    }

    /// Every call.
    pub async fn calls(&self) -> Result<Vec<Call>> {
        self.get("/calls/0").await
    }

    /// Changes the manner of a handler.
    pub async fn behave(&self, member: usize, manner: Manner) -> Result<()> {
        let url = self.url(&format!("/handlers/{member}"));
        let answer = self.client.put(url).json(&manner).send().await?;
        answer.error_for_status()?;
        Ok(())
    }

    /// Ends the calls of a handler; it begins no other.
    pub async fn die(&self, member: usize) -> Result<()> {
        let url = self.url(&format!("/handlers/{member}"));
        self.client.delete(url).send().await?.error_for_status()?;
        Ok(())
    }

    /// Starts a handler again that died.
    pub async fn live(&self, member: usize) -> Result<()> {
        let url = self.url(&format!("/handlers/{member}"));
        self.client.post(url).send().await?.error_for_status()?;
        Ok(())
    }

    /// Fails if the process is gone: nothing would be recorded.
    pub fn is_well(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "the recording process ended: {ended:?}");
        Ok(())
    }
}
