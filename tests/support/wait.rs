//! The one way of tests to wait: poll a condition until a deadline, and say what was waited for.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// A condition that did not become true in time.
#[derive(Debug, thiserror::Error)]
#[error("{what} not within {limit:?}: {last}")]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub limit: Duration,
    /// The last reason why not.
    pub last: String,
}

/// Polls `condition` until it gives a value. `Err` means not yet, and says why: when `limit` has
/// passed, the error tells `what` was waited for and the last reason. A poll that is under way when
/// the time ends is cut off.
pub async fn until<T, R: std::fmt::Display>(
    limit: Duration,
    what: impl Into<String>,
    mut condition: impl AsyncFnMut() -> Result<T, R>,
) -> Result<T, TimedOut> {
    let end = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    let mut last = "it was never answered".to_owned();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) => last = reason.to_string(),
            Err(_) => {}
        }
        if Instant::now() >= end {
            let what = what.into();
            return Err(TimedOut { what, limit, last });
        }
        tokio::time::sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_value_is_given() {
        let mut tries = 0;
        let value = until(Duration::from_secs(10), "three tries", async || {
            tries += 1;
            if tries == 3 {
                Ok(tries)
            } else {
                Err("too few")
            }
        })
        .await;
        assert_eq!(value.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_timeout_says_what_was_waited_for_and_why_it_is_not_so() {
        let limit = Duration::from_millis(20);
        let error = until(limit, "lag gone", async || Err::<(), _>("lag is 7"))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "lag gone not within 20ms: lag is 7");
    }

    #[tokio::test]
    async fn a_condition_that_hangs_does_not_outlive_the_limit() {
        let limit = Duration::from_millis(20);
        let error = until(limit, "an answer", async || {
            std::future::pending::<Result<(), &str>>().await
        })
        .await
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "an answer not within 20ms: it was never answered"
        );
    }
}
