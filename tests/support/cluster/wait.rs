//! The one way to wait for something here: poll a condition until a deadline.

use std::path::Path;
use std::time::{Duration, Instant};

use super::error::{ClusterError, Result};
use super::progress::Reminder;

const POLL: Duration = Duration::from_millis(100);

/// Why a probe gave no value.
#[derive(Debug)]
pub enum Pending {
    /// Try again; the reason is shown when time runs out.
    NotYet(String),
    /// It cannot come true any more: stop waiting.
    Never(ClusterError),
}

impl From<String> for Pending {
    fn from(reason: String) -> Self {
        Self::NotYet(reason)
    }
}

/// Polls `probe` until it gives a value, at most for `limit`. When time runs out the error tells the
/// probe's last reason and names `log`.
pub fn until<T>(
    what: &str,
    limit: Duration,
    log: Option<&Path>,
    mut probe: impl FnMut() -> std::result::Result<T, Pending>,
) -> Result<T> {
    let start = Instant::now();
    let mut reminder = Reminder::new(start);
    loop {
        let last = match probe() {
            Ok(value) => return Ok(value),
            Err(Pending::NotYet(reason)) => reason,
            Err(Pending::Never(error)) => return Err(error),
        };
        let now = Instant::now();
        if now.duration_since(start) >= limit {
            return Err(ClusterError::TimedOut {
                what: what.to_owned(),
                seconds: limit.as_secs(),
                last,
                log: log.map(Path::to_path_buf),
            });
        }
        reminder.tick(now, log);
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_the_first_success_is_given() {
        let mut tries = 0;
        let value = until("three", Duration::from_secs(10), None, || {
            tries += 1;
            if tries == 3 {
                Ok(tries)
            } else {
                Err("not yet".to_owned().into())
            }
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn a_timeout_tells_the_last_reason_and_the_log() {
        let log = Path::new("/logs/part.log");
        let error = until::<()>("part ready", Duration::ZERO, Some(log), || {
            Err("connection refused".to_owned().into())
        })
        .unwrap_err()
        .to_string();
        assert_eq!(
            error,
            "part ready not within 0 s: connection refused (log: /logs/part.log)"
        );
    }
}
