//! What can happen to members that are processes, and to members that are pods.

use super::Place;
use crate::settings::has_idle_probe;
use serde::Serialize;
use std::time::Duration;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A member starts and joins the group.
    Start,
    /// SIGTERM; of pods, because there is to be one less.
    Terminate,
    /// A pod is deleted: it drains, and another takes its place.
    PodDeleted,
    /// SIGKILL, and nobody is told.
    Kill,
    /// A pod is deleted by force: its object is gone at once, and nobody knows if its containers are.
    ForcedDeletion,
    /// SIGKILL of the executor alone: it is started again at once beside its handler, which lives on.
    ExecutorKilled,
    /// The same where the handler cannot be asked whether it is idle.
    ExecutorKilledUnprobed,
    /// SIGKILL of all containers of a pod, which is not deleted: both are started again in it.
    ContainersKilled,
    /// A member and its handler get SIGKILL, and the others are told: by the harness, or of a pod that does
    /// not end within its grace period by the operator.
    PodGone,
    /// SIGSTOP, SIGCONT later; of pods, to all of their processes.
    Freeze,
    /// A member's connections to broker and name server are closed and refused.
    Cut,
    /// Nothing passes between a member and broker or name server; connections stay open.
    Silence,
    /// The broker gets SIGKILL and is started again.
    BrokerKilled,
    /// The name server gets SIGKILL and is started again.
    NameServerLost,
    /// The operator's pods are deleted by force, and others take their place.
    OperatorKilled,
    /// Calls of one member's handler take seconds, some longer than their timeout.
    HandlerSlow,
    /// Calls of one member's handler are answered with 500.
    HandlerFailing,
    /// One member's handler is dead: its calls end, connections are refused.
    HandlerDead,
    /// Connections to one member's handler are lost, its calls go on.
    HandlerCut,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Start,
        Self::Terminate,
        Self::PodDeleted,
        Self::Kill,
        Self::ForcedDeletion,
        Self::ExecutorKilled,
        Self::ExecutorKilledUnprobed,
        Self::ContainersKilled,
        Self::PodGone,
        Self::Freeze,
        Self::Cut,
        Self::Silence,
        Self::BrokerKilled,
        Self::NameServerLost,
        Self::OperatorKilled,
        Self::HandlerSlow,
        Self::HandlerFailing,
        Self::HandlerDead,
        Self::HandlerCut,
    ];

    /// How often it is drawn there, beside the others.
    pub(super) fn weight(self, place: Place) -> u32 {
        match place {
            Place::Processes => self.weight_of_processes(),
            Place::Pods => self.weight_of_pods(),
        }
    }

    fn weight_of_processes(self) -> u32 {
        match self {
            Self::Start => 24,
            Self::Terminate | Self::Kill => 12,
            Self::ExecutorKilled | Self::PodGone => 6,
            Self::Freeze => 8,
            Self::Cut | Self::BrokerKilled => 6,
            Self::Silence | Self::NameServerLost => 4,
            Self::HandlerSlow | Self::HandlerFailing | Self::HandlerDead | Self::HandlerCut => 5,
            // What the one with the probe is where there is none.
            Self::ExecutorKilledUnprobed => 0,
            Self::PodDeleted
            | Self::ForcedDeletion
            | Self::ContainersKilled
            | Self::OperatorKilled => 0,
        }
    }

    fn weight_of_pods(self) -> u32 {
        match self {
            Self::Start => 16,
            Self::PodDeleted | Self::ExecutorKilled | Self::ContainersKilled => 8,
            Self::Terminate | Self::ForcedDeletion | Self::PodGone => 8,
            Self::Freeze | Self::Cut | Self::HandlerDead => 5,
            Self::BrokerKilled => 4,
            Self::Silence | Self::NameServerLost | Self::OperatorKilled => 3,
            // These can happen to all pods at any time, so they are drawn often enough.
            Self::HandlerSlow | Self::HandlerFailing | Self::HandlerCut => 2,
            // Where nobody is told of the end of a pod, it was deleted by force.
            Self::Kill => 0,
            // All pods are alike, and can ask their handlers.
            Self::ExecutorKilledUnprobed => 0,
        }
    }

    /// What it is when it happens to this one of so many members.
    pub(super) fn of(self, place: Place, member: Option<usize>, members: usize) -> Self {
        match (self, place, member) {
            (Self::ExecutorKilled, Place::Processes, Some(member))
                if !has_idle_probe(member, members) =>
            {
                Self::ExecutorKilledUnprobed
            }
            _ => self,
        }
    }

    /// Whether it happens to all members at once.
    pub fn is_global(self) -> bool {
        self.is_of_servers() || self == Self::OperatorKilled
    }

    /// Whether broker or name server are away by it.
    pub fn is_of_servers(self) -> bool {
        matches!(self, Self::BrokerKilled | Self::NameServerLost)
    }

    /// Whether it needs the operator there: to tell the others, or to start a pod.
    pub(super) fn needs_operator(self, place: Place) -> bool {
        place == Place::Pods && matches!(self, Self::PodGone | Self::Start)
    }

    /// Whether a member cannot work on queues while it lasts and recovers.
    pub(super) fn disables(self, place: Place) -> bool {
        let lasts = matches!(self, Self::Freeze | Self::Cut | Self::Silence);
        lasts || !self.recovers(place).is_zero()
    }

    /// Whether a member is gone after it.
    pub(super) fn ends(self, place: Place) -> bool {
        match place {
            Place::Processes => matches!(self, Self::Terminate | Self::Kill | Self::PodGone),
            Place::Pods => self == Self::Terminate,
        }
    }

    /// Whether another pod takes the place.
    pub(super) fn replaces(self, place: Place) -> bool {
        let deleted = matches!(
            self,
            Self::PodDeleted | Self::ForcedDeletion | Self::PodGone
        );
        place == Place::Pods && deleted
    }

    /// Whether containers of a pod end by it and are started again, when it lasts so long. The kubelet does
    /// that at once for the first time only, and ends executors that it finds frozen.
    pub(super) fn crashes(self, place: Place, lasts: Duration) -> bool {
        const FOUND_FROZEN: Duration = Duration::from_secs(25);
        place == Place::Pods
            && match self {
                Self::Freeze => lasts > FOUND_FROZEN,
                kind => kind.is_killed_in_place(),
            }
    }

    /// Whether containers of a pod are killed in it.
    pub fn is_killed_in_place(self) -> bool {
        matches!(
            self,
            Self::ExecutorKilled | Self::ContainersKilled | Self::HandlerDead
        )
    }

    /// How long after it is over a member works again, at most as a rule: pods and their containers take a
    /// while to start.
    pub(super) fn recovers(self, place: Place) -> Duration {
        let seconds = match (place, self) {
            (Place::Processes, _) => 0,
            (Place::Pods, Self::Start | Self::Freeze) => 10,
            (Place::Pods, Self::PodDeleted | Self::ForcedDeletion | Self::PodGone) => 15,
            (Place::Pods, Self::ExecutorKilled | Self::ContainersKilled | Self::HandlerDead) => 8,
            (Place::Pods, _) => 0,
        };
        Duration::from_secs(seconds)
    }

    /// Seconds it lasts, at least and at most; none if it is over at once, or when Kubernetes has put it right.
    pub(super) fn seconds(self, place: Place) -> Option<(f64, f64)> {
        match (self, place) {
            (Self::Freeze, _) => Some((1.0, 90.0)),
            (Self::Cut, _) => Some((1.0, 40.0)),
            (Self::Silence, _) => Some((1.0, 80.0)),
            (Self::BrokerKilled, Place::Processes) => Some((0.2, 6.0)),
            (Self::NameServerLost, Place::Processes) => Some((1.0, 25.0)),
            (Self::HandlerDead, Place::Processes) => Some((2.0, 15.0)),
            (Self::HandlerSlow | Self::HandlerFailing, _) => Some((2.0, 15.0)),
            (Self::HandlerCut, _) => Some((0.1, 3.0)),
            _ => None,
        }
    }
}
