//! The handler itself.
//!
//! A call runs to its end even if the caller goes away meanwhile, as real work would: a caller that
//! gives up too early and calls again shows up as an overlap.

use crate::Listen;
use crate::api::{self, refuse};
use crate::calls::Calls;
use crate::database;
use crate::event::Event;
use crate::forward::{Destination, Remote};
use crate::judge::Shared;
use crate::orders::{Change, Orders};
use anyhow::Context;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use keylane_tests::judge::Verdict;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Largest message that is taken.
const LARGEST: usize = 64 << 20;

/// Options of `serve`.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    listen: Listen,
    /// Path that messages are posted to.
    #[arg(long, default_value = "/", env = "HANDLER_PATH")]
    path: String,
    /// How long each call works, in milliseconds.
    #[arg(long, default_value_t = 0, env = "WORK_MS")]
    work_ms: u64,
    /// A key whose calls fail; may be given more than once.
    #[arg(long = "fail-key", value_name = "KEY")]
    fail_keys: Vec<String>,
    /// A message with this text in its body fails; may be given more than once.
    #[arg(long = "fail-body", value_name = "TEXT")]
    fail_bodies: Vec<String>,
    /// Base URL of the judge that all handlers report to; without it this handler judges its own calls.
    #[arg(long, value_name = "URL", env = "JUDGE_URL")]
    judge: Option<String>,
    /// Database that each call writes the state of its order to, after its work.
    #[arg(long, value_name = "URL", env = "POSTGRES_URL", hide_env_values = true)]
    postgres: Option<String>,
    /// A `sample-handler database` that carries out a statement for each call, after its work.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Name of this process in the record. Default: random.
    #[arg(long, env = "HANDLER_NAME")]
    name: Option<String>,
}

/// What the handler does with a call; `PUT /control` replaces all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Control {
    /// How long a call works, in milliseconds.
    #[serde(default)]
    work_ms: u64,
    /// Keys whose calls are answered with `failStatus` after the work.
    #[serde(default)]
    fail_keys: BTreeSet<String>,
    /// Calls of messages with one of these texts in their body are, too.
    #[serde(default)]
    fail_bodies: BTreeSet<String>,
    /// Whether calls of every key fail.
    #[serde(default)]
    fail_all: bool,
    /// The status failing calls are answered with.
    #[serde(default = "Control::default_fail_status")]
    fail_status: u16,
}

impl Control {
    fn default_fail_status() -> u16 {
        500
    }

    fn fails(&self, event: &Event, body: &[u8]) -> bool {
        let key = event.key.as_ref();
        let has = |text: &String| {
            !text.is_empty() && body.windows(text.len()).any(|part| part == text.as_bytes())
        };
        self.fail_all
            || key.is_some_and(|key| self.fail_keys.contains(key))
            || self.fail_bodies.iter().any(has)
    }
}

struct Handler {
    control: RwLock<Arc<Control>>,
    calls: Arc<Calls>,
    /// The judge of this process, if it is the one.
    judge: Option<Shared>,
    verdict_elsewhere: String,
    orders: Option<Orders>,
    database: Option<database::Client>,
    work: TaskTracker,
}

type Shelf = State<Arc<Handler>>;

