//! Members are alike: states that differ in who is who are one state.

use super::super::basis::Basis;
use super::super::tenure::Phase;
use super::world::{Ask, Name, Record, Setting, Wire, World};
use crate::journal::{Incarnation, Newest, State};

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
        let rename_newest = |newest: &mut Newest| {
            rename(&mut newest.by);
            if let State::Withdrawn { former, .. } = &mut newest.state {
                rename(former);
            }
        };
        let rename_record = |record: &mut Record| {
            rename(&mut record.by);
            record.former.iter_mut().for_each(&rename);
        };
        world.journal.newest.iter_mut().for_each(&rename_newest);
        world.late.iter_mut().for_each(&rename_record);
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
                Phase::Withdrawing { former, .. } => rename(former),
                _ => {}
            }
            for wire in &mut member.wires {
                match wire {
                    Wire::Ask(Ask::UnlockFor(by)) => rename(by),
                    Wire::Ask(Ask::Append(_, record)) => rename_record(record),
                    Wire::Read(_, Some((head, _))) => {
                        head.newest.iter_mut().for_each(&rename_newest);
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
