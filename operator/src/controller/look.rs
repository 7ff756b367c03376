//! The first half of a round: applies children, reads what there is to know, decides. What goes wrong is a
//! finding.

use super::apply::{Applied, Applier, ApplyError};
use super::index::Name;
use super::snapshot::{self, Read};
use super::state::{State, Wanted};
use super::status::Findings;
use super::validate::Consumer;
use super::{Context, build, fetch, retire};
use crate::broker::{self, BrokerError, Reading};
use crate::certificate::CertificateError;
use crate::crd::OrderedConsumerStatus;
use crate::names;
use crate::pods::PodError;
use crate::pods::access::{self, Access, AccessError};
use crate::scale::{self, Decision, History, Recorded};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use keylane_consumer::contract::admin::{Stats, StuckKey};
use keylane_consumer::contract::spec::Mode;
use keylane_consumer::message::Topic;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// The pods of a consumer.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    /// Addresses of all pods that have one, those that are stopping too: they still finish messages.
    pub addresses: Vec<String>,
    /// What runs at each address that answered.
    pub incarnations: BTreeMap<String, String>,
    /// What the end of each pod that answered would cost, by its name.
    pub costs: Vec<(String, i32)>,
    /// Names of pods, by address.
    names: BTreeMap<String, String>,
    /// Which of them should answer: they are ready and not about to go.
    ready: BTreeSet<String>,
    /// The pods as they were last told of.
    pub objects: Vec<Arc<Pod>>,
    /// The queues of the topic, as broker name/queue id; none if brokers do not tell all of them.
    pub queues: Option<BTreeSet<String>>,
    /// Why pods cannot be asked to reset offsets.
    pub unable_to_reset: Option<String>,
}

/// What brokers and pods said in one round.
struct Answers {
    offsets: Result<Reading, BrokerError>,
    stats: Vec<Stats>,
    /// Used part of the CPU that pods may use, by incarnation.
    cpu: BTreeMap<String, f64>,
    /// A pod that should answer and does not may have finished much of what its queues show as lag: what is
    /// unfinished is unknown then.
    silent: bool,
}

/// Looks; returns the pods to tell the decision to, if one was made. What it leaves to be remembered is
/// among the findings: it counts once the decision is recorded.
pub async fn look(
    context: &Context,
    state: &mut State,
    consumer: &Consumer,
    last: Option<&OrderedConsumerStatus>,
    found: &mut Findings,
) -> Option<Pods> {
    found.selector = build::selector_text(consumer);
    let wanted = (found.generation.unwrap_or_default(), consumer.replicas());
    let deployment = match children(context, state, consumer, wanted).await {
        Ok(deployment) => deployment,
        Err(problem) => {
            state.forget_applied();
            context.metrics.failed(problem.label());
            problem.report(found);
            return None;
        }
    };
    let seen = deployment.status.as_ref();
    found.current = Some(seen.and_then(|status| status.replicas).unwrap_or(0));
    found.ready = Some(seen.and_then(|status| status.ready_replicas).unwrap_or(0));
    if found.group_shared.is_some() {
        return None;
    }
    let mut pods = pods(context, consumer, &deployment);
    let answers = ask(context, state, consumer, &mut pods).await;
    report_brokers(&answers, found);
    report_pods(&answers.stats, consumer, found);
    decide(state, consumer, last, &answers, found);
    Some(pods)
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Build(#[from] build::BuildError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl Problem {
    fn label(&self) -> &'static str {
        match self {
            Self::Apply(ApplyError::NameConflict { .. }) => "name_conflict",
            Self::Apply(error) if error.is_invalid() => "template",
            Self::Apply(_) => "apply",
            Self::Build(_) => "build",
            Self::Access(_) | Self::Certificate(_) => "access",
        }
    }

    fn report(self, found: &mut Findings) {
        match self {
            Self::Apply(error @ ApplyError::NameConflict { .. }) => {
                found.name_conflict = Some(error.to_string());
            }
            Self::Apply(error) if error.is_invalid() => {
                found.template_invalid = Some(error.to_string());
            }
            other => found.apply_failed = Some(other.to_string()),
        }
    }
}

