//! Members that are pods of an OrderedConsumer on the cluster of this machine, with the operator, and a
//! broker in the same namespace: what happens to them is what Kubernetes and this machine's kernel can do.
//!
//! Their handlers hand calls on to the recording process on this machine. Each pod is a member of its own;
//! places of the schedule are taken by one pod after the other. What the cluster does by itself (a pod that
//! takes another's place, a container that is started again, the kubelet's report of an end) is noted when
//! it is told of.

mod acts;
mod containers;
mod follow;
mod logs;
mod look;
mod net;
mod places;
mod resource;
mod servers;

use crate::course::Course;
use crate::ground::Ground;
use crate::load::Target;
use crate::record::{Manner, now};
use crate::recording::Recorder;
use crate::schedule::{Kind, Planned};
use crate::subject::Subject;
use acts::Affliction;
use anyhow::Result;
use follow::{News, follow};
use k8s_openapi::api::core::v1::Pod;
use keylane_operator::crd::OrderedConsumer;
use keylane_tests::cluster::NODE_IP;
use keylane_tests::judge::Micros;
use keylane_tests::rocketmq;
use keylane_tests::stack::Stack;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use logs::Logs;
use look::{Look, Member, Noted};
use places::Places;
use rustix::process::Signal;
use serde_json::json;
use servers::Servers;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

/// The broker of a stack.
const BROKER: &str = "broker-a";
/// How long pods may take to drain and to go.
const GO_WITHIN: Duration = Duration::from_secs(120);
/// Until when the kubelet may still end an executor that it has found frozen.
const FOUND_FROZEN: Micros = 60_000_000;

/// A consumer and its pods.
pub struct Pods<'a> {
    subject: &'a Subject,
    target: Target,
    consumers: Api<OrderedConsumer>,
    pods: Api<Pod>,
    /// The operator's pods, if it is ours to kill.
    operators: Option<Api<Pod>>,
    servers: Servers,
    logs: Logs,
    replicas: usize,
    places: Places,
    members: BTreeMap<usize, Member>,
    /// What goes on, by event.
    afflictions: BTreeMap<usize, Affliction>,
    /// How many servers are away.
    away: u32,
    /// Whether all pods are to go.
    ending: bool,
    exits: Vec<Option<i32>>,
    news: (mpsc::UnboundedSender<News>, mpsc::UnboundedReceiver<News>),
    _following: AbortOnDropHandle<()>,
}

impl<'a> Pods<'a> {
    /// The consumer without pods, on a stack that has nothing but brokers. The operator is killed only if
    /// it is `alone`: if nobody else uses it.
    pub async fn start(
        subject: &'a Subject,
        stack: &Stack,
        (queues, members): (u32, usize),
        alone: bool,
    ) -> Result<(Self, Recorder)> {
        let name_server = stack.name_server()?;
        rocketmq::create_topic(&name_server, &subject.topic, queues).await?;
        let recorder = Recorder::for_pods(NODE_IP.parse()?).await?;
        let client = stack.cluster().client().await?;
        let target = Target {
            broker: (name_server.replace(":9876", ":10911"), BROKER),
            name_server,
            topic: subject.topic.clone(),
            group: subject.group.clone(),
            queues,
        };
        let news = mpsc::unbounded_channel();
        let operators = Api::namespaced(client.clone(), keylane_tests::stack::SYSTEM);
        let pods = Pods {
            subject,
            consumers: Api::namespaced(client.clone(), stack.namespace()),
            pods: Api::namespaced(client.clone(), stack.namespace()),
            operators: alone.then_some(operators),
            servers: Servers::new(
                stack,
                Api::namespaced(client, stack.namespace()),
                target.clone(),
            )?,
            target,
            logs: Logs::new(stack, subject),
            replicas: 0,
            places: Places::new(members),
            members: BTreeMap::new(),
            afflictions: BTreeMap::new(),
            away: 0,
            ending: false,
            exits: Vec::new(),
            _following: follow(stack, &subject.group, news.0.clone()).await?,
            news,
        };
        let address = format!("http://{NODE_IP}:{}", recorder.pods()?);
        let manifest = resource::manifest(subject, stack.namespace(), &address);
        let manager = PatchParams::apply("keylane-chaos").force();
        let patch = Patch::Apply(&manifest);
        pods.consumers
            .patch(&subject.group, &manager, &patch)
            .await?;
        Ok((pods, recorder))
    }

