//! One queue's way into this process's hands and out of them.
//!
//! Pure: time is an argument, what is to be done comes out as [`Deed`]s, what came of it goes in by the
//! method that the deed names. Out → lock → read the journal → claim → wait → read again → owned →
//! draining → *released* → out. A queue that is meant for another before the wait is over is waited for to
//! the end all the same, and goes from waiting to *released*; or to *withdrawn*, where that other need not
//! wait.
//!
//! Promises, as long as every process keeps to this and calls end within the call bound: at most one
//! process dispatches at a time (P4), no two calls of a key overlap across processes (P1), nothing
//! finished before a clean end runs again (P6). The broker's lock alone does not give that: its table is
//! in memory, and nothing in it says whether a former owner's calls still run.
//!
//! Invariants: a queue is dispatched from only in [`Phase::Owned`] and within the lease that was put out
//! last; the lease is measured from the moment the lock was asked for; at most one lock request and one
//! journal request are under way, and an answer to any other request is ignored.

mod answers;
mod course;

use super::basis::Basis;
use super::terms::{Facts, Held, Terms};
use crate::contract::admin::QueuePhase;
use crate::journal::{Epoch, Incarnation, Keys};
use crate::lane::Time;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    /// Read the journal, not before everything that was acknowledged until now can be seen; report with
    /// [`Tenure::read`].
    Read(Ticket),
    /// Append a claim; report with [`Tenure::appended`].
    Claim {
        /// To report with.
        ticket: Ticket,
        /// Highest epoch seen before.
        predecessor: Option<Epoch>,
    },
    /// Append *progress*; report with [`Tenure::appended`].
    Progress {
        /// To report with.
        ticket: Ticket,
        /// Our epoch.
        epoch: Epoch,
        /// Keys to list.
        waiting: Keys,
    },
    /// Append *released*; report with [`Tenure::appended`]. The queue may never have been assigned.
    Released {
        /// To report with.
        ticket: Ticket,
        /// Our epoch.
        epoch: Epoch,
        /// Inherited keys to list beside those that run.
        waiting: Keys,
    },
    /// The queue is ours: run it, from what is committed and what the journal read last says.
    Assign {
        /// End of the lease.
        lease: Time,
        /// Keys that must wait.
        held: Held,
    },
    /// The lease is longer now.
    Renew {
        /// New end of the lease.
        lease: Time,
    },
    /// Stop pulling and dispatching; report with [`Tenure::drained`] when calls have ended or took too
    /// long, and what is finished is committed.
    Drain,
    /// The queue is not ours any more: forget everything about it, if it was assigned.
    Drop {
        /// It was given away in order.
        released: bool,
    },
    /// Append *withdrawn*; report with [`Tenure::appended`]. The queue was never assigned.
    Withdrawn {
        /// To report with.
        ticket: Ticket,
        /// Our epoch.
        epoch: Epoch,
        /// Who ran the queue before.
        former: Incarnation,
        /// Keys that one did not run yet.
        waiting: Keys,
    },
    /// Give the lock back; report with [`Tenure::unlocked`].
    Unlock,
    /// Give the lock of an absent member back in its name; report with [`Tenure::unlocked`].
    UnlockFor(Incarnation),
}

/// Names a journal request, so that late answers to earlier ones are recognised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// Whether this process is meant to have the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// It is somebody else's.
    No,
    /// It is somebody else's, and ours if that member is frozen.
    StandIn,
    /// It will be ours if members that are not on the list any more do not come back soon: it is taken already if
    /// its owner has released it, or is one of them and had time to have its lock again.
    IfReleased {
        /// Since when its owner is not on the list, if it is not.
        missing: Option<Time>,
    },
    /// It is ours.
    Yes,
}

