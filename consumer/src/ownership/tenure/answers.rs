//! What answers from broker and journal do to a tenure.

use super::{Basis, Claim, Deed, Doubt, Phase, Request, StandIn, Tenure, Ticket, Wanted};
use crate::journal::{Head, State};
use crate::lane::Time;
use crate::ownership::terms::Terms;

impl Tenure {
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
        if locked.is_none() {
            self.doubt = Some(Doubt {
                next_unlock: now,
                until: now + durations.doubt,
            });
        }
        let out_of_turn = matches!(self.phase, Phase::Out { .. }).then_some(self.wanted);
        self.next_lock = match locked {
            Some(true) => asked + durations.renew_every,
            _ => match out_of_turn {
                Some(Wanted::StandIn) => now + durations.stand_in_every,
                Some(Wanted::IfReleased { .. }) => now + durations.if_released_every,
                _ => now + durations.lock_every,
            },
        };
        match (locked, &self.phase) {
            // Perhaps the broker restarts: its locks are free to anybody then.
            (None, _) => self.stand_in = StandIn::Unsure,
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
                self.stand_in = StandIn::Refused;
                // Whoever has it may have claimed it; whom it is not meant for need not know.
                self.look |= self.wanted == Wanted::Yes || !matches!(phase, Phase::Out { .. });
            }
        }
    }

    fn locked(&mut self, now: Time, lease: Time, terms: &Terms, out: &mut Vec<Deed>) {
        match self.wanted {
            Wanted::No => self.unlock(out),
            Wanted::StandIn if self.stand_in == StandIn::Unsure => {
                // An owner that lives and lost its lock (a broker restarted) has it back before our next try.
                self.stay_away(now, terms, out);
            }
            _ => {
                self.go_out();
                self.lease = lease;
                self.stands_in = self.wanted == Wanted::StandIn;
                self.next_request = now;
                self.phase = Phase::Reading { locked: now };
            }
        }
    }

    /// Gives back what was granted to a stand-in, which takes it if it is granted once more.
    fn stay_away(&mut self, now: Time, terms: &Terms, out: &mut Vec<Deed>) {
        self.stand_in = StandIn::Again;
        self.unlock(out);
        self.next_lock = now + terms.durations.stand_in_returns;
    }

    /// Whether its owner did not release it, but may release it yet. One that died while the broker was away never
    /// will: it is not on the lists of a broker that restarted, and counts as gone only once all had long to come
    /// back. Whoever lives has its locks again long before. How long it is missing is taken from the lists, which
    /// all see alike, and not from how long the lock was free, which each who would have it would count anew.
    fn is_too_early(&self, head: &Head, now: Time, terms: &Terms) -> bool {
        let Wanted::IfReleased { missing } = self.wanted else {
            return false;
        };
        let returns = terms.durations.stand_in_returns;
        !head.is_released() && missing.is_none_or(|since| now < since + returns)
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
            Phase::Reading { .. } if self.is_too_early(head, now, terms) => {
                self.unlock(out);
                self.next_lock = now + terms.durations.if_released_every;
                return;
            }
            Phase::Reading { .. }
                if self.wanted == Wanted::StandIn
                    && self.stand_in == StandIn::Refused
                    && head.is_released() =>
            {
                // Its owner did not freeze but gave it away, to somebody who is about to take it.
                self.stay_away(now, terms, out);
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
            Phase::Leaving { last } => {
                if head.end > *last {
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
            Phase::Withdrawing { epoch, .. } => *epoch,
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
            self.lose(head, now, terms, out);
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
            (Request::Released, Phase::Draining { .. })
            | (Request::Withdrawn, Phase::Withdrawing { .. }) => {
                if let Some(last) = offset {
                    self.phase = Phase::Leaving { last };
                }
            }
            _ => {}
        }
    }
}
