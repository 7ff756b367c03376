//! The reconcile loop: fetch → validate → build → apply → observe → decide → status → act.
//!
//! Level-triggered: every few seconds each OrderedConsumer is looked at afresh, whatever happened. The
//! status is written on every path, also after errors; events never fail a round. A decision is in the
//! status before it is carried out.

pub mod apply;
pub mod build;
pub mod error;
pub mod fetch;
pub mod snapshot;
pub mod state;
pub mod status;
pub mod validate;

use crate::broker;
use crate::crd::{Mode, OrderedConsumer, OrderedConsumerStatus};
use crate::metrics::Metrics;
use crate::names;
use crate::pods::PodClient;
use crate::scale;
use apply::ApplyError;
use error::Error;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::Timestamp;
use keylane_consumer::contract::admin::{LaneTarget, Stats};
use kube::api::{Patch, PatchParams};
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use snapshot::Read;
use state::State;
use status::Findings;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use validate::Consumer;

/// Time between two looks at a consumer.
const ROUND: Duration = Duration::from_secs(5);
/// Time to the next look at one that a person must change first; changing it is noticed at once.
const LATER: Duration = Duration::from_secs(60);

/// What the operator was started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Image of the executor for consumers that name none.
    pub executor_image: String,
    /// Watch this namespace only.
    pub namespace: Option<String>,
}

/// The uid of a consumer and what is remembered of it.
type Known = (String, Arc<Mutex<State>>);

/// Everything a round needs.
pub struct Context {
    client: Client,
    options: Options,
    pods: PodClient,
    recorder: Recorder,
    metrics: Metrics,
    /// Leadership term that lane targets carry: milliseconds since the Unix epoch at the start.
    term: u64,
    /// Memory of each consumer, with the uid it belongs to.
    states: Mutex<HashMap<ObjectRef<OrderedConsumer>, Known>>,
}

impl Context {
    /// A context that remembers nothing yet.
    pub fn new(client: Client, options: Options, pods: PodClient, metrics: Metrics) -> Self {
        let reporter = Reporter {
            controller: names::REPORTER.to_owned(),
            instance: None,
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            options,
            pods,
            metrics,
            term: u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default(),
            states: Mutex::default(),
        }
    }

    async fn state(&self, object: &OrderedConsumer) -> Arc<Mutex<State>> {
        let (uid, mut states) = (object.uid().unwrap_or_default(), self.states.lock().await);
        let (known, state) = states.entry(ObjectRef::from(object)).or_default();
        if *known != uid {
            (*known, *state) = (uid, Arc::default());
        }
        state.clone()
    }

    async fn forget(&self, object: &ObjectRef<OrderedConsumer>) {
        self.states.lock().await.remove(object);
    }
}

/// Runs the loop until `shutdown`.
pub async fn run(context: Context, shutdown: CancellationToken) {
    let client = context.client.clone();
    let config = watcher::Config::default();
    let (consumers, deployments): (Api<OrderedConsumer>, Api<Deployment>) =
        match &context.options.namespace {
            Some(namespace) => (
                Api::namespaced(client.clone(), namespace),
                Api::namespaced(client, namespace),
            ),
            None => (Api::all(client.clone()), Api::all(client)),
        };
    let context = Arc::new(context);
    Controller::new(consumers, config.clone())
        .owns(
            deployments,
            config.labels("app.kubernetes.io/managed-by=keylane"),
        )
        .graceful_shutdown_on(async move { shutdown.cancelled().await })
        .run(reconcile, on_error, context.clone())
        .for_each(|result| {
            let context = context.clone();
            async move {
                match result {
                    Err(kube::runtime::controller::Error::ObjectNotFound(gone)) => {
                        context.forget(&gone.into_kind_unchecked(())).await;
                    }
                    Err(error) => warn!("{error}"),
                    Ok(_) => {}
                }
            }
        })
        .await;
}

fn on_error(object: Arc<OrderedConsumer>, error: &Error, context: Arc<Context>) -> Action {
    context.metrics.failed(error.label());
    warn!(
        "{}/{}: {error}",
        object.namespace().unwrap_or_default(),
        object.name_any()
    );
    Action::requeue(ROUND)
}

async fn reconcile(object: Arc<OrderedConsumer>, context: Arc<Context>) -> Result<Action, Error> {
    if object.metadata.deletion_timestamp.is_some() {
        // Children go by garbage collection.
        return Ok(Action::await_change());
    }
    let state = context.state(&object).await;
    let mut state = state.lock().await;
    context.metrics.reconciled();
    let mut found = Findings {
        generation: object.metadata.generation,
        replicas: object.spec.replicas,
        ..Findings::default()
    };
    match validate::validate(&object) {
        Ok(consumer) => {
            let last = object.status.as_ref();
            let acted = look(&context, &mut state, &consumer, last, &mut found).await;
            let recorded = write_status(&context, &mut state, &object, &found).await?;
            if let Some(pods) = acted {
                let recorded = recorded.as_ref().unwrap_or(&object);
                act(&context, &mut state, &object, recorded, &found, &pods).await;
            }
            Ok(Action::requeue(ROUND))
        }
        Err(invalid) => {
            found.template_invalid = Some(invalid.to_string());
            write_status(&context, &mut state, &object, &found).await?;
            Ok(Action::requeue(LATER))
        }
    }
}

