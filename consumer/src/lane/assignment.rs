//! Queues come, are given away, are lost, and are suspended.

use super::executor::LaneExecutor;
use super::finished::Finished;
use super::head::{Orphan, Stage};
use super::queue::Queue;
use super::store::Kind;
use super::timers::Due;
use super::{Assignment, Held, HeldKeys, InMemory, Output, Suspension, Time};
use crate::message::QueueId;
use std::sync::Arc;

impl LaneExecutor {
    /// See [`super::Input::Assign`].
    pub(super) fn assign(
        &mut self,
        id: QueueId,
        assignment: Assignment,
        finished: Finished,
        lease: Time,
        mut held: Held,
    ) {
        // One owner of a queue at a time, in this process too.
        let former: Vec<Assignment> = self
            .assigned()
            .filter(|(of, slot)| *of == assignment || self.queues[*slot].id == id)
            .map(|(of, _)| of)
            .collect();
        for former in former {
            self.drop_queue(former);
        }
        self.hold_for_orphans(&id, &mut held);
        if held.until > self.now {
            self.timers.set(held.until, Due::Hold(assignment));
        }
        let mut queue = Queue::new(id, assignment, finished, lease, held);
        queue.suspended = self.suspension.queues.contains(&queue.id);
        let slot = self.queues.insert(queue);
        self.assignments.insert(assignment, slot);
        self.check_pull(slot);
    }

    /// Makes the keys wait whose calls of a former assignment may still run here.
    fn hold_for_orphans(&self, id: &QueueId, held: &mut Held) {
        if self.orphans == 0 {
            return;
        }
        let bound = self.settings.timeout + self.settings.cancel_grace;
        let mut keys: Vec<u64> = match &held.keys {
            HeldKeys::Some(keys) if self.now < held.until => keys.to_vec(),
            _ => Vec::new(),
        };
        for (_, head) in self.store.heads.iter() {
            if let Some(orphan) = &head.orphan
                && orphan.queue == *id
                && orphan.kind != Kind::Own
            {
                held.until = held.until.max(head.sent + bound);
                keys.push(orphan.fingerprint);
            }
        }
        if let HeldKeys::Some(held) = &mut held.keys {
            keys.sort_unstable();
            *held = Arc::from(keys);
        }
    }

    /// The calls of a former owner have ended.
    pub(super) fn hold_over(&mut self, assignment: Assignment) {
        let Some(slot) = self.slot(assignment) else {
            return;
        };
        self.queues[slot].hold = Held::default();
        while let Some(lane) = self.queues[slot].held.first() {
            self.store.leave_line(&mut self.queues[slot], lane);
            self.make_ready(lane);
        }
    }

    /// See [`super::Input::Release`].
    pub(super) fn release(&mut self, assignment: Assignment) {
        let Some(slot) = self.slot(assignment) else {
            return;
        };
        if std::mem::replace(&mut self.queues[slot].releasing, true) {
            return;
        }
        let nodes: Vec<u32> = self.queues[slot].order.iter(&self.store.nodes).collect();
        for node in nodes {
            // Its lane may have been forgotten with it already.
            let Some(lane) = self.store.nodes.get(node).map(|node| node.lane) else {
                continue;
            };
            let queue = &mut self.queues[slot];
            match self.store.heads.get(self.store.lanes[lane].head) {
                Some(head) if head.stage != Stage::Waiting => {
                    let keep = head.count;
                    self.store.truncate(queue, lane, keep);
                }
                _ => self.store.forget_lane(queue, lane),
            }
        }
        self.check_drained(slot);
    }

    /// Says so when nothing of a queue that is given away can run any more.
    pub(super) fn check_drained(&mut self, slot: u32) {
        let queue = &mut self.queues[slot];
        if queue.releasing && queue.in_hand == 0 && !std::mem::replace(&mut queue.drained, true) {
            let assignment = queue.assignment;
            self.outputs.push_back(Output::Drained { assignment });
        }
    }

    /// See [`super::Input::Drop`].
    pub(super) fn drop_queue(&mut self, assignment: Assignment) {
        let Some(slot) = self.assignments.remove(&assignment) else {
            return;
        };
        while let Some(node) = self.queues[slot].order.first() {
            let lane = self.store.nodes[node].lane;
            self.leave_orphan(slot, lane);
            self.store.forget_lane(&mut self.queues[slot], lane);
        }
        let queue = self.queues.remove(slot);
        self.past += queue.counters;
        self.expected -= queue.expected;
        self.turns.retain(|of| *of != slot);
        self.stopped.retain(|of| *of != slot);
        self.budgets.forget_queue(slot);
        self.splits.forget_queue(slot);
        self.hot.forget_queue(slot);
        self.outputs
            .retain(|output| output.assignment() != Some(assignment));
    }

    /// Keeps what must be known of a call that outlives its queue.
    fn leave_orphan(&mut self, slot: u32, lane: u32) {
        let of = &self.store.lanes[lane];
        let (number, kind) = (of.head, of.kind);
        let Some(head) = self.store.heads.get(number) else {
            return;
        };
        if !matches!(head.stage, Stage::Running | Stage::Unsure) {
            return;
        }
        let mut memory = InMemory::default();
        if head.stage == Stage::Running {
            for node in self.store.messages(lane).take(head.count as usize) {
                memory += InMemory::one(self.store.nodes[node].message.cost());
            }
        }
        let orphan = Orphan {
            queue: self.queues[slot].id.clone(),
            fingerprint: self.store.key(lane).fingerprint(),
            kind,
            memory,
        };
        self.store.orphan_head(number, orphan);
        self.orphans += 1;
    }

    /// See [`super::Input::Suspend`].
    pub(super) fn suspend(&mut self, suspension: Suspension) {
        self.suspension = suspension;
        let slots: Vec<u32> = self.assigned().map(|(_, slot)| slot).collect();
        // Those that stay suspended come back when their turn comes.
        while let Some(lane) = self.store.suspended.first() {
            let slot = self.store.lanes[lane].queue;
            self.store.leave_line(&mut self.queues[slot], lane);
            self.make_ready(lane);
        }
        for slot in slots {
            let queue = &mut self.queues[slot];
            queue.suspended = self.suspension.queues.contains(&queue.id);
            self.give_turn(slot);
        }
    }
}

impl Output {
    fn assignment(&self) -> Option<Assignment> {
        match self {
            Self::Dispatch(_) => None,
            Self::SendBack(back) => Some(back.assignment),
            Self::Pull { assignment, .. }
            | Self::Record { assignment }
            | Self::Drained { assignment } => Some(*assignment),
        }
    }
}
