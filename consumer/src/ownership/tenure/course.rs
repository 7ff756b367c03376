//! What a tenure does by itself: as time passes, as it may go on, as it ends.

use super::{Basis, Claim, Deed, Phase, Request, StandIn, Tenure, Wanted};
use crate::journal::{Head, Keys};
use crate::lane::Time;
use crate::ownership::terms::{Death, Facts, Held, Terms};

impl Tenure {
    /// Goes on as far as possible. `facts` are those of [`Tenure::subject`].
    pub fn poll(&mut self, now: Time, facts: Facts, terms: &Terms, out: &mut Vec<Deed>) {
        self.expire(now, terms, out);
        self.give_away(now, facts, terms, out);
        self.free(facts, now, terms, out);
        self.end_doubt(now, terms, out);
        if self.request.is_none() && now >= self.next_request {
            self.ask_journal(now, facts, terms, out);
        }
    }

    /// Ends what cannot go on past the lease.
    pub(super) fn expire(&mut self, now: Time, terms: &Terms, out: &mut Vec<Deed>) {
        if now < self.lease {
            return;
        }
        let wanted = self.is_wanted(now, terms);
        match &self.phase {
            Phase::Reading { .. } | Phase::Claiming { .. } if wanted => self.go_out(),
            Phase::Reading { .. } | Phase::Claiming { .. } => self.unlock(out),
            Phase::Waiting(_) if !wanted => self.unlock(out),
            Phase::Draining { .. } => {
                out.push(Deed::Drop { released: false });
                self.unlock(out);
            }
            Phase::Withdrawing { .. } => self.unlock(out),
            Phase::Leaving { .. } => self.leave(now, terms, out),
            _ => {}
        }
    }

    /// Whether the queue is to be run here.
    pub(super) fn is_wanted(&self, now: Time, terms: &Terms) -> bool {
        match (self.wanted, &self.phase) {
            (Wanted::Yes | Wanted::IfReleased { .. }, _) => true,
            (Wanted::StandIn, Phase::Owned { since, .. }) if self.stands_in => {
                now < since.saturating_add(terms.durations.stand_in_for)
            }
            // What was meant for us and is meant for another now, that one waits for.
            (Wanted::StandIn, _) => self.stands_in,
            (Wanted::No, _) => false,
        }
    }

    /// Begins to give away what is not wanted.
    ///
    /// A claim that lies in the journal makes whoever comes next wait for the whole of L + B, unless
    /// *released* follows it, which needs the wait to be over (rule 4). That wait began before any that a
    /// successor could begin: it is sat out here, and then [`Tenure::start`] ends the tenure. But where
    /// the former owner's pod is back, whose queue it is again, that process knows what became of the
    /// former owner and need not wait: *withdrawn* lets it judge by that (rule 9).
    pub(super) fn give_away(
        &mut self,
        now: Time,
        facts: Facts,
        terms: &Terms,
        out: &mut Vec<Deed>,
    ) {
        if self.is_wanted(now, terms) {
            return;
        }
        match &self.phase {
            Phase::Claiming { .. } if self.request == Some(Request::Claim) => {}
            Phase::Reading { .. } | Phase::Claiming { .. } => self.unlock(out),
            Phase::Waiting(Claim {
                epoch,
                since,
                basis:
                    basis @ Basis::Claimed {
                        by,
                        ran: Some(waiting),
                    },
            }) if facts.back && now < *since + basis.wait(facts, terms) => {
                self.phase = Phase::Withdrawing {
                    epoch: *epoch,
                    former: by.clone(),
                    waiting: waiting.clone(),
                };
            }
            Phase::Waiting(_) if terms.rules.release_after_wait => {}
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
            Phase::Out { .. }
            | Phase::Draining { .. }
            | Phase::Withdrawing { .. }
            | Phase::Leaving { .. } => {}
        }
    }

    /// Gives back a queue that is not wanted and would still wait at `by`, when this process ends, without a
    /// word: whoever is next waits for as long from then on, so it is done as soon as it is known.
    pub fn stop_waiting(
        &mut self,
        now: Time,
        by: Time,
        facts: Facts,
        terms: &Terms,
        out: &mut Vec<Deed>,
    ) {
        let in_vain = match &self.phase {
            // What became of the claim is not known yet.
            Phase::Claiming { .. } => false,
            Phase::Waiting(claim) => claim.since + claim.basis.wait(facts, terms) > by,
            _ => return,
        };
        if (now >= by || in_vain) && !self.is_wanted(now, terms) {
            self.unlock(out);
        }
    }

