//! What the core tells about itself. Nothing here costs more than a message or a key that is listed, but
//! where it is said.

use super::executor::LaneExecutor;
use super::finished::Finished;
use super::head::Stage;
use super::slab::NONE;
use super::store::State;
use super::view::{
    LISTED, LaneState, LaneView, LongLane, Oldest, Progress, QueueSummary, StuckKey, Summary,
    TroubledKey,
};
use super::{Assignment, HeldKeys, InMemory, Time};
use crate::message::QueueId;
use std::time::Duration;

/// A head is stuck after so many times the usual service time ...
const STUCK: f64 = 20.0;
/// ... and not before.
const STUCK_AT_LEAST: Duration = Duration::from_secs(1);

impl LaneExecutor {
    /// How far a queue is.
    pub fn progress(&self, assignment: Assignment) -> Option<Progress> {
        Some(self.queues[self.slot(assignment)?].progress())
    }

    /// What of a queue is finished, for the journal; a copy of it costs at most a bit per offset between
    /// the watermark and the highest finished offset.
    pub fn finished(&self, assignment: Assignment) -> Option<&Finished> {
        Some(&self.queues[self.slot(assignment)?].finished)
    }

    /// The unfinished message of a queue with the lowest offset, if one is in memory.
    pub fn oldest_unfinished(&self, assignment: Assignment) -> Option<Oldest> {
        self.queues[self.slot(assignment)?].oldest(&self.store)
    }

    /// [Fingerprints](super::LaneKey::fingerprint) of the lanes of a queue that have a call which runs or may
    /// still run, in ascending order: calls of this assignment, of an earlier one that was dropped here,
    /// and those it was told of when it was assigned, unless it was told of all. Costs as much as there
    /// are heads in hand.
    pub fn running(&self, assignment: Assignment) -> impl Iterator<Item = u64> + use<> {
        let mut running = Vec::new();
        if let Some(slot) = self.slot(assignment) {
            let queue = &self.queues[slot];
            for (_, head) in self.store.heads.iter() {
                let lane = self.store.lanes.get(head.lane);
                let unsure = matches!(head.stage, Stage::Running | Stage::Unsure);
                match &head.orphan {
                    Some(orphan) if orphan.queue == queue.id => running.push(orphan.fingerprint),
                    None if unsure && lane.is_some_and(|lane| lane.queue == slot) => {
                        running.push(self.store.key(head.lane).fingerprint());
                    }
                    _ => {}
                }
            }
            if let HeldKeys::Some(keys) = &queue.hold.keys
                && self.now < queue.hold.until
            {
                running.extend_from_slice(keys);
            }
        }
        running.sort_unstable();
        running.dedup();
        running.into_iter()
    }

    /// What is in memory, with what calls of dropped queues still hold.
    pub fn in_memory(&self) -> InMemory {
        self.store.memory
    }

    /// Calls that run.
    pub fn busy(&self) -> u32 {
        self.busy
    }

    /// One queue.
    pub fn queue_summary(&self, assignment: Assignment) -> Option<QueueSummary> {
        let queue = &self.queues[self.slot(assignment)?];
        Some(QueueSummary {
            queue: queue.id.clone(),
            progress: queue.progress(),
            counters: queue.counters,
            live_keys: queue.lanes,
            waiting: u64::from(queue.ready.len()),
            oldest: queue.oldest(&self.store),
            stopped: queue.stopped,
            suspended: queue.suspended || self.suspension.all,
        })
    }

    /// All queues together. Costs as much as there are queues.
    pub fn summary(&self, now: Time) -> Summary {
        let (mut counters, mut waiting) = (self.past, 0);
        for (_, queue) in self.queues.iter() {
            counters += queue.counters;
            waiting += u64::from(queue.ready.len());
        }
        let blocked = self.store.blocked.iter(&self.store.heads);
        Summary {
            lanes: self.settings.lanes,
            busy: self.busy,
            busy_time: self.busy_time + now.saturating_sub(self.now) * self.busy,
            waiting,
            live_keys: self.store.lanes.len() as u64,
            in_memory: self.store.memory,
            counters,
            handler_available: self.availability.is_available(),
            suspended: !self.suspension.is_empty(),
            blocked: u64::from(self.store.blocked.len()),
            blocked_keys: blocked
                .take(LISTED)
                .filter_map(|head| self.troubled(head))
                .collect(),
            hot_keys: self.hot.top(now, LISTED, |slot| self.queue_name(slot)),
            longest: self.longest(),
            stuck_keys: self.stuck(now),
            split_keys: self.splits.found(),
            usual_service: Duration::from_secs_f64(self.usual),
        }
    }