/// Applies children, reads what there is to know, decides. What goes wrong is a finding.
async fn look(
    context: &Context,
    state: &mut State,
    consumer: &Consumer,
    last: Option<&OrderedConsumerStatus>,
    found: &mut Findings,
) -> Option<fetch::Pods> {
    let labels: Vec<_> = build::selector(consumer)
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    found.selector = labels.join(",");
    let deployment = match apply_children(
        context,
        state,
        consumer,
        found.generation.unwrap_or_default(),
    )
    .await
    {
        Ok(deployment) => deployment,
        Err(problem) => {
            state.forget_applied();
            match problem {
                Problem::Apply(error @ ApplyError::NameConflict { .. }) => {
                    found.name_conflict = Some(error.to_string())
                }
                Problem::Apply(error) if error.is_invalid() => {
                    found.template_invalid = Some(error.to_string())
                }
                other => found.apply_failed = Some(other.to_string()),
            }
            return None;
        }
    };
    let seen = deployment.status.as_ref();
    found.current = Some(seen.and_then(|status| status.replicas).unwrap_or(0));
    found.ready = Some(seen.and_then(|status| status.ready_replicas).unwrap_or(0));

    let pods = match fetch::pods(&context.client, consumer, &deployment).await {
        Ok(pods) => pods,
        Err(error) => {
            found.apply_failed = Some(format!("pods cannot be listed: {error}"));
            return None;
        }
    };
    let (offsets, stats) = tokio::join!(
        state.offsets(consumer),
        context.pods.stats(&pods.addresses, &pods.token)
    );
    // A pod that should answer and does not may have finished much of what its queues show as lag: what
    // is unfinished is unknown then.
    let silent = pods
        .addresses
        .iter()
        .zip(&stats)
        .any(|(address, stats)| stats.is_err() && pods.ready.contains(address));
    let stats: Vec<Stats> = stats.into_iter().filter_map(Result::ok).collect();
    match &offsets {
        Ok(reading) => {
            found.queues = Some(reading.queues.len() as u32);
            let complete = reading.complete().filter(|_| !silent);
            found.lag = complete.map(|offsets| broker::lag(&offsets, &stats));
            found.broker_unavailable = reading.error.as_ref().map(ToString::to_string);
        }
        Err(error) => found.broker_unavailable = Some(error.to_string()),
    }
    if found.broker_unavailable.is_none() {
        found.broker_unavailable = stats.iter().find_map(|pod| pod.broker_error.clone());
    }
    let unavailable = stats.iter().filter(|pod| !pod.handler_available).count();
    if unavailable > 0 {
        found.handler_unavailable = Some(format!(
            "{unavailable} of {} pods find their handler not available; look at the handler's log (kubectl logs -c {})",
            stats.len(),
            consumer.spec().handler.container
        ));
    }
    // Order per key is meant in mode Key only.
    let by_key = consumer.spec().ordering.mode == keylane_consumer::contract::spec::Mode::Key;
    found.key_spans_queues = stats
        .iter()
        .flat_map(|pod| &pod.split_keys)
        .next()
        .filter(|_| by_key)
        .map(|split| {
            format!(
                "key {} is in queues {} and {}: its order cannot be kept; let producers select the queue by the key",
                split.key, split.queues[0], split.queues[1]
            )
        });
    let blocked = stats.iter().flat_map(|pod| &pod.blocked);
    found.blocked_keys = blocked
        .map(|key| {
            format!(
                "{} ({}/{} at {}): {}",
                key.key, key.broker, key.queue_id, key.offset, key.last_error
            )
        })
        .collect();
    let now = Timestamp::now()
        .as_duration()
        .try_into()
        .unwrap_or_default();
    let snapshot = snapshot::snapshot(Read {
        now,
        replicas: consumer.replicas().unsigned_abs(),
        ready: found.ready.unwrap_or(0).unsigned_abs(),
        brokers: offsets.as_ref().ok(),
        pods: &stats,
        silent,
    });
    let policy = snapshot::policy(consumer, now);
    let (decision, history) = scale::decide(&snapshot, &policy, state.history(last));
    found.history = serde_json::to_string(&history).ok();
    state.decided(history);
    found.decision = Some(decision);
    Some(pods)
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Build(#[from] build::BuildError),
    #[error("the Deployment cannot be read: {0}")]
    Read(#[from] kube::Error),
}

async fn apply_children(
    context: &Context,
    state: &mut State,
    consumer: &Consumer,
    generation: i64,
) -> Result<Deployment, Problem> {
    if !state.must_apply(generation) {
        let api: Api<Deployment> = Api::namespaced(context.client.clone(), consumer.namespace());
        if let Some(deployment) = api.get_opt(&names::child(consumer.name())).await? {
            return Ok(deployment);
        }
    }
    let token: [u8; 32] = rand::random();
    let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
    let resources = build::build(consumer, &context.options.executor_image, &token)?;
    let deployment = apply::apply(&context.client, consumer, resources).await?;
    state.applied(generation);
    Ok(deployment)
}

/// Writes the status if it is worth it; returns the object as it is then.
async fn write_status(
    context: &Context,
    state: &mut State,
    object: &OrderedConsumer,
    found: &Findings,
) -> Result<Option<OrderedConsumer>, Error> {
    // The watch may lag behind what was written.
    let last = state
        .last_written()
        .cloned()
        .or_else(|| object.status.clone())
        .unwrap_or_default();
    let (status, happened) = status::status(Timestamp::now(), &last, found);
    let mut written = None;
    if state.must_write(&status) {
        written = patch_status(context, object, &status).await?;
        state.wrote(status);
    }
    for event in happened {
        publish(context, object, event).await;
    }
    Ok(written)
}

async fn patch_status(
    context: &Context,
    object: &OrderedConsumer,
    status: &OrderedConsumerStatus,
) -> Result<Option<OrderedConsumer>, Error> {
    let api: Api<OrderedConsumer> = Api::namespaced(
        context.client.clone(),
        &object.namespace().unwrap_or_default(),
    );
    // An applied status drops what is not known any more; a merge would keep it.
    let patch = json!({
        "apiVersion": OrderedConsumer::api_version(&()),
        "kind": OrderedConsumer::kind(&()),
        "metadata": {"name": object.name_any(), "uid": object.uid()},
        "status": serde_json::to_value(status)?,
    });
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    match api
        .patch_status(&object.name_any(), &parameters, &Patch::Apply(&patch))
        .await
    {
        Ok(written) => Ok(Some(written)),
        // Deleted meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(None),
        Err(source) => Err(Error::Status {
            name: object.name_any(),
            source,
        }),
    }
}

async fn publish(context: &Context, object: &OrderedConsumer, happened: status::Happened) {
    let event = Event {
        type_: if happened.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: happened.reason,
        note: Some(happened.note.chars().take(1000).collect()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    if let Err(error) = context
        .recorder
        .publish(&event, &object.object_ref(&()))
        .await
    {
        warn!(
            "an event of {} was not recorded: {error}",
            object.name_any()
        );
    }
}

/// Carries out the decision that is in the status. `recorded` is the object with that status: replicas
/// are written only if nothing of it has changed since, so a change by somebody else is never undone
/// unseen; the next round decides with it.
async fn act(
    context: &Context,
    state: &mut State,
    object: &OrderedConsumer,
    recorded: &OrderedConsumer,
    found: &Findings,
    pods: &fetch::Pods,
) {
    let Some(decision) = &found.decision else {
        return;
    };
    state.sequence += 1;
    let target = LaneTarget {
        lanes: decision.lanes,
        term: context.term,
        sequence: state.sequence,
    };
    for error in context
        .pods
        .set_lanes(&pods.addresses, &pods.token, target)
        .await
    {
        info!("{}: {error}", object.name_any());
    }
    let wanted = i32::try_from(decision.replicas).unwrap_or(i32::MAX);
    if wanted == object.spec.replicas || object.spec.autoscaling.mode != Mode::Auto {
        return;
    }
    let api: Api<OrderedConsumer> = Api::namespaced(
        context.client.clone(),
        &object.namespace().unwrap_or_default(),
    );
    if recorded.metadata.generation != object.metadata.generation {
        return;
    }
    let patch = json!({
        "metadata": {"resourceVersion": recorded.metadata.resource_version},
        "spec": {"replicas": wanted},
    });
    let parameters = PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let note = format!(
        "{} -> {wanted} pods: {}",
        object.spec.replicas, decision.message
    );
    match api
        .patch_scale(&object.name_any(), &parameters, &Patch::Merge(&patch))
        .await
    {
        Ok(_) => {
            info!("{}: {note}", object.name_any());
            let reason = if wanted > object.spec.replicas {
                "ScaledUp"
            } else {
                "ScaledDown"
            };
            publish(
                context,
                object,
                status::Happened {
                    warning: false,
                    reason: reason.to_owned(),
                    note,
                },
            )
            .await;
        }
        Err(error) => warn!("{}: replicas cannot be written: {error}", object.name_any()),
    }
}
