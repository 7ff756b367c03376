//! What pods know at this moment, through the API server: its roles decide who may see it.

use crate::NAME;
use anyhow::{Result, ensure};
use keylane_operator::live::{ConsumerStats, path};
use keylane_tests::stack::{LIVE_API, Stack};
use keylane_tests::wait;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// A user with the chart's role to view, in the namespace.
const VIEWER: &str = "viewer@example.com";

/// A viewer sees the pods' stats, a stranger does not, and nobody gets round the API server.
pub async fn a_viewer_sees_what_pods_know(stack: &Stack) -> Result<()> {
    let available = ["wait", "--for=condition=Available", "--timeout=60s"];
    stack.kubectl(&[&available[..], &["apiservice", LIVE_API]].concat())?;
    stack.kubectl(&["delete", "rolebinding", "viewer", "--ignore-not-found"])?;
    let user = format!("--user={VIEWER}");
    stack.kubectl(&[
        "create",
        "rolebinding",
        "viewer",
        "--clusterrole=keylane-view",
        &user,
    ])?;
    let url = path(stack.namespace(), NAME);
    let stats = wait::until(LIMIT, "an answer of every pod", async || {
        let text = stack.kubectl(&["get", "--raw", &url, "--as", VIEWER]);
        let text = text.map_err(|error| format!("{error:#}"))?;
        let stats: ConsumerStats =
            serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let silent = stats.pods.iter().any(|pod| pod.stats.is_none());
        if silent || stats.pods.is_empty() {
            return Err(text);
        }
        Ok(stats)
    })
    .await?;
    let queues = stats.pods.iter().filter_map(|pod| pod.stats.as_ref());
    let queues: usize = queues.map(|stats| stats.queues.len()).sum();
    ensure!(queues > 0, "pods hold no queues: {stats:?}");
    let refused = |args: &[&str], why: &str| -> Result<()> {
        let error = match stack.kubectl(args) {
            Ok(answer) => anyhow::bail!("{args:?} was answered: {answer}"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(error.contains(why), "{args:?}: {error}");
        Ok(())
    };
    let stranger = "stranger@example.com";
    refused(&["get", "--raw", &url, "--as", stranger], "Forbidden")?;
    let missing = path(stack.namespace(), "not-there");
    refused(&["get", "--raw", &missing, "--as", VIEWER], "not found")?;
    nobody_gets_round(stack)?;
    println!("a viewer sees what {} pods know", stats.pods.len());
    Ok(())
}

/// The operator itself answers only the API server.
fn nobody_gets_round(stack: &Stack) -> Result<()> {
    let address = stack.kubectl(&[
        "get",
        "pods",
        "--namespace=keylane-system",
        "--selector=app.kubernetes.io/component=operator",
        "--output=jsonpath={.items[0].status.podIP}",
    ])?;
    // The administrator's certificate is not the front proxy's.
    let server = format!("--server=https://{}:9404", address.trim());
    let url = path(stack.namespace(), NAME);
    let answer = stack.kubectl(&[&server, "--insecure-skip-tls-verify", "get", "--raw", &url]);
    ensure!(
        answer.is_err(),
        "an answer round the API server: {answer:?}"
    );
    Ok(())
}
