//! The calls of this process that nobody was told of yet.
//!
//! Cheap per call: one short lock at its start and one at its end. A call that begins and ends between
//! two reports is reported once.

use crate::event::Event;
use keylane_tests::judge::{Ended, Micros, Report, Reported};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Now, on the clock all handlers of a machine share.
pub fn now() -> Micros {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// Calls since the last report.
#[derive(Debug)]
pub struct Calls {
    handler: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: u64,
    reports: u64,
    running: HashMap<u64, Running>,
    ended: Vec<Reported>,
}

#[derive(Debug)]
struct Running {
    call: Reported,
    reported: bool,
}

impl Calls {
    /// No calls of this process, whose name must be unique.
    pub fn new(handler: String) -> Self {
        Self {
            handler,
            state: Mutex::default(),
        }
    }

    /// A call begins now; gives its number.
    pub fn begin(&self, event: &Event) -> u64 {
        let call = Reported {
            id: 0,
            queue: event.queue.clone(),
            key: event.key.clone(),
            offset: event.offset,
            start: now(),
            end: None,
        };
        let mut state = self.state();
        state.calls += 1;
        let id = state.calls;
        let call = Reported { id, ..call };
        state.running.insert(
            id,
            Running {
                call,
                reported: false,
            },
        );
        id
    }

    /// A call ends now.
    pub fn end(&self, id: u64, ok: bool) {
        let end = Some(Ended { at: now(), ok });
        let mut state = self.state();
        if let Some(Running { call, .. }) = state.running.remove(&id) {
            state.ended.push(Reported { end, ..call });
        }
    }

    /// Everything that began or ended since the last report. There is one as long as calls run, as a
    /// sign of life, or none.
    pub fn report(&self) -> Option<Report> {
        let mut state = self.state();
        if state.running.is_empty() && state.ended.is_empty() {
            return None;
        }
        let mut calls = std::mem::take(&mut state.ended);
        for running in state.running.values_mut() {
            if !std::mem::replace(&mut running.reported, true) {
                calls.push(running.call.clone());
            }
        }
        state.reports += 1;
        Some(Report {
            handler: self.handler.clone(),
            sequence: state.reports,
            at: now(),
            calls,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(offset: u64) -> Event {
        Event {
            queue: "q".into(),
            key: None,
            offset,
        }
    }

    #[test]
    fn a_call_is_reported_at_its_end_and_before_only_if_it_runs_meanwhile() {
        let calls = Calls::new("a".into());
        assert_eq!(calls.report(), None);
        let short = calls.begin(&event(1));
        calls.end(short, true);
        let long = calls.begin(&event(2));
        let told = |report: Report| -> Vec<(u64, Option<bool>)> {
            let each = report.calls.iter();
            each.map(|call| (call.offset, call.end.map(|end| end.ok)))
                .collect()
        };
        let first = calls.report().unwrap();
        assert_eq!(told(first), [(1, Some(true)), (2, None)]);
        assert_eq!(told(calls.report().unwrap()), [], "a sign of life");
        calls.end(long, false);
        let last = calls.report().unwrap();
        assert_eq!(last.sequence, 3);
        assert_eq!(told(last), [(2, Some(false))]);
        assert_eq!(calls.report(), None);
    }
}
