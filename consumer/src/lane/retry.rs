//! When a failed message is tried again.

use crate::contract::spec::Retry;
use rand::Rng;
use std::time::Duration;

/// How often the head of a blocked key is tried again: the handler may have been mended meanwhile.
pub const BLOCKED_RETRY: Duration = Duration::from_secs(60);

/// Time before the next attempt after `attempts` failed ones: `initial * factor^(attempts - 1)`, at
/// most `max`, plus or minus the jitter; [`BLOCKED_RETRY`] once the attempts are used up.
pub fn delay(retry: &Retry, attempts: u32, rng: &mut impl Rng) -> Duration {
    if attempts >= retry.max_attempts {
        return BLOCKED_RETRY;
    }
    let backoff = &retry.backoff;
    let growth = f64::from(backoff.factor).powi(attempts.saturating_sub(1).min(64) as i32);
    let plain = (backoff.initial.get().as_secs_f64() * growth).min(backoff.max.get().as_secs_f64());
    let jitter = f64::from(backoff.jitter_percent) / 100.0;
    Duration::from_secs_f64(plain * (1.0 + jitter * rng.random_range(-1.0..=1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn delays_grow_to_the_maximum_and_stay_within_the_jitter() {
        let retry = Retry::default();
        let mut rng = StdRng::seed_from_u64(1);
        for (attempts, plain) in [(1, 0.2), (2, 0.4), (3, 0.8), (7, 10.0), (15, 10.0)] {
            for _ in 0..100 {
                let delay = delay(&retry, attempts, &mut rng).as_secs_f64();
                assert!(
                    (plain * 0.8..=plain * 1.2).contains(&delay),
                    "attempt {attempts}: {delay}"
                );
            }
        }
        assert_eq!(delay(&retry, 16, &mut rng), BLOCKED_RETRY);
    }
}
