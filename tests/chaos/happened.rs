//! Events as they came about, and how long each may make a queue stand still.

use crate::schedule::Kind;
use crate::settings::{BROKER_FREES, CALL_BOUND, LEASE};
use keylane_tests::judge::Micros;
use std::time::Duration;

/// An event as it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// What.
    pub kind: Kind,
    /// To which member; none: to all.
    pub member: Option<usize>,
    /// When it began.
    pub at: Micros,
    /// When it was over: at once, when the others could be told, or when what was away serves again.
    pub until: Micros,
    /// Until when the broker listed the process that ended by it, if it went on to: what a client sends and the end
    /// of its connection, held up together, can come to the broker's threads in the other order, and it lists the
    /// client by a connection that is no more, for two minutes.
    pub listed: Option<Micros>,
}

/// Whoever ended is off the list so soon.
const UNLISTED: Micros = 3_000_000;

/// Notes of those who ended until when the broker went on to list them, where nobody told the others. `listed`:
/// members, when each of their processes was first and last seen on its list.
pub fn note_listed(events: &mut [Happened], listed: &[(usize, Micros, Micros)]) {
    let untold = |event: &&mut Happened| event.kind.ends_process() && event.kind != Kind::PodGone;
    for event in events.iter_mut().filter(untold) {
        let of_member = listed
            .iter()
            .filter(|(member, first, _)| event.member == Some(*member) && *first < event.at);
        let ended = of_member.max_by_key(|(_, first, _)| first);
        event.listed = ended
            .map(|(.., last)| *last)
            .filter(|last| *last > event.at + UNLISTED);
    }
}

impl Happened {
    /// When the time begins that a queue may stand still.
    pub fn clock_from(&self) -> Micros {
        match self.kind {
            Kind::BrokerKilled
            | Kind::NameServerLost
            | Kind::PodGone
            | Kind::ContainersKilled
            | Kind::HandlerDead
            | Kind::HandlerFailing
            | Kind::HandlerSlow
            | Kind::HandlerCut => self.until,
            _ => self.at,
        }
    }

    /// Whether a gap from `from` to `to` can be its doing.
    pub fn may_explain(&self, from: Micros, to: Micros) -> bool {
        let settled = self.until + self.kind.settles().as_micros() as Micros;
        self.kind != Kind::OperatorKilled && self.at <= to && from <= settled
    }
}

impl Kind {
    /// How long a queue may stand still. Figures for cuts, name server and handlers are the harness's own:
    /// a member whose connections are closed is to the others as one that was killed, one in silence as
    /// one that is frozen. That the operator is away is no reason at all.
    pub fn goal(self) -> Duration {
        match self {
            Self::OperatorKilled => Duration::ZERO,
            Self::Start | Self::Terminate | Self::PodDeleted => Duration::from_secs(1),
            Self::ExecutorKilledUnprobed => CALL_BOUND + Duration::from_secs(2),
            Self::Kill | Self::ForcedDeletion | Self::Cut => {
                LEASE + CALL_BOUND + Duration::from_secs(3)
            }
            Self::Freeze | Self::Silence => BROKER_FREES + LEASE + CALL_BOUND,
            Self::BrokerKilled | Self::NameServerLost => Duration::from_secs(5),
            Self::ExecutorKilled | Self::ContainersKilled | Self::PodGone => Duration::from_secs(5),
            // A call that was lost or timed out may run until the call bound.
            Self::HandlerSlow | Self::HandlerCut => CALL_BOUND + Duration::from_secs(3),
            Self::HandlerFailing | Self::HandlerDead => Duration::from_secs(5),
        }
    }

    /// How long after it is over an event may still make a queue stand still: a process takes a while to
    /// start or to drain; whoever lost its queues meanwhile waits for them as after a kill.
    fn settles(self) -> Duration {
        match self {
            Self::Start | Self::Terminate | Self::PodDeleted => Duration::from_secs(12),
            Self::Kill | Self::ForcedDeletion | Self::Cut | Self::Freeze | Self::Silence => {
                LEASE + CALL_BOUND + Duration::from_secs(3)
            }
            _ => self.goal() + Duration::from_secs(3),
        }
    }

    /// Whether a member stands still, or reaches no server, while it lasts.
    pub fn isolates(self) -> bool {
        matches!(self, Self::Freeze | Self::Cut | Self::Silence)
    }

