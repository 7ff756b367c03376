//! Equal states are to look equal: offsets are renumbered, times that are over forgotten.

use super::super::Ticket;
use super::super::basis::Basis;
use super::super::tenure::{Phase, Request};
use super::world::{Ask, Known, Member, NOW, Setting, UNIT, Wire, World};
use crate::journal::Keys;
use crate::lane::Time;

impl World {
    /// The same state with the numbers in it made small, so that equal states are seen to be equal. Offsets
    /// matter only by being the highest epoch, the end, or neither.
    pub fn canonical(mut self, setting: &Setting) -> Self {
        const END: u64 = 10;
        const HIGHEST: u64 = 9;
        const END_PASSED: u64 = 5;
        const OTHER: u64 = 2;
        const PASSED: u64 = 1;
        let end = self.journal.end;
        let highest = self.journal.newest.as_ref().map(|newest| newest.epoch);
        let to_end = |at: u64| match at {
            0 if end == 0 => 0,
            _ if at == end => END,
            0 => 0,
            _ => END_PASSED,
        };
        for member in &mut self.members {
            let tenure = &mut member.tenure;
            let own = match &mut tenure.phase {
                Phase::Waiting(claim)
                | Phase::Owned { claim, .. }
                | Phase::Draining { claim, .. } => Some(&mut claim.epoch),
                Phase::Withdrawing { epoch, .. } => Some(epoch),
                _ => None,
            };
            let was = own.as_ref().map(|epoch| **epoch);
            let epoch = |at: u64| match at {
                _ if Some(at) == highest => HIGHEST,
                _ if Some(at) == was => PASSED,
                _ => OTHER,
            };
            if let Some(own) = own {
                *own = epoch(*own);
            }
            let ticket = tenure.ticket;
            tenure.ticket = Ticket(0);
            member.wires.retain(|wire| match wire {
                Wire::Read(asked, _) | Wire::Appended(asked, _) => *asked == ticket,
                Wire::Ask(Ask::Read(asked) | Ask::Append(asked, _)) => *asked == ticket,
                _ => true,
            });
            for wire in &mut member.wires {
                match wire {
                    Wire::Read(asked, answer) => {
                        *asked = Ticket(0);
                        if let Some((head, _)) = answer {
                            head.end = to_end(head.end);
                            if let Some(newest) = &mut head.newest {
                                newest.epoch = epoch(newest.epoch);
                            }
                        }
                    }
                    Wire::Appended(asked, answer) => {
                        *asked = Ticket(0);
                        if let Some(offset) = answer {
                            if let Phase::Claiming { end, .. } = &mut tenure.phase {
                                *end = if *end == *offset { epoch(*offset) } else { 0 };
                            }
                            *offset = epoch(*offset);
                        }
                    }
                    Wire::Ask(Ask::Append(asked, record)) => {
                        *asked = Ticket(0);
                        record.epoch = record.epoch.map(epoch);
                    }
                    Wire::Ask(Ask::Read(asked)) => *asked = Ticket(0),
                    _ => {}
                }
            }
            let claim_is_answered = member
                .wires
                .iter()
                .any(|wire| matches!(wire, Wire::Appended(..)));
            match &mut tenure.phase {
                Phase::Claiming {
                    end, predecessor, ..
                } => {
                    *predecessor = None;
                    if !claim_is_answered {
                        *end = to_end(*end);
                    }
                }
                Phase::Leaving { last } => *last = 0,
                _ => {}
            }
            // At most one of each kind is under way.
            member.wires.sort_by_key(|wire| match wire {
                Wire::Ask(Ask::Lock) | Wire::Locked(_) => 0,
                Wire::Ask(Ask::Unlock | Ask::UnlockFor(_)) | Wire::Unlocked => 1,
                _ => 2,
            });
            // Where everything is read again before the start, what was read before it is of no account.
            let again = setting.union_of_records && setting.terms[0][0].rules.start_reads_journal;
            if again || !matches!(tenure.phase, Phase::Claiming { .. } | Phase::Waiting(_)) {
                member.known = [Known::default(); 2];
            }
            if let Phase::Owned { claim, held, .. } | Phase::Draining { claim, held, .. } =
                &mut tenure.phase
            {
                claim.basis = Basis::Unknown;
                claim.since = Time::ZERO;
                if held.keys.is_empty() {
                    held.until = Time::ZERO;
                }
            }
            if let Phase::Reading { locked } | Phase::Claiming { locked, .. } = &mut tenure.phase
                && setting.terms[0][0].rules.wait_from_acknowledgement
            {
                *locked = Time::ZERO;
            }
            if let Phase::Owned { since, .. } = &mut tenure.phase {
                *since = Time::ZERO;
            }
            if let Some(run) = &mut member.run
                && run.held.is_empty()
            {
                run.held_until = Time::ZERO;
            }
            if let Some(doubt) = &mut tenure.doubt {
                (doubt.next_unlock, doubt.until) = (Time::ZERO, Time::ZERO);
            }
            for time in [&mut tenure.next_lock, &mut tenure.next_request] {
                if *time <= NOW {
                    *time = Time::ZERO;
                }
            }
        }
        for record in &mut self.late {
            record.epoch = record.epoch.map(|epoch| {
                if Some(epoch) == highest {
                    HIGHEST
                } else {
                    PASSED
                }
            });
        }
        self.journal.end = to_end(end);
        if setting.union_of_records {
            self.journal.finished |= std::mem::take(&mut self.journal.finished_before);
        }
        if let Some(newest) = &mut self.journal.newest {
            newest.epoch = HIGHEST;
        }
        self.calls
            .sort_by_key(|call| (call.message, call.slot, call.left));
        self
    }
}

impl Member {
    /// Everything is a unit longer ago.
    pub fn age(&mut self, setting: &Setting) {
        // Older than anything that is compared.
        let long_ago = NOW - setting.terms[0][0].durations.wait;
        let back = |time: &mut Time| *time = time.saturating_sub(UNIT).max(long_ago);
        let ends = |time: &mut Time| {
            *time = time.saturating_sub(UNIT);
            if *time <= NOW {
                *time = Time::ZERO;
            }
        };
        let tenure = &mut self.tenure;
        ends(&mut tenure.lease);
        ends(&mut tenure.next_lock);
        ends(&mut tenure.next_request);
        tenure.granted.iter_mut().for_each(ends);
        if setting.slow_answers {
            tenure.asked.iter_mut().for_each(back);
        }
        if let Some(Request::Read {
            confirms: Some(confirms),
            ..
        }) = &mut tenure.request
        {
            ends(confirms);
        }
        match &mut tenure.phase {
            Phase::Waiting(claim) => back(&mut claim.since),
            Phase::Reading { locked } | Phase::Claiming { locked, .. } => back(locked),
            Phase::Owned { held, .. } | Phase::Draining { held, .. } => ends(&mut held.until),
            _ => {}
        }
        if let Some(run) = &mut self.run {
            ends(&mut run.lease);
            ends(&mut run.held_until);
            if run.held_until <= NOW {
                run.held = Keys::default();
            }
        }
    }
}
