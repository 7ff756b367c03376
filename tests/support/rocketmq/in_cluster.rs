//! RocketMQ in the cluster, as the end-to-end tests and the demo start it, works from this machine:
//! under Pod Security `restricted`, and again after its pod was replaced.

use std::time::Duration;

use anyhow::{Result, ensure};
use keylane_tests::cluster::{self, Cluster, run};
use keylane_tests::rocketmq::{self, Message, Producer};
use keylane_tests::{images, wait};

const LIMIT: Duration = Duration::from_secs(240);

struct Space {
    cluster: Cluster,
    name: String,
}

impl Space {
    fn new() -> Result<Self> {
        let cluster = cluster::up()?;
        cluster.load(&images::rocketmq(cluster.paths(), &rocketmq::jars()?)?)?;
        let name = format!("rocketmq-{:08x}", rand::random::<u32>());
        let namespace = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        });
        cluster.apply(&format!("namespace {name}"), &namespace.to_string())?;
        let space = Self { cluster, name };
        space.kubectl(&[
            "wait",
            "--for=create",
            "serviceaccount/default",
            "--timeout=60s",
        ])?;
        let manifests = rocketmq::manifests(&space.name);
        space.cluster.apply("RocketMQ", &manifests)?;
        Ok(space)
    }

    fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut kubectl = self.cluster.kubectl();
        kubectl.args(["--namespace", &self.name]).args(args);
        Ok(run::output(
            &format!("kubectl {}", args.join(" ")),
            &mut kubectl,
        )?)
    }

    /// The name server's address once a pod other than `not` is ready, and that pod's uid.
    async fn ready(&self, not: &str) -> Result<(String, String)> {
        let columns = "jsonpath={.metadata.uid} {.status.podIP} \
                       {.status.conditions[?(@.type==\"Ready\")].status}";
        let (uid, ip) = wait::until(LIMIT, "RocketMQ's pod ready", async || {
            let text = self
                .kubectl(&["get", "pod", "rocketmq-0", "-o", columns])
                .map_err(|error| error.to_string())?;
            match text.split(' ').collect::<Vec<_>>()[..] {
                [uid, ip, "True"] if uid != not => Ok((uid.to_owned(), ip.to_owned())),
                _ => Err(text),
            }
        })
        .await?;
        Ok((format!("{ip}:9876"), uid))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let args = ["delete", "namespace", &self.name, "--wait=false"];
        if let Err(error) = self.kubectl(&args) {
            eprintln!("namespace {} stays: {error}", self.name);
        }
    }
}

async fn send_and_see(name_server: &str) -> Result<()> {
    rocketmq::create_topic(name_server, "ORDERS", 4).await?;
    let producer = Producer::connect(name_server, "ORDERS").await?;
    let orders = (0..10_000).map(|n| Message::keyed(&format!("order-{}", n % 100), "event"));
    let counts = producer.send_all(orders).await?;
    ensure!(counts.iter().sum::<u64>() == 10_000, "sent {counts:?}");
    wait::until(LIMIT, format!("{counts:?} in the queues"), async || {
        let rows = rocketmq::progress(name_server, "nobody", "ORDERS")
            .await
            .map_err(|error| error.to_string())?;
        let held: Vec<u64> = rows.iter().map(|row| row.broker_offset as u64).collect();
        (held == counts).then_some(()).ok_or(format!("{held:?}"))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn rocketmq_in_the_cluster_takes_messages_from_here_also_in_a_new_pod() -> Result<()> {
    let space = Space::new()?;
    let (name_server, first) = space.ready("").await?;
    send_and_see(&name_server).await?;
    space.kubectl(&["delete", "pod", "rocketmq-0"])?;
    let (name_server, _) = space.ready(&first).await?;
    send_and_see(&name_server).await
}
