//! Broker and name server in the cluster: killed where they run, and back when the kubelet has started them
//! again and everybody can reach them.

use super::containers::Processes;
use super::follow::News;
use super::look::Container;
use crate::load::Target;
use crate::schedule::Kind;
use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use keylane_tests::rocketmq::{Offsets, Producer};
use keylane_tests::stack::Stack;
use keylane_tests::wait;
use kube::Api;
use rustix::process::Signal;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const POD: &str = "rocketmq-0";
/// How long the kubelet may let a container wait that ends again and again, and it to start.
const BACK_WITHIN: Duration = Duration::from_secs(400);

/// Broker and name server of a run.
#[derive(Clone)]
pub struct Servers {
    pods: Api<Pod>,
    target: Target,
    /// Where pods find the name server.
    service: String,
}

impl Servers {
    /// Those of a stack.
    pub fn new(stack: &Stack, pods: Api<Pod>, target: Target) -> Result<Self> {
        let address = [
            "get",
            "service",
            "rocketmq",
            "--output=jsonpath={.spec.clusterIP}",
        ];
        let address = stack.kubectl(&address)?;
        Ok(Self {
            pods,
            target,
            service: format!("{}:9876", address.trim()),
        })
    }

    /// Kills one of them; sends news of the event when it serves again.
    pub async fn kill(
        &self,
        kind: Kind,
        event: usize,
        news: mpsc::UnboundedSender<News>,
    ) -> Result<()> {
        let name = match kind {
            Kind::BrokerKilled => "broker",
            _ => "namesrv",
        };
        let old = self.container(name).await?;
        let id = old.with_context(|| format!("container {name} of {POD} does not run"))?;
        Processes::of(&id)?.signal(Signal::KILL);
        let servers = self.clone();
        tokio::task::spawn_local(async move {
            let back = wait::until(BACK_WITHIN, format!("{name} serving again"), async || {
                let serves = servers.serve_without(name, &id).await;
                serves.map_err(|error| format!("{error:#}"))
            });
            if let Err(late) = back.await {
                eprintln!("{late}");
            }
            let _ended = news.send(News::Serves(event));
        });
        Ok(())
    }

    /// The id of a container, if it runs.
    async fn container(&self, name: &str) -> Result<Option<String>> {
        let status = self.pods.get(POD).await?.status.unwrap_or_default();
        let mut all = status.container_statuses.into_iter().flatten();
        let found = all.find(|container| container.name == name);
        Ok(found.and_then(|container| Container::of(&container).id))
    }

    /// Whether all of them serve, for pods too, and this container is another one than it was.
    async fn serve_without(&self, name: &str, old: &str) -> Result<()> {
        let now = self.container(name).await?;
        now.filter(|id| id != old)
            .with_context(|| format!("{name} was not started again"))?;
        let target = &self.target;
        TcpStream::connect(&self.service).await?;
        // Knows where the topic is, and the broker answers.
        Producer::connect(&target.name_server, &target.topic).await?;
        let offsets = Offsets::connect(&target.broker.0, &target.topic, &target.group).await?;
        offsets.end(0).await?;
        Ok(())
    }
}