/// Handles messages until told to stop, then finishes what runs and reports it.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let own = [api::VERDICT, api::CONTROL, api::LIVE];
    let path = options.path;
    anyhow::ensure!(
        path.starts_with('/') && !path.contains(['{', '}', '*']) && !own.contains(&path.as_str()),
        "--path {path:?} must begin with a slash and be none of {own:?}"
    );
    let name = options.name.unwrap_or_else(|| {
        let random: u64 = rand::random();
        format!("{random:016x}")
    });
    let calls = Arc::new(Calls::new(name));
    let judge = options.judge.is_none().then(Shared::default);
    let (destination, verdict_elsewhere) = match (&options.judge, &judge) {
        (Some(url), _) => {
            let url = url.trim_end_matches('/');
            let verdict = format!("{url}{}", api::VERDICT);
            (Destination::There(Remote::new(url)?), verdict)
        }
        (None, judge) => (
            Destination::Here(judge.clone().unwrap_or_default()),
            String::new(),
        ),
    };
    let handler = Arc::new(Handler {
        control: RwLock::new(Arc::new(Control {
            work_ms: options.work_ms,
            fail_keys: options.fail_keys.into_iter().collect(),
            fail_bodies: options.fail_bodies.into_iter().collect(),
            fail_all: false,
            fail_status: Control::default_fail_status(),
        })),
        calls: calls.clone(),
        judge,
        verdict_elsewhere,
        orders: options.postgres.as_deref().map(Orders::new).transpose()?,
        database: options
            .database
            .as_deref()
            .map(database::Client::new)
            .transpose()?,
        work: TaskTracker::new(),
    });
    let app = Router::new()
        .route(&path, post(handle))
        .route(api::VERDICT, get(verdict).delete(forget))
        .route(api::CONTROL, get(control).put(set_control))
        .route(api::LIVE, get(|| async { "ok" }))
        .with_state(handler.clone());
    let (stop, stopping) = watch::channel(false);
    let reporting = tokio::spawn(async move { destination.report(calls, stopping).await });
    let served = options.listen.serve(app).await;
    handler.work.close();
    handler.work.wait().await;
    stop.send_replace(true);
    reporting.await.context("the reports broke off")?;
    served
}

async fn handle(State(handler): Shelf, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let event = match Event::read(&head.headers) {
        Ok(event) => event,
        Err(reason) => return refuse(StatusCode::BAD_REQUEST, reason),
    };
    let id = handler.calls.begin(&event);
    let worker = handler.clone();
    let work = handler.work.spawn(async move {
        let answer = worker.work(&event, body).await;
        worker.calls.end(id, answer.is_ok());
        answer
    });
    match work.await {
        Ok(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Ok(Err(response)) => response,
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

impl Handler {
    async fn work(&self, event: &Event, body: Body) -> Result<(), Response> {
        let body = axum::body::to_bytes(body, LARGEST)
            .await
            .map_err(|error| refuse(StatusCode::BAD_REQUEST, error.to_string()))?;
        let control = self.control();
        if control.work_ms > 0 {
            tokio::time::sleep(Duration::from_millis(control.work_ms)).await;
        }
        if let Some(orders) = &self.orders {
            let change = Change::read(&body)
                .map_err(|reason| refuse(StatusCode::UNPROCESSABLE_ENTITY, reason))?;
            orders
                .write(&change)
                .await
                .map_err(|error| refuse(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}")))?;
        }
        if let Some(database) = &self.database {
            database
                .statement()
                .await
                .map_err(|error| refuse(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}")))?;
        }
        // Asked after the work: a change applies to calls that run.
        let control = self.control();
        if control.fails(event, &body) {
            let status = StatusCode::from_u16(control.fail_status)
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Err(refuse(status, "told to fail"));
        }
        Ok(())
    }

    fn control(&self) -> Arc<Control> {
        self.control
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The judge of this process, up to date.
    fn judge(&self) -> Option<&Shared> {
        let judge = self.judge.as_ref()?;
        judge.take_from(&self.calls);
        Some(judge)
    }

    fn elsewhere(&self) -> Response {
        Redirect::temporary(&self.verdict_elsewhere).into_response()
    }
}

async fn verdict(State(handler): Shelf) -> Response {
    match handler.judge().map(Shared::verdict) {
        Some::<Verdict>(verdict) => Json(verdict).into_response(),
        None => handler.elsewhere(),
    }
}

async fn forget(State(handler): Shelf) -> Response {
    match handler.judge().map(Shared::forget) {
        Some(()) => StatusCode::NO_CONTENT.into_response(),
        None => handler.elsewhere(),
    }
}

async fn control(State(handler): Shelf) -> Json<Control> {
    Json((*handler.control()).clone())
}

async fn set_control(State(handler): Shelf, Json(new): Json<Control>) -> Response {
    if !(400..=599).contains(&new.fail_status) {
        let reason = format!("failStatus {} is not between 400 and 599", new.fail_status);
        return refuse(StatusCode::BAD_REQUEST, reason);
    }
    *handler
        .control
        .write()
        .unwrap_or_else(PoisonError::into_inner) = Arc::new(new.clone());
    Json(new).into_response()
}
