//! Charts that were released, upgraded on a real cluster to those of the source.
//!
//! `released` holds them as they were packaged. The program is that of the source in both: what an older chart
//! says to it must be understood, or a rollback would end in a crash loop. What an older program leaves behind is
//! tried in `versions`, and one that still leads in `beside`.

mod beside;
mod turns;
mod versions;

use crate::leaders::{pods, written};
use crate::space::{Space, consumer};
use anyhow::{Context as _, Result, ensure};
use keylane_tests::cluster::{Cluster, run};
use keylane_tests::images::workspace::{build_workspace_images, workspace};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn released(chart: &str) -> PathBuf {
    workspace().join(format!("tests/operator/released/{chart}-0.1.0.tgz"))
}

/// A release that is uninstalled when it is dropped.
struct Release<'s> {
    space: &'s Space,
    name: String,
}

impl<'s> Release<'s> {
    fn new(space: &'s Space) -> Self {
        Self {
            space,
            name: format!("kl-{:08x}", rand::random::<u32>()),
        }
    }

    fn helm(&self, verb: &str, args: &[&str]) -> Result<String> {
        let mut helm = self.space.cluster().helm()?;
        helm.args([verb, &self.name, "--namespace", &self.space.name]);
        Ok(run::output(&format!("helm {verb}"), helm.args(args))?)
    }

    /// When the operator that decides took over.
    fn term(&self) -> Result<String> {
        let lease = self
            .space
            .get("lease", &format!("{}-operator", self.name))?;
        Ok(lease["spec"]["acquireTime"].to_string())
    }
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        // Cluster-wide roles and policies would stay.
        let args = ["--ignore-not-found", "--wait", "--timeout=120s"];
        if let Err(error) = self.helm("uninstall", &args) {
            eprintln!("release {} stays: {error:#}", self.name);
        }
    }
}

const WAIT: [&str; 2] = ["--wait", "--timeout=180s"];

#[test]
fn an_operator_of_the_released_chart_is_upgraded_and_back_and_pods_never_notice() -> Result<()> {
    let space = Space::new("upgrade")?;
    space.stop_installed_operators()?;
    let cluster = space.cluster();
    cluster.load_all(&build_workspace_images(cluster.paths())?)?;
    let release = Release::new(&space);
    let old = released("keylane").display().to_string();
    let values = format!(
        "image.repository=keylane-operator,image.tag=dev,executorImage.repository=localhost/not-there,watchNamespace={}",
        space.name
    );
    release.helm(
        "install",
        &[&["--skip-crds", &old, "--set", &values], &WAIT[..]].concat(),
    )?;
    space.apply(&consumer("orders"))?;
    space.until_object("deployment", "orders-keylane", |deployment| {
        deployment["status"]["replicas"] == 1
    })?;
    until_seen(&space)?;
    let (running, children, term) = (pods(&space)?, written(&space)?, release.term()?);
    ensure!(running.0.len() == 1, "{running:?}");

    // Values of the old release only, as --reuse-values has it: what is new must have its default.
    let new = workspace().join("charts/keylane").display().to_string();
    let upgrade = ["--skip-crds", &new, "--reuse-values"];
    release.helm("upgrade", &[&upgrade, &WAIT[..]].concat())?;
    let mut changed = consumer("orders");
    changed["spec"]["lanes"] = json!({"min": 7, "max": 9});
    obeyed(&space, &changed, "min: 7")?;
    let upgraded = release.term()?;
    ensure!(term < upgraded, "the operator was not replaced");
    assert_eq!(pods(&space)?, running);
    let after = written(&space)?;
    for kind in ["deployment", "serviceaccount", "secret", "service"] {
        assert_eq!(after[kind], children[kind], "{kind} was written again");
    }

    release.helm("rollback", &[&["1"], &WAIT[..]].concat())?;
    changed["spec"]["lanes"] = json!({"min": 8, "max": 9});
    obeyed(&space, &changed, "min: 8")?;
    ensure!(upgraded < release.term()?, "the operator was not replaced");
    assert_eq!(pods(&space)?, running);

    // Consumers go on without any operator.
    drop(release);
    assert_eq!(pods(&space)?, running);
    Ok(())
}

fn until_seen(space: &Space) -> Result<()> {
    let generation = space.get("orderedconsumer", "orders")?["metadata"]["generation"].clone();
    space.until_object("orderedconsumer", "orders", |object| {
        object["status"]["observedGeneration"] == generation
    })?;
    Ok(())
}