/// Our tenure: an acknowledged claim, and why it waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Claim {
    pub epoch: Epoch,
    pub since: Time,
    pub basis: Basis,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Without the lock. `holder` is whom the journal names.
    Out { holder: Option<Incarnation> },
    /// Locked since a time; the journal is to be read.
    Reading { locked: Time },
    /// A claim is under way, after a journal that ended at `end`.
    Claiming {
        locked: Time,
        basis: Basis,
        predecessor: Option<Epoch>,
        end: u64,
    },
    /// Claimed; calls of former owners may still run.
    Waiting(Claim),
    /// Ours. `recorded`: the first progress record is acknowledged.
    Owned {
        claim: Claim,
        held: Held,
        since: Time,
        recorded: bool,
    },
    /// To be given away.
    Draining {
        claim: Claim,
        held: Held,
        drained: bool,
    },
    /// To be given back without having been run, whatever may be wanted by now.
    Withdrawing {
        epoch: Epoch,
        former: Incarnation,
        waiting: Keys,
    },
    /// *Released* or *withdrawn* lies at this offset; once every reader sees it, the lock can go back.
    Leaving { last: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Request {
    /// A reading, which confirms a renewal that was granted before, and starts a queue whose wait was over.
    Read {
        confirms: Option<Time>,
        starts: bool,
    },
    Claim,
    Progress,
    Released,
    Withdrawn,
}

/// What a lock means that is granted to whom the queue is not meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum StandIn {
    /// Perhaps the broker restarted, and the owner will have its lock back in a moment.
    Unsure,
    /// Somebody had the lock a moment ago, on a broker that has answered since: it ended or was given back.
    Refused,
    /// It was granted and given back then: once whoever it is meant for had time to take it, and did not, it is
    /// taken if it is granted again.
    Again,
}

/// A lock request was not answered: the broker may carry it out at any time up to the end of the doubt, also
/// when the queue is another's by then, who would be refused for as long as the broker keeps a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Doubt {
    pub next_unlock: Time,
    pub until: Time,
}

/// One queue and this process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tenure {
    pub(super) wanted: Wanted,
    pub(super) phase: Phase,
    /// Until when we may use the lock.
    pub(super) lease: Time,
    /// The lease a renewal gave, until the journal confirms it.
    pub(super) granted: Option<Time>,
    /// When the lock request under way was asked.
    pub(super) asked: Option<Time>,
    pub(super) unlocking: bool,
    pub(super) doubt: Option<Doubt>,
    pub(super) next_lock: Time,
    pub(super) stand_in: StandIn,
    /// The lock was taken for an owner that stayed away, not because the queue was meant for us.
    pub(super) stands_in: bool,
    pub(super) request: Option<Request>,
    pub(super) ticket: Ticket,
    pub(super) next_request: Time,
    /// A reading is due.
    pub(super) look: bool,
    /// Until when a former master of the broker may have handed out locks.
    pub(super) distrusted_until: Option<Time>,
}

impl Tenure {
    /// A queue that nobody asked for yet.
    pub fn new() -> Self {
        Self {
            wanted: Wanted::No,
            phase: Phase::Out { holder: None },
            lease: Time::ZERO,
            granted: None,
            asked: None,
            unlocking: false,
            doubt: None,
            next_lock: Time::ZERO,
            stand_in: StandIn::Unsure,
            stands_in: false,
            request: None,
            ticket: Ticket::default(),
            next_request: Time::ZERO,
            look: false,
            distrusted_until: None,
        }
    }

    /// Says whether the queue is meant for this process.
    pub fn want(&mut self, now: Time, wanted: Wanted, terms: &Terms) {
        if wanted == Wanted::StandIn && self.wanted != Wanted::StandIn {
            // Whoever it is meant for goes first, however long its lock was free at another time.
            self.stand_in = StandIn::Unsure;
            self.next_lock = now + terms.durations.stand_in_every;
        } else if matches!(wanted, Wanted::Yes | Wanted::IfReleased { .. }) && self.wanted != wanted
        {
            self.next_lock = now;
        }
        self.stands_in &= wanted == Wanted::StandIn;
        self.wanted = wanted;
    }

    /// True if there is nothing left to do for the queue.
    pub fn is_over(&self) -> bool {
        self.is_idle() && self.doubt.is_none()
    }

    /// True if nothing of the queue is here or under way, and nothing of it is wanted. Perhaps a request that
    /// was not answered still gives it the lock.
    pub fn is_idle(&self) -> bool {
        self.wanted == Wanted::No
            && matches!(self.phase, Phase::Out { .. })
            && !self.unlocking
            && self.asked.is_none()
    }