    /// Whether it happens to a handler.
    pub fn is_handler(self) -> bool {
        matches!(
            self,
            Self::HandlerSlow | Self::HandlerFailing | Self::HandlerDead | Self::HandlerCut
        )
    }

    /// Whether queues may move by it.
    pub fn moves(self) -> bool {
        !self.is_handler() && self != Self::OperatorKilled
    }

    /// Whether those who take the queues know that nothing of it runs any more.
    pub fn is_proven(self) -> bool {
        self == Self::PodGone || self.is_known_in_its_pod_only()
    }

    /// Whether an executor dies and is started again in its pod: only there is its death known.
    pub fn is_known_in_its_pod_only(self) -> bool {
        matches!(
            self,
            Self::ExecutorKilled | Self::ExecutorKilledUnprobed | Self::ContainersKilled
        )
    }

    /// Whether it makes queues change hands in good order.
    pub fn is_clean(self) -> bool {
        matches!(self, Self::Start | Self::Terminate | Self::PodDeleted)
    }

    /// Whether a process ends by it.
    pub fn ends_process(self) -> bool {
        let killed = matches!(self, Self::Kill | Self::ForcedDeletion | Self::PodGone);
        let told = matches!(self, Self::Terminate | Self::PodDeleted);
        killed || told || self.is_known_in_its_pod_only()
    }

    /// Its name, as in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Terminate => "terminate",
            Self::PodDeleted => "pod-deleted",
            Self::Kill => "kill",
            Self::ForcedDeletion => "forced-deletion",
            Self::ExecutorKilled => "executor-killed",
            Self::ExecutorKilledUnprobed => "executor-killed-unprobed",
            Self::ContainersKilled => "containers-killed",
            Self::PodGone => "pod-gone",
            Self::Freeze => "freeze",
            Self::Cut => "cut",
            Self::Silence => "silence",
            Self::BrokerKilled => "broker-killed",
            Self::NameServerLost => "name-server-lost",
            Self::OperatorKilled => "operator-killed",
            Self::HandlerSlow => "handler-slow",
            Self::HandlerFailing => "handler-failing",
            Self::HandlerDead => "handler-dead",
            Self::HandlerCut => "handler-cut",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Micros = 1_000_000;

    #[test]
    fn the_clock_of_a_pod_that_is_gone_begins_with_the_report() {
        let event = |kind| Happened {
            kind,
            member: Some(0),
            at: S,
            until: 2 * S,
            listed: None,
        };
        assert_eq!(event(Kind::PodGone).clock_from(), 2 * S);
        assert_eq!(event(Kind::ExecutorKilled).clock_from(), S);
    }

    #[test]
    fn a_proven_death_may_take_less_than_one_that_nobody_knows_of() {
        let proven = Kind::ALL.into_iter().filter(|kind| kind.is_proven());
        let goals: Vec<Duration> = proven.map(Kind::goal).collect();
        // Where the handler cannot be asked, its calls may run until the call bound.
        assert_eq!(goals, [5, 12, 5, 5].map(Duration::from_secs));
        assert!(goals.iter().all(|goal| *goal < Kind::Kill.goal()));
    }

    #[test]
    fn that_the_operator_is_away_is_no_reason_for_a_queue_to_stand_still() {
        let killed = Happened {
            kind: Kind::OperatorKilled,
            member: None,
            at: S,
            until: S,
            listed: None,
        };
        assert!(!killed.may_explain(S, 2 * S) && !killed.kind.moves());
    }

    #[test]
    fn whoever_ended_and_is_listed_all_the_same_is_noted() {
        let ended = |kind, at| Happened {
            kind,
            member: Some(1),
            at: at * S,
            until: at * S,
            listed: None,
        };
        let mut events = [
            ended(Kind::Kill, 10),
            ended(Kind::ExecutorKilled, 20),
            ended(Kind::Terminate, 40),
            ended(Kind::PodGone, 50),
        ];
        // Another member; processes of this one, of which the first was on a list that was late.
        let seen = [
            (0, S, 90 * S),
            (1, S, 12 * S),
            (1, 11 * S, 80 * S),
            (1, 21 * S, 90 * S),
            (1, 41 * S, 95 * S),
        ];
        note_listed(&mut events, &seen);
        let noted = [None, Some(80 * S), Some(90 * S), None];
        assert_eq!(events.map(|event| event.listed), noted);
    }

    #[test]
    fn kinds_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> =
            Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
