//! The record and its verdict over HTTP.

use crate::Listen;
use crate::api;
use crate::calls::Calls;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use keylane_tests::judge::{Judge, Report, Verdict};
use std::sync::{Arc, Mutex, PoisonError};

/// A judge that several tasks use.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Judge>>);

impl Shared {
    /// Adds a report.
    pub fn take(&self, report: Report) {
        self.with(|judge| judge.take(report));
    }

    /// Adds what calls of this process did since their last report. Reports of one process are taken in
    /// their order, so making one and taking it is one step.
    pub fn take_from(&self, calls: &Calls) {
        self.with(|judge| {
            if let Some(report) = calls.report() {
                judge.take(report);
            }
        });
    }

    /// Judges what is recorded.
    pub fn verdict(&self) -> Verdict {
        self.with(|judge| judge.verdict())
    }

    /// Forgets everything. A call that runs meanwhile is recorded when it ends.
    pub fn forget(&self) {
        self.with(|judge| judge.forget());
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Judge) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Judges all handlers until told to stop.
pub async fn run(listen: Listen) -> anyhow::Result<()> {
    let app = Router::new()
        .route(api::REPORTS, post(take))
        .route(api::VERDICT, get(verdict).delete(forget))
        .route(api::LIVE, get(|| async { "ok" }))
        .layer(DefaultBodyLimit::disable())
        .with_state(Shared::default());
    listen.serve(app).await
}

async fn take(State(judge): State<Shared>, Json(report): Json<Report>) -> StatusCode {
    judge.take(report);
    StatusCode::NO_CONTENT
}

async fn verdict(State(judge): State<Shared>) -> Json<Verdict> {
    Json(judge.verdict())
}

async fn forget(State(judge): State<Shared>) -> StatusCode {
    judge.forget();
    StatusCode::NO_CONTENT
}
