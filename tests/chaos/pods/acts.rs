//! What an event of the schedule does to a pod.

use super::Pods;
use super::containers::Processes;
use super::look::Awaited;
use super::net::{Cut, Network};
use super::resource::PORT;
use crate::course::Course;
use crate::record::{Manner, now};
use crate::schedule::{Kind, Planned};
use anyhow::Result;
use kube::api::{DeleteParams, ListParams};
use rustix::process::Signal;
use std::time::Duration;

/// The grace period of a pod whose executor does not end.
const GRACE_SECONDS: u32 = 2;

/// What goes on until its event ends.
pub(super) enum Affliction {
    /// The processes of a member stand still.
    Frozen(usize, Processes),
    /// Connections of a member are cut.
    Cut(usize, Network),
    /// A member's handler does not do well.
    Manner(usize),
}

impl Affliction {
    /// Whether a member can do nothing because of it.
    pub(super) fn is_of(&self, member: usize) -> bool {
        match self {
            Self::Frozen(of, _) | Self::Cut(of, _) => *of == member,
            Self::Manner(_) => false,
        }
    }
}

impl Pods<'_> {
    /// What happens to all; none if it is left out.
    pub(super) async fn begin_for_all(
        &mut self,
        course: &mut Course<'_>,
        kind: Kind,
    ) -> Result<Option<usize>> {
        if kind.is_of_servers() {
            if self.away > 0 {
                return Ok(None);
            }
            let event = course.begins(kind, None, now(), Duration::ZERO);
            self.away += 1;
            self.servers.kill(kind, event, self.news.0.clone()).await?;
            return Ok(Some(event));
        }
        let Some(operators) = &self.operators else {
            return Ok(None);
        };
        let event = course.begins(kind, None, now(), Duration::ZERO);
        let ours = ListParams::default().labels("app.kubernetes.io/name=keylane");
        let forced = DeleteParams::default().grace_period(0);
        operators.delete_collection(&forced, &ours).await?;
        Ok(Some(event))
    }

    /// What happens to the pod of a place; none if it is left out, or noted when it has come about.
    pub(super) async fn begin_at(
        &mut self,
        course: &mut Course<'_>,
        planned: &Planned,
        place: usize,
    ) -> Result<Option<usize>> {
        match planned.kind {
            Kind::Start => {
                self.places.fill(place);
                self.scale(self.replicas + 1).await?;
                return Ok(None);
            }
            Kind::Terminate => {
                self.places.empty(place);
                self.scale(self.replicas - 1).await?;
                return Ok(None);
            }
            _ => {}
        }
        let Some(member) = self.places.at(place) else {
            return Ok(None);
        };
        let Some(pod) = self.members.get(&member).filter(|pod| pod.runs()) else {
            return Ok(None);
        };
        // The kubelet lets a container wait that has ended before.
        let crashed = pod.look.executor.last_exit.or(pod.look.handler.last_exit);
        if crashed.is_some() && planned.kind.is_killed_in_place() {
            return Ok(None);
        }
        self.act(course, planned, member).await.map(Some)
    }

    async fn act(
        &mut self,
        course: &mut Course<'_>,
        planned: &Planned,
        member: usize,
    ) -> Result<usize> {
        let kind = planned.kind;
        let pod = self.members.entry(member).or_default();
        let name = pod.look.name.clone();
        let ids = (pod.look.executor.id.clone(), pod.look.handler.id.clone());
        let of = |id: &Option<String>| Processes::of(id.as_deref().unwrap_or_default());
        let (executor, handler) = (of(&ids.0)?, of(&ids.1)?);
        // Before it is done: nothing that follows from it may be older.
        let event = course.begins(kind, Some(member), now(), planned.lasts);
        match kind {
            Kind::PodDeleted => {
                pod.asked = Some(true);
                self.pods.delete(&name, &DeleteParams::default()).await?;
            }
            Kind::ForcedDeletion => {
                pod.asked = Some(false);
                let forced = DeleteParams::default().grace_period(0);
                self.pods.delete(&name, &forced).await?;
            }
            Kind::PodGone => {
                pod.asked = Some(false);
                pod.awaited.push((event, Awaited::End));
                executor.signal(Signal::STOP);
                let short = DeleteParams::default().grace_period(GRACE_SECONDS);
                self.pods.delete(&name, &short).await?;
            }
            Kind::ExecutorKilled => {
                pod.goes_away(now());
                executor.signal(Signal::KILL);
            }
            Kind::ContainersKilled => {
                pod.awaited.push((event, Awaited::Report(ids.0, ids.1)));
                pod.goes_away(now());
                executor.signal(Signal::KILL);
                handler.signal(Signal::KILL);
            }
            Kind::HandlerDead => {
                pod.awaited.push((event, Awaited::Handler(ids.1)));
                handler.signal(Signal::KILL);
            }
            Kind::Freeze => {
                pod.goes_away(now());
                executor.signal(Signal::STOP);
                handler.signal(Signal::STOP);
                let all = executor.and(handler);
                self.afflictions
                    .insert(event, Affliction::Frozen(member, all));
            }
            Kind::Cut | Kind::Silence | Kind::HandlerCut => {
                let cut = match kind {
                    Kind::Cut => Cut::Servers,
                    Kind::Silence => Cut::Silence,
                    _ => Cut::Within(PORT),
                };
                let network = Network::of(&executor)?;
                network.set(Some(cut))?;
                self.afflictions
                    .insert(event, Affliction::Cut(member, network));
            }
            Kind::HandlerSlow | Kind::HandlerFailing => {
                let manner = match kind {
                    Kind::HandlerSlow => Manner::Slow,
                    _ => Manner::Failing,
                };
                course.recorder.behave(member, manner).await?;
                self.afflictions.insert(event, Affliction::Manner(member));
            }
            // Of all members, of processes, or done already.
            Kind::Start
            | Kind::Terminate
            | Kind::Kill
            | Kind::ExecutorKilledUnprobed
            | Kind::BrokerKilled
            | Kind::NameServerLost
            | Kind::OperatorKilled => {}
        }
        Ok(event)
    }
}
