//! One queue's way into this process's hands and out of them.
//!
//! Pure: time is an argument, what is to be done comes out as [`Deed`]s, what came of it goes in by the
//! method that the deed names. Out → lock → read the journal → claim → wait → read again → owned →
//! draining → *released* → out.
//!
//! Promises, as long as every process keeps to this and calls end within the call bound: at most one
//! process dispatches at a time (P4), no two calls of a key overlap across processes (P1), nothing
//! finished before a clean end runs again (P6). The broker's lock alone does not give that: its table is
//! in memory, and nothing in it says whether a former owner's calls still run.
//!
//! Invariants: a queue is dispatched from only in [`Phase::Owned`] and within the lease that was put out
//! last; the lease is measured from the moment the lock was asked for; at most one lock request and one
//! journal request are under way, and an answer to any other request is ignored.

use super::basis::Basis;
use super::terms::{Death, Facts, Held, Terms};
use crate::contract::admin::QueuePhase;
use crate::journal::{Epoch, Head, Incarnation, Keys, State};
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
    /// Append *released*; report with [`Tenure::appended`].
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
    /// The queue is not ours any more: forget everything about it.
    Drop {
        /// It was given away in order.
        released: bool,
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
    /// It will be ours if its owner, who is not on the list any more, does not come back soon: it is taken
    /// already if that owner has released it.
    IfReleased,
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
    /// *Released* lies at this offset; once every reader sees it, the lock can go back.
    Leaving { released: u64 },
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
    pub(super) next_lock: Time,
    /// Locks granted one after the other to a stand-in.
    pub(super) stand_in_grants: u8,
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
            next_lock: Time::ZERO,
            stand_in_grants: 0,
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
            // Whoever it is meant for goes first.
            self.stand_in_grants = 0;
            self.next_lock = now + terms.durations.stand_in_every;
        } else if matches!(wanted, Wanted::Yes | Wanted::IfReleased) && self.wanted != wanted {
            self.next_lock = now;
        }
        self.wanted = wanted;
    }

    /// True if nothing of the queue is here or under way, and nothing of it is wanted.
    pub fn is_over(&self) -> bool {
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
            Phase::Draining { .. } | Phase::Leaving { .. } => Some(QueuePhase::Releasing),
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
        self.needs_lock() && self.asked.is_none() && !self.unlocking && now >= self.next_lock
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

    /// Whether we have the lock; none if there was no answer.
    pub fn lock_answered(
        &mut self,
        now: Time,
        locked: Option<bool>,
        terms: &Terms,
        out: &mut Vec<Deed>,
    ) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        let durations = &terms.durations;
        let lease = asked + durations.lease;
        let out_of_turn = matches!(self.phase, Phase::Out { .. }).then_some(self.wanted);
        self.next_lock = match locked {
            Some(true) => asked + durations.renew_every,
            _ if out_of_turn == Some(Wanted::StandIn) => now + durations.stand_in_every,
            _ if out_of_turn == Some(Wanted::IfReleased) => now + durations.if_released_every,
            _ => now + durations.lock_every,
        };
        match (locked, &self.phase) {
            (None, _) => {}
            (Some(true), Phase::Out { .. }) => self.locked(now, lease, terms, out),
            (Some(true), Phase::Leaving { .. }) => {}
            (Some(true), Phase::Reading { .. } | Phase::Claiming { .. }) => {
                self.lease = self.lease.max(lease)
            }
            (Some(true), _) if terms.rules.renewal_reads_journal => {
                self.granted = Some(lease);
                self.look = true;
            }
            (Some(true), _) => self.confirm(lease, out),
            (Some(false), Phase::Reading { .. } | Phase::Claiming { .. }) => self.go_out(),
            (Some(false), phase) => {
                self.stand_in_grants = 0;
                // Whoever has it may have claimed it; whom it is not meant for need not know.
                self.look |= self.wanted == Wanted::Yes || !matches!(phase, Phase::Out { .. });
            }
        }
    }

    fn locked(&mut self, now: Time, lease: Time, terms: &Terms, out: &mut Vec<Deed>) {
        match self.wanted {
            Wanted::No => self.unlock(out),
            Wanted::StandIn if self.stand_in_grants == 0 => {
                // An owner that lives and lost its lock (a broker restarted) has it back before our next try.
                self.stand_in_grants = 1;
                self.unlock(out);
                self.next_lock = now + terms.durations.stand_in_every;
            }
            _ => {
                self.go_out();
                self.stand_in_grants = 0;
                self.lease = lease;
                self.phase = Phase::Reading { locked: now };
            }
        }
    }

    /// A lock went back, or did not: it ends by itself then.
    pub fn unlocked(&mut self) {
        self.unlocking = false;
    }

    /// The broker has a new master: the old one may have handed out locks until now, for a route that
    /// named it may be as old as a lease.
    pub fn master_changed(&mut self, now: Time, terms: &Terms, out: &mut Vec<Deed>) {
        self.distrusted_until = Some(now + terms.durations.lease);
        if matches!(self.phase, Phase::Owned { .. } | Phase::Draining { .. }) {
            out.push(Deed::Drop { released: false });
        }
        self.go_out();
        self.next_lock = now;
    }

    /// What the journal says; none if it could not be read.
    pub fn read(
        &mut self,
        now: Time,
        ticket: Ticket,
        head: Option<&Head>,
        terms: &Terms,
        out: &mut Vec<Deed>,
    ) {
        if ticket != self.ticket {
            return;
        }
        let Some(Request::Read { confirms, starts }) = self.request.take() else {
            return;
        };
        let Some(head) = head else {
            self.look |= !matches!(self.phase, Phase::Out { .. });
            self.next_request = now + terms.durations.journal_retry;
            return;
        };
        let epoch = match &self.phase {
            Phase::Out { .. } => {
                let newest = head.newest.as_ref();
                let holder =
                    newest.filter(|newest| !matches!(newest.state, State::Released { .. }));
                self.phase = Phase::Out {
                    holder: holder.map(|newest| newest.by.clone()),
                };
                return;
            }
            Phase::Reading { .. } if self.wanted == Wanted::IfReleased && !head.is_released() => {
                self.unlock(out);
                self.next_lock = now + terms.durations.if_released_every;
                return;
            }
            Phase::Reading { locked } => {
                self.phase = Phase::Claiming {
                    locked: *locked,
                    basis: Basis::of(head, terms),
                    predecessor: head.newest.as_ref().map(|newest| newest.epoch),
                    end: head.end,
                };
                return;
            }
            Phase::Leaving { released } => {
                if head.end > *released {
                    self.leave(now, terms, out);
                } else {
                    self.next_request = now + terms.durations.journal_retry;
                }
                return;
            }
            Phase::Claiming { .. } => return,
            Phase::Waiting(claim) | Phase::Owned { claim, .. } | Phase::Draining { claim, .. } => {
                claim.epoch
            }
        };
        if head.end <= epoch && !head.doubtful {
            // The broker does not show everything yet, not even our claim.
            self.look = true;
            self.next_request = now + terms.durations.journal_retry;
        } else if head
            .newest
            .as_ref()
            .is_some_and(|newest| newest.epoch == epoch)
        {
            if let Some(lease) = confirms {
                if self.granted == confirms {
                    self.granted = None;
                }
                self.confirm(lease, out);
            }
            if starts {
                self.start(now, terms, out);
            }
        } else {
            self.lose(now, out);
        }
    }

    /// Where a record lies that was to be appended; none if that is not known.
    pub fn appended(&mut self, now: Time, ticket: Ticket, offset: Option<u64>, terms: &Terms) {
        if ticket != self.ticket {
            return;
        }
        let Some(request) = self.request.take() else {
            return;
        };
        if offset.is_none() {
            self.next_request = now + terms.durations.journal_retry;
        }
        match (request, &mut self.phase) {
            (
                Request::Claim,
                Phase::Claiming {
                    locked, basis, end, ..
                },
            ) => {
                let locked = *locked;
                self.phase = match offset {
                    Some(offset) if now < self.lease => {
                        let direct = offset == *end || !terms.rules.direct_claim;
                        let distrusted = self
                            .distrusted_until
                            .filter(|until| now < *until + terms.durations.wait);
                        let basis = if direct && distrusted.is_none() {
                            basis.clone()
                        } else {
                            Basis::Unknown
                        };
                        let since = if terms.rules.wait_from_acknowledgement {
                            distrusted.map_or(now, |until| now.max(until))
                        } else {
                            locked
                        };
                        Phase::Waiting(Claim {
                            epoch: offset,
                            since,
                            basis,
                        })
                    }
                    // It may lie there or come to lie there. Whatever it is, it is not a claim of ours.
                    _ => Phase::Reading { locked },
                };
            }
            (Request::Progress, Phase::Owned { recorded, .. }) => *recorded |= offset.is_some(),
            (Request::Released, Phase::Draining { .. }) => {
                if let Some(released) = offset {
                    self.phase = Phase::Leaving { released };
                }
            }
            _ => {}
        }
    }

    /// A queue that was to be drained has stopped, and its last commit is acknowledged or took too long.
    pub fn drained(&mut self) {
        if let Phase::Draining { drained, .. } = &mut self.phase {
            *drained = true;
        }
    }

    /// Goes on as far as possible. `facts` are those of [`Tenure::subject`].
    pub fn poll(&mut self, now: Time, facts: Facts, terms: &Terms, out: &mut Vec<Deed>) {
        self.expire(now, terms, out);
        self.give_away(now, terms, out);
        self.free(facts, now, out);
        if self.request.is_none() && now >= self.next_request {
            self.ask_journal(now, facts, terms, out);
        }
    }

    /// When to poll again at the latest.
    pub fn next_deadline(&self, now: Time, facts: Facts, terms: &Terms) -> Option<Time> {
        let valid = now < self.lease;
        let lock = self.needs_lock() && self.asked.is_none() && !self.unlocking;
        let lock = lock.then_some(self.next_lock);
        let waits = |due: bool| (due && self.request.is_none()).then_some(self.next_request);
        let phase = match &self.phase {
            Phase::Out { .. } => waits(self.look),
            Phase::Reading { .. } | Phase::Claiming { .. } => {
                Some(waits(true).unwrap_or(self.lease).min(self.lease))
            }
            Phase::Waiting(claim) => {
                let over = claim.since + claim.basis.wait(facts, terms);
                waits(self.look || valid).map(|at| if self.look { at } else { at.max(over) })
            }
            Phase::Owned {
                recorded, since, ..
            } => {
                let stand_in_over = since.saturating_add(terms.durations.stand_in_for);
                let stand_in_over = (self.wanted == Wanted::StandIn).then_some(stand_in_over);
                waits(self.look || valid && !recorded)
                    .into_iter()
                    .chain(stand_in_over)
                    .min()
            }
            Phase::Draining { drained, .. } => waits(self.look || *drained)
                .into_iter()
                .chain([self.lease])
                .min(),
            Phase::Leaving { .. } => waits(true),
        };
        lock.into_iter().chain(phase).min()
    }

    /// The keys that still wait in a queue that is ours, to be listed in *progress*; our epoch.
    pub fn recordable(&self, now: Time, terms: &Terms) -> Option<(Epoch, Keys)> {
        match &self.phase {
            Phase::Owned { claim, held, .. } => Some((
                claim.epoch,
                waiting(held, now, terms.rules.waiting_keys_recorded),
            )),
            _ => None,
        }
    }

    /// Ends what cannot go on past the lease.
    fn expire(&mut self, now: Time, terms: &Terms, out: &mut Vec<Deed>) {
        if now < self.lease {
            return;
        }
        match &self.phase {
            Phase::Reading { .. } | Phase::Claiming { .. } => self.go_out(),
            Phase::Draining { .. } => {
                out.push(Deed::Drop { released: false });
                self.unlock(out);
            }
            Phase::Leaving { .. } => self.leave(now, terms, out),
            _ => {}
        }
    }

    /// Begins to give away what is not wanted.
    fn give_away(&mut self, now: Time, terms: &Terms, out: &mut Vec<Deed>) {
        let wanted = match (self.wanted, &self.phase) {
            (Wanted::Yes | Wanted::IfReleased, _) => true,
            (Wanted::StandIn, Phase::Owned { since, .. }) => {
                now < since.saturating_add(terms.durations.stand_in_for)
            }
            (Wanted::StandIn, _) => true,
            (Wanted::No, _) => false,
        };
        if wanted {
            return;
        }
        match &self.phase {
            Phase::Reading { .. } | Phase::Claiming { .. } => self.unlock(out),
            Phase::Waiting(_) if terms.rules.release_after_wait => self.unlock(out),
            Phase::Waiting(claim) => {
                self.phase = Phase::Draining {
                    claim: claim.clone(),
                    held: Held::default(),
                    drained: true,
                };
            }
            Phase::Owned { claim, held, .. } => {
                self.phase = Phase::Draining {
                    claim: claim.clone(),
                    held: held.clone(),
                    drained: false,
                };
                out.push(Deed::Drain);
            }
            Phase::Out { .. } | Phase::Draining { .. } | Phase::Leaving { .. } => {}
        }
    }

    /// Takes the lock away from a member that is gone.
    fn free(&mut self, facts: Facts, now: Time, out: &mut Vec<Deed>) {
        if self.wanted != Wanted::Yes || !(facts.absent || facts.death != Death::Unproven) {
            return;
        }
        if let Phase::Out { holder } = &mut self.phase
            && !self.unlocking
            && self.asked.is_none()
            && let Some(holder) = holder.take()
        {
            self.unlocking = true;
            self.next_lock = now;
            out.push(Deed::UnlockFor(holder));
        }
    }

    fn ask_journal(&mut self, now: Time, facts: Facts, terms: &Terms, out: &mut Vec<Deed>) {
        let read = |confirms, starts| Request::Read { confirms, starts };
        let valid = now < self.lease;
        let request = match &self.phase {
            Phase::Out { .. } => self.look.then(|| read(None, false)),
            Phase::Reading { .. } | Phase::Leaving { .. } => Some(read(None, false)),
            Phase::Claiming { .. } => Some(Request::Claim),
            Phase::Waiting(claim) => {
                let over = valid && now >= claim.since + claim.basis.wait(facts, terms);
                if over && !terms.rules.start_reads_journal {
                    return self.start(now, terms, out);
                }
                (over || self.look).then(|| read(self.granted, over))
            }
            _ if self.look => Some(read(self.granted, false)),
            Phase::Owned {
                recorded: false, ..
            } if valid => Some(Request::Progress),
            Phase::Draining { drained: true, .. } if valid => Some(Request::Released),
            _ => None,
        };
        let Some(request) = request else { return };
        if let Request::Read { .. } = &request {
            self.look = false;
        }
        self.ticket.0 += 1;
        let ticket = self.ticket;
        let listed = |held: &Held| waiting(held, now, terms.rules.waiting_keys_recorded);
        out.push(match (&request, &self.phase) {
            (Request::Claim, Phase::Claiming { predecessor, .. }) => Deed::Claim {
                ticket,
                predecessor: *predecessor,
            },
            (Request::Progress, Phase::Owned { claim, held, .. }) => Deed::Progress {
                ticket,
                epoch: claim.epoch,
                waiting: listed(held),
            },
            (Request::Released, Phase::Draining { claim, held, .. }) => Deed::Released {
                ticket,
                epoch: claim.epoch,
                waiting: listed(held),
            },
            _ => Deed::Read(ticket),
        });
        self.request = Some(request);
    }

    fn start(&mut self, now: Time, terms: &Terms, out: &mut Vec<Deed>) {
        let Phase::Waiting(claim) = &self.phase else {
            return;
        };
        // Past the lease the next renewal starts over with the reading.
        if now >= self.lease {
            return;
        }
        let claim = claim.clone();
        let held = Held {
            keys: claim.basis.keys(),
            until: claim.since + terms.durations.call_bound,
        };
        let lease = self.lease;
        out.push(Deed::Assign {
            lease,
            held: held.clone(),
        });
        self.phase = Phase::Owned {
            claim,
            held,
            since: now,
            recorded: false,
        };
    }

    fn confirm(&mut self, lease: Time, out: &mut Vec<Deed>) {
        if lease > self.lease {
            self.lease = lease;
            if let Phase::Owned { .. } | Phase::Draining { .. } = &self.phase {
                out.push(Deed::Renew { lease });
            }
        }
    }

    /// Somebody claimed after us. If the lock is ours all the same, everything starts over with it.
    fn lose(&mut self, now: Time, out: &mut Vec<Deed>) {
        if matches!(self.phase, Phase::Owned { .. } | Phase::Draining { .. }) {
            out.push(Deed::Drop { released: false });
        }
        let granted = self.granted.filter(|lease| now < *lease);
        self.go_out();
        if let Some(lease) = granted {
            if self.wanted == Wanted::No {
                self.unlock(out);
            } else {
                self.lease = lease;
                self.phase = Phase::Reading { locked: now };
            }
        } else {
            self.next_lock = now;
        }
    }

    fn leave(&mut self, now: Time, terms: &Terms, out: &mut Vec<Deed>) {
        out.push(Deed::Drop { released: true });
        self.unlock(out);
        if self.wanted == Wanted::StandIn {
            self.next_lock = now + terms.durations.stand_in_every;
        }
    }

    fn unlock(&mut self, out: &mut Vec<Deed>) {
        self.go_out();
        self.unlocking = true;
        out.push(Deed::Unlock);
    }

    fn go_out(&mut self) {
        self.abandon();
        self.phase = Phase::Out { holder: None };
        self.lease = Time::ZERO;
        self.granted = None;
        self.look = false;
    }

    /// Whatever the journal request under way brings is ignored.
    fn abandon(&mut self) {
        self.request = None;
        self.ticket.0 += 1;
    }
}

impl Default for Tenure {
    fn default() -> Self {
        Self::new()
    }
}

fn waiting(held: &Held, now: Time, recorded: bool) -> Keys {
    if recorded && now < held.until {
        held.keys.clone()
    } else {
        Keys::default()
    }
}
