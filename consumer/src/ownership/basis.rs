//! Why and how long a claim waits before the queue may be used.

use super::terms::{Death, Facts, Terms};
use crate::journal::{Head, Incarnation, Keys, State};
use std::time::Duration;

/// What the records before our claim say about who may still be at work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Basis {
    /// Anybody may be.
    Unknown,
    /// The queue was never claimed.
    First,
    /// Its last owner ended; calls of these keys may run.
    Released {
        /// The keys.
        running: Keys,
    },
    /// Somebody claimed it and has not ended.
    Claimed {
        /// Who.
        by: Incarnation,
        /// The keys that waited, if it ran the queue; none if it is not known to have run it.
        ran: Option<Keys>,
    },
}

impl Basis {
    /// The basis of a claim that directly follows these records.
    pub fn of(head: &Head, terms: &Terms) -> Self {
        if head.doubtful {
            return Self::Unknown;
        }
        let Some(newest) = &head.newest else {
            return if head.end == 0 {
                Self::First
            } else {
                Self::Unknown
            };
        };
        if newest.by == terms.me && !terms.rules.own_epoch_only {
            return Self::First;
        }
        match &newest.state {
            State::Released { running } => Self::Released {
                running: running.clone(),
            },
            State::Withdrawn { waiting, .. } if !terms.rules.withdrawn_passes_on => {
                Self::Released {
                    running: waiting.clone(),
                }
            }
            State::Withdrawn { former, waiting } => Self::Claimed {
                by: former.clone(),
                ran: Some(waiting.clone()),
            },
            State::Ran { waiting } => Self::Claimed {
                by: newest.by.clone(),
                ran: Some(waiting.clone()),
            },
            State::Claimed => Self::Claimed {
                by: newest.by.clone(),
                ran: (!terms.rules.proof_needs_record).then(Keys::default),
            },
        }
    }

    /// Whose death would shorten the wait.
    pub fn subject(&self) -> Option<&Incarnation> {
        match self {
            Self::Claimed { by, .. } => Some(by),
            _ => None,
        }
    }

    /// How long after the claim's acknowledgement nothing may be dispatched at all.
    pub fn wait(&self, facts: Facts, terms: &Terms) -> Duration {
        match self {
            Self::First | Self::Released { .. } => Duration::ZERO,
            Self::Claimed { ran: Some(_), .. } => match facts.death {
                Death::Pod => Duration::ZERO,
                Death::Executor if facts.idle => Duration::ZERO,
                Death::Executor => terms.durations.call_bound,
                Death::Unproven => terms.durations.wait,
            },
            Self::Claimed { ran: None, .. } | Self::Unknown => terms.durations.wait,
        }
    }

    /// Keys that wait for the call bound, also where the wait is shorter.
    pub fn keys(&self) -> Keys {
        match self {
            Self::Released { running } => running.clone(),
            Self::Claimed { ran, .. } => ran.clone().unwrap_or_default(),
            Self::Unknown | Self::First => Keys::default(),
        }
    }
}
