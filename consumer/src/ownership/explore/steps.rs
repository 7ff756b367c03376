//! What can happen next, and what must never have happened.

use super::super::tenure::Phase;
use super::super::{Death, Wanted};
use super::world::{Ask, Call, NOW, Name, Run, Setting, Wire, World, watermark};
use super::{effects, promises};
use crate::journal::Keys;

/// Faults that an exploration includes.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub crash: bool,
    pub freeze: bool,
    pub cut: bool,
    pub restart: bool,
    pub late: bool,
    pub stale_unlock: bool,
    pub stale_commit: bool,
    pub call: bool,
    /// A process that is about to end does not wait any longer. This costs no fault.
    pub stop: bool,
}

impl Faults {
    pub const NONE: Self = Self {
        crash: false,
        freeze: false,
        cut: false,
        restart: false,
        late: false,
        stale_unlock: false,
        stale_commit: false,
        call: false,
        stop: false,
    };
    pub const ALL: Self = Self {
        crash: true,
        freeze: true,
        cut: true,
        restart: true,
        late: true,
        stale_unlock: true,
        stale_commit: true,
        call: true,
        stop: true,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Tick,
    /// The broker carries out a request; it is without effect and unanswered if the member is cut off.
    Serve(usize, usize),
    /// An answer arrives.
    Answer(usize, usize),
    Dispatch(usize, u8),
    Progress(usize),
    Commit(usize),
    Drained(usize),
    CallEnds(usize),
    Heal(usize),
    Thaw(usize),
    WantAgain(usize),
    /// The next process of a slot starts; what is proven of the last one.
    Start(usize, Death),
    LateRecordLands(usize),
    LockExpires,
    GiveAway(usize),
    /// What is not meant for the member and would wait is given back without a word.
    StopWaiting(usize),
    // Each of these costs a fault.
    Crash(usize),
    Freeze(usize),
    Cut(usize),
    BrokerRestarts {
        offset_lost: bool,
    },
    /// A request is carried out and the answer is lost.
    AnswerLost(usize, usize),
    /// A record's writer hears of no success; the record arrives later.
    RecordLate(usize, usize),
    StaleUnlock,
    StaleCommit(u8),
    CallFails(usize),
}

/// Everything that can happen next.
pub fn steps(setting: &Setting, faults: Faults, world: &World, out: &mut Vec<Step>) {
    out.push(Step::Tick);
    for (slot, member) in world.members.iter().enumerate() {
        if !member.up {
            for death in setting.deaths.iter().copied() {
                out.push(Step::Start(slot, death));
            }
            continue;
        }
        for (index, wire) in member.wires.iter().enumerate() {
            match wire {
                // A frozen member's request was sent before.
                Wire::Ask(_) if setting.slow_answers || !member.frozen => {
                    out.push(Step::Serve(slot, index))
                }
                Wire::Ask(Ask::Append(..)) => out.push(Step::Serve(slot, index)),
                Wire::Ask(_) => {}
                _ if member.frozen => {}
                _ => out.push(Step::Answer(slot, index)),
            }
        }
        if member.cut {
            out.push(Step::Heal(slot));
        }
        if member.frozen {
            out.push(Step::Thaw(slot));
            continue;
        }
        if member.tenure.wanted == Wanted::No && matches!(member.tenure.phase, Phase::Out { .. }) {
            out.push(Step::WantAgain(slot));
        }
        let waits = matches!(
            member.tenure.phase,
            Phase::Claiming { .. } | Phase::Waiting(_)
        );
        if faults.stop && waits && member.tenure.wanted == Wanted::No {
            out.push(Step::StopWaiting(slot));
        }
        let Some(run) = &member.run else { continue };
        if NOW >= run.lease {
            continue;
        }
        if run.draining {
            if run.drained.is_none() {
                out.push(Step::Drained(slot));
            }
            continue;
        }
        for message in 0..setting.keys.len() as u8 {
            if is_dispatchable(setting, world, slot, run, message) {
                out.push(Step::Dispatch(slot, message));
            }
        }
        if !member.cut {
            if watermark(run.finished) != world.committed {
                out.push(Step::Commit(slot));
            }
            if (world.journal.finished | world.journal.finished_before) & run.finished
                != run.finished
            {
                out.push(Step::Progress(slot));
            }
        }
    }
    for (index, _) in world.calls.iter().enumerate() {
        out.push(Step::CallEnds(index));
    }
    for index in 0..world.late.len() {
        out.push(Step::LateRecordLands(index));
    }
    if let Some(Name(slot, generation)) = world.lock {
        let member = &world.members[usize::from(slot)];
        let unused = NOW >= member.tenure.lease && member.tenure.granted.is_none();
        if member.generation() != generation || !member.up || unused {
            out.push(Step::LockExpires);
        }
    }
    if world.gives > 0 {
        let acting = world
            .members
            .iter()
            .enumerate()
            .filter(|(_, member)| member.acts());
        out.extend(
            acting
                .filter(|(_, member)| member.tenure.wanted != Wanted::No)
                .map(|(slot, _)| Step::GiveAway(slot)),
        );
    }
    if world.faults > 0 {
        fault_steps(faults, world, out);
    }
}

fn fault_steps(faults: Faults, world: &World, out: &mut Vec<Step>) {
    for (slot, member) in world.members.iter().enumerate() {
        if !member.up {
            continue;
        }
        if faults.crash {
            out.push(Step::Crash(slot));
        }
        if faults.freeze && !member.frozen {
            out.push(Step::Freeze(slot));
        }
        if faults.cut && !member.cut {
            out.push(Step::Cut(slot));
        }
        for (index, wire) in member.wires.iter().enumerate() {
            match wire {
                Wire::Ask(Ask::Append(..)) if faults.late => {
                    out.push(Step::AnswerLost(slot, index));
                    out.push(Step::RecordLate(slot, index));
                }
                Wire::Ask(Ask::Lock) if faults.late => out.push(Step::AnswerLost(slot, index)),
                _ => {}
            }
        }
    }
    if faults.restart {
        out.push(Step::BrokerRestarts { offset_lost: false });
        if world.committed > 0 {
            out.push(Step::BrokerRestarts { offset_lost: true });
        }
    }
    if faults.stale_unlock && world.lock.is_some() {
        out.push(Step::StaleUnlock);
    }
    if faults.stale_commit {
        out.extend((0..world.committed).map(Step::StaleCommit));
    }
    if faults.call {
        out.extend((0..world.calls.len()).map(Step::CallFails));
    }
}

/// As the lanes do: the first unfinished message of a key whose call, if any, is over.
fn is_dispatchable(setting: &Setting, world: &World, slot: usize, run: &Run, message: u8) -> bool {
    let key = setting.keys[usize::from(message)];
    let same_key = |other: &u8| setting.keys[usize::from(*other)] == key;
    let held = NOW < run.held_until
        && match &run.held {
            Keys::All => true,
            Keys::Some(list) => list.contains(&u64::from(key)),
        };
    let first = (0..setting.keys.len() as u8)
        .filter(same_key)
        .find(|other| run.finished & (1 << other) == 0);
    let busy = world
        .calls
        .iter()
        .any(|call| call.current && usize::from(call.slot) == slot && same_key(&call.message));
    first == Some(message) && !held && !busy
}

/// Takes a step. An error is a promise that was broken by taking it.
pub fn take(setting: &Setting, world: &mut World, step: Step) -> Result<(), String> {
    match step {
        Step::Tick => world.tick(setting),
        Step::Serve(slot, index) => effects::serve(setting, world, slot, index, true),
        Step::AnswerLost(slot, index) => {
            world.faults -= 1;
            effects::serve(setting, world, slot, index, false);
        }
        Step::Answer(slot, index) => effects::answer_to(setting, world, slot, index),
        Step::Dispatch(slot, message) => {
            promises::check_dispatch(setting, world, message)?;
            world.calls.push(Call {
                message,
                left: setting.call_units,
                slot: slot as u8,
                current: true,
                same_pod: true,
            });
        }
        Step::Progress(slot) => {
            let terms = world.terms(setting, slot);
            let member = &world.members[slot];
            if let (Some((epoch, keys)), Some(run)) =
                (member.tenure.recordable(NOW, terms), &member.run)
            {
                let record = super::world::Record {
                    by: terms.me.clone(),
                    epoch: Some(epoch),
                    released: false,
                    former: None,
                    keys,
                    finished: run.finished,
                };
                world.land(record);
            }
        }
        Step::Commit(slot) => commit(world, slot),
        Step::Drained(slot) => {
            if !world.members[slot].cut {
                commit(world, slot);
            }
            let running = world.running(setting, slot);
            let member = &mut world.members[slot];
            if let Some(run) = &mut member.run {
                run.drained = Some((run.finished, running));
            }
            member.tenure.drained();
            world.settle(setting, slot);
        }
        Step::CallEnds(index) => world.end_call(index, true),
        Step::CallFails(index) => {
            world.faults -= 1;
            world.end_call(index, false);
        }
        Step::Heal(slot) => world.members[slot].cut = false,
        Step::Thaw(slot) => {
            world.members[slot].frozen = false;
            world.settle(setting, slot);
        }
        Step::WantAgain(slot) => world.want(setting, slot, Wanted::Yes),
        Step::GiveAway(slot) => {
            world.gives -= 1;
            world.want(setting, slot, Wanted::No);
        }
        Step::StopWaiting(slot) => effects::stop_waiting(setting, world, slot),
        Step::Start(slot, death) => effects::start(setting, world, slot, death),
        Step::LateRecordLands(index) => {
            let record = world.late.remove(index);
            world.land(record);
        }
        Step::LockExpires | Step::StaleUnlock => {
            world.faults -= u8::from(step == Step::StaleUnlock);
            world.lock = None;
        }
        Step::Crash(slot) => {
            world.faults -= 1;
            world.members[slot].forget();
            world.members[slot].up = false;
            world
                .calls
                .iter_mut()
                .for_each(|call| call.current &= usize::from(call.slot) != slot);
        }
        Step::Freeze(slot) => {
            world.faults -= 1;
            world.members[slot].frozen = true;
        }
        Step::Cut(slot) => {
            world.faults -= 1;
            world.members[slot].cut = true;
        }
        Step::BrokerRestarts { offset_lost } => {
            world.faults -= 1;
            world.lock = None;
            if offset_lost {
                world.committed = 0;
            }
        }
        Step::RecordLate(slot, index) => {
            world.faults -= 1;
            if let Wire::Ask(Ask::Append(ticket, record)) = world.members[slot].wires.remove(index)
            {
                world.late.push(record);
                world.members[slot].wires.push(Wire::Appended(ticket, None));
            }
        }
        Step::StaleCommit(offset) => {
            world.faults -= 1;
            world.committed = offset;
        }
    }
    promises::check(setting, world)
}

fn commit(world: &mut World, slot: usize) {
    if let Some(run) = &world.members[slot].run
        && NOW < run.lease
    {
        world.committed = watermark(run.finished);
    }
}
