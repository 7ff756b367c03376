//! A namespace of one test with an operator that watches it, from this process, with the rights the
//! chart gives it and no others.

use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use keylane_operator::controller::{self, Options};
use keylane_operator::leader::Tenure;
use keylane_operator::metrics::Metrics;
use keylane_tests::cluster::run;
use keylane_tests::cluster::wait::{self, Pending};
use keylane_tests::cluster::{self, Cluster};
use keylane_tests::stack::LIVE_API;
use kube::CustomResourceExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(120);
const RELEASE: &str = "kl";
/// Whom consumers' pods let in, as the chart tells the operator.
pub const GUESTS: &str = r#"{"operator": {"podSelector": {}}}"#;
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/keylane");

/// A namespace and the operator that watches it.
pub struct Space {
    pub name: String,
    cluster: Cluster,
    operator: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Space {
    /// Makes the namespace and the definition of the resource; no operator yet.
    pub fn new(test: &str) -> Result<Self> {
        let cluster = cluster::up()?;
        let space = Self {
            name: format!("oper-{test}-{:08x}", rand::random::<u32>()),
            cluster,
            operator: None,
        };
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space.name}});
        space.apply(&namespace)?;
        let definition = serde_json::to_value(keylane_operator::crd::OrderedConsumer::crd())?;
        space.apply(&definition)?;
        space.until(
            "the definition served",
            &["get", "crd", "orderedconsumers.keylane.dev", "-o", "json"],
            |crd| {
                let conditions = crd["status"]["conditions"].as_array();
                conditions.is_some_and(|all| {
                    all.iter()
                        .any(|one| one["type"] == "Established" && one["status"] == "True")
                })
            },
        )?;
        Ok(space)
    }

    /// The same with an operator running.
    pub fn with_operator(test: &str) -> Result<Self> {
        let mut space = Self::new(test)?;
        space.start_operator()?;
        Ok(space)
    }

    /// Makes the service account of the chart with its rights, for this namespace; returns its user.
    pub fn grant(&self) -> Result<String> {
        self.stop_installed_operators()?;
        let watch = format!("watchNamespace={}", self.name);
        let rights = self.render(&["rbac.yaml", "serviceaccount.yaml"], &["--set", &watch])?;
        self.cluster.apply("the operator's rights", &rights)?;
        Ok(format!(
            "system:serviceaccount:{}:{RELEASE}-operator",
            self.name
        ))
    }

    /// What the chart says in these templates.
    pub fn render(&self, templates: &[&str], args: &[&str]) -> Result<String> {
        self.render_as(RELEASE, templates, args)
    }

    /// The same as a release of this name, for objects that the whole cluster shares.
    pub fn render_as(&self, release: &str, templates: &[&str], args: &[&str]) -> Result<String> {
        let mut helm = self.cluster.helm()?;
        helm.args(["template", release, CHART, "--namespace", &self.name]);
        for template in templates {
            helm.arg("--show-only").arg(format!("templates/{template}"));
        }
        Ok(run::output("rendering the chart", helm.args(args))?)
    }

    /// The cluster the namespace is in.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Applies objects that the namespace does not take with it when it goes.
    pub fn with(&self, what: &'static str, manifests: &str) -> Result<Applied<'_>> {
        self.cluster.apply(what, manifests)?;
        Ok(Applied {
            cluster: &self.cluster,
            what,
            manifests: manifests.to_owned(),
        })
    }

    /// Starts an operator as the service account of the chart, so that a verb missing there fails here.
    pub fn start_operator(&mut self) -> Result<()> {
        let user = self.grant()?;
        let kubeconfig = self.cluster.kubeconfig().to_owned();
        let namespace = self.name.clone();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let runtime = tokio::runtime::Runtime::new()?;
        let thread = std::thread::spawn(move || {
            let outcome = runtime.block_on(async {
                let client = client(&kubeconfig, user).await?;
                let options = Options {
                    executor_image: "localhost/not-there:dev".to_owned(),
                    guests: Some(GUESTS.parse()?),
                    namespace: Some(namespace),
                };
                let metrics = Metrics::new(&prometheus::Registry::new())?;
                controller::run(client, options, metrics, Tenure::unlimited(), stop).await;
                anyhow::Ok(())
            });
            if let Err(error) = outcome {
                eprintln!("the operator did not run: {error:#}");
            }
        });
        self.operator = Some((shutdown, thread));
        Ok(())
    }

    /// An operator that the demo or the end-to-end case installed watches all namespaces: two would undo
    /// each other's work. One that watches a namespace of its own disturbs nobody.
    pub fn stop_installed_operators(&self) -> Result<()> {
        let installed =
            "--selector=app.kubernetes.io/name=keylane,app.kubernetes.io/component=operator";
        let mut found = self.cluster.kubectl();
        found.args(["get", "deployments", "--all-namespaces", installed]);
        found.args(["--output=jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name} {.spec.template.spec.containers[0].args}{\"\\n\"}{end}"]);
        for line in run::output("looking for operators", &mut found)?.lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(namespace), Some(name), Some(args)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            if args.contains("--watch-namespace=") {
                continue;
            }
            let mut stop = self.cluster.kubectl();
            stop.args([
                "--namespace",
                namespace,
                "scale",
                "deployment",
                name,
                "--replicas=0",
            ]);
            run::output("stopping an installed operator", &mut stop)?;
            let mut gone = self.cluster.kubectl();
            gone.args([
                "--namespace",
                namespace,
                "wait",
                "--for=delete",
                "pod",
                installed,
                "--timeout=90s",
            ]);
            run::output("waiting for an installed operator to stop", &mut gone)?;
        }
        // An API that nobody serves would keep namespaces from being deleted.
        let mut api = self.cluster.kubectl();
        api.args(["delete", "apiservice", LIVE_API, "--ignore-not-found"]);
        run::output("deleting the live API", &mut api)?;
        Ok(())
    }

    /// Runs kubectl in the namespace.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut kubectl = self.kubectl_command();
        kubectl.args(args);
        Ok(run::output(
            &format!("kubectl {}", args.join(" ")),
            &mut kubectl,
        )?)
    }

    fn kubectl_command(&self) -> Command {
        let mut kubectl = self.cluster.kubectl();
        kubectl.args(["--namespace", &self.name]);
        kubectl
    }

    /// Applies an object as a user does; an error has the API server's words.
    pub fn apply(&self, object: &Value) -> Result<String> {
        let mut kubectl = self.kubectl_command();
        kubectl.args(["apply", "--server-side", "--force-conflicts"]);
        kubectl.args(["--field-manager=user", "-f", "-"]);
        Ok(run::feed("applying", &mut kubectl, &object.to_string())?)
    }

    /// Changes a pod by one request as somebody; an error has the API server's words. (kubectl reads first,
    /// and would need the right to.)
    pub fn patch_pod(&self, name: &str, user: &str, patch: &Value) -> Result<()> {
        tokio::runtime::Runtime::new()?.block_on(async {
            let client = client(self.cluster.kubeconfig(), user.to_owned()).await?;
            let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
                kube::Api::namespaced(client, &self.name);
            let patch = kube::api::Patch::Strategic(patch);
            pods.patch(name, &Default::default(), &patch).await?;
            Ok(())
        })
    }

    /// What the API server says to an object that it is not to keep.
    pub fn refusal(&self, object: &Value) -> Option<String> {
        let mut kubectl = self.kubectl_command();
        kubectl.args(["create", "--dry-run=server", "--validate=strict", "-f", "-"]);
        run::feed("creating", &mut kubectl, &object.to_string())
            .err()
            .map(|error| error.to_string())
    }

    /// An object as the API server has it.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        let text = self.kubectl(&["get", kind, name, "-o", "json"])?;
        serde_json::from_str(&text).with_context(|| format!("{kind} {name} is no JSON"))
    }

    /// Waits until an object is as wanted.
    pub fn until_object(
        &self,
        kind: &str,
        name: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        self.until(
            &format!("{kind} {name}"),
            &["get", kind, name, "-o", "json"],
            wanted,
        )
    }

    /// Waits until an object is gone.
    pub fn until_gone(&self, kind: &str, name: &str) -> Result<()> {
        let args = ["get", kind, name, "--ignore-not-found", "-o", "name"];
        let probe = || match self.kubectl(&args) {
            Ok(out) if out.trim().is_empty() => Ok(()),
            Ok(out) => Err(Pending::NotYet(out)),
            Err(error) => Err(Pending::NotYet(error.to_string())),
        };
        Ok(wait::until(
            &format!("{kind} {name} gone"),
            LIMIT,
            None,
            probe,
        )?)
    }

    fn until(&self, what: &str, args: &[&str], wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let probe = || match self.kubectl(args) {
            Ok(out) => match serde_json::from_str(&out) {
                Ok(object) if wanted(&object) => Ok(object),
                _ => Err(Pending::NotYet(out)),
            },
            Err(error) => Err(Pending::NotYet(error.to_string())),
        };
        Ok(wait::until(what, LIMIT, None, probe)?)
    }
}