    async fn scale(&mut self, replicas: usize) -> Result<()> {
        self.replicas = replicas;
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let name = &self.subject.group;
        self.consumers
            .patch_scale(name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// A pod was told of.
    async fn see(&mut self, course: &mut Course<'_>, at: Micros, look: Look) -> Result<()> {
        let name = look.name.clone();
        let member = course.member(&name).await?;
        if !self.members.contains_key(&member) && !look.leaving {
            self.places.comes(member);
        }
        let pod = self.members.entry(member).or_default();
        for noted in pod.see(at, look) {
            match noted {
                Noted::Runs => self.logs.follow(&name)?,
                Noted::Starts(started) => {
                    course.begins(Kind::Start, Some(member), started, Duration::ZERO);
                }
                Noted::Crashed(code) => course.crashed(member, code),
                Noted::Known(event) => course.is_known(event, at),
                Noted::Leaves => self.leaves(course, member, at),
                Noted::Exit(code) => {
                    let in_order = self.members.get(&member).and_then(|pod| pod.asked);
                    if in_order == Some(true) {
                        self.exits.push(code);
                    }
                }
            }
        }
        Ok(())
    }

    /// A pod was told to go: by an event, or because there is to be one less.
    fn leaves(&mut self, course: &mut Course<'_>, member: usize, at: Micros) {
        let afflicted = self.afflictions.values().any(|one| one.is_of(member));
        let Some(pod) = self.members.get_mut(&member) else {
            return;
        };
        if self.ending {
            pod.asked.get_or_insert(true);
        } else if pod.asked.is_some() {
            self.places.is_replaced(member);
        } else {
            // One that stands still or is cut off cannot end in good order.
            pod.asked = Some(!afflicted);
            self.places.is_spared(member);
            course.begins(Kind::Terminate, Some(member), at, Duration::ZERO);
        }
    }

    fn has_pods(&self) -> bool {
        self.members.values().any(|pod| !pod.look.vanished)
    }
}

impl Ground for Pods<'_> {
    type News = News;

    fn target(&self) -> &Target {
        &self.target
    }

    /// Ids have uids of pods, which are not kept.
    fn member_of(&self, _client: &str) -> Option<usize> {
        None
    }

    async fn begin(&mut self, course: &mut Course<'_>, planned: &Planned) -> Result<Option<usize>> {
        let event = match planned.member {
            Some(place) => self.begin_at(course, planned, place).await?,
            None => self.begin_for_all(course, planned.kind).await?,
        };
        if event.is_none() && !matches!(planned.kind, Kind::Start | Kind::Terminate) {
            let name = planned.kind.name();
            course.teller.say(&format!("{name} is left out"));
        }
        Ok(event)
    }

    async fn end(
        &mut self,
        course: &mut Course<'_>,
        _planned: &Planned,
        event: usize,
    ) -> Result<()> {
        // Before it is done: what a frozen process writes comes later.
        course.ends(event, now());
        match self.afflictions.remove(&event) {
            Some(Affliction::Frozen(member, processes)) => {
                processes.signal(Signal::CONT);
                if let Some(pod) = self.members.get_mut(&member) {
                    pod.goes_on(now() + FOUND_FROZEN);
                }
            }
            Some(Affliction::Cut(_, network)) => network.set(None)?,
            Some(Affliction::Manner(member)) => {
                course.recorder.behave(member, Manner::Well).await?;
            }
            None => {}
        }
        Ok(())
    }

    async fn news(&mut self) -> News {
        match self.news.1.recv().await {
            Some(news) => news,
            // One sender is here.
            None => std::future::pending().await,
        }
    }

    async fn hear(&mut self, course: &mut Course<'_>, news: News) -> Result<()> {
        match news {
            News::Pod(at, look) => self.see(course, at, look).await?,
            News::Serves(event) => {
                self.away -= 1;
                course.serves(event);
            }
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.away == 0
    }

    /// What ended by itself is in the news.
    fn look_after(&mut self, _course: &mut Course<'_>) {}

    async fn end_all(&mut self, course: &mut Course<'_>) -> Result<Vec<Option<i32>>> {
        // What was told of before they are to go.
        while let Ok(news) = self.news.1.try_recv() {
            self.hear(course, news).await?;
        }
        self.ending = true;
        let name = &self.subject.group;
        self.consumers
            .delete(name, &DeleteParams::default())
            .await?;
        let end = Instant::now() + GO_WITHIN;
        while self.has_pods() {
            let Ok(news) = timeout_at(end, self.news()).await else {
                let seconds = GO_WITHIN.as_secs();
                let late = format!("not all pods are gone after {seconds} s");
                course.teller.say(&late);
                break;
            };
            self.hear(course, news).await?;
        }
        Ok(std::mem::take(&mut self.exits))
    }
}
