//! Where handlers of one process write down their calls.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::{Call, Verdict, judge};

/// Now, in microseconds of Unix time; never goes backwards within a process.
#[must_use]
pub fn now_micros() -> i64 {
    static BASE: OnceLock<(i64, Instant)> = OnceLock::new();
    let (wall, started) = BASE.get_or_init(|| {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let micros = wall.map_or(0, |wall| wall.as_micros());
        (i64::try_from(micros).unwrap_or_default(), Instant::now())
    });
    wall + i64::try_from(started.elapsed().as_micros()).unwrap_or_default()
}

/// The calls of the handlers of one process, in the order in which they started.
#[derive(Debug, Default)]
pub struct Recorder {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    /// Queues and keys are many times the same text.
    texts: HashSet<Arc<str>>,
    /// Calls that changed since they were last taken; each once.
    changed: Vec<usize>,
    is_changed: Vec<bool>,
}

impl State {
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&new));
        new
    }

    fn mark(&mut self, number: usize) {
        if !self.is_changed[number] {
            self.is_changed[number] = true;
            self.changed.push(number);
        }
    }
}

impl Recorder {
    /// Writes down that a call starts now; gives its number, for [`end`](Self::end).
    pub fn start(&self, queue: &str, key: &str, offset: i64) -> usize {
        let mut state = self.lock();
        let call = Call {
            queue: state.text(queue),
            key: state.text(key),
            offset,
            // Inside the lock, so that numbers and times have the same order.
            start: now_micros(),
            end: None,
            ok: false,
        };
        let number = state.calls.len();
        state.calls.push(call);
        state.is_changed.push(false);
        state.mark(number);
        number
    }

    /// Writes down that a call ends now. Only the first end of a call counts.
    pub fn end(&self, number: usize, ok: bool) {
        let now = now_micros();
        let mut state = self.lock();
        if let Some(call) = state.calls.get_mut(number)
            && call.end.is_none()
        {
            call.end = Some(now);
            call.ok = ok;
            state.mark(number);
        }
    }

    /// All calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// The verdict on all calls so far, with what is missing if a number is expected.
    #[must_use]
    pub fn verdict(&self, expected: Option<u64>) -> Verdict {
        let calls = self.calls();
        let verdict = judge(&calls);
        match expected {
            Some(expected) => verdict.expecting(expected, &calls),
            None => verdict,
        }
    }

    /// Up to `limit` calls that changed since they were last taken, with their numbers.
    pub fn take_changed(&self, limit: usize) -> Vec<(usize, Call)> {
        let mut state = self.lock();
        let count = state.changed.len().min(limit);
        let taken: Vec<usize> = state.changed.drain(..count).collect();
        taken
            .into_iter()
            .map(|number| {
                state.is_changed[number] = false;
                (number, state.calls[number].clone())
            })
            .collect()
    }

    /// Marks calls as changed again, because what was taken did not arrive.
    pub fn put_back(&self, numbers: impl IntoIterator<Item = usize>) {
        let mut state = self.lock();
        for number in numbers {
            state.mark(number);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
