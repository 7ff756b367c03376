//! What became of each call: waits to be written, is in flight, or was on a stream that broke.
//!
//! Pure: time is an argument, and answers are handed back to be given. Invariants: every call that was put
//! is answered exactly once; a call is written to one stream at most, after its `may_send` said yes in the
//! same step; no more calls are in flight than the handler's credit; a call that was cancelled keeps its
//! credit until the handler says that nothing of it runs.
//!
//! A call of a broken stream is held back until the next stream is open, as the handler's first word there
//! may be that nothing of it runs any more, so that its key goes on at once. Without such a word it is
//! answered as lost, and the lane core waits for the call bound.

use super::{convert, proto};
use crate::handler::{Delivery, Outcome};
use crate::lane::CallResult;
use foldhash::HashMap;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes of calls in a request. Servers take 4 MiB by default.
const REQUEST_BYTES: u64 = 256 << 10;
/// How long a call waits for credit before it goes back to its lane, which puts it into line again if its
/// queue is still ours. A quarter of the call's time at most, so that the handler is not short of time.
const PATIENCE: Duration = Duration::from_secs(1);

/// A call that is not written yet.
pub struct Waiting<R> {
    pub delivery: Delivery,
    /// Whether it may still be sent.
    pub may_send: Box<dyn Fn() -> bool + Send>,
    /// When it came.
    pub since: Instant,
    /// To whom its answer goes.
    pub reply: R,
}

struct Sent<R> {
    messages: u32,
    /// When it is cancelled.
    due: Instant,
    cancelled: bool,
    reply: R,
}

/// An outcome and whom it concerns.
pub type Answer<R> = (R, Outcome);

/// All calls of one handler.
pub struct Desk<R> {
    /// Time of a call, and time that a cancelled one may run on.
    timeout: Duration,
    grace: Duration,
    waiting: VecDeque<Waiting<R>>,
    /// In flight on the present stream.
    sent: HashMap<u64, Sent<R>>,
    /// In flight on a stream that broke.
    broken: Vec<Sent<R>>,
    cancelled: Vec<u64>,
    /// The open stream, or why there is none.
    stream: Result<u64, String>,
    /// Why the open stream is given no calls.
    paused: Option<String>,
    credit: usize,
    earlier_running: Option<u32>,
    last_id: u64,
}

impl<R> Desk<R> {
    /// No calls, and no stream for this reason.
    pub fn new(timeout: Duration, grace: Duration, why: String) -> Self {
        Self {
            timeout,
            grace,
            waiting: VecDeque::new(),
            sent: HashMap::default(),
            broken: Vec::new(),
            cancelled: Vec::new(),
            stream: Err(why),
            paused: None,
            credit: 0,
            earlier_running: None,
            last_id: 0,
        }
    }

    /// Whether calls are taken: a stream is open, and not paused. The error says why not.
    pub fn takes_calls(&self) -> Result<(), &str> {
        match (&self.stream, &self.paused) {
            (Err(why), _) | (Ok(_), Some(why)) => Err(why),
            (Ok(_), None) => Ok(()),
        }
    }

    /// See [`crate::handler::Handler::idle`].
    pub fn idle(&self) -> Option<bool> {
        // Without a stream it cannot say now; it may in its first word on the next one.
        if self.stream.is_err() {
            return Some(false);
        }
        let earlier = self.earlier_running?;
        Some(earlier == 0 && self.sent.is_empty() && self.broken.is_empty())
    }

    /// Takes a call, or answers it at once as none is taken.
    pub fn put(&mut self, call: Waiting<R>) -> Option<Answer<R>> {
        match self.takes_calls() {
            Ok(()) => {
                self.waiting.push_back(call);
                None
            }
            Err(why) => Some((call.reply, not_taken(why).into())),
        }
    }

    /// The open stream is given no more calls, for this reason. What it has goes on.
    pub fn pause(&mut self, why: String) -> Vec<Answer<R>> {
        let answers = self.give_back(&why);
        self.paused = Some(why);
        answers
    }

    /// It is given calls again.
    pub fn resume(&mut self) {
        self.paused = None;
    }

    /// What was not written.
    fn give_back(&mut self, why: &str) -> Vec<Answer<R>> {
        let waiting = self.waiting.drain(..);
        waiting
            .map(|call| (call.reply, not_taken(why).into()))
            .collect()
    }

    /// A stream is open: this was the handler's first word.
    pub fn open(&mut self, stream: u64, welcome: proto::HandleResponse) -> Vec<Answer<R>> {
        self.stream = Ok(stream);
        self.paused = None;
        self.credit = usize::MAX;
        self.earlier_running = None;
        let over = welcome.earlier_running == Some(0);
        let broken = self.broken.drain(..);
        let mut answers: Vec<_> = broken.map(|call| lost(call, over)).collect();
        answers.extend(self.read(welcome));
        answers
    }

