//! Everything an OrderedConsumer needs round it, in one namespace of a real cluster: RocketMQ, the judge
//! of all handlers, and the operator installed from the chart. For end-to-end tests and the demo.

mod consumer;
mod inside;
mod kill;
mod names;

pub use consumer::OrderedConsumer;
pub use inside::Producing;

use crate::cluster::run;
use crate::cluster::{self, Cluster, Paths, Target, disk};
use crate::images::workspace::{CONSUMER, OPERATOR, SAMPLE_HANDLER};
use crate::images::{self, Image, Registry};
use crate::judge::Verdict;
use crate::rocketmq;
use anyhow::{Context, Result, ensure};
use names::Names;
use serde_json::Value;
use std::time::Duration;

/// The operator's namespace.
pub const SYSTEM: &str = "keylane-system";
/// The APIService of the chart.
pub const LIVE_API: &str = "v1alpha1.live.keylane.dev";
const HANDLER_IMAGE: &str = SAMPLE_HANDLER;
const START: Duration = Duration::from_secs(240);

/// RocketMQ, a judge and the operator.
pub struct Stack {
    cluster: Cluster,
    namespace: String,
    /// The namespace RocketMQ is in.
    brokers: String,
    names: Names,
}

impl Stack {
    /// Brings everything up in `namespace`; what is there already is kept. Takes minutes when nothing is
    /// built yet. Blocks; says what it does.
    pub fn install(target: &Target, namespace: &str) -> Result<Self> {
        Self::install_from(target, namespace, None)
    }

    /// The same with images that the cluster pulls from a registry, if one is given.
    pub fn install_from(
        target: &Target,
        namespace: &str,
        registry: Option<Registry>,
    ) -> Result<Self> {
        let local = *target == Target::Local;
        disk::refuse_full(&Paths::from_env(), disk::Work::Stack { local })?;
        let mut stack = Self::on(up(target)?, namespace);
        stack.names = Names::new(registry);
        stack.load_images()?;
        stack.create_namespace(namespace)?;
        stack.apply("RocketMQ", &rocketmq::manifests(namespace))?;
        stack.apply("the judge", include_str!("judge.yaml"))?;
        stack.install_operator()?;
        stack.rollout(namespace, "statefulset/rocketmq")?;
        stack.rollout(namespace, "deployment/judge")?;
        Ok(stack)
    }

    /// What was brought up before, on a cluster that runs: nothing is built or started. Blocks.
    ///
    /// # Errors
    /// When the cluster does not run, or RocketMQ and the judge are not in the namespace.
    pub fn find(target: &Target, namespace: &str) -> Result<Self> {
        let paths = Paths::from_env();
        if *target == Target::Local {
            let (_, runs) = cluster::status(&paths)?;
            ensure!(runs, "no cluster is up on this machine");
        }
        let mut stack = Self::on(target.up(&paths)?, namespace);
        let image = stack.kubectl(&[
            "get",
            "deployment",
            "judge",
            "--ignore-not-found",
            "--output=jsonpath={.spec.template.spec.containers[0].image}",
        ])?;
        let image = image.trim();
        ensure!(
            !image.is_empty(),
            "there is nothing in namespace {namespace} of the cluster"
        );
        stack.names.set(SAMPLE_HANDLER, image.to_owned());
        Ok(stack)
    }

    /// The operator alone, on a cluster that is brought up. Blocks.
    pub fn operator(target: &Target) -> Result<Cluster> {
        let mut stack = Self::on(up(target)?, SYSTEM);
        stack.load_images()?;
        stack.install_operator()?;
        Ok(stack.cluster)
    }

    /// RocketMQ alone, in a namespace that is made anew, on a cluster with the operator. Blocks.
    pub fn brokers(cluster: &Cluster, namespace: &str) -> Result<Self> {
        let stack = Self::on(cluster.clone(), namespace);
        stack.remove_namespace()?;
        stack.create_namespace(namespace)?;
        let manifests = rocketmq::manifests(namespace);
        stack.cluster.apply("RocketMQ", &manifests)?;
        stack.rollout(namespace, "statefulset/rocketmq")?;
        Ok(stack)
    }

    fn on(cluster: Cluster, namespace: &str) -> Self {
        Self {
            cluster,
            namespace: namespace.to_owned(),
            brokers: namespace.to_owned(),
            names: Names::default(),
        }
    }

    /// The same brokers and operator, with a judge of its own, in another namespace, which is made anew.
    /// Blocks.
    pub fn beside(&self, namespace: &str) -> Result<Self> {
        let stack = Self {
            cluster: self.cluster.clone(),
            namespace: namespace.to_owned(),
            brokers: self.brokers.clone(),
            names: self.names.clone(),
        };
        stack.remove_namespace()?;
        stack.create_namespace(namespace)?;
        stack.apply("the judge", include_str!("judge.yaml"))?;
        stack.rollout(namespace, "deployment/judge")?;
        Ok(stack)
    }

