//! A group that is to be taken over, for whoever may create an OrderedConsumer of it: such a one has pods of its own
//! call the same addresses.

use super::api::{GROUP, VERSION, failure};
use crate::broker::groups::{GroupError, Wanted, find};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use kube::Client;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The resource.
pub(super) const RESOURCE: &str = "groups";
/// Longest time of a question.
const LIMIT: Duration = Duration::from_secs(12);
/// Questions at a time.
static TURNS: Semaphore = Semaphore::const_new(2);

/// Where groups are asked for.
pub fn path(namespace: &str) -> String {
    format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{RESOURCE}")
}

pub(super) fn router() -> Router<Client> {
    Router::new().route(&path("{namespace}"), post(group))
}

async fn group(Json(wanted): Json<Wanted>) -> Response {
    let question = async {
        // It is never closed.
        let _turn = TURNS.acquire().await;
        Box::pin(find(&wanted)).await
    };
    let refused = |code, reason, error: String| failure(code, reason, &error);
    match timeout(LIMIT, question).await {
        Ok(Ok(group)) => Json(group).into_response(),
        Ok(Err(error @ GroupError::Asked(_))) => {
            refused(StatusCode::BAD_REQUEST, "BadRequest", error.to_string())
        }
        Ok(Err(error @ GroupError::NoSuch { .. })) => {
            refused(StatusCode::GONE, "Gone", error.to_string())
        }
        Ok(Err(error)) => refused(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            error.to_string(),
        ),
        Err(_) => {
            let late = format!("the brokers of the group did not tell within {LIMIT:?}");
            refused(StatusCode::GATEWAY_TIMEOUT, "Timeout", late)
        }
    }
}
