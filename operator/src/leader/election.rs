//! Who leads, by what a Lease says. Pure: time is an argument.
//!
//! A candidate takes a lease that is free, or whose record has not changed for the time it is for, counted
//! from when the candidate first saw that record: no clock of another machine is trusted. The leader's
//! right ends `renew_within` after it SENT the last renewal that was acknowledged, which is earlier than
//! any candidate may take over, because a candidate sees a record only after it was sent and `renew_within`
//! is shorter than the time the lease is for.

use std::time::{Duration, Instant};

/// Times of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    lease: Duration,
    renew_within: Duration,
    retry: Duration,
}

/// Times that cannot work together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--lease-duration {lease:?}, --renew-deadline {renew_within:?} and --retry-period {retry:?} do not fit: the duration must be whole seconds and at least a second longer than the deadline, and the deadline at least twice the period, which must not be 0"
)]
pub struct InvalidTerms {
    lease: Duration,
    renew_within: Duration,
    retry: Duration,
}

impl Terms {
    /// `lease`: how long others wait for a leader that is silent. `renew_within`: how long a leader leads
    /// after its last renewal. `retry`: time between tries to take or renew.
    pub fn new(
        lease: Duration,
        renew_within: Duration,
        retry: Duration,
    ) -> Result<Self, InvalidTerms> {
        let fit = lease.subsec_nanos() == 0
            && renew_within + Duration::from_secs(1) <= lease
            && retry * 2 <= renew_within
            && !retry.is_zero();
        if fit {
            Ok(Self {
                lease,
                renew_within,
                retry,
            })
        } else {
            Err(InvalidTerms {
                lease,
                renew_within,
                retry,
            })
        }
    }

    /// How long others wait for a leader that is silent.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Time between tries.
    pub fn retry(&self) -> Duration {
        self.retry
    }
}

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Changes with every write.
    pub version: String,
    /// Who leads; nobody after a release.
    pub holder: Option<String>,
    /// Term of the last leader: grows with each.
    pub term: u64,
    /// How long the holder may be silent.
    pub lease: Duration,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is no Lease: make one, with this term.
    Create {
        /// The new term.
        term: u64,
    },
    /// Write oneself in over this version.
    Take {
        /// The version it replaces.
        version: String,
        /// The new term.
        term: u64,
    },
    /// Renew over this version.
    Renew {
        /// The version it replaces.
        version: String,
        /// The term goes on.
        term: u64,
    },
    /// Somebody else leads.
    Wait,
}

/// The view of one candidate.
#[derive(Debug)]
pub struct Election {
    me: String,
    terms: Terms,
    seen: Option<(Record, Instant)>,
    /// The term this candidate leads, and until when it may.
    held: Option<(u64, Instant)>,
}

impl Election {
    /// A candidate that has seen nothing yet. `me` must be unique for each process.
    pub fn new(me: String, terms: Terms) -> Self {
        Self {
            me,
            terms,
            seen: None,
            held: None,
        }
    }

    /// The Lease was read at `now`. Says whether this candidate has lost what it held.
    pub fn read(&mut self, now: Instant, record: Option<Record>) {
        if record
            .as_ref()
            .is_none_or(|record| record.holder.as_ref() != Some(&self.me))
        {
            self.held = None;
        }
        match (record, &self.seen) {
            // The time runs from when this very record was first seen.
            (Some(record), Some((seen, _))) if *seen == record => {}
            (record, _) => self.seen = record.map(|record| (record, now)),
        }
    }

    /// What to do at `now`; `wall` is the time since the Unix epoch, for terms to grow by even if the Lease
    /// is deleted.
    pub fn step(&self, now: Instant, wall: Duration) -> Step {
        let fresh = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        let Some((record, since)) = &self.seen else {
            return Step::Create { term: fresh };
        };
        let version = record.version.clone();
        if let Some((term, _)) = self.held {
            return Step::Renew { version, term };
        }
        let silent = now.saturating_duration_since(*since);
        if record.holder.is_none() || silent >= record.lease {
            let term = fresh.max(record.term.saturating_add(1));
            return Step::Take { version, term };
        }
        Step::Wait
    }

    /// Our write, sent at `sent`, was acknowledged as `record`.
    pub fn written(&mut self, sent: Instant, record: Record) {
        self.held = Some((record.term, sent + self.terms.renew_within));
        self.seen = Some((record, sent));
    }

    /// Until when this candidate leads, and its term. None if it does not lead.
    pub fn held(&self) -> Option<(u64, Instant)> {
        self.held
    }

