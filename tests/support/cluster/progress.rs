//! Steps a person can follow: what runs, for how long, and where its log is. Progress goes to
//! standard error, so that standard output stays usable for answers.

use std::path::Path;
use std::time::{Duration, Instant};

/// A step that takes longer than this says so again and again.
const REMINDER: Duration = Duration::from_secs(30);

/// Runs one step and prints its name first and its time after.
pub fn step<T, E>(name: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let start = Instant::now();
    eprintln!("==> {name}");
    let result = work();
    let took = start.elapsed().as_secs_f32();
    match &result {
        Ok(_) => eprintln!("    done in {took:.1} s"),
        Err(_) => eprintln!("    failed after {took:.1} s"),
    }
    result
}

/// A remark below the running step.
pub fn note(text: &str) {
    eprintln!("    {text}");
}

/// Says every half minute that a long wait goes on, and where to look meanwhile.
#[derive(Debug)]
pub struct Reminder {
    start: Instant,
    next: Instant,
}

impl Reminder {
    /// Starts counting now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            start: now,
            next: now + REMINDER,
        }
    }

    /// Prints when half a minute has passed since the last time.
    pub fn tick(&mut self, now: Instant, log: Option<&Path>) {
        if now < self.next {
            return;
        }
        self.next = now + REMINDER;
        let seconds = now.duration_since(self.start).as_secs();
        match log {
            Some(log) => note(&format!(
                "still running after {seconds} s (log: {})",
                log.display()
            )),
            None => note(&format!("still running after {seconds} s")),
        }
    }
}