    /// Takes the lock away from a member that is gone.
    pub(super) fn free(&mut self, facts: Facts, now: Time, terms: &Terms, out: &mut Vec<Deed>) {
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
            // Where the lock is another's all the same, the journal says the same again and again.
            self.next_request = now + terms.durations.free_every;
            out.push(Deed::UnlockFor(holder));
        }
    }

    /// Gives back a lock that nobody here knows of, if there is one.
    pub(super) fn end_doubt(&mut self, now: Time, terms: &Terms, out: &mut Vec<Deed>) {
        if !self.is_idle() {
            return;
        }
        if let Some(doubt) = &mut self.doubt
            && now >= doubt.next_unlock
        {
            doubt.next_unlock = now + terms.durations.doubt_every;
            if doubt.next_unlock >= doubt.until {
                self.doubt = None;
            }
            self.unlocking = true;
            out.push(Deed::Unlock);
        }
    }

    pub(super) fn ask_journal(
        &mut self,
        now: Time,
        facts: Facts,
        terms: &Terms,
        out: &mut Vec<Deed>,
    ) {
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
            Phase::Withdrawing { .. } if valid => Some(Request::Withdrawn),
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
            (
                Request::Withdrawn,
                Phase::Withdrawing {
                    epoch,
                    former,
                    waiting,
                },
            ) => Deed::Withdrawn {
                ticket,
                epoch: *epoch,
                former: former.clone(),
                waiting: waiting.clone(),
            },
            _ => Deed::Read(ticket),
        });
        self.request = Some(request);
    }

    /// The wait is over: the queue is run from now on, or given on to whom it is meant for by now.
    pub(super) fn start(&mut self, now: Time, terms: &Terms, out: &mut Vec<Deed>) {
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
        if !self.is_wanted(now, terms) {
            self.phase = Phase::Draining {
                claim,
                held,
                drained: true,
            };
            return;
        }
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

    pub(super) fn confirm(&mut self, lease: Time, out: &mut Vec<Deed>) {
        if lease > self.lease {
            self.lease = lease;
            if let Phase::Owned { .. } | Phase::Draining { .. } = &self.phase {
                out.push(Deed::Renew { lease });
            }
        }
    }

    /// Somebody claimed after us. If the lock is ours all the same, everything starts over with it where that one has
    /// released the queue. Where it has not, the broker has restarted, or it is frozen: one that lives has the lock back
    /// before our next try, and goes on with a queue that it would have to be waited for.
    pub(super) fn lose(&mut self, head: &Head, now: Time, terms: &Terms, out: &mut Vec<Deed>) {
        if matches!(self.phase, Phase::Owned { .. } | Phase::Draining { .. }) {
            out.push(Deed::Drop { released: false });
        }
        let granted = self.granted.filter(|lease| now < *lease);
        self.go_out();
        match granted {
            None => self.next_lock = now,
            Some(_) if self.wanted == Wanted::No => self.unlock(out),
            Some(_) if !head.is_released() => {
                self.unlock(out);
                self.next_lock = now + terms.durations.stand_in_returns;
            }
            Some(lease) => {
                self.lease = lease;
                self.phase = Phase::Reading { locked: now };
            }
        }
    }

    pub(super) fn leave(&mut self, now: Time, terms: &Terms, out: &mut Vec<Deed>) {
        out.push(Deed::Drop { released: true });
        self.unlock(out);
        if self.wanted == Wanted::StandIn {
            self.stand_in = StandIn::Unsure;
            self.next_lock = now + terms.durations.stand_in_returns;
        }
    }

    pub(super) fn unlock(&mut self, out: &mut Vec<Deed>) {
        self.go_out();
        self.unlocking = true;
        out.push(Deed::Unlock);
    }

    pub(super) fn go_out(&mut self) {
        self.abandon();
        self.phase = Phase::Out { holder: None };
        self.lease = Time::ZERO;
        self.granted = None;
        self.look = false;
    }

    /// Whatever the journal request under way brings is ignored.
    pub(super) fn abandon(&mut self) {
        self.request = None;
        self.ticket.0 += 1;
    }
}

/// The keys of a record: those that still wait.
pub(super) fn waiting(held: &Held, now: Time, recorded: bool) -> Keys {
    if recorded && now < held.until {
        held.keys.clone()
    } else {
        Keys::default()
    }
}