    /// Every lane. Costs as much as there are lanes.
    pub fn lane_views(&self) -> impl Iterator<Item = LaneView> + '_ {
        self.store.lanes.iter().map(|(number, lane)| LaneView {
            queue: self.queues[lane.queue].id.clone(),
            key: self.store.key(number),
            head: self.store.first(number).offset,
            messages: u64::from(lane.len),
            state: self.state(number),
            attempts: self
                .store
                .heads
                .get(lane.head)
                .map_or(0, |head| head.attempts),
        })
    }

    fn queue_name(&self, slot: u32) -> Option<QueueId> {
        self.queues.get(slot).map(|queue| queue.id.clone())
    }

    fn state(&self, lane: u32) -> LaneState {
        let lane = &self.store.lanes[lane];
        let queue = &self.queues[lane.queue];
        let head = self.store.heads.get(lane.head);
        let suspended = self.suspension.all || queue.suspended;
        match (lane.state, head.map(|head| head.stage)) {
            (_, Some(Stage::Running | Stage::Unsure)) => LaneState::Running,
            (_, Some(Stage::SendingBack)) => LaneState::SendingBack,
            (State::Suspended, _) => LaneState::Suspended,
            (State::Ready, _) if suspended => LaneState::Suspended,
            _ if head.is_some_and(|head| head.blocked) => LaneState::Blocked,
            (State::Ready, _) => LaneState::Ready,
            (State::Held | State::Suspect | State::Unrecorded | State::InHand, _) => {
                LaneState::Backoff
            }
        }
    }

    fn troubled(&self, head: u32) -> Option<TroubledKey> {
        let head = &self.store.heads[head];
        let lane = self.store.lanes.get(head.lane)?;
        Some(TroubledKey {
            queue: self.queue_name(lane.queue)?,
            key: self.store.key(head.lane),
            offset: self.store.first(head.lane).offset,
            attempts: head.attempts,
            error: head.error.as_deref().unwrap_or_default().to_owned(),
        })
    }

    fn longest(&self) -> Vec<LongLane> {
        let lanes = self.store.longest(LISTED).into_iter();
        let long = lanes.map(|number| {
            let lane = &self.store.lanes[number];
            LongLane {
                queue: self.queues[lane.queue].id.clone(),
                key: self.store.key(number),
                messages: u64::from(lane.len),
            }
        });
        long.collect()
    }

    /// Heads that are in hand for much longer than usual while others move.
    fn stuck(&self, now: Time) -> Vec<StuckKey> {
        let much = Duration::from_secs_f64(self.usual * STUCK).max(STUCK_AT_LEAST);
        if now.saturating_sub(self.last_finish) > much {
            return Vec::new();
        }
        let by_age = self.store.by_age.iter(&self.store.heads);
        let old =
            by_age.take_while(|head| now.saturating_sub(self.store.heads[*head].since) > much);
        // One that only waits for a slot or is suspended is not stuck by itself.
        let in_hand = old.filter(|head| {
            let lane = self.store.heads[*head].lane;
            let waits = |state| matches!(state, State::InHand | State::Suspect | State::Unrecorded);
            lane != NONE && waits(self.store.lanes[lane].state)
        });
        let stuck = in_hand.take(LISTED).filter_map(|number| {
            let head = &self.store.heads[number];
            Some(StuckKey {
                key: self.troubled(number)?,
                since: head.since,
                state: self.state(head.lane),
                messages: u64::from(self.store.lanes[head.lane].len),
            })
        });
        stuck.collect()
    }
}
