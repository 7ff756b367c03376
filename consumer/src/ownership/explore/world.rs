//! Members that run the production state machine, one queue, one broker, and calls to handlers.
//!
//! What is a step and what is not: a member's machine runs as soon as something reaches it, so freezing
//! it is a fault. Requests are carried out by the broker at any time after they were sent and answered at
//! any time after that, each a step of its own. Dispatching, progress, commits and the end of a call are
//! steps that may or may not be taken. Time advances by one unit per tick.

use super::super::tenure::Phase;
use super::super::{Death, Deed, Facts, Tenure, Terms, Ticket, Wanted};
use crate::journal::{Head, Incarnation, Keys, Newest, State};
use crate::lane::Time;
use std::time::Duration;

pub const UNIT: Duration = Duration::from_secs(1);
/// Now, always: it is the past that moves.
pub const NOW: Time = Duration::from_secs(100);

/// A slot for processes of one pod name, and the number of the process in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name(pub u8, pub u8);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    pub message: u8,
    /// Ticks until it is over at the latest.
    pub left: u8,
    pub slot: u8,
    /// Its member still runs under the assignment that made it.
    pub current: bool,
    /// Its handler is in the pod that the slot has now.
    pub same_pod: bool,
}

/// A request or an answer under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    Ask(Ask),
    Locked(Option<bool>),
    Unlocked,
    Read(Ticket, Option<(Head, Known)>),
    Appended(Ticket, Option<u64>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    Lock,
    Unlock,
    UnlockFor(Incarnation),
    Read(Ticket),
    Append(Ticket, Record),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub by: Incarnation,
    /// None: a claim.
    pub epoch: Option<u64>,
    pub released: bool,
    /// *Withdrawn*: who ran the queue before.
    pub former: Option<Incarnation>,
    pub keys: Keys,
    pub finished: u8,
}

/// What a reading says of messages: finished ones by the journal, and the committed offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Known {
    pub finished: u8,
    pub committed: u8,
}

/// A queue that a member runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    pub finished: u8,
    pub lease: Time,
    pub held: Keys,
    pub held_until: Time,
    pub draining: bool,
    /// What *released* is to say, if the drain is over: whatever ends later is not in it, however often it
    /// has to be sent.
    pub drained: Option<(u8, Keys)>,
    /// What the *released* record that was acknowledged says.
    pub released: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    pub tenure: Tenure,
    pub up: bool,
    pub frozen: bool,
    pub cut: bool,
    /// What is proven of each process that was here before.
    pub earlier: Vec<Death>,
    pub wires: Vec<Wire>,
    pub run: Option<Run>,
    /// What the last two readings said: the one before the claim, and the last.
    pub known: [Known; 2],
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Journal {
    pub end: u64,
    pub newest: Option<Newest>,
    /// Finished by records of the highest epoch, and by others.
    pub finished: u8,
    pub finished_before: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub members: Vec<Member>,
    pub lock: Option<Name>,
    pub journal: Journal,
    pub committed: u8,
    pub calls: Vec<Call>,
    /// Records whose writers gave them up, and that may still arrive.
    pub late: Vec<Record>,
    pub finished: u8,
    /// Finished before a clean end.
    pub clean: u8,
    pub faults: u8,
    pub gives: u8,
}

/// What does not change: bounds, names, rules.
pub struct Setting {
    /// Key of each message.
    pub keys: Vec<u8>,
    /// Terms of each process of each slot.
    pub terms: Vec<Vec<Terms>>,
    /// Rule 8: what is finished is the union of all records, read again before the first dispatch.
    pub union_of_records: bool,
    pub call_units: u8,
    /// How processes end: what is proven when the next one of the slot starts.
    pub deaths: &'static [Death],
    /// Answers to locks and readings arrive at any time after they were given, and lock requests may have
    /// been sent long before they are carried out. Without: the broker carries out each as it is sent and
    /// the answer is there at once, which leaves out nothing but delays that other delays amount to.
    pub slow_answers: bool,
}

impl Setting {
    pub fn name_of(&self, incarnation: &Incarnation) -> Name {
        let digits = incarnation.as_bytes();
        Name(digits[0] - b'a', digits[1] - b'0')
    }

    pub fn all(&self) -> u8 {
        (1 << self.keys.len()) - 1
    }
}

pub fn prefix(count: u8) -> u8 {
    (1 << count) - 1
}

pub fn watermark(finished: u8) -> u8 {
    finished.trailing_ones() as u8
}

impl Member {
    fn new() -> Self {
        Self {
            tenure: Tenure::new(),
            up: true,
            frozen: false,
            cut: false,
            earlier: Vec::new(),
            wires: Vec::new(),
            run: None,
            known: [Known::default(); 2],
        }
    }

