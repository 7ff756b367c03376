//! A bound on how often something may happen. Pure: the time is an argument.

use std::time::{Duration, Instant};

/// A bucket of tokens that fills at a steady rate: `burst` at once, `per_second` in the long run.
#[derive(Clone, Debug)]
pub struct Limit {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Option<Instant>,
}

impl Limit {
    /// A full bucket.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second: per_second.into(),
            burst: burst.into(),
            tokens: burst.into(),
            at: None,
        }
    }

    /// Takes one token if there is one.
    pub fn allows(&mut self, now: Instant) -> bool {
        let passed = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        let filled = self.tokens + passed.as_secs_f64() * self.per_second;
        self.tokens = filled.min(self.burst);
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let (mut limit, start) = (Limit::new(10, 5), Instant::now());
        let allowed = |limit: &mut Limit, at: u64, asked: u32| {
            let now = start + Duration::from_millis(at);
            (0..asked).filter(|_| limit.allows(now)).count()
        };
        assert_eq!(allowed(&mut limit, 0, 20), 5);
        assert_eq!(allowed(&mut limit, 50, 20), 0);
        assert_eq!(allowed(&mut limit, 300, 20), 3);
        // Not more than the burst, however long nothing came.
        assert_eq!(allowed(&mut limit, 60_000, 20), 5);
    }
}
