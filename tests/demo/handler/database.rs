//! What is behind the handlers of the demo: a stand-in for a database with so many connections, on each of
//! which a statement takes so long. The end-to-end tests have a real one.

use crate::Listen;
use crate::api::{self, refuse};
use anyhow::Context;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Longest wait for a statement: a handler is told before its executor gives up.
const LIMIT: Duration = Duration::from_secs(30);

/// Options of `database`.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    listen: Listen,
    /// How many statements run at once.
    #[arg(long, default_value_t = 32)]
    connections: u32,
    /// How long a statement takes, in milliseconds.
    #[arg(long, default_value_t = 20)]
    work_ms: u64,
}

/// What it can do; `PUT /control` replaces all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Control {
    /// How many statements run at once.
    connections: u32,
    /// How long a statement takes, in milliseconds.
    work_ms: u64,
}

struct Database {
    state: Mutex<Inside>,
    /// A statement may have room now.
    freed: Notify,
}

struct Inside {
    control: Control,
    running: u32,
}

/// A connection in use; given back when it is dropped.
struct Connection<'d> {
    database: &'d Database,
    work: Duration,
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.database.inside().running -= 1;
        self.database.freed.notify_one();
    }
}

impl Database {
    fn new(control: Control) -> Self {
        Self {
            state: Mutex::new(Inside {
                control,
                running: 0,
            }),
            freed: Notify::new(),
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Connection<'_>> {
        let mut inside = self.inside();
        if inside.running >= inside.control.connections {
            return None;
        }
        inside.running += 1;
        Some(Connection {
            database: self,
            work: Duration::from_millis(inside.control.work_ms),
        })
    }

    /// Waits for a connection.
    async fn connection(&self) -> Connection<'_> {
        loop {
            if let Some(connection) = self.take() {
                // Several may have been freed, and one is told of each.
                self.freed.notify_one();
                return connection;
            }
            self.freed.notified().await;
        }
    }

    async fn statement(&self) {
        let connection = self.connection().await;
        tokio::time::sleep(connection.work).await;
    }

    fn set(&self, control: Control) {
        self.inside().control = control;
        self.freed.notify_one();
    }
}

/// Serves until told to stop.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let control = Control {
        connections: options.connections,
        work_ms: options.work_ms,
    };
    let app = Router::new()
        .route("/", post(statement))
        .route(api::CONTROL, get(control_of).put(set_control))
        .route(api::LIVE, get(|| async { "ok" }))
        .with_state(Arc::new(Database::new(control)));
    options.listen.serve(app).await
}

async fn statement(State(database): State<Arc<Database>>) -> Response {
    match tokio::time::timeout(LIMIT, database.statement()).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "no connection is free"),
    }
}

async fn control_of(State(database): State<Arc<Database>>) -> Json<Control> {
    Json(database.inside().control)
}

async fn set_control(State(database): State<Arc<Database>>, body: Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(control) => {
            database.set(control);
            Json(control).into_response()
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

/// A handler's way to it.
pub struct Client {
    client: reqwest::Client,
    url: reqwest::Url,
}

impl Client {
    /// The database with this URL; nothing is connected yet.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let url = reqwest::Url::parse(url).with_context(|| {
            format!("--database {url:?} is not a URL such as http://database:8080")
        })?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(LIMIT)
            .build()
            .context("the HTTP client cannot be set up")?;
        Ok(Self { client, url })
    }

    /// Has it carry out a statement.
    pub async fn statement(&self) -> anyhow::Result<()> {
        let asked = self.client.post(self.url.clone()).send().await;
        asked
            .and_then(reqwest::Response::error_for_status)
            .context("the database did not carry out a statement")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn database(connections: u32, work_ms: u64) -> Arc<Database> {
        Arc::new(Database::new(Control {
            connections,
            work_ms,
        }))
    }

    #[tokio::test]
    async fn no_more_statements_run_at_once_than_it_has_connections() {
        let database = database(2, 50);
        let began = Instant::now();
        let statements = (0..6).map(|_| database.statement());
        futures::future::join_all(statements).await;
        assert!(began.elapsed() >= Duration::from_millis(150));
        assert_eq!(database.inside().running, 0);
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_it_gets_more_connections() {
        let database = database(0, 0);
        let waiting = {
            let database = database.clone();
            tokio::spawn(async move {
                futures::future::join_all((0..4).map(|_| database.statement())).await;
            })
        };
        tokio::task::yield_now().await;
        database.set(Control {
            connections: 8,
            work_ms: 1,
        });
        tokio::time::timeout(Duration::from_secs(10), waiting)
            .await
            .expect("they go on")
            .expect("no panic");
    }
}
