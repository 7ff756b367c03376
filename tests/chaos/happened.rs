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
    /// To which process; none: to all.
    pub member: Option<usize>,
    /// When it began.
    pub at: Micros,
    /// When it was over: at once, or when what was away serves again.
    pub until: Micros,
}

impl Happened {
    /// When the time begins that a queue may stand still.
    pub fn clock_from(&self) -> Micros {
        match self.kind {
            Kind::BrokerKilled
            | Kind::NameServerLost
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
        self.at <= to && from <= settled
    }
}

impl Kind {
    /// How long a queue may stand still. Figures for cuts, name server and handlers are the harness's own:
    /// a process whose connections are closed is to the others as one that was killed, one in silence as
    /// one that is frozen.
    pub fn goal(self) -> Duration {
        match self {
            Self::Start | Self::Terminate => Duration::from_secs(1),
            Self::Kill | Self::Cut => LEASE + CALL_BOUND + Duration::from_secs(3),
            Self::Freeze | Self::Silence => BROKER_FREES + LEASE + CALL_BOUND,
            Self::BrokerKilled | Self::NameServerLost => Duration::from_secs(5),
            // A call that was lost or timed out may run until the call bound.
            Self::HandlerSlow | Self::HandlerCut => CALL_BOUND + Duration::from_secs(3),
            Self::HandlerFailing | Self::HandlerDead => Duration::from_secs(5),
        }
    }

    /// How long after it is over an event may still make a queue stand still: a process takes a while to
    /// start or to drain; whoever lost its queues meanwhile waits for them as after a kill.
    fn settles(self) -> Duration {
        match self {
            Self::Start | Self::Terminate => Duration::from_secs(12),
            Self::Kill | Self::Cut | Self::Freeze | Self::Silence => {
                LEASE + CALL_BOUND + Duration::from_secs(3)
            }
            _ => self.goal() + Duration::from_secs(3),
        }
    }

    /// Whether it happens to a handler.
    pub fn is_handler(self) -> bool {
        matches!(
            self,
            Self::HandlerSlow | Self::HandlerFailing | Self::HandlerDead | Self::HandlerCut
        )
    }

    /// Whether it makes queues change hands in good order.
    pub fn is_clean(self) -> bool {
        matches!(self, Self::Start | Self::Terminate)
    }

    /// Its name, as in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Terminate => "terminate",
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Cut => "cut",
            Self::Silence => "silence",
            Self::BrokerKilled => "broker-killed",
            Self::NameServerLost => "name-server-lost",
            Self::HandlerSlow => "handler-slow",
            Self::HandlerFailing => "handler-failing",
            Self::HandlerDead => "handler-dead",
            Self::HandlerCut => "handler-cut",
        }
    }
}