    /// Where it stands, for people; none if it is not here and not meant to be.
    pub fn shown(&self) -> Option<QueuePhase> {
        match &self.phase {
            Phase::Out { .. } => (self.wanted == Wanted::Yes).then_some(QueuePhase::Locking),
            Phase::Reading { .. } | Phase::Claiming { .. } | Phase::Waiting(_) => {
                Some(QueuePhase::Waiting)
            }
            Phase::Owned { .. } => Some(QueuePhase::Owned),
            Phase::Draining { .. } | Phase::Withdrawing { .. } | Phase::Leaving { .. } => {
                Some(QueuePhase::Releasing)
            }
        }
    }

    /// The incarnation of which [`Tenure::poll`] must know the facts.
    pub fn subject(&self) -> Option<&Incarnation> {
        match &self.phase {
            Phase::Out { holder } => holder.as_ref(),
            Phase::Waiting(claim) => claim.basis.subject(),
            _ => None,
        }
    }

    /// Whether a lock, or its renewal, is to be asked for now. Follow with [`Tenure::lock_asked`].
    pub fn is_lock_due(&self, now: Time) -> bool {
        self.next_lock().is_some_and(|at| now >= at)
    }

    fn needs_lock(&self) -> bool {
        match &self.phase {
            Phase::Out { .. } => self.wanted != Wanted::No,
            Phase::Leaving { .. } => false,
            _ => true,
        }
    }

    /// The lock is being asked for; report with [`Tenure::lock_answered`].
    pub fn lock_asked(&mut self, now: Time) {
        self.asked = Some(now);
    }

    /// A lock went back, or did not: it ends by itself then.
    pub fn unlocked(&mut self) {
        self.unlocking = false;
    }

    /// A queue that was to be drained has stopped, and its last commit is acknowledged or took too long.
    pub fn drained(&mut self) {
        if let Phase::Draining { drained, .. } = &mut self.phase {
            *drained = true;
        }
    }

    /// From when on a lock, or its renewal, is to be asked for.
    pub fn next_lock(&self) -> Option<Time> {
        let asks = self.needs_lock() && self.asked.is_none() && !self.unlocking;
        asks.then_some(self.next_lock)
    }

    /// When to poll again at the latest, apart from locks.
    pub fn next_step(&self, now: Time, facts: Facts, terms: &Terms) -> Option<Time> {
        let valid = now < self.lease;
        let waits = |due: bool| (due && self.request.is_none()).then_some(self.next_request);
        match &self.phase {
            Phase::Out { .. } => {
                let unlock = self.doubt.filter(|_| self.is_idle());
                waits(self.look)
                    .into_iter()
                    .chain(unlock.map(|doubt| doubt.next_unlock))
                    .min()
            }
            Phase::Reading { .. } | Phase::Claiming { .. } => {
                Some(waits(true).unwrap_or(self.lease).min(self.lease))
            }
            Phase::Waiting(claim) => {
                let over = claim.since + claim.basis.wait(facts, terms);
                let given_up = (!self.is_wanted(now, terms)).then_some(self.lease);
                waits(self.look || valid)
                    .map(|at| if self.look { at } else { at.max(over) })
                    .into_iter()
                    .chain(given_up)
                    .min()
            }
            Phase::Owned {
                recorded, since, ..
            } => {
                let stand_in_over = since.saturating_add(terms.durations.stand_in_for);
                let stand_in_over = self.stands_in.then_some(stand_in_over);
                waits(self.look || valid && !recorded)
                    .into_iter()
                    .chain(stand_in_over)
                    .min()
            }
            Phase::Draining { drained, .. } => waits(self.look || *drained)
                .into_iter()
                .chain([self.lease])
                .min(),
            Phase::Withdrawing { .. } | Phase::Leaving { .. } => {
                waits(true).into_iter().chain([self.lease]).min()
            }
        }
    }

    /// The keys that still wait in a queue that is ours, to be listed in *progress*; our epoch.
    pub fn recordable(&self, now: Time, terms: &Terms) -> Option<(Epoch, Keys)> {
        match &self.phase {
            Phase::Owned { claim, held, .. } => Some((
                claim.epoch,
                course::waiting(held, now, terms.rules.waiting_keys_recorded),
            )),
            _ => None,
        }
    }
}

impl Default for Tenure {
    fn default() -> Self {
        Self::new()
    }
}
