//! The reconcile loop: fetch → validate → build → apply → observe → decide → status → act.
//!
//! Level-triggered: every few seconds each OrderedConsumer is looked at afresh, whatever happened. The
//! status is written on every path, also after errors; events never fail a round. A decision is in the
//! status before it is carried out. A round reads from watches: one that changes nothing asks the API
//! server nothing and writes no child.

pub mod act;
pub mod apply;
pub mod build;
pub mod contest;
pub mod error;
pub mod fetch;
pub mod gone;
pub mod index;
pub mod look;
pub mod record;
pub mod replay;
pub mod reset;
pub mod retire;
pub mod snapshot;
pub mod state;
pub mod status;
pub mod validate;
pub mod watch;

pub use build::Guests;

use crate::broker::Lines;
use crate::crd::OrderedConsumer;
use crate::leader::Tenure;
use crate::metrics::Metrics;
use crate::names;
use crate::pods::usage::Usage;
use error::Error;
use futures::StreamExt;
use futures::channel::mpsc::unbounded;
use gone::Teller;
use kube::runtime::controller::{self, Action};
use kube::runtime::events::Reporter;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{Controller, Predicate, WatchStreamExt, predicates};
use kube::{Api, Client, ResourceExt};
use state::State;
use status::Findings;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, debug, debug_span, info, warn};
use watch::{Told, Watched};

/// Time between two looks at a consumer.
const ROUND: Duration = Duration::from_secs(5);
/// Time to the next look at one that a person must change first; changing it is noticed at once.
const LATER: Duration = Duration::from_secs(60);
/// Time to the next look at one that could not be looked at yet, or has just changed.
const SOON: Duration = Duration::from_millis(200);
/// Consumers whose children are applied at once.
const APPLIED_AT_ONCE: usize = 16;
/// Longest time rounds that run may take after the operator is to stop.
const STOP: Duration = Duration::from_secs(5);

/// What the operator was started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Image of the executor for consumers that name none.
    pub executor_image: String,
    /// Who may reach the own ports of consumer pods; none: everybody.
    pub guests: Option<Guests>,
    /// Watch this namespace only.
    pub namespace: Option<String>,
}

/// The uid of a consumer and what is remembered of it.
type Known = (String, Arc<Mutex<State>>);

/// Everything a round needs.
pub struct Context {
    client: Client,
    options: Options,
    usage: Usage,
    /// Connections to RocketMQ.
    lines: Lines,
    /// Who says what is in Events.
    reporter: Reporter,
    metrics: Metrics,
    /// The right to decide; its term is in lane targets.
    tenure: Tenure,
    watched: Arc<Watched>,
    /// All consumers, as watched.
    consumers: Store<OrderedConsumer>,
    turns: Semaphore,
    /// Memory of each consumer, with the uid it belongs to.
    states: Mutex<HashMap<ObjectRef<OrderedConsumer>, Known>>,
}

impl Context {
    async fn state(&self, object: &OrderedConsumer) -> Arc<Mutex<State>> {
        let (uid, mut states) = (object.uid().unwrap_or_default(), self.states.lock().await);
        let (known, state) = states.entry(ObjectRef::from(object)).or_default();
        if *known != uid {
            (*known, *state) = (uid, Arc::default());
        }
        let state = state.clone();
        self.metrics.consumers(states.len());
        state
    }

    async fn forget(&self, object: &ObjectRef<OrderedConsumer>) {
        let mut states = self.states.lock().await;
        states.remove(object);
        self.metrics.consumers(states.len());
    }
}

