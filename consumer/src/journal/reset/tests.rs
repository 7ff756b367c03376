//! Owners come, reset, crash and go, records and commits arrive late: what a later owner reads is judged
//! against what really happened.

use super::*;
use crate::journal::{
    Body, Entry, Finished, Incarnation, Known, Log, Progress, Record, WINDOW, Witness, decode,
    encode,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type Offsets = BTreeSet<u64>;

/// What happens next; numbers choose among what is possible.
#[derive(Clone, Debug)]
enum Step {
    Send(u64),
    Finish(u64),
    Write {
        late: bool,
    },
    Commit {
        late: bool,
    },
    /// To a position; its record is acknowledged (perhaps after one whose answer was lost), lost on the way for
    /// now, or the owner ends before it knows.
    Reset(u64, Fate),
    Claim,
    /// The claimant reads and runs; who ran before does not any more.
    Start,
    Release,
    Crash,
    RecordArrives(usize),
    CommitArrives(usize),
    /// More records than readers look at.
    Many,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Acknowledged,
    Twice,
    Late,
    CrashAfter,
}

#[derive(Clone, Debug)]
struct Owner {
    epoch: Epoch,
    reset: Option<Reset>,
    finished: Offsets,
    /// Its reset is not known to be in force: it does nothing.
    stopped: bool,
}

#[derive(Debug, Default)]
struct World {
    journal: Vec<Record>,
    late_records: Vec<Record>,
    committed: u64,
    late_commits: Vec<u64>,
    end: u64,
    owner: Option<Owner>,
    claimant: Option<Epoch>,
    /// Finished in each generation, by whom it may concern.
    truth: BTreeMap<Option<Generation>, Offsets>,
    /// The reset that was told to be done last, or that an owner began with since, and attempts after that
    /// of which nobody knows what came of them.
    told: Option<Generation>,
    unsure: BTreeSet<Generation>,
    /// What a clean end wrote, until something else happens to it.
    released: Option<(Option<Generation>, Offsets)>,
    starts: u32,
}

fn watermark(finished: &Offsets) -> u64 {
    let mut next = 0;
    finished
        .iter()
        .take_while(|offset| {
            next += 1;
            **offset + 1 == next
        })
        .count() as u64
}

fn set(finished: &Offsets) -> Finished {
    Finished::new(0, finished.iter().map(|offset| *offset..offset + 1))
}

impl World {
    fn append(&mut self, body: Body, late: bool) {
        let by: Incarnation = "x".into();
        let record = Record { by, body };
        if late {
            self.late_records.push(record);
        } else {
            self.journal.push(record);
        }
    }

    fn write(&mut self, owner: &Owner, late: bool) {
        let progress = Progress {
            finished: set(&owner.finished),
            reset: owner.reset.clone(),
            ..Progress::default()
        };
        let epoch = owner.epoch;
        self.append(Body::Progress { epoch, progress }, late);
    }

    fn known(&self) -> Known {
        let mut log = Log::default();
        // More than that readers do not look at.
        let before = self.journal.len().saturating_sub(WINDOW);
        for (offset, record) in (0..).zip(&self.journal).skip(before) {
            let record = decode(&encode(record));
            log.push(Entry { offset, record });
        }
        log.finished(|_: &Witness| true)
    }

    fn highest_claim(&self) -> Option<Epoch> {
        let claims = self.journal.iter().enumerate();
        let claims = claims.filter(|(_, record)| matches!(record.body, Body::Claim { .. }));
        claims.map(|(offset, _)| offset as u64).next_back()
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Send(count) => self.end += count,
            Step::Claim => {
                self.claimant = Some(self.journal.len() as u64);
                self.append(Body::Claim { predecessor: None }, false);
            }
            Step::Start => self.start(),
            Step::RecordArrives(at) => {
                if !self.late_records.is_empty() {
                    let record = self.late_records.remove(at % self.late_records.len());
                    self.journal.push(record);
                }
            }
            Step::CommitArrives(at) => {
                if !self.late_commits.is_empty() {
                    let commit = self.late_commits.remove(at % self.late_commits.len());
                    self.committed = commit;
                }
            }
            Step::Crash => {
                // Within a persist interval nothing of it was said.
                self.owner = None;
            }
            step => {
                if let Some(mut owner) = self.owner.take().filter(|owner| !owner.stopped) {
                    let stays = self.owner_does(&mut owner, step);
                    self.owner = stays.then_some(owner);
                }
            }
        }
    }

    /// Returns whether it is still there.
    fn owner_does(&mut self, owner: &mut Owner, step: &Step) -> bool {
        let generation = owner.reset.as_ref().map(|reset| reset.generation);
        match step {
            Step::Finish(choice) => {
                let open = (0..self.end).filter(|offset| !owner.finished.contains(offset));
                let open: Vec<u64> = open.take(8).collect();
                if let Some(offset) = open.get(*choice as usize % open.len().max(1)) {
                    owner.finished.insert(*offset);
                    let truth = self.truth.entry(generation).or_default();
                    truth.insert(*offset);
                }
            }
            Step::Write { late } => self.write(owner, *late),
            Step::Many => (0..70).for_each(|_| self.write(owner, false)),
            Step::Commit { late } if *late => self.late_commits.push(watermark(&owner.finished)),
            Step::Commit { .. } => self.committed = watermark(&owner.finished),
            Step::Reset(position, fate) => return self.reset(owner, *position, *fate),
            Step::Release => {
                // It waits for the commit, and writes last.
                self.committed = watermark(&owner.finished);
                let progress = Progress {
                    finished: set(&owner.finished),
                    reset: owner.reset.clone(),
                    ..Progress::default()
                };
                let epoch = owner.epoch;
                self.append(Body::Released { epoch, progress }, false);
                self.released = Some((generation, owner.finished.clone()));
                return false;
            }
            _ => {}
        }
        true
    }

    fn reset(&mut self, owner: &mut Owner, position: u64, fate: Fate) -> bool {
        let position = position.min(self.end);
        let former = owner.reset.as_ref();
        let number = former.filter(|former| former.generation.epoch == owner.epoch);
        let reset = Reset {
            generation: Generation {
                epoch: owner.epoch,
                number: number.map_or(0, |former| former.generation.number + 1),
            },
            begins: true,
            until: former.map_or(0, |former| former.until).max(self.end),
            from: watermark(&owner.finished),
            position,
            skipped: 0,
            replayed: 0,
            requests: Reset::requests("r", former),
        };
        let generation = reset.generation;
        self.truth.insert(Some(generation), (0..position).collect());
        let progress = Progress {
            finished: Finished::below(position),
            reset: Some(reset.clone()),
            ..Progress::default()
        };
        let epoch = owner.epoch;
        let body = Body::Progress { epoch, progress };
        if matches!(fate, Fate::Twice) {
            self.append(body.clone(), true);
        }
        self.append(body, matches!(fate, Fate::Late));
        match fate {
            // What the journal says behind it decides.
            Fate::Acknowledged | Fate::Twice if self.highest_claim() == Some(epoch) => {
                owner.reset = Some(reset.followed());
                owner.finished = (0..position).collect();
                self.told = Some(generation);
                self.unsure.clear();
                self.released = None;
                true
            }
            Fate::Acknowledged | Fate::Twice | Fate::Late => {
                self.unsure.insert(generation);
                owner.stopped = true;
                true
            }
            Fate::CrashAfter => {
                self.unsure.insert(generation);
                false
            }
        }
    }

    fn start(&mut self) {
        let Some(epoch) = self.claimant.take() else {
            return;
        };
        self.starts += 1;
        let known = self.known();
        let generation = known.reset.as_ref().map(|reset| reset.generation);
        assert!(
            generation == self.told || generation.is_some_and(|of| self.unsure.contains(&of)),
            "{generation:?} instead of {:?} or {:?}",
            self.told,
            self.unsure
        );
        // From now on there is nothing unsure about it: what arrives later is void.
        self.told = generation;
        self.unsure.clear();
        let mut finished: Offsets = (0..self.end)
            .filter(|offset| known.finished.contains(*offset))
            .collect();
        if known.believes(self.committed) {
            finished.extend(0..self.committed);
        }
        let truth = self.truth.entry(generation).or_default();
        let wrong: Vec<_> = finished.difference(truth).collect();
        assert!(wrong.is_empty(), "{wrong:?} were not finished (P2)");
        if let Some((of, released)) = self.released.take()
            && of == generation
        {
            let again: Vec<_> = released.difference(&finished).collect();
            assert!(
                again.is_empty(),
                "{again:?} run again after a clean end (P6)"
            );
        }
        let owner = Owner {
            epoch,
            reset: known.reset,
            finished,
            stopped: false,
        };
        // The first record follows at once, and is known to be there before anything else is relied on.
        self.write(&owner, false);
        self.owner = Some(owner);
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fate = prop_oneof![
        3 => Just(Fate::Acknowledged), 1 => Just(Fate::Twice), 1 => Just(Fate::Late), 1 => Just(Fate::CrashAfter)
    ];
    let step = prop_oneof![
        2 => (1u64..6).prop_map(Step::Send),
        6 => (0u64..8).prop_map(Step::Finish),
        3 => any::<bool>().prop_map(|late| Step::Write { late }),
        3 => any::<bool>().prop_map(|late| Step::Commit { late }),
        2 => (0u64..40, fate).prop_map(|(to, fate)| Step::Reset(to, fate)),
        2 => Just(Step::Claim),
        3 => Just(Step::Start),
        1 => Just(Step::Release),
        1 => Just(Step::Crash),
        1 => any::<usize>().prop_map(Step::RecordArrives),
        1 => any::<usize>().prop_map(Step::CommitArrives),
        1 => Just(Step::Many),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    /// Whoever starts does so after the last reset that was told to be done, or one that nobody knows the
    /// outcome of; takes nothing for finished that was not, since; and runs nothing again after a clean end.
    #[test]
    fn every_later_owner_starts_where_a_reset_left_the_queue(steps in steps()) {
        let mut world = World::default();
        world.take(&Step::Claim);
        world.take(&Step::Start);
        for step in &steps {
            world.take(step);
        }
        world.take(&Step::Claim);
        world.take(&Step::Start);
        prop_assert!(world.starts > 1);
    }
}

fn record(body: Body) -> Record {
    let by = "x".into();
    Record { by, body }
}

fn made(epoch: Epoch, position: u64, until: u64) -> Reset {
    Reset {
        generation: Generation { epoch, number: 0 },
        begins: true,
        until,
        from: 9,
        position,
        skipped: 0,
        replayed: 0,
        requests: Reset::requests("r", None),
    }
}

fn progress(epoch: Epoch, watermark: u64, reset: Option<Reset>) -> Record {
    let finished = Finished::below(watermark);
    let progress = Progress {
        finished,
        reset,
        ..Progress::default()
    };
    record(Body::Progress { epoch, progress })
}

fn claim() -> Record {
    record(Body::Claim { predecessor: None })
}

fn known(records: &[Record]) -> Known {
    let world = World {
        journal: records.to_vec(),
        ..World::default()
    };
    world.known()
}

#[test]
fn what_was_finished_before_a_reset_is_not_any_more() {
    let reset = made(0, 3, 12);
    let mut journal = vec![
        claim(),
        progress(0, 9, None),
        progress(0, 3, Some(reset.clone())),
    ];
    let after = known(&journal);
    assert_eq!(after.finished, Finished::below(3));
    assert!(!after.believes(9) && !after.believes(12) && after.believes(13));
    // What was sent before and arrives after says nothing.
    journal.push(progress(0, 10, None));
    assert_eq!(known(&journal).finished, Finished::below(3));
    journal.push(progress(0, 5, Some(reset.followed())));
    assert_eq!(known(&journal).finished, Finished::below(5));
    // The next owner goes on, and the record that made it need not be seen any more.
    journal.push(claim());
    journal.extend((0..70).map(|_| progress(5, 12, Some(reset.followed()))));
    let later = known(&journal);
    assert_eq!(later.finished, Finished::below(12));
    assert!(later.believes(9));
}

#[test]
fn a_reset_that_arrives_after_the_next_claim_is_void() {
    let reset = made(0, 3, 12);
    let late = [
        claim(),
        progress(0, 9, None),
        claim(),
        progress(0, 3, Some(reset.clone())),
    ];
    assert_eq!(known(&late).finished, Finished::below(9));
    assert_eq!(known(&late).reset, None);
    // Also for whoever sees no claim any more, but the record of who read the journal before it arrived.
    let seen = [progress(0, 3, Some(reset)), progress(7, 10, None)];
    assert_eq!(known(&seen).finished, Finished::below(10));
}

#[test]
fn the_last_ids_are_remembered_and_each_once() {
    let mut last: Option<Reset> = None;
    for id in ["a", "b", "c", "d", "e", "f", "g", "h", "b", "i"] {
        let requests = Reset::requests(id, last.as_ref());
        last = Some(Reset {
            requests,
            ..made(0, 0, 0)
        });
    }
    let last = last.unwrap();
    let ids: Vec<&str> = last.requests.iter().map(|id| &**id).collect();
    assert_eq!(ids, ["i", "b", "h", "g", "f", "e", "d", "c"]);
    assert!(last.obeyed("c") && !last.obeyed("a"));
}
