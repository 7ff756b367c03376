//! A cluster in use: how to talk to it and how to give it images.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::binaries;
use super::error::{ClusterError, Result};
use super::paths::Paths;
use super::progress::{note, step};
use super::run;
use super::{external, local};
use crate::images::Image;

/// Which cluster is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The one on this machine.
    Local,
    /// A context of the user's kubeconfig.
    Context(String),
}

impl Target {
    /// The context named by `KEYLANE_TEST_CONTEXT`, else the local cluster.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_option(std::env::var("KEYLANE_TEST_CONTEXT").ok())
    }

    /// The context if one is named, else the local cluster.
    #[must_use]
    pub fn from_option(context: Option<String>) -> Self {
        match context.filter(|name| !name.is_empty()) {
            Some(name) => Self::Context(name),
            None => Self::Local,
        }
    }

    /// Makes the cluster usable: starts the local one, or checks that the other one answers.
    pub fn up(&self, paths: &Paths) -> Result<Cluster> {
        match self {
            Self::Local => local::up_local(paths),
            Self::Context(name) => external::connect(paths, name),
        }
    }
}

/// A cluster that answers.
#[derive(Debug, Clone)]
pub struct Cluster {
    paths: Paths,
    target: Target,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
}

impl Cluster {
    pub(super) fn new(paths: &Paths, target: Target, kubeconfig: PathBuf) -> Result<Self> {
        Ok(Self {
            paths: paths.clone(),
            target,
            kubeconfig,
            kubectl: binaries::kubectl(paths)?,
        })
    }

    /// A kubeconfig whose current context is this cluster.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Whether this is the cluster on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.target == Target::Local
    }

    /// The cache directory's layout.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The API server's log of who changed what, one JSON object a line (tests/cluster/config/audit.yaml); none
    /// of a cluster that is not on this machine.
    #[must_use]
    pub fn audit_log(&self) -> Option<PathBuf> {
        self.is_local()
            .then(|| self.paths.log(super::components::AUDIT))
    }

    /// A kubectl command for this cluster; add arguments and run it.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        self.with_kubeconfig(&self.kubectl)
    }

    /// A Helm 3 command for this cluster; Helm is built first when there is none.
    pub fn helm(&self) -> Result<Command> {
        Ok(self.with_kubeconfig(&binaries::helm(&self.paths)?))
    }

    /// A client for this cluster.
    pub async fn client(&self) -> Result<kube::Client> {
        let unusable = |reason: String| ClusterError::Kubeconfig {
            path: self.kubeconfig.clone(),
            reason,
        };
        // Two cryptography providers are linked in and neither is the default; the first choice in a
        // process stays.
        let _chosen_before = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig = kube::config::Kubeconfig::read_from(&self.kubeconfig)
            .map_err(|error| unusable(error.to_string()))?;
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| unusable(error.to_string()))?;
        kube::Client::try_from(config).map_err(|error| unusable(error.to_string()))
    }

    /// Gives the cluster an image, unless it has this very one. A cluster of the user's own must
    /// have it or be able to pull it.
    pub fn load(&self, image: &Image) -> Result<()> {
        if !self.is_local() {
            note(&format!(
                "the cluster must have image {}: kind load image-archive {archive}, or k3d image import {archive}, or give --registry",
                image.name,
                archive = image.archive.display()
            ));
            return Ok(());
        }
        local::import(&self.paths, image)
    }

    /// Gives the cluster several images.
    pub fn load_all(&self, images: &[Image]) -> Result<()> {
        images.iter().try_for_each(|image| self.load(image))
    }

    /// Applies manifests. What another manager set before (Helm, a test of the operator, an earlier run on a
    /// cluster that is kept) is taken over.
    pub fn apply(&self, what: &str, manifests: &str) -> Result<()> {
        step(&format!("Applying {what}"), || {
            run::feed(
                &format!("applying {what}"),
                self.kubectl().args([
                    "apply",
                    "--server-side",
                    "--force-conflicts",
                    "--field-manager=keylane-tests",
                    "-f",
                    "-",
                ]),
                manifests,
            )
            .map(|_| ())
        })
    }

    fn with_kubeconfig(&self, program: &Path) -> Command {
        let mut command = run::command(program);
        command.env("KUBECONFIG", &self.kubeconfig);
        if self.is_local() {
            for name in [
                "HTTPS_PROXY",
                "https_proxy",
                "HTTP_PROXY",
                "http_proxy",
                "ALL_PROXY",
                "all_proxy",
            ] {
                command.env_remove(name);
            }
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_context_name_means_the_local_cluster() {
        assert_eq!(Target::from_option(None), Target::Local);
        assert_eq!(Target::from_option(Some(String::new())), Target::Local);
        assert_eq!(
            Target::from_option(Some("kind-a".to_owned())),
            Target::Context("kind-a".to_owned())
        );
    }
}
