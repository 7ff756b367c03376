//! `kubectl keylane` in this process, against a cluster.

use anyhow::{Context, Result};
use clap::Parser;
use keylane_operator::plugin::{self, Cli, Paint, PluginError, Verdict};
use serde_json::Value;
use std::path::Path;
use tempfile::NamedTempFile;

/// Runs a command as it is typed behind `kubectl keylane`; gives what it prints. The words must be a command line.
pub async fn keylane(
    kubeconfig: &Path,
    namespace: &str,
    words: &[&str],
) -> Result<(Verdict, String), PluginError> {
    keylane_operator::install_crypto();
    let kubeconfig = kubeconfig.display().to_string();
    let mut line = vec![
        "kubectl-keylane",
        "--kubeconfig",
        &kubeconfig,
        "-n",
        namespace,
    ];
    line.extend(words);
    let cli = Cli::try_parse_from(line).map_err(|error| PluginError::Input {
        path: words.join(" "),
        reason: error.to_string(),
    })?;
    let mut out = Vec::new();
    let verdict = Box::pin(plugin::run(cli, Paint::PLAIN, &mut out)).await?;
    Ok((verdict, String::from_utf8_lossy(&out).into_owned()))
}

/// An administrator's kubeconfig, who asks as somebody else.
pub fn kubeconfig_as(kubeconfig: &Path, user: &str) -> Result<NamedTempFile> {
    let text = std::fs::read_to_string(kubeconfig)?;
    let mut kubeconfig: Value = serde_norway::from_str(&text)?;
    for entry in kubeconfig["users"].as_array_mut().context("no users")? {
        entry["user"]["as"] = user.into();
    }
    let file = NamedTempFile::new()?;
    std::fs::write(file.path(), kubeconfig.to_string())?;
    Ok(file)
}
