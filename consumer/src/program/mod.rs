//! What Keylane's programs have in common: how they log, and when they end.

pub mod tls;

use crate::terminated;
use std::io::IsTerminal;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// One more that is told what happens in a program, beside the log; what of it is its own filter's.
pub type Also = Box<dyn Layer<Registry> + Send + Sync>;

/// Logs to standard error what `RUST_LOG` asks for, by default what is of interest, as lines of text or of
/// JSON, and tells another if there is one. Call it once.
pub fn start_logging(json: bool, also: Option<Also>) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,rocketmq=off"));
    let lines = fmt::layer::<Registry>()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let log = if json {
        lines.json().with_filter(filter).boxed()
    } else {
        lines.with_filter(filter).boxed()
    };
    let all: Vec<Also> = [log].into_iter().chain(also).collect();
    tracing_subscriber::registry().with(all).init();
}

/// Cancelled once this process is [`terminated`]. Needs a runtime.
pub fn shutdown() -> CancellationToken {
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        terminated().await;
        stop.cancel();
    });
    shutdown
}
