//! Whether the handler takes calls at all. A call that is not taken says nothing about its message; when
//! it happens to two keys with no answer in between, the handler is what is wrong: dispatching stops and
//! one call at a time probes, with backoff, until one is answered.

use super::Time;
use std::time::Duration;

const FIRST_PROBE: Duration = Duration::from_millis(200);
const LAST_PROBE: Duration = Duration::from_secs(5);

/// Tells keys apart: the number of a queue and the hash of a key.
pub type Key = (u32, u32);

/// The handler's availability.
#[derive(Debug, Default)]
pub struct Availability {
    /// The key that was last refused with no answer since.
    suspect: Option<Key>,
    outage: Option<Outage>,
}

#[derive(Debug)]
struct Outage {
    next_probe: Time,
    wait: Duration,
    /// Number of the call that probes.
    probe: Option<u32>,
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
            .is_none_or(|outage| outage.probe.is_none() && now >= outage.next_probe)
    }

    /// When a call may be made, if not now.
    pub fn next_probe(&self) -> Option<Time> {
        let outage = self.outage.as_ref()?;
        outage.probe.is_none().then_some(outage.next_probe)
    }

    /// A call is made.
    pub fn called(&mut self, call: u32) {
        if let Some(outage) = &mut self.outage {
            outage.probe = Some(call);
        }
    }

    /// The handler answered, well or badly: it is available.
    pub fn answered(&mut self) {
        self.suspect = None;
        self.outage = None;
    }

    /// A call ended without an answer that says anything (timed out, connection lost, not sent).
    pub fn no_answer(&mut self, now: Time, call: u32) {
        if let Some(outage) = self.probed_by(call) {
            outage.next_probe = now + outage.wait;
        }
    }

    /// The handler did not take a call of this key.
    pub fn refused(&mut self, now: Time, call: u32, key: Key) {
        if let Some(outage) = self.probed_by(call) {
            outage.next_probe = now + outage.wait;
            outage.wait = (outage.wait * 2).min(LAST_PROBE);
        } else if self.outage.is_none() {
            if self.suspect.is_some_and(|suspect| suspect != key) {
                self.outage = Some(Outage {
                    next_probe: now + FIRST_PROBE,
                    wait: FIRST_PROBE * 2,
                    probe: None,
                });
            } else {
                self.suspect = Some(key);
            }
        }
    }

    /// The outage, if this call was its probe; it is over then.
    fn probed_by(&mut self, call: u32) -> Option<&mut Outage> {
        let outage = self.outage.as_mut()?;
        outage.probe.take_if(|probe| *probe == call)?;
        Some(outage)
    }
}
