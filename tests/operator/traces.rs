//! Traces of the real program, as a collector gets them.

use crate::process::Process;
use crate::space::{Space, consumer};
use anyhow::{Context as _, Result, ensure};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use keylane_tests::cluster::wait::{self, Pending};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// Spans that came.
type Came = Arc<Mutex<Vec<Value>>>;

async fn take(State(came): State<Came>, Json(request): Json<Value>) -> StatusCode {
    let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
    for resource in request["resourceSpans"].as_array().into_iter().flatten() {
        for scope in resource["scopeSpans"].as_array().into_iter().flatten() {
            came.extend(scope["spans"].as_array().into_iter().flatten().cloned());
        }
    }
    StatusCode::OK
}

/// A round with what it did, if there is one in which a child was applied.
fn whole(spans: &[Value]) -> Option<Vec<&Value>> {
    let rounds = spans.iter().filter(|span| span["name"] == "round");
    let all = rounds.map(|round| -> Vec<_> {
        let of = spans
            .iter()
            .filter(|span| span["traceId"] == round["traceId"]);
        of.collect()
    });
    let mut all = all.filter(|trace| trace.iter().any(|span| span["name"] == "apply"));
    all.next()
}

#[test]
fn a_round_is_traced_with_its_requests_and_a_collector_that_is_away_holds_nothing_up() -> Result<()>
{
    let space = Space::new("traces")?;
    let user = space.grant()?;
    space.apply(&consumer("orders"))?;
    let runtime = tokio::runtime::Runtime::new()?;
    let came = Came::default();
    let router = Router::new()
        .route("/v1/traces", post(take))
        .with_state(came.clone());
    let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)))?;
    let address = listener.local_addr()?;
    let serving = runtime.spawn(async move { axum::serve(listener, router).await });
    let endpoint = format!("--otlp-endpoint=http://{address}");
    let operator = Process::start_with(&space, &user, &[&endpoint, "--otlp-sample=100"])?;
    let trace = wait::until("a round with all it did", LIMIT, None, || {
        let came = came.lock().unwrap_or_else(PoisonError::into_inner);
        let trace = whole(&came).context("none yet");
        let trace = trace.map_err(|error| Pending::NotYet(format!("{error}: {came:?}")))?;
        Ok(trace.into_iter().cloned().collect::<Vec<_>>())
    })?;
    let named = |name: &str| trace.iter().find(|span| span["name"] == name);
    let round = named("round").context("no round")?;
    ensure!(round["parentSpanId"].is_null(), "{round}");
    ensure!(
        round["attributes"].to_string().contains("orders"),
        "{round}"
    );
    let look = named("look").context("no look")?;
    ensure!(look["parentSpanId"] == round["spanId"], "{look}");
    let apply = named("apply").context("nothing applied")?;
    let requests = trace
        .iter()
        .filter(|span| span["parentSpanId"] == apply["spanId"]);
    // Each of the children is read and made.
    let requests: Vec<_> = requests.filter(|span| span["kind"] == 3).collect();
    ensure!(requests.len() >= 14, "{requests:?}");
    println!(
        "a round of {} spans, {} of them requests for children",
        trace.len(),
        requests.len()
    );

    serving.abort();
    drop(runtime);
    let before = operator.decisions()?;
    operator.until_decisions(before + 2.0, Instant::now())?;
    operator.stop()
}
