//! The time the executor lives by.

use crate::lane::Time;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

/// Time since the start, which runs at least as fast as the machine's monotonic clock and as its wall
/// clock: a lease must not outlive a suspended machine, whose monotonic clock stood still, and a wall
/// clock that is set back must not stretch it. It never runs backwards.
#[derive(Debug)]
pub struct Clock(Mutex<Reading>);

#[derive(Debug)]
struct Reading {
    monotonic: Instant,
    wall: SystemTime,
    now: Time,
}

impl Default for Clock {
    fn default() -> Self {
        Self(Mutex::new(Reading {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
            now: Time::ZERO,
        }))
    }
}

impl Clock {
    /// The time now.
    pub fn now(&self) -> Time {
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reading.advance(Instant::now(), SystemTime::now())
    }
}

impl Reading {
    fn advance(&mut self, monotonic: Instant, wall: SystemTime) -> Time {
        let by_monotonic = monotonic.saturating_duration_since(self.monotonic);
        let by_wall = wall.duration_since(self.wall).unwrap_or_default();
        self.now += by_monotonic.max(by_wall);
        self.monotonic = self.monotonic.max(monotonic);
        self.wall = wall;
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn follows_whichever_clock_runs_faster_and_never_turns_back() {
        let (start, wall, second) = (
            Instant::now(),
            SystemTime::UNIX_EPOCH,
            Duration::from_secs(1),
        );
        let mut reading = Reading {
            monotonic: start,
            wall,
            now: Time::ZERO,
        };
        assert_eq!(reading.advance(start + second, wall + second), second);
        // Suspended: only the wall clock went on.
        assert_eq!(
            reading.advance(start + second, wall + second * 60),
            second * 60
        );
        // Set back by an hour: the monotonic clock counts.
        assert_eq!(reading.advance(start + second * 3, wall), second * 62);
        assert_eq!(
            reading.advance(start + second * 3, wall + second * 2),
            second * 64
        );
    }
}
