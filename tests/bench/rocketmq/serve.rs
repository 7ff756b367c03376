//! Handlers in a process of their own: servers that do what the Rust function does, and nothing else.

use crate::count::{self, Count, Place};
use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::serve::ListenerExt;
use bytes::Bytes;
use std::sync::Arc;
use tokio::net::TcpListener;

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[arg(long, value_enum)]
    protocol: Protocol,
    #[arg(long)]
    port: u16,
    #[command(flatten)]
    count: count::Expected,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    Http,
}

/// Serves until everything is handled, and prints what was measured.
pub async fn run(options: Options) -> Result<()> {
    let count = Arc::new(Count::new(options.count));
    let listener = TcpListener::bind(("127.0.0.1", options.port)).await?;
    match options.protocol {
        Protocol::Http => {
            // Answers are small: without this they wait for acknowledgements.
            let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
            let router = Router::new().route("/", post(called));
            let router = router.with_state(count.clone());
            tokio::spawn(async move { axum::serve(listener, router).await });
        }
    }
    let printed = count.result().await?;
    println!("{}", serde_json::to_string(&printed)?);
    Ok(())
}

async fn called(State(count): State<Arc<Count>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    match event(&count, &headers, &body).await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

async fn event(count: &Count, headers: &HeaderMap, body: &[u8]) -> Result<()> {
    let text = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.with_context(|| format!("{name} is missing"))
    };
    let (_, queue) = text("ce-source")?.rsplit_once('/').context("ce-source")?;
    let place = Place {
        queue: queue.parse()?,
        key: text("ce-partitionkey")?,
        offset: text("ce-sequence")?.parse()?,
    };
    count.handle(place, body).await
}