fn obeyed(space: &Space, consumer: &Value, shown: &str) -> Result<()> {
    space.apply(consumer)?;
    space.until_object("configmap", "orders-keylane", |config| {
        let text = config["data"]["consumer.yaml"].as_str();
        text.is_some_and(|text| text.contains(shown))
    })?;
    until_seen(space)
}

/// The charts of the definition, about another kind: the one that everybody uses stays out of it.
struct Renamed {
    dir: tempfile::TempDir,
    group: String,
}

impl Renamed {
    fn new() -> Result<Self> {
        Ok(Self {
            dir: tempfile::tempdir()?,
            group: format!("upgrade-{:08x}.keylane.dev", rand::random::<u32>()),
        })
    }

    fn definition(&self) -> String {
        format!("upgradedconsumers.{}", self.group)
    }

    /// A chart's directory, copied and renamed.
    fn chart(&self, from: &Path, name: &str) -> Result<String> {
        let to = self.dir.path().join(name);
        std::fs::create_dir_all(to.join("templates"))?;
        for file in ["Chart.yaml", "values.yaml"] {
            std::fs::copy(from.join(file), to.join(file))?;
        }
        let file = "templates/orderedconsumers.yaml";
        let text = std::fs::read_to_string(from.join(file))?;
        let text = text
            .replace(
                "name: orderedconsumers.keylane.dev",
                &format!("name: {}", self.definition()),
            )
            .replace("group: keylane.dev", &format!("group: {}", self.group))
            .replace("orderedconsumer", "upgradedconsumer")
            .replace("OrderedConsumer", "UpgradedConsumer")
            .replace("- oc\n", "- upc\n")
            .replace("- keylane\n", "- upgraded\n");
        std::fs::write(to.join(file), text)?;
        Ok(to.display().to_string())
    }

    fn object(&self, label: &str) -> Value {
        let mut object = consumer("orders");
        object["apiVersion"] = json!(format!("{}/v1alpha1", self.group));
        object["kind"] = json!("UpgradedConsumer");
        object["metadata"]["labels"] = json!({"written": label});
        object
    }

    fn delete(&self, cluster: &Cluster) -> Result<()> {
        let mut delete = cluster.kubectl();
        delete.args(["delete", "crd", &self.definition(), "--ignore-not-found"]);
        run::output("removing the renamed definition", &mut delete)?;
        Ok(())
    }
}

#[test]
fn definitions_are_upgraded_in_place_and_outlive_their_chart() -> Result<()> {
    let space = Space::new("definitions")?;
    let renamed = Renamed::new()?;
    let outcome = upgraded(&space, &renamed);
    renamed.delete(space.cluster())?;
    outcome
}

fn upgraded(space: &Space, renamed: &Renamed) -> Result<()> {
    let unpacked = tempfile::tempdir()?;
    let mut tar = run::command("tar");
    tar.arg("-xzf").arg(released("keylane-crds")).arg("-C");
    run::output("unpacking the released chart", tar.arg(unpacked.path()))?;
    let old = renamed.chart(&unpacked.path().join("keylane-crds"), "old")?;
    let new = renamed.chart(&workspace().join("charts/keylane-crds"), "new")?;
    let release = Release::new(space);
    release.helm("install", &[&old])?;
    let definition = renamed.definition();
    space.until_object("crd", &definition, |crd| {
        let conditions = crd["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|one| one["type"] == "Established" && one["status"] == "True")
    })?;
    space.apply(&renamed.object("before"))?;
    let uid = |what: &str, name: &str| -> Result<Value> {
        Ok(space.get(what, name)?["metadata"]["uid"].clone())
    };
    let kind = format!("upgradedconsumers.{}", renamed.group);
    let (defined, object) = (uid("crd", &definition)?, uid(&kind, "orders")?);

    versions::status_is_served(space, &kind)?;

    release.helm("upgrade", &[&new])?;
    assert_eq!(uid("crd", &definition)?, defined);
    assert_eq!(uid(&kind, "orders")?, object);
    // What was written before is valid by the new definition too.
    space.apply(&renamed.object("after"))?;

    drop(release);
    assert_eq!(uid("crd", &definition)?, defined);
    let left = space.get(&kind, "orders")?;
    assert_eq!(left["metadata"]["uid"], object);
    let label = left["metadata"]["labels"]["written"].as_str();
    ensure!(label.context("no label")? == "after", "{left}");
    Ok(())
}
