//! How much of a queue and of all queues may be in memory, and how far ahead of its watermark a queue
//! may be pulled. Reaching a limit stops that queue only; it resumes at half.
//!
//! A queue may hold [`ALPHA`] times what the pod has left: one stuck queue can use two thirds of the
//! memory, and there is always something left for the others, however many there are. (Dynamic
//! thresholds: A. K. Choudhury and E. L. Hahne, Dynamic Queue Length Thresholds for Shared-Memory Packet
//! Switches, 1998.) One message a queue is always allowed, so none ever waits for another; the limits of
//! the pod hold all the same, unless there are more queues than messages allowed, or one message of each
//! is larger than the bytes allowed.
//!
//! What follows the head of a lane that does not move stays in memory. So a stuck key with much of the
//! messages of its queue stops that queue by messages or bytes before it does by the span.

use std::ops::{AddAssign, SubAssign};

const ALPHA: u64 = 2;

/// Upper bounds of what an executor holds in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages of all queues together.
    pub messages: u64,
    /// Bytes of all queues together, as [`crate::message::Message::cost`] counts them.
    pub bytes: u64,
    /// Offsets between the watermark of a queue and where it was pulled to.
    pub span: u64,
    /// Messages asked for in one pull.
    pub pull: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            messages: 20_000,
            bytes: 256 << 20,
            span: 5_000_000,
            pull: 1024,
        }
    }
}

/// Messages and bytes in memory, dispatched ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InMemory {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
}

impl InMemory {
    /// One message of this cost.
    pub fn one(cost: u64) -> Self {
        Self {
            messages: 1,
            bytes: cost,
        }
    }
}

impl AddAssign for InMemory {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

impl SubAssign for InMemory {
    fn sub_assign(&mut self, other: Self) {
        self.messages -= other.messages;
        self.bytes -= other.bytes;
    }
}

/// What one queue may still take in, when `queues` share what `used` of the pod's limits.
#[derive(Clone, Copy, Debug)]
pub struct Share<'a> {
    /// The limits.
    pub limits: &'a Limits,
    /// Queues that share them.
    pub queues: u64,
    /// What all hold.
    pub used: InMemory,
    /// What this queue holds.
    pub held: InMemory,
}