    /// The stream broke.
    pub fn close(&mut self, why: String) -> Vec<Answer<R>> {
        self.broken.extend(self.sent.drain().map(|(_, call)| call));
        self.cancelled.clear();
        let answers = self.give_back(&why);
        self.stream = Err(why);
        answers
    }

    /// The handler said something.
    pub fn read(&mut self, said: proto::HandleResponse) -> Vec<Answer<R>> {
        if let Some(credit) = said.max_in_flight {
            self.credit = credit as usize;
        }
        self.earlier_running = said.earlier_running.or(self.earlier_running);
        let mut answers = Vec::with_capacity(said.results.len());
        for result in said.results {
            let Some(call) = self.sent.remove(&result.call_id) else {
                continue;
            };
            let outcome = convert::outcome(result, call.messages);
            let is_late = call.cancelled && outcome.result != CallResult::Done;
            answers.push((call.reply, if is_late { timed_out() } else { outcome }));
        }
        let ended = said.ended.iter();
        answers.extend(
            ended
                .filter_map(|id| self.sent.remove(id))
                .map(|call| (call.reply, timed_out())),
        );
        answers
    }

    /// What is to be written to a stream now; `may_send` was asked. None if there is nothing.
    pub fn write(
        &mut self,
        stream: u64,
        answers: &mut Vec<Answer<R>>,
    ) -> Option<proto::HandleRequest> {
        if self.stream != Ok(stream) {
            return None;
        }
        let (mut calls, mut bytes) = (Vec::new(), 0);
        while self.sent.len() < self.credit
            && let Some(next) = self.waiting.front()
        {
            let size: u64 = next.delivery.messages().map(|message| message.cost()).sum();
            if !calls.is_empty() && bytes + size > REQUEST_BYTES {
                break;
            }
            let Some(next) = self.waiting.pop_front() else {
                break;
            };
            if !(next.may_send)() {
                answers.push((next.reply, CallResult::NotSent.into()));
                continue;
            }
            bytes += size;
            self.last_id += 1;
            calls.push(convert::call(self.last_id, &next.delivery));
            let sent = Sent {
                messages: 1 + next.delivery.rest.len() as u32,
                due: next.since + self.timeout,
                cancelled: false,
                reply: next.reply,
            };
            self.sent.insert(self.last_id, sent);
        }
        let cancelled = std::mem::take(&mut self.cancelled);
        (!calls.is_empty() || !cancelled.is_empty()).then(|| proto::HandleRequest {
            hello: None,
            calls,
            cancelled,
        })
    }

    /// Whether [`write`](Self::write) has something for this stream.
    pub fn has_work(&self, stream: u64) -> bool {
        let calls = !self.waiting.is_empty() && self.sent.len() < self.credit;
        self.stream == Ok(stream) && (calls || !self.cancelled.is_empty())
    }

    /// Ends what has taken long enough. Also says when to ask again, if there is any call: in time for
    /// every one that is put until then.
    pub fn tick(&mut self, now: Instant) -> (Vec<Answer<R>>, Option<Instant>) {
        let patience = PATIENCE.min(self.timeout / 4);
        let mut next = now + patience;
        let mut answers = Vec::new();
        while let Some(call) = self
            .waiting
            .pop_front_if(|call| call.since + patience <= now)
        {
            answers.push((call.reply, CallResult::NotSent.into()));
        }
        for (id, call) in &mut self.sent {
            if !call.cancelled && call.due <= now {
                call.cancelled = true;
                self.cancelled.push(*id);
            }
            let end = call.due
                + if call.cancelled {
                    self.grace
                } else {
                    Duration::ZERO
                };
            next = next.min(end);
        }
        let grace = self.grace;
        let over = |call: &mut Sent<R>| call.due + grace <= now;
        let gone = self.sent.extract_if(|_, call| over(call));
        answers.extend(gone.map(|(_, call)| (call.reply, timed_out())));
        let gone = self.broken.extract_if(.., |call| over(call));
        answers.extend(gone.map(|call| lost(call, true)));
        for call in &self.broken {
            next = next.min(call.due + grace);
        }
        let none = self.waiting.is_empty() && self.sent.is_empty() && self.broken.is_empty();
        (answers, (!none).then_some(next))
    }
}

/// It was cancelled, and nothing of it runs any more.
fn timed_out() -> Outcome {
    Outcome {
        over: true,
        ..CallResult::TimedOut.into()
    }
}

fn lost<R>(call: Sent<R>, over: bool) -> Answer<R> {
    let result = match call.cancelled {
        true => CallResult::TimedOut,
        false => CallResult::Lost {
            error: "the stream to the handler broke while it had the call".into(),
        },
    };
    let outcome = Outcome {
        over,
        ..result.into()
    };
    (call.reply, outcome)
}

fn not_taken(why: &str) -> CallResult {
    CallResult::NotTaken {
        error: why.into(),
        retry_after: None,
    }
}

#[cfg(test)]
mod tests;
