//! Hands each call on to a recorder outside of the pod, for tests that must know of every call and when it
//! began and ended, whatever happens to this process.
//!
//! The call is this process's own: it goes on when its caller is gone, and the recorder sees it end with
//! this process by the end of its connection.

use crate::Listen;
use crate::api::refuse;
use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::sync::Arc;
use tokio_util::task::TaskTracker;

/// Largest message that is taken.
const LARGEST: usize = 64 << 20;

/// Options of `relay`.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    listen: Listen,
    /// Base URL of the recorder; calls are posted below it to the path they came with.
    #[arg(long, value_name = "URL")]
    to: String,
}

struct Relay {
    to: String,
    client: reqwest::Client,
    calls: TaskTracker,
}

/// Hands calls on until told to stop, then waits for those that run.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let to = options.to.trim_end_matches('/').to_owned();
    reqwest::Url::parse(&to).with_context(|| format!("--to {to:?} is not a URL"))?;
    let relay = Arc::new(Relay {
        to,
        client: reqwest::Client::builder().no_proxy().build()?,
        calls: TaskTracker::new(),
    });
    let app = Router::new()
        .route("/idle", get(idle))
        .fallback(post(called))
        .with_state(relay.clone());
    let served = options.listen.serve(app).await;
    relay.calls.close();
    relay.calls.wait().await;
    served
}

/// 200 when nothing runs of what was sent before.
async fn idle(State(relay): State<Arc<Relay>>) -> StatusCode {
    match relay.calls.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::CONFLICT,
    }
}

async fn called(State(relay): State<Arc<Relay>>, request: Request) -> Response {
    let worker = relay.clone();
    // From here on this process is not idle.
    let call = relay.calls.spawn(async move {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, LARGEST).await;
        let body = body.map_err(|error| refuse(StatusCode::BAD_REQUEST, error.to_string()))?;
        worker.hand_on(head.uri.path(), head.headers, body).await
    });
    match call.await {
        Ok(Ok(status)) => status.into_response(),
        Ok(Err(response)) => response,
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

impl Relay {
    async fn hand_on(
        &self,
        path: &str,
        mut headers: axum::http::HeaderMap,
        body: Bytes,
    ) -> Result<StatusCode, Response> {
        // Of this connection and not of the next.
        for name in ["host", "connection", "content-length", "transfer-encoding"] {
            headers.remove(name);
        }
        let url = format!("{}{path}", self.to);
        let sent = self.client.post(url).headers(headers).body(body).send();
        let answer = sent
            .await
            .map_err(|error| refuse(StatusCode::BAD_GATEWAY, error.to_string()))?;
        Ok(answer.status())
    }
}
