//! What must never be.

use super::world::{NOW, Setting, World, prefix};

/// Whether a message may be dispatched now.
pub fn check_dispatch(setting: &Setting, world: &World, message: u8) -> Result<(), String> {
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

/// Whether a state is one that may be.
pub fn check(setting: &Setting, world: &World) -> Result<(), String> {
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
