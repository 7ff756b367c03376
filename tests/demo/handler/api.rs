//! Paths that are not for messages, and small answers.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// `GET`: the verdict. `DELETE`: forget everything recorded.
pub const VERDICT: &str = "/verdict";
/// `GET` and `PUT`: what the handler is told to do.
pub const CONTROL: &str = "/control";
/// `GET`: 200 as long as the process serves.
pub const LIVE: &str = "/livez";
/// `POST`: a report of a handler.
pub const REPORTS: &str = "/reports";

/// An answer that says what is wrong with the request.
pub fn refuse(status: StatusCode, reason: impl Into<String>) -> Response {
    (status, reason.into()).into_response()
}
