//! The last records about one queue, and what follows from them.

use super::{
    Body, Epoch, Finished, Incarnation, Keys, Progress, Record, Reset, Unreadable, Witness,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many records readers look at.
pub const WINDOW: usize = 64;

/// A record where it lies.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its offset in the journal's queue.
    pub offset: u64,
    /// What was read.
    pub record: Result<Record, Unreadable>,
}

/// Who may run, as far as the journal says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Head {
    /// Offset after the last record; 0 if there never was one.
    pub end: u64,
    /// The highest epoch; none if no record can be read.
    pub newest: Option<Newest>,
    /// A record that cannot be read may say more about the highest epoch, or start another.
    pub doubtful: bool,
}

impl Head {
    /// Whether the last tenure ended in order.
    pub fn is_released(&self) -> bool {
        let released = |newest: &Newest| matches!(newest.state, State::Released { .. });
        !self.doubtful && self.newest.as_ref().is_some_and(released)
    }
}

/// The tenure with the highest epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Newest {
    /// Its epoch.
    pub epoch: Epoch,
    /// Whose it is.
    pub by: Incarnation,
    /// How far it came.
    pub state: State,
}

/// How far a tenure came, by its records.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Claimed and nothing more: it may be waiting or running.
    Claimed,
    /// It ran.
    Ran {
        /// Keys it did not run yet.
        waiting: Keys,
    },
    /// It ended.
    Released {
        /// Keys of which calls may still run.
        running: Keys,
    },
    /// It ended before it ran.
    Withdrawn {
        /// Who ran the queue before it was claimed.
        former: Incarnation,
        /// Keys that one did not run yet.
        waiting: Keys,
    },
}

/// The last records about one queue, as one reader has seen them.
#[derive(Clone, Debug, Default)]
pub struct Log {
    entries: VecDeque<Entry>,
    end: u64,
    /// Where its end was, by a reading whose records are not remembered here.
    seen: u64,
    /// The journal once was longer than it is now.
    shrunk: bool,
}

impl Log {
    /// What must not be forgotten if a reading that goes on from here fails: how long the journal was.
    pub fn without_records(&self) -> Self {
        Self {
            seen: self.end.max(self.seen),
            shrunk: self.shrunk,
            ..Self::default()
        }
    }

    /// Offset after the last record seen.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Takes in the next record; offsets rise.
    pub fn push(&mut self, entry: Entry) {
        self.end = entry.offset + 1;
        self.entries.push_back(entry);
        if self.entries.len() > WINDOW {
            self.entries.pop_front();
        }
    }

    /// The journal now lies between these offsets: what is not there any more is forgotten. A journal that
    /// ends before what was seen of it was recreated or cut off, which no head forgets.
    pub fn bounds(&mut self, min: u64, max: u64) {
        if max < self.end.max(self.seen) {
            self.shrunk = true;
            self.entries.clear();
            (self.end, self.seen) = (min, 0);
        }
        self.end = self.end.max(min);
    }

    /// Whether everything of a journal that lies between these offsets was seen, so that reading on would
    /// bring nothing.
    pub fn is_whole(&self, min: u64, max: u64) -> bool {
        min <= self.end && max == self.end && self.seen <= max
    }