/// Objects that are deleted when this is dropped.
#[must_use]
pub struct Applied<'s> {
    cluster: &'s Cluster,
    what: &'static str,
    manifests: String,
}

impl Drop for Applied<'_> {
    fn drop(&mut self) {
        let mut delete = self.cluster.kubectl();
        delete.args(["delete", "--ignore-not-found", "--wait=false", "-f", "-"]);
        let deleting = format!("deleting {}", self.what);
        if let Err(error) = run::feed(&deleting, &mut delete, &self.manifests) {
            eprintln!("{} may be left: {error}", self.what);
        }
    }
}

/// A client of the cluster as somebody.
async fn client(kubeconfig: &Path, user: String) -> Result<kube::Client> {
    keylane_operator::install_crypto();
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    config.auth_info.impersonate = Some(user);
    Ok(kube::Client::try_from(config)?)
}

impl Drop for Space {
    fn drop(&mut self) {
        if let Some((shutdown, thread)) = self.operator.take() {
            shutdown.cancel();
            if thread.join().is_err() {
                eprintln!("the operator of {} panicked", self.name);
            }
        }
        let args = ["delete", "namespace", &self.name, "--wait=false"];
        if let Err(error) = self.kubectl(&args) {
            eprintln!("namespace {} stays: {error}", self.name);
        }
    }
}

/// A status condition of an object.
pub fn condition<'o>(object: &'o Value, kind: &str) -> Option<&'o Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// An OrderedConsumer without brokers to be reached and with images that are not there: its children
/// can be looked at, nothing of it runs.
pub fn consumer(name: &str) -> Value {
    json!({
        "apiVersion": "keylane.dev/v1alpha1",
        "kind": "OrderedConsumer",
        "metadata": {"name": name},
        "spec": {
            "rocketmq": {"nameServers": ["127.0.0.1:1"]},
            "topic": "ORDERS",
            "consumerGroup": "orders",
            "handler": {"http": {"port": 8080}},
            "autoscaling": {"mode": "LanesOnly"},
            "template": {"spec": {"containers": [{
                "name": "handler", "image": "localhost/not-there:1", "imagePullPolicy": "Never",
                "env": [{"name": "KEPT", "value": "1"}, {"name": "DROPPED", "value": "1"}]
            }]}}
        }
    })
}
