//! Who may look and who may act, through a real API server: its roles decide, and the operator does it.

use anyhow::{Result, ensure};
use keylane_operator::plugin::Verdict;
use keylane_tests::cluster::run;
use keylane_tests::images::workspace::release_directory;
use keylane_tests::plugin::{keylane, kubeconfig_as};
use keylane_tests::stack::Stack;
use keylane_tests::terminal::Terminal;
use std::path::Path;
use tempfile::NamedTempFile;

/// Somebody who uses `kubectl keylane` in a namespace.
pub struct Person {
    namespace: String,
    kubeconfig: NamedTempFile,
}

impl Person {
    /// Somebody with the cluster's role `view` or `edit` in the namespace, which has the chart's in it.
    pub fn with_role(stack: &Stack, role: &str) -> Result<Self> {
        let user = format!("{role}@example.com");
        stack.kubectl(&["delete", "rolebinding", role, "--ignore-not-found"])?;
        let named = format!("--clusterrole={role}");
        let bound = format!("--user={user}");
        stack.kubectl(&["create", "rolebinding", role, &named, &bound])?;
        Self::named(stack, &user)
    }

    /// Somebody without any.
    pub fn stranger(stack: &Stack) -> Result<Self> {
        Self::named(stack, "stranger@example.com")
    }

    fn named(stack: &Stack, user: &str) -> Result<Self> {
        Ok(Self {
            namespace: stack.namespace().to_owned(),
            kubeconfig: kubeconfig_as(stack.cluster().kubeconfig(), user)?,
        })
    }

    /// What a command prints, and whether all is well.
    pub async fn tries(&self, words: &[&str]) -> Result<(Verdict, String)> {
        Ok(keylane(self.file(), &self.namespace, words).await?)
    }

    /// What a command prints after which all is well.
    pub async fn asks(&self, words: &[&str]) -> Result<String> {
        let (verdict, text) = self.tries(words).await?;
        ensure!(verdict == Verdict::Well, "{words:?}: {text}");
        Ok(text)
    }

    /// A command that is refused because of who asks.
    pub async fn is_refused(&self, words: &[&str]) -> Result<()> {
        match keylane(self.file(), &self.namespace, words).await {
            Ok((_, text)) => anyhow::bail!("{words:?} was answered: {text}"),
            Err(error) => {
                let error = error.to_string();
                ensure!(error.contains("you may not"), "{words:?}: {error}");
                Ok(())
            }
        }
    }

    /// A command in a terminal, as kubectl runs the released program.
    pub fn sees(&self, stack: &Stack, words: &[&str]) -> Result<Terminal> {
        let path = format!("{}:{}", release_directory().display(), run::search_path());
        let mut kubectl = stack.cluster().kubectl();
        kubectl
            .arg("keylane")
            .args(words)
            .args(["-n", &self.namespace])
            .env("KUBECONFIG", self.file())
            .env("PATH", path)
            .env("TERM", "xterm")
            .env_remove("NO_COLOR");
        Terminal::start(kubectl)
    }

    fn file(&self) -> &Path {
        self.kubeconfig.path()
    }
}