    /// Who leads, as last seen.
    pub fn leader(&self) -> Option<&str> {
        self.seen.as_ref()?.0.holder.as_deref()
    }

    /// Stops leading without a word: the time is over.
    pub fn give_up(&mut self) {
        self.held = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn terms() -> Terms {
        Terms::new(12 * SECOND, 8 * SECOND, 2 * SECOND).unwrap()
    }

    fn record(version: &str, holder: Option<&str>, term: u64) -> Record {
        Record {
            version: version.into(),
            holder: holder.map(str::to_owned),
            term,
            lease: 12 * SECOND,
        }
    }

    #[test]
    fn times_that_would_let_two_lead_are_refused() {
        for (lease, within, retry) in [(8, 8, 2), (12, 8, 5), (12, 8, 0)] {
            let error = Terms::new(lease * SECOND, within * SECOND, retry * SECOND).unwrap_err();
            assert!(error.to_string().contains("--renew-deadline"));
        }
    }

    #[test]
    fn a_silent_leader_is_waited_for_from_when_its_record_was_seen() {
        let (start, wall) = (Instant::now(), 5 * SECOND);
        let mut election = Election::new("b".into(), terms());
        election.read(start, Some(record("1", Some("a"), 9_000)));
        assert_eq!(election.step(start + 11 * SECOND, wall), Step::Wait);
        // A renewal starts the wait anew, the same record does not.
        election.read(start + 11 * SECOND, Some(record("2", Some("a"), 9_000)));
        election.read(start + 20 * SECOND, Some(record("2", Some("a"), 9_000)));
        assert_eq!(election.step(start + 22 * SECOND, wall), Step::Wait);
        let taken = Step::Take {
            version: "2".into(),
            term: 9_001,
        };
        assert_eq!(election.step(start + 23 * SECOND, wall), taken);
    }

    #[test]
    fn a_released_or_absent_lease_is_taken_at_once_and_terms_grow() {
        let (start, wall) = (Instant::now(), 20 * SECOND);
        let mut election = Election::new("b".into(), terms());
        assert_eq!(election.step(start, wall), Step::Create { term: 20_000 });
        election.read(start, Some(record("1", None, 7)));
        let taken = Step::Take {
            version: "1".into(),
            term: 20_000,
        };
        assert_eq!(election.step(start, wall), taken);
    }

    #[test]
    fn a_leader_that_sees_another_or_no_lease_leads_no_more() {
        let start = Instant::now();
        for after in [Some(record("9", Some("a"), 3)), None] {
            let mut election = Election::new("b".into(), terms());
            election.written(start, record("1", Some("b"), 2));
            assert!(election.held().is_some());
            election.read(start, Some(record("2", Some("b"), 2)));
            assert!(election.held().is_some());
            election.read(start, after);
            assert!(election.held().is_none());
        }
    }

    proptest! {
        /// Candidates over one Lease with writes that take time and get lost: at no time do two lead, and
        /// terms only grow.
        #[test]
        fn at_most_one_leads(moves in prop::collection::vec((0usize..3, 0u64..4_000, 0u64..3_000, 0u8..4), 1..200)) {
            let start = Instant::now();
            let mut now = start;
            let mut lease: Option<Record> = None;
            let mut versions = 0;
            let mut last_term = 0;
            let mut all: Vec<_> = (0..3).map(|i| Election::new(format!("c{i}"), terms())).collect();
            for (who, pause, travel, fate) in moves {
                now += Duration::from_millis(pause);
                all[who].read(now, lease.clone());
                let sent = now;
                let (version, term) = match all[who].step(now, now - start) {
                    Step::Create { term } => (None, term),
                    Step::Take { version, term } | Step::Renew { version, term } => (Some(version), term),
                    Step::Wait => continue,
                };
                // Lost on the way there.
                if fate == 0 { continue; }
                now += Duration::from_millis(travel);
                if lease.as_ref().map(|lease| &lease.version) != version.as_ref() { continue; }
                versions += 1;
                prop_assert!(term >= last_term);
                last_term = term;
                let written = record(&versions.to_string(), Some(&format!("c{who}")), term);
                lease = Some(written.clone());
                // Lost on the way back.
                if fate == 1 { continue; }
                now += Duration::from_millis(travel);
                all[who].written(sent, written);
                let leading = all.iter().filter(|one| one.held().is_some_and(|(_, until)| until > now));
                prop_assert!(leading.count() <= 1);
            }
        }
    }
}