impl Share<'_> {
    /// The same, with what is on its way here counted as if it were here: queues that all ask for the same
    /// room get replies that are mostly thrown away and pulled again. At most half of the limits is kept
    /// for it, as it may be long in coming.
    pub fn expecting(mut self, on_its_way: InMemory) -> Self {
        self.used.messages += on_its_way.messages.min(self.limits.messages / 2);
        self.used.bytes += on_its_way.bytes.min(self.limits.bytes / 2);
        self
    }

    /// Most that the queue may hold now of what has this limit.
    fn threshold(&self, limit: u64, used: u64, held: u64) -> u64 {
        if self.queues <= 1 {
            // Calls of former queues may still hold some.
            return limit.saturating_sub(used - held);
        }
        ALPHA * limit.saturating_sub(used)
    }

    fn messages(&self) -> u64 {
        // The one message that each queue is always allowed is kept back for it.
        let others = if self.queues > 1 { self.queues } else { 0 };
        let limit = self.limits.messages.saturating_sub(others);
        self.threshold(limit, self.used.messages, self.held.messages)
    }

    fn bytes(&self) -> u64 {
        self.threshold(self.limits.bytes, self.used.bytes, self.held.bytes)
    }

    /// Whether a message of this cost may be taken in.
    pub fn admits(&self, cost: u64) -> bool {
        let free = self.limits.bytes.saturating_sub(self.used.bytes);
        self.held.messages == 0
            || self.held.messages < self.messages()
                && self.held.bytes + cost <= self.bytes()
                && cost <= free
    }

    /// How many messages to ask the broker for; 0 if none. `span` is how far ahead the queue is,
    /// `cost` what its messages usually cost. `stopped` says that a limit stopped it: it then waits
    /// until it holds half of what it may.
    pub fn room(&self, span: u64, cost: u64, stopped: bool) -> u32 {
        let half = |limit: u64| if stopped { limit.div_ceil(2) } else { limit };
        if span >= half(self.limits.span) {
            return 0;
        }
        let (messages, bytes) = (self.messages(), self.bytes());
        let pull = u64::from(self.limits.pull);
        // What is taken lowers the threshold itself.
        let slope = if self.queues > 1 { 1 + ALPHA } else { 1 };
        let left = messages.saturating_sub(self.held.messages) / slope;
        let left_bytes = bytes.saturating_sub(self.held.bytes) / slope;
        // A few messages at a time are not worth a pull.
        let few =
            left < messages.div_ceil(8).clamp(1, pull) || left_bytes < bytes.div_ceil(8).max(1);
        let left = left.min(left_bytes / cost.max(1));
        let below = self.held.messages < half(messages) && self.held.bytes < half(bytes);
        if self.held.messages > 0 && (few || !below) {
            return 0;
        }
        // With very many queues, replies that come at once would mostly be thrown away.
        let fair = 2 * self.limits.messages / self.queues.max(1);
        left.min(fair).min(pull).max(1) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        messages: 1_000,
        bytes: 100_000,
        span: 50,
        pull: 32,
    };

    fn share(queues: u64, used: (u64, u64), held: (u64, u64)) -> Share<'static> {
        let memory = |(messages, bytes)| InMemory { messages, bytes };
        Share {
            limits: &LIMITS,
            queues,
            used: memory(used),
            held: memory(held),
        }
    }

    #[test]
    fn a_queue_alone_may_use_everything_and_resumes_at_half() {
        assert!(share(1, (999, 0), (999, 0)).admits(1));
        assert!(!share(1, (1_000, 0), (1_000, 0)).admits(1));
        assert_eq!(share(1, (1_000, 0), (1_000, 0)).room(0, 1, false), 0);
        assert_eq!(share(1, (500, 0), (500, 0)).room(0, 1, true), 0);
        assert_eq!(share(1, (499, 0), (499, 0)).room(0, 1, true), 32);
        assert!(!share(1, (1, 99_000), (1, 99_000)).admits(1_001));
        assert_eq!(share(1, (0, 0), (0, 0)).room(50, 1, false), 0);
        assert_eq!(share(1, (0, 0), (0, 0)).room(25, 1, true), 0);
        assert_eq!(share(1, (0, 0), (0, 0)).room(24, 1, true), 32);
    }

    #[test]
    fn one_stuck_queue_uses_much_and_leaves_something_to_each_of_the_others() {
        for queues in [2, 8, 64, 400] {
            let mut held = vec![0u64; queues];
            let mut fill = |queue: usize| {
                loop {
                    let used = held.iter().sum();
                    if !share(queues as u64, (used, 0), (held[queue], 0)).admits(0) {
                        return held[queue];
                    }
                    held[queue] += 1;
                }
            };
            let stuck = fill(0);
            let others: Vec<u64> = (1..queues).map(&mut fill).collect();
            let fair = 1_000 / queues as u64;
            assert!(
                stuck >= (1_000 - queues as u64) * 3 / 5,
                "{queues}: {stuck}"
            );
            assert!(
                others.iter().all(|other| *other >= 1),
                "{queues}: {others:?}"
            );
            assert!(others[0] >= fair * 2 / 5, "{queues}: {others:?}");
            assert!(
                stuck + others.iter().sum::<u64>() <= 1_000,
                "{queues}: the pod's limit holds"
            );
        }
    }

    #[test]
    fn a_queue_that_holds_nothing_is_never_stopped_by_the_others() {
        let starved = share(8, (1_000, 100_000), (0, 0));
        assert!(starved.admits(50));
        assert_eq!(
            (starved.room(0, 100, false), starved.room(0, 100, true)),
            (1, 1)
        );
    }

    #[test]
    fn what_is_on_its_way_counts_as_if_it_were_here_up_to_half_of_the_limit() {
        let on_its_way = |messages| InMemory { messages, bytes: 0 };
        let some = share(1, (0, 0), (0, 0)).expecting(on_its_way(300));
        assert_eq!(some.used, on_its_way(300));
        let much = share(8, (0, 0), (1, 0)).expecting(on_its_way(10_000));
        assert_eq!(much.used, on_its_way(500));
        assert_eq!(much.room(0, 1, true), 32);
    }

    #[test]
    fn a_pull_asks_for_what_will_fit() {
        assert_eq!(share(2, (0, 0), (0, 0)).room(0, 10_000, false), 6);
        assert_eq!(share(2, (980, 0), (0, 0)).room(0, 1, false), 12);
        assert_eq!(share(500, (0, 0), (0, 0)).room(0, 1, false), 4);
    }
}
