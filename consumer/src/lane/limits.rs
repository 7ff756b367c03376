//! How much of a queue and of all queues may be in memory, and how far ahead of its watermark a queue
//! may be pulled. Reaching a limit stops the pull of that queue only; it resumes at half.

/// Upper bounds of what an executor holds in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages of all queues together.
    pub messages: u64,
    /// Bytes of all queues together; see [`cost`].
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

/// Bytes a message counts for: its body and what keeping it costs, so that empty bodies count too.
pub fn cost(body: usize) -> u64 {
    body as u64 + 512
}

/// Messages and bytes in memory, dispatched ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Held {
    /// Counts a message.
    pub fn add(&mut self, cost: u64) {
        self.messages += 1;
        self.bytes += cost;
    }

    /// Stops counting a message.
    pub fn remove(&mut self, cost: u64) {
        self.messages -= 1;
        self.bytes -= cost;
    }
}

impl Limits {
    /// How many messages may be pulled for a queue that holds `held` and is pulled `span` ahead, when
    /// `queues` share the limits; 0 if none. `stopped` says that it was stopped by a limit before: then
    /// it resumes at half.
    ///
    /// Each queue gets an equal share, so that a stuck queue cannot use up what the others need; the sum
    /// of the shares is the limit of the pod. Bytes may overshoot by one reply of the broker a queue; a
    /// queue that arrives shrinks the shares of the others, which keep what they hold.
    pub fn room(&self, held: Held, span: u64, queues: usize, stopped: bool) -> u32 {
        let share = |limit: u64| (limit / queues.max(1) as u64).max(1);
        let threshold = |limit: u64| if stopped { limit.div_ceil(2) } else { limit };
        let allowed = held.messages < threshold(share(self.messages))
            && held.bytes < threshold(share(self.bytes))
            && span < threshold(self.span);
        let left = share(self.messages).saturating_sub(held.messages);
        if allowed {
            left.min(u64::from(self.pull)) as u32
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_stops_a_queue_and_half_of_it_resumes() {
        let limits = Limits {
            messages: 100,
            bytes: 1_000,
            span: 50,
            pull: 32,
        };
        let held = |messages, bytes| Held { messages, bytes };
        assert!(limits.room(held(49, 0), 0, 2, false) > 0);
        assert_eq!(limits.room(held(50, 0), 0, 2, false), 0);
        assert_eq!(limits.room(held(25, 0), 0, 2, true), 0);
        assert!(limits.room(held(24, 0), 0, 2, true) > 0);
        assert_eq!(limits.room(held(0, 500), 0, 2, false), 0);
        assert_eq!(limits.room(held(0, 0), 50, 2, false), 0);
        assert_eq!(limits.room(held(0, 0), 25, 2, true), 0);
        assert!(limits.room(held(0, 0), 24, 2, true) > 0);
    }

    #[test]
    fn a_pull_asks_for_no_more_than_the_share_leaves() {
        let limits = Limits {
            messages: 100,
            bytes: 1 << 30,
            span: 50,
            pull: 32,
        };
        assert_eq!(
            limits.room(
                Held {
                    messages: 40,
                    bytes: 0
                },
                0,
                2,
                false
            ),
            10
        );
        assert_eq!(
            limits.room(
                Held {
                    messages: 0,
                    bytes: 0
                },
                0,
                2,
                false
            ),
            32
        );
    }

    #[test]
    fn an_empty_body_counts() {
        assert!(cost(0) > 0);
    }
}