/// Sees to it that children are as they should be; returns the Deployment.
async fn children(
    context: &Context,
    state: &mut State,
    consumer: &Consumer,
    wanted: Wanted,
) -> Result<Deployment, Problem> {
    let name = key(consumer);
    let touched = context.watched.take_touched(&name);
    if !touched && !state.must_apply(wanted) {
        let known = fetch::deployment(&context.watched, &name, consumer.uid());
        if let Some(deployment) = known.filter(|known| state.marks.knows(known)) {
            return Ok(deployment.as_ref().clone());
        }
    }
    // Many at once would be a burst of requests, after a start above all.
    let _turn = context.turns.acquire().await;
    let server_name = names::admin_server(consumer.namespace(), consumer.name());
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let access = access::new(rand::random(), &server_name, today)?;
    let resources = build::build(consumer, &context.options.executor_image, access)?;
    let mut applier = Applier {
        client: &context.client,
        consumer,
        marks: &mut state.marks,
        metrics: &context.metrics,
        guests: context.options.guests.as_ref(),
        today,
    };
    let Applied { deployment, secret } = applier.apply(resources).await?;
    state.reach(Access::of(&secret, &server_name)?)?;
    state.applied(wanted);
    Ok(deployment)
}

fn key(consumer: &Consumer) -> Name {
    (consumer.namespace().to_owned(), consumer.name().to_owned())
}

fn pods(context: &Context, consumer: &Consumer, deployment: &Deployment) -> Pods {
    let pods = fetch::pods(&context.watched, &key(consumer), deployment);
    let address = |pod: &_| fetch::address(pod).map(str::to_owned);
    Pods {
        addresses: pods.iter().filter_map(|pod| address(pod)).collect(),
        incarnations: BTreeMap::new(),
        costs: Vec::new(),
        names: pods
            .iter()
            .filter_map(|pod| Some((address(pod)?, pod.name_any())))
            .collect(),
        ready: pods
            .iter()
            .filter(|pod| fetch::is_ready(pod))
            .filter_map(|pod| address(pod))
            .collect(),
        objects: pods,
        queues: None,
        unable_to_reset: None,
    }
}

async fn ask(
    context: &Context,
    state: &mut State,
    consumer: &Consumer,
    pods: &mut Pods,
) -> Answers {
    let client = state.pods().cloned();
    let brokers = async {
        let started = Instant::now();
        let offsets = state.offsets(&context.lines, &context.client, consumer);
        let offsets = offsets.await;
        context
            .metrics
            .asked_brokers(started.elapsed(), offsets.is_ok());
        context.metrics.requested(state.take_requests());
        offsets
    };
    let asked = async {
        match &client {
            Some(client) => client.stats(&pods.addresses).await,
            // Children are applied before pods are looked at.
            None => Vec::new(),
        }
    };
    let (offsets, stats, used) = tokio::join!(
        brokers,
        asked,
        context.usage.of(consumer.namespace(), &pods.objects),
    );
    let silent = pods
        .addresses
        .iter()
        .zip(&stats)
        .any(|(address, stats)| stats.is_err() && pods.ready.contains(address));
    pods.unable_to_reset = unable_to_reset(pods, &stats);
    let all = offsets.as_ref().ok().filter(|of| of.error.is_none());
    pods.queues = all.map(|of| {
        let main = of.queues.keys().filter(|queue| queue.topic == Topic::Main);
        main.map(ToString::to_string).collect()
    });
    let answered = pods.addresses.iter().zip(&stats);
    pods.incarnations = answered
        .filter_map(|(address, stats)| {
            let stats = stats.as_ref().ok()?;
            Some((address.clone(), stats.incarnation.clone()))
        })
        .collect();
    let answered = pods.addresses.iter().zip(&stats);
    pods.costs = answered
        .filter_map(|(address, stats)| {
            let name = pods.names.get(address)?.clone();
            Some((name, retire::cost(stats.as_ref().ok()?)))
        })
        .collect();
    let used = |(address, incarnation): (&String, &String)| {
        let part = used.get(pods.names.get(address)?)?;
        Some((incarnation.clone(), *part))
    };
    Answers {
        offsets,
        cpu: pods.incarnations.iter().filter_map(used).collect(),
        stats: stats.into_iter().filter_map(Result::ok).collect(),
        silent,
    }
}

