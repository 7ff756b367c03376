//! What can happen next, and what must never have happened.

use super::super::tenure::Phase;
use super::super::{Death, Wanted};
use super::world::{Ask, Call, NOW, Name, Run, Setting, Wire, World, prefix, watermark};
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
        Step::Serve(slot, index) => serve(setting, world, slot, index, true),
        Step::AnswerLost(slot, index) => {
            world.faults -= 1;
            serve(setting, world, slot, index, false);
        }
        Step::Answer(slot, index) => answer(setting, world, slot, index),
        Step::Dispatch(slot, message) => {
            check_dispatch(setting, world, message)?;
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
        Step::Start(slot, death) => start(setting, world, slot, death),
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
    check(setting, world)
}

fn commit(world: &mut World, slot: usize) {
    if let Some(run) = &world.members[slot].run
        && NOW < run.lease
    {
        world.committed = watermark(run.finished);
    }
}

fn start(setting: &Setting, world: &mut World, slot: usize, death: Death) {
    let member = &mut world.members[slot];
    member.up = true;
    // A pod that is gone takes every process that ran in it along; another pod proves nothing.
    for earlier in &mut member.earlier {
        *earlier = match (death, *earlier) {
            (_, Death::Pod) | (Death::Pod, Death::Executor) => Death::Pod,
            (Death::Executor, Death::Executor) => Death::Executor,
            _ => Death::Unproven,
        };
    }
    member.earlier.push(death);
    for call in world
        .calls
        .iter_mut()
        .filter(|call| usize::from(call.slot) == slot)
    {
        call.same_pod &= death != Death::Unproven;
    }
    if death == Death::Pod {
        world
            .calls
            .retain(|call| usize::from(call.slot) != slot || !call.same_pod);
    }
    world.want(setting, slot, Wanted::Yes);
}

fn serve(setting: &Setting, world: &mut World, slot: usize, index: usize, heard: bool) {
    let member = &mut world.members[slot];
    let name = Name(slot as u8, member.generation());
    let (cut, wire) = (member.cut, member.wires.remove(index));
    let Wire::Ask(ask) = wire else { return };
    let answer = match ask {
        Ask::Lock if cut => Wire::Locked(None),
        Ask::Lock => {
            let free = world.lock.is_none_or(|holder| holder == name);
            if free {
                world.lock = Some(name);
            }
            Wire::Locked(heard.then_some(free))
        }
        Ask::Unlock | Ask::UnlockFor(_) if cut => Wire::Unlocked,
        Ask::Unlock => {
            world.lock = world.lock.filter(|holder| *holder != name);
            Wire::Unlocked
        }
        Ask::UnlockFor(whom) => {
            world.lock = world
                .lock
                .filter(|holder| *holder != setting.name_of(&whom));
            Wire::Unlocked
        }
        Ask::Read(ticket) => Wire::Read(ticket, (!cut).then(|| world.reading(setting))),
        Ask::Append(ticket, _) if cut => Wire::Appended(ticket, None),
        Ask::Append(ticket, record) => {
            let released = record.released.then_some(record.finished);
            let offset = world.land(record);
            if heard && let (Some(run), Some(_)) = (&mut world.members[slot].run, released) {
                run.released = released;
            }
            Wire::Appended(ticket, heard.then_some(offset))
        }
    };
    let at_once = !setting.slow_answers
        && !matches!(answer, Wire::Appended(..))
        && world.members[slot].acts();
    world.members[slot].wires.push(answer);
    if at_once {
        let last = world.members[slot].wires.len() - 1;
        self::answer(setting, world, slot, last);
    }
}

fn answer(setting: &Setting, world: &mut World, slot: usize, index: usize) {
    let terms = world.terms(setting, slot);
    let member = &mut world.members[slot];
    let mut deeds = Vec::new();
    match member.wires.remove(index) {
        Wire::Locked(locked) => member.tenure.lock_answered(NOW, locked, terms, &mut deeds),
        Wire::Unlocked => member.tenure.unlocked(),
        Wire::Read(ticket, reading) => {
            if let Some((_, known)) = &reading {
                member.known[1] = *known;
            }
            let head = reading.as_ref().map(|(head, _)| head);
            member.tenure.read(NOW, ticket, head, terms, &mut deeds);
        }
        Wire::Appended(ticket, offset) => member.tenure.appended(NOW, ticket, offset, terms),
        Wire::Ask(_) => {}
    }
    for deed in deeds {
        world.carry_out(setting, slot, deed);
    }
    world.settle(setting, slot);
}

fn check_dispatch(setting: &Setting, world: &World, message: u8) -> Result<(), String> {
    let key = setting.keys[usize::from(message)];
    let of_key = |other: u8| setting.keys[usize::from(other)] == key;
    if world.calls.iter().any(|call| of_key(call.message)) {
        return Err("P1: a call of the key still runs".into());
    }
    if (0..message).any(|earlier| of_key(earlier) && world.finished & (1 << earlier) == 0) {
        return Err("P1: an earlier message of the key never finished".into());
    }
    if world.clean & (1 << message) != 0 {
        return Err("P6: finished before a clean end, run again".into());
    }
    Ok(())
}

fn check(setting: &Setting, world: &World) -> Result<(), String> {
    let may_dispatch = world
        .members
        .iter()
        .filter_map(|member| member.run.as_ref())
        .filter(|run| NOW < run.lease && !run.draining);
    if may_dispatch.count() > 1 {
        return Err("P4: two members may dispatch".into());
    }
    let wrong = |finished: u8| finished & setting.all() & !world.finished != 0;
    if wrong(prefix(world.committed)) {
        return Err("P2: the committed offset passed an unfinished message".into());
    }
    if world
        .members
        .iter()
        .filter_map(|member| member.run.as_ref())
        .any(|run| wrong(run.finished))
    {
        return Err("P2: a member takes an unfinished message for finished".into());
    }
    Ok(())
}
