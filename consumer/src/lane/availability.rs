//! Whether the handler takes calls at all. A call that is not taken says nothing about its message; when
//! it happens to two keys with no answer in between, the handler is what is wrong: dispatching stops and
//! one call at a time probes, with backoff, until one is answered.

use super::{Assignment, LaneKey, Time};
use std::time::Duration;

const FIRST_PROBE: Duration = Duration::from_millis(200);
const LAST_PROBE: Duration = Duration::from_secs(5);

/// The handler's availability.
#[derive(Debug, Default)]
pub struct Availability {
    /// The key that was last refused with no answer since.
    suspect: Option<(Assignment, LaneKey)>,
    outage: Option<Outage>,
}

#[derive(Debug)]
struct Outage {
    next_probe: Time,
    wait: Duration,
    probing: bool,
}

impl Availability {
    /// True unless several keys found the handler not available.
    pub fn is_available(&self) -> bool {
        self.outage.is_none()
    }

    /// Whether a call may be made now.
    pub fn permits(&self, now: Time) -> bool {
        self.outage
            .as_ref()
            .is_none_or(|outage| !outage.probing && now >= outage.next_probe)
    }

    /// When a call may be made, if not now.
    pub fn next_probe(&self) -> Option<Time> {
        self.outage
            .as_ref()
            .filter(|outage| !outage.probing)
            .map(|outage| outage.next_probe)
    }

    /// A call was made.
    pub fn called(&mut self) {
        if let Some(outage) = &mut self.outage {
            outage.probing = true;
        }
    }

    /// The handler answered, well or badly: it is available.
    pub fn answered(&mut self) {
        self.suspect = None;
        self.outage = None;
    }

    /// A call ended without an answer that says anything (timed out, connection lost, not sent).
    pub fn no_answer(&mut self, now: Time) {
        if let Some(outage) = &mut self.outage {
            outage.probing = false;
            outage.next_probe = outage.next_probe.max(now + outage.wait);
        }
    }

    /// The handler did not take a call of this key.
    pub fn refused(&mut self, now: Time, assignment: Assignment, key: &LaneKey) {
        match &mut self.outage {
            Some(outage) => {
                outage.probing = false;
                outage.next_probe = now + outage.wait;
                outage.wait = (outage.wait * 2).min(LAST_PROBE);
            }
            None => {
                let other = self
                    .suspect
                    .as_ref()
                    .is_some_and(|(of, suspect)| *of != assignment || suspect != key);
                if other {
                    self.outage = Some(Outage {
                        next_probe: now + FIRST_PROBE,
                        wait: FIRST_PROBE * 2,
                        probing: false,
                    });
                } else {
                    self.suspect = Some((assignment, key.clone()));
                }
            }
        }
    }
}