    /// Removes the namespace; brokers of another one and the operator stay. Blocks.
    pub fn remove_namespace(&self) -> Result<()> {
        remove_namespace(&self.cluster, &self.namespace)
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The namespace RocketMQ is in.
    pub fn brokers_in(&self) -> &str {
        &self.brokers
    }

    /// Runs kubectl in the namespace and gives its output.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut command = self.cluster.kubectl();
        command.args(["--namespace", &self.namespace]).args(args);
        Ok(run::output(
            &format!("kubectl {}", args.join(" ")),
            &mut command,
        )?)
    }

    /// An object as JSON.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        let text = self.kubectl(&["get", kind, name, "--output=json"])?;
        serde_json::from_str(&text).with_context(|| format!("{kind} {name} is not JSON"))
    }

    /// Address of the name server, as reachable from this machine and from pods.
    pub fn name_server(&self) -> Result<String> {
        let address = self.pod_address(&self.brokers, "rocketmq-0")?;
        Ok(format!("{address}:9876"))
    }

    /// Address of a pod, as reachable from this machine.
    pub fn pod_address(&self, namespace: &str, pod: &str) -> Result<String> {
        let mut command = self.cluster.kubectl();
        command.args(["--namespace", namespace, "get", "pod", pod]);
        command.arg("--output=jsonpath={.status.podIP}");
        let address = run::output(&format!("the address of pod {pod}"), &mut command)?;
        ensure!(!address.trim().is_empty(), "pod {pod} has no address yet");
        Ok(address.trim().to_owned())
    }

    /// What the judge says of all handlers together.
    pub async fn verdict(&self) -> Result<Verdict> {
        let url = format!("{}/verdict", self.judge()?);
        Ok(client()?
            .get(url)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    }

    /// Makes the judge forget everything.
    pub async fn forget(&self) -> Result<()> {
        let url = format!("{}/verdict", self.judge()?);
        client()?.delete(url).send().await?.error_for_status()?;
        Ok(())
    }

    /// Creates a topic, and produces `messages` orders of `keys` keys into it.
    pub async fn produce(&self, topic: &str, queues: u32, keys: u64, messages: u64) -> Result<()> {
        let name_server = self.name_server()?;
        rocketmq::create_topic(&name_server, topic, queues).await?;
        let producer = rocketmq::Producer::connect(&name_server, topic).await?;
        let orders = (0..messages).map(|number| {
            let key = format!("order-{}", number % keys);
            rocketmq::Message::keyed(
                &key,
                format!(r#"{{"order":"{key}","event":{}}}"#, number / keys),
            )
        });
        let counts = producer.send_all(orders).await?;
        Ok(producer.until_visible(&counts).await?)
    }

    /// What mqadmin says of a group: per queue, the broker's end and the committed offset.
    pub async fn progress(&self, group: &str, topic: &str) -> Result<Vec<rocketmq::QueueProgress>> {
        Ok(rocketmq::progress(&self.name_server()?, group, topic).await?)
    }

    /// Removes the namespace and the operator.
    pub fn remove(&self) -> Result<()> {
        remove(&self.cluster, &self.namespace)
    }

    fn judge(&self) -> Result<String> {
        let address = self.kubectl(&[
            "get",
            "service",
            "judge",
            "--output=jsonpath={.spec.clusterIP}",
        ])?;
        Ok(format!("http://{}:8080", address.trim()))
    }

    fn load_images(&mut self) -> Result<()> {
        let paths = self.cluster.paths();
        let mut images = images::build_workspace_images(paths)?;
        let jars = rocketmq::jars()?;
        images.push(images::rocketmq(paths, &jars)?);
        for image in &images {
            self.names.provide(&self.cluster, image)?;
        }
        Ok(())
    }

    /// Applies manifests with an image of their own, which the cluster is given.
    pub fn apply_with(&self, what: &str, manifests: &str, image: &Image) -> Result<()> {
        let mut names = self.names.clone();
        names.provide(&self.cluster, image)?;
        Ok(self.cluster.apply(what, &names.within(manifests))?)
    }

    fn create_namespace(&self, namespace: &str) -> Result<()> {
        let labels = "{pod-security.kubernetes.io/enforce: restricted}";
        let manifest = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {labels}}}\n"
        );
        self.cluster
            .apply(&format!("namespace {namespace}"), &manifest)?;
        // Pods cannot be created before their namespace has its service account.
        let mut wait = self.cluster.kubectl();
        wait.args([
            "--namespace",
            namespace,
            "wait",
            "--for=create",
            "serviceaccount/default",
            "--timeout=60s",
        ]);
        run::output("waiting for the default service account", &mut wait)?;
        Ok(())
    }

    /// Applies manifests in which `@NAMESPACE@` stands for the namespace.
    pub fn apply(&self, what: &str, manifest: &str) -> Result<()> {
        let manifest = manifest.replace("@NAMESPACE@", &self.namespace);
        Ok(self.cluster.apply(what, &self.names.within(&manifest))?)
    }

    fn install_operator(&self) -> Result<()> {
        self.create_namespace(SYSTEM)?;
        // Helm installs the definition once and never changes it again.
        let definition = images::workspace::workspace().join("crds/orderedconsumers.yaml");
        self.cluster.apply(
            "the definition of OrderedConsumer",
            &std::fs::read_to_string(definition)?,
        )?;
        let chart = images::workspace::workspace().join("charts/keylane");
        let mut helm = self.cluster.helm()?;
        helm.args(["upgrade", "--install", "keylane"])
            .arg(&chart)
            .args(["--namespace", SYSTEM, "--skip-crds"])
            .args(["--set", "liveApi.enabled=true"]);
        for (value, image) in [("image", OPERATOR), ("executorImage", CONSUMER)] {
            let (repository, tag) = self.names.parts(image);
            let set = format!("{value}.repository={repository},{value}.tag={tag}");
            helm.args(["--set", &set]);
        }
        run::output("installing the chart", &mut helm)?;
        // Tests of the operator itself stop installed ones.
        let mut scale = self.cluster.kubectl();
        scale.args([
            "--namespace",
            SYSTEM,
            "scale",
            "deployment/keylane-operator",
            "--replicas=1",
        ]);
        run::output("starting the operator", &mut scale)?;
        // The tag is the same for every build: new pods take the new image.
        let mut restart = self.cluster.kubectl();
        restart.args([
            "--namespace",
            SYSTEM,
            "rollout",
            "restart",
            "deployment/keylane-operator",
        ]);
        run::output("restarting the operator", &mut restart)?;
        self.rollout(SYSTEM, "deployment/keylane-operator")
    }

    /// Waits until a Deployment or StatefulSet is as it should be. Blocks.
    pub fn rollout(&self, namespace: &str, what: &str) -> Result<()> {
        crate::cluster::progress::step(&format!("Waiting for {what}"), || {
            let mut command = self.cluster.kubectl();
            let timeout = format!("--timeout={}s", START.as_secs());
            command.args([
                "--namespace",
                namespace,
                "rollout",
                "status",
                what,
                &timeout,
            ]);
            run::output(&format!("waiting for {what}"), &mut command)
        })?;
        Ok(())
    }
}