    /// Who may run.
    pub fn head(&self) -> Head {
        let mut newest: Option<Newest> = None;
        let mut doubtful_at = None;
        for entry in &self.entries {
            let (epoch, by, state) = match &entry.record {
                Ok(Record { by, body }) => match body {
                    Body::Claim { .. } => (entry.offset, by, State::Claimed),
                    Body::Progress { epoch, progress } => {
                        let waiting = progress.keys.clone();
                        (*epoch, by, State::Ran { waiting })
                    }
                    Body::Released { epoch, progress } => {
                        let running = progress.keys.clone();
                        (*epoch, by, State::Released { running })
                    }
                    Body::Withdrawn {
                        epoch,
                        former,
                        waiting,
                    } => {
                        let (former, waiting) = (former.clone(), waiting.clone());
                        (*epoch, by, State::Withdrawn { former, waiting })
                    }
                },
                Err(Unreadable::Version { by, epoch, .. }) => {
                    doubtful_at = Some(entry.offset);
                    (epoch.unwrap_or(entry.offset), by, State::Claimed)
                }
                Err(Unreadable::Damaged(_)) => {
                    doubtful_at = Some(entry.offset);
                    continue;
                }
            };
            match &mut newest {
                Some(known) if epoch < known.epoch => {}
                Some(known) if epoch == known.epoch => match (&known.state, &state) {
                    // What an owner sent before it released may arrive after.
                    (State::Released { .. } | State::Withdrawn { .. }, _) | (_, State::Claimed) => {
                    }
                    _ => known.state = state,
                },
                _ => {
                    let by = by.clone();
                    newest = Some(Newest { epoch, by, state });
                }
            }
        }
        let doubtful = match (&newest, doubtful_at) {
            (Some(newest), Some(at)) => at > newest.epoch,
            (None, _) => self.end > 0,
            (_, None) => false,
        };
        Head {
            end: self.end,
            newest,
            doubtful: doubtful || self.shrunk,
        }
    }

    /// What is finished by all records whose witness passes the check, since the last reset, and failed
    /// attempts of suspects: one more than an owner wrote who has not released the queue, for it may have
    /// ended by running them. `intact` says whether the message a witness names still lies where it lay.
    pub fn finished(&self, intact: impl Fn(&Witness) -> bool) -> Known {
        let mut known = Known::default();
        let mut told: Vec<(Epoch, &Progress)> = Vec::new();
        let mut released: BTreeSet<Epoch> = BTreeSet::new();
        // The highest epoch before an entry.
        let mut highest = None;
        for entry in &self.entries {
            let (epoch, progress) = match &entry.record {
                Ok(record) => match &record.body {
                    Body::Claim { .. } => (entry.offset, None),
                    Body::Withdrawn { epoch, .. } => (*epoch, None),
                    Body::Progress { epoch, progress } => (*epoch, Some(progress)),
                    Body::Released { epoch, progress } => {
                        released.insert(*epoch);
                        (*epoch, Some(progress))
                    }
                },
                Err(unreadable) => {
                    known.unreadable += 1;
                    match unreadable {
                        Unreadable::Version { epoch, .. } => (epoch.unwrap_or(entry.offset), None),
                        Unreadable::Damaged(_) => continue,
                    }
                }
            };
            let superseded = highest > Some(epoch);
            highest = highest.max(Some(epoch));
            let Some(progress) = progress else { continue };
            if progress.witness.is_some_and(|witness| !intact(&witness)) {
                known.discarded += 1;
                continue;
            }
            let begins = progress.reset.as_ref().is_some_and(|reset| reset.begins);
            if !(begins && superseded) {
                told.push((epoch, progress));
            }
        }
        let generation = |progress: &Progress| progress.reset.as_ref().map(|of| of.generation);
        let newest = told
            .iter()
            .max_by_key(|(epoch, progress)| (*epoch, generation(progress)));
        let Some(newest) = newest.map(|(_, progress)| *progress) else {
            return known;
        };
        known.reset = newest.reset.as_ref().map(Reset::followed);
        told.retain(|(_, progress)| generation(progress) == generation(newest));
        for (epoch, progress) in told {
            known.finished.add(&progress.finished);
            let unknown = u32::from(!released.contains(&epoch));
            for (offset, attempts) in &progress.suspects {
                let most = known.suspects.entry(*offset).or_default();
                *most = attempts.saturating_add(unknown).max(*most);
            }
        }
        known
            .suspects
            .retain(|offset, _| !known.finished.contains(*offset));
        known
    }

    /// Every witness among the records.
    pub fn witnesses(&self) -> impl Iterator<Item = Witness> {
        self.entries.iter().filter_map(|entry| {
            let record = entry.record.as_ref().ok()?;
            match &record.body {
                Body::Progress { progress, .. } | Body::Released { progress, .. } => {
                    progress.witness
                }
                Body::Claim { .. } | Body::Withdrawn { .. } => None,
            }
        })
    }
}

