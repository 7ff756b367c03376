//! Tells a process that serves what to do, from inside its container: its own image has no other client.

use crate::api;
use anyhow::{Context, ensure};

/// Options of `control`.
#[derive(clap::Args)]
pub struct Options {
    /// What it is to do, as JSON: what `GET /control` of it gives.
    #[arg(value_name = "JSON")]
    control: String,
    /// Base URL of the process.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
}

/// Tells it, and prints what it answers.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let url = format!("{}{}", options.url.trim_end_matches('/'), api::CONTROL);
    let client = reqwest::Client::builder().no_proxy().build()?;
    let answer = client
        .put(&url)
        .header("content-type", "application/json")
        .body(options.control)
        .send()
        .await
        .with_context(|| format!("{url} does not answer"))?;
    let status = answer.status();
    let text = answer.text().await?;
    ensure!(status.is_success(), "{url} refused ({status}): {text}");
    println!("{text}");
    Ok(())
}
