//! A cluster the user has: checked, never changed.

use super::binaries;
use super::error::{ClusterError, Result};
use super::handle::{Cluster, Target};
use super::paths::Paths;
use super::pki::write_private;
use super::progress::note;
use super::run;

/// Checks that the context answers, says what was found, and gives it a kubeconfig of its own.
pub(super) fn connect(paths: &Paths, context: &str) -> Result<Cluster> {
    let kubectl = binaries::kubectl(paths)?;
    let view = run::output(
        &format!("reading context {context} of the kubeconfig"),
        run::command(&kubectl).args([
            "config",
            "view",
            "--raw",
            "--minify",
            "--flatten",
            "--context",
            context,
        ]),
    )?;
    let kubeconfig = paths.context_kubeconfig(context);
    write_private(&kubeconfig, &view)?;
    // A minified view keeps the user's current context, which may be another one.
    run::output(
        &format!("selecting context {context}"),
        run::command(&kubectl).env("KUBECONFIG", &kubeconfig).args([
            "config",
            "use-context",
            context,
        ]),
    )?;
    let cluster = Cluster::new(paths, Target::Context(context.to_owned()), kubeconfig)?;
    for line in describe(&cluster, context)? {
        note(&line);
    }
    Ok(cluster)
}

/// What the cluster is: its version and its nodes.
pub(super) fn describe(cluster: &Cluster, context: &str) -> Result<Vec<String>> {
    let version = run::output(
        &format!("asking the cluster of context {context}"),
        cluster
            .kubectl()
            .args(["get", "--raw", "/version", "--request-timeout=10s"]),
    )?;
    let version: serde_json::Value =
        serde_json::from_str(&version).map_err(|error| ClusterError::Kubeconfig {
            path: cluster.kubeconfig().to_path_buf(),
            reason: format!("its /version is no JSON ({error}); is it a Kubernetes API server?"),
        })?;
    let nodes = run::output(
        &format!("listing the nodes of context {context}"),
        cluster
            .kubectl()
            .args(["get", "nodes", "--no-headers", "--request-timeout=10s"]),
    )?;
    let mut lines = vec![format!(
        "context {context} answers: Kubernetes {}, {} node(s)",
        version["gitVersion"]
            .as_str()
            .unwrap_or("of unknown version"),
        nodes.lines().count()
    )];
    lines.extend(nodes.lines().map(str::to_owned));
    Ok(lines)
}
