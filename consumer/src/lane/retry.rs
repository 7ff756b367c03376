//! When a failed message is tried again.

use super::settings::Backoff;
use rand::Rng;
use std::time::Duration;

/// How often the head of a blocked key is tried again: the handler may have been mended meanwhile.
pub const BLOCKED_RETRY: Duration = Duration::from_secs(60);
/// The longest wait that a handler may ask for.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);
/// The longest wait of a key whose calls are not taken.
pub const LONGEST_REFUSED: Duration = Duration::from_secs(2);

/// The delay level that means the dead letter queue.
pub const DEAD_LETTER: i32 = -1;
/// The delays of RocketMQ's levels 1 to 18 in seconds (its default `messageDelayLevel`).
const LEVELS: [u64; 18] = [
    1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200,
];

/// Time before the next attempt after `attempts` failed ones: `initial * factor^(attempts - 1)`, at
/// most `max`, plus or minus the jitter.
pub fn delay(backoff: &Backoff, attempts: u32, rng: &mut impl Rng) -> Duration {
    let growth = f64::from(backoff.factor).powi(attempts.saturating_sub(1).min(64) as i32);
    let plain = (backoff.initial.as_secs_f64() * growth).min(backoff.max.as_secs_f64());
    let jitter = f64::from(backoff.jitter_percent) / 100.0;
    Duration::from_secs_f64(plain * (1.0 + jitter * rng.random_range(-1.0..=1.0)))
}

/// Time before a call of a key is made again of which the handler did not take `refusals` in a row.
pub fn refused_delay(backoff: &Backoff, refusals: u32) -> Duration {
    let growth = 2u32.saturating_pow(refusals.clamp(1, 16) - 1);
    (backoff.initial * growth).min(LONGEST_REFUSED)
}

/// RocketMQ's delay level for a message that goes to the retry topic after it was consumed again
/// `reconsumed` times: 3 for the first time, and so on, as its own clients have it; or the first level
/// that is as long as the handler wants.
pub fn delay_level(reconsumed: u32, wanted: Option<Duration>) -> i32 {
    let level = match wanted {
        Some(wanted) => 1 + LEVELS.partition_point(|delay| Duration::from_secs(*delay) < wanted),
        None => 3 + reconsumed as usize,
    };
    level.min(LEVELS.len()) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn delays_grow_to_the_maximum_and_stay_within_the_jitter() {
        let backoff = Backoff::default();
        let mut rng = StdRng::seed_from_u64(1);
        for (attempts, plain) in [(1, 0.2), (2, 0.4), (3, 0.8), (7, 10.0), (15, 10.0)] {
            let delays: Vec<f64> = (0..100)
                .map(|_| delay(&backoff, attempts, &mut rng).as_secs_f64())
                .collect();
            assert!(
                delays
                    .iter()
                    .all(|delay| (plain * 0.8..=plain * 1.2).contains(delay)),
                "attempt {attempts}: {delays:?}"
            );
            assert!(
                delays
                    .iter()
                    .any(|delay| (delay - plain).abs() > plain * 0.1)
            );
        }
    }

    #[test]
    fn delay_levels_are_those_of_rocketmqs_own_clients() {
        assert_eq!((delay_level(0, None), delay_level(5, None)), (3, 8));
        assert_eq!(delay_level(100, None), 18);
        assert_eq!(delay_level(0, Some(Duration::from_secs(31))), 5);
        assert_eq!(delay_level(9, Some(Duration::from_millis(200))), 1);
        assert_eq!(delay_level(0, Some(Duration::from_secs(86_400))), 18);
    }
}