/// Runs the loop until `shutdown` or the end of the tenure. Remembers nothing of earlier runs: what matters is in the status.
pub async fn run(
    client: Client,
    options: Options,
    metrics: Metrics,
    tenure: Tenure,
    shutdown: CancellationToken,
) {
    let namespace = options.namespace.clone();
    let api: Api<OrderedConsumer> = match &namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (consumers, writer) = reflector::store();
    // What we write into the status is no reason to look again; annotations are not ours.
    let changes = watcher(api, watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(
            predicates::generation.combine(predicates::annotations),
            Default::default(),
        );
    let (sender, touched) = unbounded();
    let (ended, pod_events) = unbounded();
    let told = Told {
        consumers: sender,
        pods: ended,
    };
    let watched = Arc::new(Watched::default());
    // Ended when this function is left.
    let mut tasks = JoinSet::new();
    watched.start(&client, namespace.as_deref(), &told, &mut tasks);
    let teller = Teller {
        client: client.clone(),
        watched: watched.clone(),
        metrics: metrics.clone(),
        tenure: tenure.clone(),
    };
    tasks.spawn(teller.run(pod_events));
    let reporter = Reporter {
        controller: names::REPORTER.to_owned(),
        instance: None,
    };
    let context = Arc::new(Context {
        reporter,
        usage: Usage::new(client.clone()),
        lines: Lines::default(),
        client,
        options,
        metrics,
        tenure,
        watched,
        consumers: consumers.clone(),
        turns: Semaphore::new(APPLIED_AT_ONCE),
        states: Mutex::default(),
    });
    let stop = shutdown.clone();
    let rounds = Controller::for_stream(changes, consumers)
        .reconcile_on(touched)
        .graceful_shutdown_on(async move { stop.cancelled().await })
        .run(reconcile, on_error, context.clone())
        .for_each(|result| settle(result, context.clone()));
    tokio::select! {
        () = rounds => {}
        () = async { shutdown.cancelled().await; tokio::time::sleep(STOP).await } => {
            warn!("rounds still ran after {STOP:?} and were cut off; the next leader goes on from the status");
        }
    }
}

type Settled =
    Result<(ObjectRef<OrderedConsumer>, Action), controller::Error<Error, watcher::Error>>;

async fn settle(result: Settled, context: Arc<Context>) {
    match result {
        Err(controller::Error::ObjectNotFound(gone)) => {
            context.forget(&gone.into_kind_unchecked(())).await;
        }
        // Told by `on_error`.
        Err(controller::Error::ReconcilerFailed(..)) | Ok(_) => {}
        Err(error) => {
            context.metrics.failed("watch");
            warn!("{error}");
        }
    }
}

fn on_error(object: Arc<OrderedConsumer>, error: &Error, context: Arc<Context>) -> Action {
    context.metrics.failed(error.label());
    let namespace = object.namespace().unwrap_or_default();
    let text = format!("{namespace}/{}: {error}", object.name_any());
    match error {
        Error::Changed { .. } => {
            debug!("{text}");
            Action::requeue(SOON)
        }
        Error::Status { retry, .. } => {
            warn!("{text}");
            Action::requeue(*retry)
        }
        Error::Json(_) => {
            warn!("{text}");
            Action::requeue(LATER)
        }
    }
}

async fn reconcile(object: Arc<OrderedConsumer>, context: Arc<Context>) -> Result<Action, Error> {
    if object.metadata.deletion_timestamp.is_some() {
        // Children go by garbage collection; their pods drain.
        return Ok(Action::await_change());
    }
    if !context.tenure.holds() || !context.watched.is_complete() {
        return Ok(Action::requeue(SOON));
    }
    let span = debug_span!(
        "round",
        namespace = object.metadata.namespace,
        name = object.metadata.name,
        generation = object.metadata.generation,
        otel.status_code = Empty,
        error = Empty,
    );
    let outcome = round(object, context).instrument(span.clone()).await;
    if let Err(error) = &outcome {
        span.record("otel.status_code", "ERROR");
        span.record("error", error.to_string());
    }
    outcome
}

/// One look at a consumer.
async fn round(object: Arc<OrderedConsumer>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let state = context.state(&object).await;
    let mut state = state.lock().await;
    context.metrics.reconciled();
    let mut found = Findings {
        generation: object.metadata.generation,
        replicas: object.spec.replicas,
        ..Findings::default()
    };
    let mut consumer = match validate::validate(&object) {
        Ok(consumer) => consumer,
        Err(invalid) => {
            context.metrics.failed("template");
            found.template_invalid = Some(invalid.to_string());
            record::write_status(&context, &mut state, &object, &found).await?;
            return Ok(Action::requeue(LATER));
        }
    };
    found.group_shared = contest::lost(&object, &context.consumers.state());
    if found.group_shared.is_some() {
        consumer = consumer.without_pods();
    }
    let last = object.status.as_ref();
    let pods = look::look(&context, &mut state, &consumer, last, &mut found)
        .instrument(debug_span!("look"))
        .await;
    let written = state.last_written().or(last).cloned();
    let (written, there) = (written.as_ref(), pods.as_ref());
    reset::find(&object, &state.reset, written, there, &mut found);
    if !context.tenure.holds() {
        return Ok(Action::requeue(SOON));
    }
    record::write_status(&context, &mut state, &object, &found)
        .instrument(debug_span!("write status"))
        .await?;
    // A decision that was not recorded was not made: the next round makes it anew.
    if let Some(history) = found.history.take() {
        state.decided(history);
    }
    if let Some(pods) = pods {
        reset::drive(&context, &mut state, &object, &found, &pods).await;
        act::act(&context, &mut state, &object, &consumer, &found, &pods)
            .instrument(debug_span!("act"))
            .await;
        context.metrics.decided(started.elapsed());
    }
    if found.is_failure() {
        let wait = state.failed();
        info!("{}: looked at again in {wait:?}", object.name_any());
        return Ok(Action::requeue(spread(wait)));
    }
    state.succeeded();
    Ok(Action::requeue(spread(ROUND)))
}

/// Plus or minus a tenth, so that consumers do not all come at once for ever.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.9..1.1))
}