fn up(target: &Target) -> Result<Cluster> {
    Ok(target.up(&Paths::from_env())?)
}

/// Removes a namespace and the operator from a cluster.
pub fn remove(cluster: &Cluster, namespace: &str) -> Result<()> {
    // An API that nobody serves would keep namespaces from being deleted.
    let mut api = cluster.kubectl();
    api.args(["delete", "apiservice", LIVE_API, "--ignore-not-found"]);
    run::output("deleting the live API", &mut api)?;
    for namespace in [namespace, SYSTEM] {
        remove_namespace(cluster, namespace)?;
    }
    for kind in [
        "clusterrole",
        "clusterrolebinding",
        "rolebinding --namespace=kube-system",
        "validatingadmissionpolicybinding",
        "validatingadmissionpolicy",
    ] {
        let mut command = cluster.kubectl();
        command.arg("delete").args(kind.split(' ')).args([
            "--selector=app.kubernetes.io/name=keylane",
            "--ignore-not-found",
        ]);
        run::output(&format!("deleting the operator's {kind}"), &mut command)?;
    }
    Ok(())
}

/// Removes a namespace and its OrderedConsumers; the operator stays.
pub fn remove_namespace(cluster: &Cluster, namespace: &str) -> Result<()> {
    let mut consumers = cluster.kubectl();
    consumers.args([
        "--namespace",
        namespace,
        "delete",
        "orderedconsumers",
        "--all",
        "--ignore-not-found",
    ]);
    // Without the definition there are none.
    let _ = consumers.output();
    let mut command = cluster.kubectl();
    command.args([
        "delete",
        "namespace",
        namespace,
        "--ignore-not-found",
        "--timeout=120s",
    ]);
    run::output(&format!("deleting namespace {namespace}"), &mut command)?;
    Ok(())
}

fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(20))
        .build()?)
}