/// A pod that does not know of resets would undo them in queues that it takes over.
fn unable_to_reset(pods: &Pods, stats: &[Result<Stats, PodError>]) -> Option<String> {
    let answers = || pods.addresses.iter().zip(stats);
    if pods.ready.is_empty() {
        return Some("no pod is ready".to_owned());
    }
    let older = answers().find(|(_, stats)| stats.as_ref().is_ok_and(|of| !of.resets_offsets));
    if let Some((address, _)) = older {
        return Some(format!(
            "the pod at {address} runs an executor of an older version; let the rollout end, or set spec.executor.image"
        ));
    }
    let silent = answers().find(|(address, stats)| stats.is_err() && pods.ready.contains(*address));
    let (address, _) = silent?;
    Some(format!("the pod at {address} does not answer"))
}

fn report_brokers(answers: &Answers, found: &mut Findings) {
    match &answers.offsets {
        Ok(reading) => {
            found.queues = Some(reading.queues.len() as u32);
            let complete = reading.complete().filter(|_| !answers.silent);
            found.lag = complete.map(|offsets| broker::lag(&offsets, &answers.stats));
            let secret = reading.secret.as_ref().map(ToString::to_string);
            let error = reading.error.as_ref().map(ToString::to_string);
            found.broker_unavailable = secret.or(error);
        }
        Err(error) => found.broker_unavailable = Some(error.to_string()),
    }
    if found.broker_unavailable.is_none() {
        let mut said = answers.stats.iter();
        found.broker_unavailable = said.find_map(|pod| pod.broker_error.clone());
    }
}

fn report_pods(stats: &[Stats], consumer: &Consumer, found: &mut Findings) {
    let unavailable = stats.iter().filter(|pod| !pod.handler_available).count();
    if unavailable > 0 {
        found.handler_unavailable = Some(format!(
            "{unavailable} of {} pods find their handler not available; look at the handler's log (kubectl logs -c {})",
            stats.len(),
            consumer.spec().handler.container
        ));
    }
    // Order per key is meant in mode Key only.
    let by_key = consumer.spec().ordering.mode == Mode::Key;
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
    let foreign: BTreeSet<&str> = stats
        .iter()
        .flat_map(|pod| &pod.foreign_members)
        .map(String::as_str)
        .collect();
    if !foreign.is_empty() {
        let some: Vec<_> = foreign.iter().take(3).copied().collect();
        found.foreign_members = Some(format!(
            "{} clients that are not Keylane's are in consumer group {:?} ({}): their share of the queues is not consumed in order; stop them or use another group",
            foreign.len(),
            consumer.spec().consumer_group,
            some.join(", ")
        ));
    }
    let stuck = stats.iter().flat_map(|pod| &pod.stuck_keys);
    found.stuck_keys = stuck.cloned().collect();
    let longest = |left: &StuckKey, right: &StuckKey| right.seconds.total_cmp(&left.seconds);
    found.stuck_keys.sort_by(longest);
    found.queue_gone = queue_gone(stats);
    let blocked = stats.iter().flat_map(|pod| &pod.blocked);
    found.blocked_keys = blocked
        .map(|key| {
            format!(
                "{} ({}/{} at {}): {}",
                key.key, key.broker, key.queue_id, key.offset, key.last_error
            )
        })
        .collect();
}

fn queue_gone(stats: &[Stats]) -> Option<String> {
    // At a change of hands two pods may tell of the same queue.
    let gone: BTreeMap<&str, u64> = stats
        .iter()
        .flat_map(|pod| &pod.gone_queues)
        .map(|gone| (gone.queue.as_str(), gone.stranded))
        .collect();
    if gone.is_empty() {
        return None;
    }
    let (count, left) = (gone.len(), gone.values().sum::<u64>());
    let some: Vec<_> = gone.keys().take(3).copied().collect();
    Some(format!(
        "the topic has {count} queues less than it had ({}), and {left} messages are left in them that nobody consumes: \
         give it its queues back until they are consumed (mqadmin updateTopic -r)",
        some.join(", ")
    ))
}

