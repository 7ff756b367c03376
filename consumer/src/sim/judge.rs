//! What must be true whatever happens, on a model so plain that it can be seen to be right: for each
//! offset of each queue its lane and whether it is finished, and for each lane until when its calls run.

use super::broker::{Lane, QueueIndex};
use crate::lane::{Finished, Time};
use std::collections::{BTreeMap, BTreeSet};

/// The naive model that judges the core.
#[derive(Debug, Default)]
pub struct Judge {
    /// Lane of each message, and whether it is finished.
    queues: Vec<BTreeMap<u64, (Lane, bool)>>,
    /// When the last call of a lane ends, in truth.
    ends: BTreeMap<(QueueIndex, Lane), Time>,
    /// What was written down as finished.
    written: BTreeSet<(QueueIndex, u64)>,
    /// Calls that started.
    pub starts: u64,
}

impl Judge {
    /// A judge of so many queues without messages.
    pub fn new(queues: usize) -> Self {
        Self {
            queues: vec![BTreeMap::new(); queues],
            ..Self::default()
        }
    }

    /// A message was sent.
    pub fn sent(&mut self, queue: QueueIndex, offset: u64, lane: Lane) {
        self.queues[queue].insert(offset, (lane, false));
    }

    /// A call of these offsets starts and ends in truth at `end` (P1).
    pub fn started(&mut self, now: Time, queue: QueueIndex, offsets: &[u64], end: Time) {
        self.starts += 1;
        let lane = self.queues[queue][&offsets[0]].0.clone();
        let running = self.ends.get(&(queue, lane.clone()));
        let alone = matches!(lane, Lane::Own(_)) || running.is_none_or(|end| *end <= now);
        assert!(alone, "{lane:?} of {queue} overlaps itself at {now:?}");
        for (index, offset) in offsets.iter().enumerate() {
            assert_eq!(self.queues[queue][offset].0, lane, "a batch is of one lane");
            let before = self.queues[queue].range(..offset);
            let overtaken = before
                .filter(|(of, (at, done))| !done && *at == lane && !offsets[..index].contains(of));
            assert_eq!(
                overtaken.map(|(of, _)| *of).collect::<Vec<_>>(),
                [0u64; 0],
                "{lane:?} of {queue}: {offset} overtakes"
            );
            assert!(
                !self.written.contains(&(queue, *offset)),
                "{queue}: {offset} runs again though it is written down as finished (P6)"
            );
        }
        self.ends.insert((queue, lane), end);
    }

    /// The last call of the lane of this message ended early.
    pub fn ended(&mut self, now: Time, queue: QueueIndex, offset: u64) {
        let lane = self.queues[queue][&offset].0.clone();
        self.ends.insert((queue, lane), now);
    }

    /// The handler finished a message, or the broker has it again.
    pub fn finished(&mut self, queue: QueueIndex, offset: u64) {
        if let Some((_, done)) = self.queues[queue].get_mut(&offset) {
            *done = true;
        }
    }

    /// It is written down that these are finished (P2); none of them may run again (P6).
    pub fn claimed(&mut self, queue: QueueIndex, finished: &Finished) {
        for (offset, (lane, done)) in &self.queues[queue] {
            let claimed = finished.contains(*offset);
            assert!(
                *done || !claimed,
                "{queue}: {offset} of {lane:?} is claimed to be finished"
            );
            if claimed {
                self.written.insert((queue, *offset));
            }
        }
    }

    /// The queue goes on from here: everything before is finished, nothing after it is.
    pub fn reset(&mut self, queue: QueueIndex, position: u64) {
        for (offset, (_, done)) in &mut self.queues[queue] {
            *done = *offset < position;
        }
        self.written
            .retain(|(of, offset)| *of != queue || *offset < position);
    }

    /// Whether a call of the queue runs.
    pub fn runs(&self, now: Time, queue: QueueIndex) -> bool {
        self.ends
            .iter()
            .any(|((of, _), end)| *of == queue && *end > now)
    }

    /// Messages that are not finished.
    pub fn unfinished(&self) -> usize {
        let messages = self.queues.iter().flat_map(BTreeMap::values);
        messages.filter(|(_, done)| !done).count()
    }
}
