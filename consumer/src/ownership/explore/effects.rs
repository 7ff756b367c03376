//! What broker and processes do to a state.

use super::super::{Death, Facts, Wanted};
use super::world::{Ask, NOW, Name, Setting, Wire, World};

pub fn start(setting: &Setting, world: &mut World, slot: usize, death: Death) {
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

/// The member ends by now.
pub fn stop_waiting(setting: &Setting, world: &mut World, slot: usize) {
    let terms = world.terms(setting, slot);
    let tenure = &mut world.members[slot].tenure;
    let mut deeds = Vec::new();
    tenure.stop_waiting(NOW, NOW, Facts::default(), terms, &mut deeds);
    for deed in deeds {
        world.carry_out(setting, slot, deed);
    }
    world.settle(setting, slot);
}

pub fn serve(setting: &Setting, world: &mut World, slot: usize, index: usize, heard: bool) {
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
        answer_to(setting, world, slot, last);
    }
}

pub fn answer_to(setting: &Setting, world: &mut World, slot: usize, index: usize) {
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
