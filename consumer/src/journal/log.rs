//! The last records about one queue, and what follows from them.

use super::{Body, Epoch, Finished, Incarnation, Keys, Record, Unreadable, Witness};
use std::collections::{BTreeMap, VecDeque};

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
}

/// The last records about one queue, as one reader has seen them.
#[derive(Clone, Debug, Default)]
pub struct Log {
    entries: VecDeque<Entry>,
    end: u64,
    /// The journal once was longer than it is now.
    shrunk: bool,
}

impl Log {
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
        if max < self.end {
            self.shrunk = true;
            self.entries.clear();
            self.end = min;
        }
        self.end = self.end.max(min);
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
                    (State::Released { .. }, _) | (_, State::Claimed) => {}
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

    /// What is finished by all records whose witness passes the check, and failed attempts of suspects.
    /// `intact` says whether the message a witness names still lies where it lay.
    pub fn finished(&self, intact: impl Fn(&Witness) -> bool) -> Known {
        let mut known = Known::default();
        for entry in &self.entries {
            let Ok(record) = &entry.record else {
                known.unreadable += 1;
                continue;
            };
            let (Body::Progress { progress, .. } | Body::Released { progress, .. }) = &record.body
            else {
                continue;
            };
            if progress.witness.is_some_and(|witness| !intact(&witness)) {
                known.discarded += 1;
                continue;
            }
            known.finished.add(&progress.finished);
            for (offset, attempts) in &progress.suspects {
                let most = known.suspects.entry(*offset).or_default();
                *most = (*attempts).max(*most);
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
                Body::Claim { .. } => None,
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
}