fn decide(
    state: &mut State,
    consumer: &Consumer,
    last: Option<&OrderedConsumerStatus>,
    answers: &Answers,
    found: &mut Findings,
) {
    let now = Timestamp::now()
        .as_duration()
        .try_into()
        .unwrap_or_default();
    let snapshot = snapshot::snapshot(Read {
        now,
        replicas: consumer.replicas().unsigned_abs(),
        ready: found.ready.unwrap_or(0).unsigned_abs(),
        brokers: answers.offsets.as_ref().ok(),
        pods: &answers.stats,
        cpu: &answers.cpu,
        silent: answers.silent,
    });
    let policy = snapshot::policy(consumer, now);
    let before = state.history(last);
    let (decision, history) = scale::decide(&snapshot, &policy, before);
    found.recorded = changes(snapshot.replicas, &decision, before)
        .then(|| Recorded::new(&decision, scale::Record::new(&snapshot, &policy, before)));
    found.history = Some(history);
    found.decision = Some(decision);
}

/// Whether a decision is for anything else than what there is: so many pods, and what was decided before.
fn changes(replicas: u32, decision: &Decision, before: &History) -> bool {
    decision.replicas != replicas
        || before.lanes() != Some(decision.lanes)
        || *before.fewer_lanes() != decision.fewer_lanes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::validate::{tests, validate};
    use crate::scale::{Policy, Snapshot};
    use keylane_consumer::contract::admin::GoneQueue;

    #[test]
    fn a_decision_is_remembered_once_it_is_recorded_and_made_anew_if_it_was_not() {
        let consumer = validate(&tests::object(tests::template())).unwrap();
        let answers = Answers {
            offsets: Ok(Reading::default()),
            stats: Vec::new(),
            cpu: BTreeMap::new(),
            silent: false,
        };
        let (mut state, mut found) = (State::default(), Findings::default());
        decide(&mut state, &consumer, None, &answers, &mut found);
        assert!(found.decision.is_some());
        assert_eq!(*state.history(None), History::default());
        let history = found.history.unwrap();
        assert_ne!(history, History::default());
        state.decided(history.clone());
        assert_eq!(*state.history(None), history);
    }

    #[test]
    fn a_decision_is_kept_if_it_moves_pods_lanes_or_only_lanes_of_pods_that_have_fewer() {
        let history = |text: &str| -> History { serde_json::from_str(text).unwrap() };
        let (mut decision, _) = scale::decide(
            &Snapshot::default(),
            &Policy::default(),
            &History::default(),
        );
        (decision.replicas, decision.lanes) = (3, 8);
        decision.fewer_lanes = BTreeMap::from([("pod".to_owned(), 5)]);
        let before = history(r#"{"lanes": 8, "fewerLanes": {"pod": 5}}"#);
        assert!(!changes(3, &decision, &before));
        assert!(changes(2, &decision, &before));
        for other in [
            r#"{"lanes": 9, "fewerLanes": {"pod": 5}}"#,
            r#"{"lanes": 8, "fewerLanes": {"pod": 4}}"#,
            r#"{"lanes": 8, "fewerLanes": {"other": 5}}"#,
            r#"{"lanes": 8}"#,
            "{}",
        ] {
            assert!(changes(3, &decision, &history(other)), "{other}");
        }
    }

    #[test]
    fn queues_that_are_gone_are_counted_once_with_what_is_left_in_them() {
        let pod = |queues: &[(&str, u64)]| {
            let each = queues.iter().map(|(queue, stranded)| GoneQueue {
                queue: (*queue).to_owned(),
                stranded: *stranded,
            });
            Stats {
                gone_queues: each.collect(),
                ..Stats::default()
            }
        };
        assert_eq!(queue_gone(&[Stats::default()]), None);
        let said = queue_gone(&[pod(&[("a/2", 7)]), pod(&[("a/2", 7), ("b/4", 1)])]).unwrap();
        assert!(said.contains("2 queues"), "{said}");
        assert!(said.contains("(a/2, b/4), and 8 messages"), "{said}");
    }
}
