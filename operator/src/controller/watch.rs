//! Watches what belongs to consumers. Only performs I/O, and keeps what it was told in an [`Index`] a kind.
//!
//! Every kind but ConfigMaps and Secrets is watched: those are read by name only, because watching them
//! would need the right to read everybody's.

use super::index::{Index, Name};
use super::retire;
use crate::crd::OrderedConsumer;
use futures::channel::mpsc::UnboundedSender;
use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::JoinSet;
use tracing::warn;

/// What watches have told.
#[derive(Debug, Default)]
pub struct Watched {
    deployments: Mutex<Index<Deployment>>,
    sets: Mutex<Index<PartialObjectMeta<ReplicaSet>>>,
    pods: Mutex<Index<Pod>>,
    /// Consumers with a child that may not be as it was applied.
    touched: Mutex<BTreeSet<Name>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where changes are told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Consumers to be looked at now.
    pub consumers: UnboundedSender<ObjectRef<OrderedConsumer>>,
    /// Pods as they last were.
    pub pods: UnboundedSender<Pod>,
}

impl Watched {
    /// Whether every kind a round reads has been listed once.
    pub fn is_complete(&self) -> bool {
        lock(&self.deployments).is_complete()
            && lock(&self.sets).is_complete()
            && lock(&self.pods).is_complete()
    }

    /// Deployments labelled with a consumer.
    pub fn deployments(&self, consumer: &Name) -> Vec<Arc<Deployment>> {
        lock(&self.deployments).of(consumer)
    }

    /// ReplicaSets labelled with a consumer.
    pub fn sets(&self, consumer: &Name) -> Vec<Arc<PartialObjectMeta<ReplicaSet>>> {
        lock(&self.sets).of(consumer)
    }

    /// Pods labelled with a consumer. Of their specs only names and limits of containers are kept.
    pub fn pods(&self, consumer: &Name) -> Vec<Arc<Pod>> {
        lock(&self.pods).of(consumer)
    }

    /// Whether a child of a consumer changed since this was last asked.
    pub fn take_touched(&self, consumer: &Name) -> bool {
        lock(&self.touched).remove(consumer)
    }

    /// Starts to watch, in tasks that end with `tasks`.
    pub fn start(
        self: &Arc<Self>,
        client: &Client,
        namespace: Option<&str>,
        told: &Told,
        tasks: &mut JoinSet<()>,
    ) {
        let all = self.clone();
        let tell = told.clone();
        let events = watch(api::<Deployment>(client, namespace), config()).modify(lighten);
        tasks.spawn(follow("Deployments", events, move |event| {
            let names = lock(&all.deployments).take(event);
            all.touch(&names, &tell);
        }));
        let all = self.clone();
        let events = watch(
            api::<PartialObjectMeta<ReplicaSet>>(client, namespace),
            config(),
        );
        tasks.spawn(follow("ReplicaSets", events, move |event| {
            lock(&all.sets).take(event);
        }));
        let all = self.clone();
        let tell = told.clone();
        let events = watch(api::<Pod>(client, namespace), config()).modify(trim);
        tasks.spawn(follow("Pods", events, move |event| {
            if let Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod) = &event {
                // Nobody listens any more when all ends.
                let _ = tell.pods.unbounded_send(pod.clone());
            }
            lock(&all.pods).take(event);
        }));
        self.follow_child::<Service>("Services", client, namespace, told, tasks);
        self.follow_child::<NetworkPolicy>("NetworkPolicies", client, namespace, told, tasks);
        self.follow_child::<ServiceAccount>("ServiceAccounts", client, namespace, told, tasks);
        self.follow_child::<PodDisruptionBudget>(
            "PodDisruptionBudgets",
            client,
            namespace,
            told,
            tasks,
        );
    }

    fn follow_child<K>(
        self: &Arc<Self>,
        kind: &'static str,
        client: &Client,
        namespace: Option<&str>,
        told: &Told,
        tasks: &mut JoinSet<()>,
    ) where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let (all, told) = (self.clone(), told.clone());
        let events = watch(api::<PartialObjectMeta<K>>(client, namespace), config());
        let mut index = Index::default();
        tasks.spawn(follow(kind, events, move |event| {
            let names = index.take(event);
            all.touch(&names, &told);
        }));
    }

    fn touch(&self, names: &BTreeSet<Name>, told: &Told) {
        lock(&self.touched).extend(names.iter().cloned());
        for (namespace, name) in names {
            let consumer = ObjectRef::new(name).within(namespace);
            let _ = told.consumers.unbounded_send(consumer);
        }
    }
}

fn config() -> watcher::Config {
    watcher::Config::default().labels("app.kubernetes.io/managed-by=keylane")
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Memory: of a Deployment only its status and whether it was changed matter here, not the template of its pods.
fn lighten(deployment: &mut Deployment) {
    deployment.metadata.managed_fields = None;
    deployment.metadata.annotations = None;
    deployment.spec = None;
}

/// Memory: of a pod's spec only the names and limits of its containers matter here, and of its annotations
/// one.
fn trim(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.retain(|name, _| name == retire::COST);
    }
    if let Some(spec) = pod.spec.take() {
        let parts = |all: Vec<Container>| {
            all.into_iter().map(|one| Container {
                name: one.name,
                resources: one.resources,
                ..Container::default()
            })
        };
        pod.spec = Some(PodSpec {
            containers: parts(spec.containers).collect(),
            init_containers: spec.init_containers.map(|all| parts(all).collect()),
            ephemeral_containers: spec.ephemeral_containers,
            ..PodSpec::default()
        });
    }
}

async fn follow<K>(
    kind: &'static str,
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    mut take: impl FnMut(Event<K>) + Send,
) {
    let mut events = pin!(events.default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => take(event),
            Err(error) => warn!("{kind} cannot be watched: {error}"),
        }
    }
}
