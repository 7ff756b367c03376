//! Members are alike: states that differ in who is who are one state.

use super::super::basis::Basis;
use super::super::tenure::Phase;
use super::world::{Ask, Name, Setting, Wire, World};
use crate::journal::Incarnation;

impl World {
    /// Of this state and those in which two members have changed places, always the same one.
    pub fn representative(self, setting: &Setting) -> Self {
        let this = self.canonical(setting);
        let others = (1..this.members.len()).map(|with| this.swapped(setting, with as u8));
        let (mut best, mut least) = (None, super::hash(&this));
        for other in others {
            let hash = super::hash(&other);
            if hash < least {
                (best, least) = (Some(other), hash);
            }
        }
        best.unwrap_or(this)
    }

    /// The state in which the first member and another have changed places.
    fn swapped(&self, setting: &Setting, with: u8) -> Self {
        let mut world = self.clone();
        world.members.swap(0, with.into());
        let slot = |slot: u8| match slot {
            0 => with,
            _ if slot == with => 0,
            _ => slot,
        };
        let rename = |name: &mut Incarnation| {
            let Name(of, process) = setting.name_of(name);
            *name = setting.terms[usize::from(slot(of))][usize::from(process)]
                .me
                .clone();
        };
        if let Some(holder) = &mut world.lock {
            holder.0 = slot(holder.0);
        }
        for call in &mut world.calls {
            call.slot = slot(call.slot);
        }
        if let Some(newest) = &mut world.journal.newest {
            rename(&mut newest.by);
        }
        for record in &mut world.late {
            rename(&mut record.by);
        }
        for member in &mut world.members {
            match &mut member.tenure.phase {
                Phase::Out { holder: Some(by) } => rename(by),
                Phase::Claiming {
                    basis: Basis::Claimed { by, .. },
                    ..
                } => rename(by),
                Phase::Waiting(claim) => {
                    if let Basis::Claimed { by, .. } = &mut claim.basis {
                        rename(by);
                    }
                }
                _ => {}
            }
            for wire in &mut member.wires {
                match wire {
                    Wire::Ask(Ask::UnlockFor(by)) => rename(by),
                    Wire::Ask(Ask::Append(_, record)) => rename(&mut record.by),
                    Wire::Read(_, Some((head, _))) => {
                        if let Some(newest) = &mut head.newest {
                            rename(&mut newest.by);
                        }
                    }
                    _ => {}
                }
            }
        }
        world
            .calls
            .sort_by_key(|call| (call.message, call.slot, call.left));
        world
    }
}
