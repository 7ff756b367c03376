//! From any state on, once faults end, everything is finished and committed.

use super::super::Death;
use super::steps::{self, Faults, Step};
use super::world::{Ask, NOW, Setting, UNIT, Wire, World};

const MOST_TICKS: u32 = 60;
const MOST_STEPS: u32 = 100;
/// A broker keeps a lock that nobody renews for longer than a lease.
const LOCK_LASTS: u32 = 3;

/// Runs without faults until everything is committed. `late`: records that were given up arrive at once, or
/// never.
pub fn finishes(setting: &Setting, mut world: World, late: bool) -> Result<(), String> {
    (world.faults, world.gives) = (0, 0);
    let (mut ticks, mut taken, mut unused) = (0, 0, 0);
    let mut asked = vec![false; world.members.len()];
    let mut possible = Vec::new();
    loop {
        if world.finished == setting.all() && usize::from(world.committed) == setting.keys.len() {
            return Ok(());
        }
        possible.clear();
        steps::steps(setting, Faults::NONE, &world, &mut possible);
        let urgency = |step: &Step| match step {
            Step::Heal(_) | Step::Thaw(_) | Step::Start(_, Death::Unproven) => 9,
            Step::LateRecordLands(_) if late => 8,
            Step::Answer(..) => 7,
            Step::Serve(slot, index) => match &world.members[*slot].wires[*index] {
                Wire::Ask(Ask::Lock)
                    if asked[*slot] || world.members[*slot].tenure.lease > NOW + UNIT =>
                {
                    0
                }
                _ => 6,
            },
            Step::Dispatch(..)
            | Step::CallEnds(_)
            | Step::Commit(_)
            | Step::Drained(_)
            | Step::WantAgain(_) => 5,
            Step::LockExpires if unused >= LOCK_LASTS => 4,
            Step::Tick => 1,
            _ => 0,
        };
        let Some(step) = possible.iter().copied().max_by_key(urgency) else {
            return Err("nothing can happen".into());
        };
        if let Step::Serve(slot, index) = step
            && world.members[slot].wires[index] == Wire::Ask(Ask::Lock)
        {
            asked[slot] = true;
        }
        if step == Step::Tick {
            ticks += 1;
            taken = 0;
            asked.fill(false);
            unused = if possible.contains(&Step::LockExpires) {
                unused + 1
            } else {
                0
            };
        }
        taken += 1;
        if ticks > MOST_TICKS || taken > MOST_STEPS {
            return Err(format!(
                "not finished after {ticks} ticks and {taken} steps"
            ));
        }
        steps::take(setting, &mut world, step)?;
        world = world.canonical(setting);
    }
}