/// What the journal knows of messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// What is finished.
    pub finished: Finished,
    /// Failed attempts of messages that may have killed their handler.
    pub suspects: BTreeMap<u64, u32>,
    /// Records that are about another topic of the same name.
    pub discarded: u32,
    /// Records that cannot be read.
    pub unreadable: u32,
    /// The reset since which this is.
    pub reset: Option<Reset>,
}

impl Known {
    /// Whether everything below this committed offset is finished, too. Not so while it may be one from
    /// before a reset.
    pub fn believes(&self, committed: u64) -> bool {
        let behind = |reset: &Reset| reset.is_behind(self.finished.watermark());
        let older = |reset: &Reset| committed <= reset.until && behind(reset);
        !self.reset.as_ref().is_some_and(older)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(watermark: u64, range: std::ops::Range<u64>) -> Finished {
        Finished::new(watermark, std::iter::once(range))
    }

    fn claim(by: &str) -> Result<Record, Unreadable> {
        let body = Body::Claim { predecessor: None };
        let by = by.into();
        Ok(Record { by, body })
    }

    fn progress(finished: Finished, witness: Option<u64>) -> Progress {
        let witness = witness.map(|offset| Witness {
            offset,
            stored_at_ms: 1,
            physical_offset: 1,
        });
        Progress {
            finished,
            witness,
            ..Progress::default()
        }
    }

    fn ran(by: &str, epoch: Epoch, progress: Progress) -> Result<Record, Unreadable> {
        let body = Body::Progress { epoch, progress };
        let by = by.into();
        Ok(Record { by, body })
    }

    fn released(by: &str, epoch: Epoch) -> Result<Record, Unreadable> {
        let progress = Progress::default();
        let body = Body::Released { epoch, progress };
        let by = by.into();
        Ok(Record { by, body })
    }

    fn withdrawn(by: &str, epoch: Epoch, former: &str) -> Result<Record, Unreadable> {
        let body = Body::Withdrawn {
            epoch,
            former: former.into(),
            waiting: Keys::new([7]),
        };
        let by = by.into();
        Ok(Record { by, body })
    }

    fn log(records: impl IntoIterator<Item = Result<Record, Unreadable>>) -> Log {
        let mut log = Log::default();
        for (offset, record) in (0..).zip(records) {
            log.push(Entry { offset, record });
        }
        log
    }

    fn newest(log: &Log) -> (Epoch, String, State) {
        let newest = log.head().newest.unwrap();
        (newest.epoch, newest.by.to_string(), newest.state)
    }

    #[test]
    fn the_highest_epoch_says_who_may_run_also_when_an_older_one_writes_last() {
        let old = ran("a", 0, progress(Finished::below(9), None));
        let log = log([claim("a"), claim("b"), old, released("a", 0)]);
        assert_eq!(newest(&log), (1, "b".into(), State::Claimed));
        assert_eq!(log.finished(|_| true).finished, Finished::below(9));
    }

    #[test]
    fn a_claim_that_was_withdrawn_says_who_ran_the_queue_before_unless_another_follows() {
        let finished = || progress(Finished::below(9), None);
        let of_a = || [claim("a"), ran("a", 0, finished())];
        let of_b = || [claim("b"), withdrawn("b", 2, "a"), claim("b")];
        let state = State::Withdrawn {
            former: "a".into(),
            waiting: Keys::new([7]),
        };
        let once = log(of_a().into_iter().chain(of_b().into_iter().take(2)));
        assert_eq!(newest(&once), (2, "b".into(), state));
        assert!(!once.head().is_released() && !once.head().doubtful);
        assert_eq!(once.finished(|_| true).finished, Finished::below(9));
        // Perhaps the same claim once more, late.
        let again = log(of_a().into_iter().chain(of_b()));
        assert_eq!(newest(&again), (4, "b".into(), State::Claimed));
    }

    #[test]
    fn a_journal_that_grew_shrank_or_was_cut_off_at_its_beginning_is_not_whole() {
        let log = log([claim("a"), claim("b")]);
        assert!(log.is_whole(0, 2) && log.is_whole(2, 2));
        assert!(!log.is_whole(0, 3) && !log.is_whole(0, 1) && !log.is_whole(3, 3));
    }

    #[test]
    fn an_epoch_is_known_by_its_progress_long_after_its_claim() {
        let records = (0..200).map(|_| ran("a", 0, progress(Finished::default(), None)));
        let log = log([claim("a")].into_iter().chain(records));
        let waiting = Keys::default();
        assert_eq!(newest(&log), (0, "a".into(), State::Ran { waiting }));
    }

    #[test]
    fn what_arrives_after_released_does_not_undo_it() {
        let late = ran("a", 0, progress(Finished::below(3), None));
        let log = log([claim("a"), released("a", 0), late]);
        assert!(log.head().is_released());
        assert_eq!(log.finished(|_| true).finished, Finished::below(3));
    }

    #[test]
    fn what_is_finished_is_the_union_of_what_passes_the_check() {
        let log = log([
            claim("a"),
            ran("a", 0, progress(set(2, 5..7), Some(6))),
            ran("a", 0, progress(set(1, 20..21), Some(20))),
            claim("b"),
            ran("b", 3, progress(set(4, 8..9), None)),
        ]);
        let known = log.finished(|witness| witness.offset != 20);
        assert_eq!(known.finished, Finished::new(4, [5..7, 8..9]));
        assert_eq!((known.discarded, known.unreadable), (1, 0));
    }

    #[test]
    fn an_owner_that_ended_while_it_ran_a_suspect_counts_as_an_attempt_of_it() {
        let suspects = |list: &[(u64, u32)]| Progress {
            suspects: list.to_vec(),
            ..Progress::default()
        };
        let released = |epoch, list| {
            let progress = suspects(list);
            let (by, body) = ("a".into(), Body::Released { epoch, progress });
            Ok(Record { by, body })
        };
        let known = |records: Vec<Result<Record, Unreadable>>| {
            let known = log(records).finished(|_| true);
            known.suspects.into_iter().collect::<Vec<_>>()
        };
        let mut records = vec![claim("a"), ran("a", 0, suspects(&[(4, 1), (5, 1)]))];
        assert_eq!(known(records.clone()), [(4, 2), (5, 2)]);
        // In good order: what it wrote is what happened.
        let in_order = [records.clone(), vec![released(0, &[(4, 1)])]].concat();
        assert_eq!(known(in_order), [(4, 1), (5, 1)]);
        // The next one inherits it and crashes too; what it finished is of no account any more.
        let next = ran(
            "b",
            2,
            Progress {
                finished: set(0, 5..6),
                ..suspects(&[(4, 2)])
            },
        );
        records.extend([claim("b"), next]);
        assert_eq!(known(records), [(4, 3)]);
    }

    #[test]
    fn garbage_and_later_versions_leave_doubt_and_never_an_exemption() {
        let damaged = || Err(Unreadable::Damaged("a test"));
        assert!(log([damaged()]).head().doubtful);
        assert!(
            log([claim("a"), released("a", 0), damaged()])
                .head()
                .doubtful
        );
        assert!(
            !log([damaged(), claim("a"), released("a", 1)])
                .head()
                .doubtful
        );
        let version = Err(Unreadable::Version {
            version: 9,
            by: "new".into(),
            epoch: None,
        });
        let log = log([claim("a"), version]);
        assert_eq!(newest(&log), (1, "new".into(), State::Claimed));
    }

    #[test]
    fn a_journal_that_was_recreated_is_never_taken_for_one_that_never_was() {
        let mut log = log([claim("a"), claim("b")]);
        log.bounds(0, 0);
        let head = log.head();
        assert!(head.doubtful && head.newest.is_none());
        assert!(!Log::default().head().doubtful);
    }

    #[test]
    fn a_reading_that_failed_does_not_hide_that_a_journal_was_recreated() {
        let log = log([claim("a"), claim("b")]);
        let mut again = log.without_records().without_records();
        assert!(!again.is_whole(0, 0) && !again.is_whole(0, 2));
        let mut recreated = again.clone();
        recreated.bounds(0, 0);
        assert!(recreated.head().doubtful);
        assert!(recreated.without_records().head().doubtful);
        // It is as it was: the same is read again.
        again.bounds(0, 2);
        for entry in &log.entries {
            again.push(entry.clone());
        }
        assert_eq!(again.head(), log.head());
        assert!(again.is_whole(0, 2));
    }
}