    pub fn generation(&self) -> u8 {
        self.earlier.len() as u8
    }

    pub fn acts(&self) -> bool {
        self.up && !self.frozen
    }

    /// The process ends: what it had in memory is gone.
    pub fn forget(&mut self) {
        let earlier = std::mem::take(&mut self.earlier);
        *self = Self {
            earlier,
            ..Self::new()
        };
    }
}

impl World {
    pub fn new(setting: &Setting, faults: u8, gives: u8) -> Self {
        let mut world = Self {
            members: vec![Member::new(); setting.terms.len()],
            lock: None,
            journal: Journal::default(),
            committed: 0,
            calls: Vec::new(),
            late: Vec::new(),
            finished: 0,
            clean: 0,
            faults,
            gives,
        };
        for slot in 0..world.members.len() {
            world.want(setting, slot, Wanted::Yes);
        }
        world
    }

    pub fn terms<'s>(&self, setting: &'s Setting, slot: usize) -> &'s Terms {
        &setting.terms[slot][usize::from(self.members[slot].generation())]
    }

    pub fn want(&mut self, setting: &Setting, slot: usize, wanted: Wanted) {
        let terms = self.terms(setting, slot);
        self.members[slot].tenure.want(NOW, wanted, terms);
        self.settle(setting, slot);
    }

    fn facts(&self, setting: &Setting, asker: usize, about: Option<&Incarnation>) -> Facts {
        let Some(about) = about else {
            return Facts::default();
        };
        let Name(slot, generation) = setting.name_of(about);
        let member = &self.members[usize::from(slot)];
        let death = member.earlier.get(usize::from(generation)).copied();
        let runs = |call: &Call| call.slot == slot && call.same_pod;
        let listed = member.up && !member.cut;
        Facts {
            absent: death.is_some() || !member.up || member.cut,
            // That an executor alone died is known in its own pod only.
            death: death
                .filter(|death| *death == Death::Pod || usize::from(slot) == asker)
                .unwrap_or_default(),
            idle: !self.calls.iter().any(runs),
            back: listed && member.generation() > generation,
        }
    }

    /// Lets a member's machine run until it has nothing more to do.
    pub fn settle(&mut self, setting: &Setting, slot: usize) {
        if !self.members[slot].acts() {
            return;
        }
        let terms = self.terms(setting, slot);
        loop {
            let facts = self.facts(setting, slot, self.members[slot].tenure.subject());
            let member = &mut self.members[slot];
            let mut deeds = Vec::new();
            member.tenure.poll(NOW, facts, terms, &mut deeds);
            if member.tenure.is_lock_due(NOW) {
                member.tenure.lock_asked(NOW);
                member.wires.push(Wire::Ask(Ask::Lock));
            }
            let idle = deeds.is_empty();
            for deed in deeds {
                self.carry_out(setting, slot, deed);
            }
            if idle && !self.read_at_once(setting, slot) {
                break;
            }
        }
    }

    /// Unless answers are slow, a reading takes no time, but for the one before a claim.
    fn read_at_once(&mut self, setting: &Setting, slot: usize) -> bool {
        let member = &mut self.members[slot];
        if setting.slow_answers
            || member.cut
            || matches!(member.tenure.phase, Phase::Reading { .. })
        {
            return false;
        }
        let reads = |wire: &Wire| matches!(wire, Wire::Ask(Ask::Read(_)));
        let Some(at) = member.wires.iter().position(reads) else {
            return false;
        };
        let Wire::Ask(Ask::Read(ticket)) = member.wires.remove(at) else {
            return false;
        };
        let (head, known) = self.reading(setting);
        let terms = self.terms(setting, slot);
        let member = &mut self.members[slot];
        member.known[1] = known;
        let mut deeds = Vec::new();
        member
            .tenure
            .read(NOW, ticket, Some(&head), terms, &mut deeds);
        for deed in deeds {
            self.carry_out(setting, slot, deed);
        }
        true
    }

    /// Keys of which the member's own calls run, under its present assignment.
    pub fn running(&self, setting: &Setting, slot: usize) -> Keys {
        let own = |call: &&Call| usize::from(call.slot) == slot && call.current;
        let keys = self.calls.iter().filter(own);
        Keys::new(keys.map(|call| u64::from(setting.keys[usize::from(call.message)])))
    }

    pub fn carry_out(&mut self, setting: &Setting, slot: usize, deed: Deed) {
        let by = self.terms(setting, slot).me.clone();
        let member = &mut self.members[slot];
        let run = member.run.as_ref();
        let drained = run.and_then(|run| run.drained.clone());
        let finished = drained
            .as_ref()
            .map_or_else(|| run.map_or(0, |run| run.finished), |drained| drained.0);
        let running = drained.map(|drained| drained.1).unwrap_or_default();
        let record = |epoch, released, keys| Record {
            by,
            epoch,
            released,
            former: None,
            keys,
            finished,
        };
        let ask = match deed {
            Deed::Read(ticket) => Ask::Read(ticket),
            Deed::Claim { ticket, .. } => {
                member.known[0] = member.known[1];
                Ask::Append(ticket, record(None, false, Keys::default()))
            }
            Deed::Progress {
                ticket,
                epoch,
                waiting,
            } => Ask::Append(ticket, record(Some(epoch), false, waiting)),
            Deed::Released {
                ticket,
                epoch,
                waiting,
            } => Ask::Append(ticket, record(Some(epoch), true, waiting.union(&running))),
            Deed::Withdrawn {
                ticket,
                epoch,
                former,
                waiting,
            } => {
                let former = Some(former);
                let record = record(Some(epoch), false, waiting);
                Ask::Append(ticket, Record { former, ..record })
            }
            Deed::Unlock if !setting.slow_answers && !member.cut => {
                let name = Name(slot as u8, member.generation());
                member.tenure.unlocked();
                self.lock = self.lock.filter(|holder| *holder != name);
                return;
            }
            Deed::Unlock => Ask::Unlock,
            Deed::UnlockFor(whom) => Ask::UnlockFor(whom),
            Deed::Assign { lease, held } => {
                let known = member.known[usize::from(setting.union_of_records)];
                member.run = Some(Run {
                    finished: known.finished | prefix(known.committed),
                    lease,
                    held: held.keys,
                    held_until: held.until,
                    draining: false,
                    drained: None,
                    released: None,
                });
                return;
            }
            Deed::Renew { lease } => {
                if let Some(run) = &mut member.run {
                    run.lease = lease;
                }
                return;
            }
            Deed::Drain => {
                if let Some(run) = &mut member.run {
                    run.draining = true;
                }
                return;
            }
            Deed::Drop { .. } => {
                if let Some(run) = member.run.take()
                    && NOW < run.lease
                    && let Some(released) = run.released
                {
                    self.clean |= released;
                }
                for call in &mut self.calls {
                    call.current &= usize::from(call.slot) != slot;
                }
                return;
            }
        };
        member.wires.push(Wire::Ask(ask));
    }

    /// A record arrives at the broker. Returns its offset.
    pub fn land(&mut self, record: Record) -> u64 {
        let journal = &mut self.journal;
        let offset = journal.end;
        journal.end += 1;
        let epoch = record.epoch.unwrap_or(offset);
        let highest = journal.newest.as_ref().map(|newest| newest.epoch);
        let state = match (record.epoch, record.released, record.former) {
            (None, ..) => State::Claimed,
            (.., Some(former)) => State::Withdrawn {
                former,
                waiting: record.keys,
            },
            (_, false, _) => State::Ran {
                waiting: record.keys,
            },
            (_, true, _) => State::Released {
                running: record.keys,
            },
        };
        if highest.is_none_or(|highest| epoch > highest) {
            journal.finished_before |= journal.finished;
            journal.finished = record.finished;
            journal.newest = Some(Newest {
                epoch,
                by: record.by,
                state,
            });
        } else if highest == Some(epoch) {
            journal.finished |= record.finished;
            if let Some(newest) = &mut journal.newest
                && !matches!(
                    newest.state,
                    State::Released { .. } | State::Withdrawn { .. }
                )
            {
                newest.state = state;
            }
        } else {
            journal.finished_before |= record.finished;
        }
        offset
    }

    pub fn reading(&self, setting: &Setting) -> (Head, Known) {
        let head = Head {
            end: self.journal.end,
            newest: self.journal.newest.clone(),
            doubtful: false,
        };
        let mut known = Known {
            finished: self.journal.finished,
            committed: self.committed,
        };
        if setting.union_of_records {
            known.finished |= self.journal.finished_before;
        }
        (head, known)
    }

    /// A unit of time passes.
    pub fn tick(&mut self, setting: &Setting) {
        let over: Vec<usize> = (0..self.calls.len())
            .filter(|call| self.calls[*call].left <= 1)
            .collect();
        for call in over.into_iter().rev() {
            self.end_call(call, true);
        }
        for call in &mut self.calls {
            call.left -= 1;
        }
        for slot in 0..self.members.len() {
            self.members[slot].age(setting);
            self.settle(setting, slot);
        }
    }

    pub fn end_call(&mut self, call: usize, done: bool) {
        let call = self.calls.remove(call);
        if !done {
            return;
        }
        self.finished |= 1 << call.message;
        if call.current
            && let Some(run) = &mut self.members[usize::from(call.slot)].run
        {
            run.finished |= 1 << call.message;
        }
    }
}
