//! Calls: from the core to the handler and back, without a hop where none is needed.
//!
//! The core stands behind a [`Gate`], not in the task of the event loop: the thread on which a call ended
//! takes the end to the core itself and goes on with the next call it gets for it. A key whose calls end
//! at once is thus worked through by one thread without waking another, and calls that end at the same
//! time enter together.
//!
//! A call is first polled on the spot. If it ends there (a function with nothing to wait for), it costs
//! one allocation; if not, it becomes a task. It is never polled by the event loop: a handler that blocks
//! its thread stops that thread and nothing else, as the event loop, with leases and commits, has a thread
//! of its own ([`super::engine`]) and the [`Line`] gives out one call at a time.

use super::clock::Clock;
use super::gate::Gate;
use super::idle::Unanswered;
use super::measures::Measures;
use super::runners::Line;
use super::tasks::{Event, Events};
use crate::handler::{Delivery, Handler, Outcome};
use crate::lane::{Call, CallId, CallResult, Input, LaneExecutor, Output, Suspension, Time};
use crate::message::{Message, QueueId};
use futures::FutureExt;
use std::any::Any;
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};
use tokio_util::task::TaskTracker;

/// Calls a thread runs one after the other before others get a turn.
const CALLS_A_TURN: u32 = 64;
/// Calls that are decided on before the first of them goes to a runner.
const CALLS_AT_ONCE: usize = 256;

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What of a call must be known at its end.
struct Sent {
    id: CallId,
    at: Instant,
    first: Arc<Message>,
    rest: Vec<Arc<Message>>,
}

impl Sent {
    fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        std::iter::once(&self.first).chain(&self.rest)
    }
}

/// What must not be sent, as it is checked right before a call is.
#[derive(Debug, Default)]
struct Held {
    any: AtomicBool,
    what: RwLock<Suspension>,
}

impl Held {
    fn set(&self, suspension: Suspension) {
        let any = !suspension.is_empty();
        *self.what.write().unwrap_or_else(PoisonError::into_inner) = suspension;
        self.any.store(any, Ordering::SeqCst);
    }

    fn holds<'m>(
        &self,
        queue: &QueueId,
        mut messages: impl Iterator<Item = &'m Arc<Message>>,
    ) -> bool {
        if !self.any.load(Ordering::SeqCst) {
            return false;
        }
        let what = self.what.read().unwrap_or_else(PoisonError::into_inner);
        let has_key = |message: &Arc<Message>| {
            let key = message.key.as_deref();
            key.is_some_and(|key| what.keys.contains(key))
        };
        what.all || what.queues.contains(queue) || (!what.keys.is_empty() && messages.any(has_key))
    }
}

/// Runs the calls that the core decides on.
pub struct Calls<H> {
    gate: Gate<LaneExecutor, (CallId, Outcome)>,
    line: Line<Call>,
    handler: Arc<H>,
    clock: Arc<Clock>,
    timeout: Duration,
    events: Events,
    measures: Arc<Measures>,
    tasks: TaskTracker,
    held: Arc<Held>,
    unanswered: Unanswered,
}

impl<H: Handler> Calls<H> {
    pub fn new(
        lanes: LaneExecutor,
        handler: Arc<H>,
        clock: Arc<Clock>,
        timeout: Duration,
        events: Events,
        measures: Arc<Measures>,
    ) -> Self {
        Self {
            gate: Gate::new(lanes),
            line: Line::default(),
            handler,
            clock,
            timeout,
            events,
            measures,
            tasks: TaskTracker::new(),
            held: Arc::default(),
            unanswered: Unanswered::default(),
        }
    }

    pub fn handler(&self) -> &H {
        &self.handler
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Calls that ended without an answer and may still run.
    pub fn unanswered(&self) -> &Unanswered {
        &self.unanswered
    }

    /// Calls without an answer have really ended.
    pub fn over(&self, ids: &[CallId]) {
        let now = self.clock.now();
        self.with(|lanes| {
            for id in ids {
                lanes.handle(now, Input::CallOver { id: *id });
            }
        });
    }

    /// Starts as many runners as this runtime has threads; calls that have to wait become its tasks.
    pub fn start(self: &Arc<Self>) {
        let runtime = tokio::runtime::Handle::current();
        for _ in 0..runtime.metrics().num_workers() {
            let (calls, runtime) = (self.clone(), runtime.clone());
            std::thread::spawn(move || {
                let _within = runtime.enter();
                calls.line.run(|call| calls.run(call));
            });
        }
    }

    /// Ends the runners. Calls that run are left to themselves.
    pub fn stop(&self) {
        self.line.close();
    }

    /// Tells the core what happened.
    pub fn handle(&self, input: Input) {
        self.with(|lanes| lanes.handle(self.clock.now(), input));
    }

    /// Goes to the core, and carries out what it decides then.
    pub fn with<R>(&self, act: impl FnOnce(&mut LaneExecutor) -> R) -> R {
        let calls = RefCell::default();
        let enter = |lanes: &mut LaneExecutor| {
            let done = act(lanes);
            self.put_out(lanes, &mut calls.borrow_mut());
            done
        };
        let done = self.gate.enter(enter, |lanes, ended| {
            self.serve(lanes, ended, &mut calls.borrow_mut());
        });
        self.line.push(&mut calls.borrow_mut());
        done
    }

    /// Holds messages back, in place of what was held back before. Once this returns nothing of it is
    /// sent to the handler, but by a thread that is between its last look and the sending.
    pub fn suspend(&self, suspension: Suspension) {
        self.held.set(suspension.clone());
        self.handle(Input::Suspend(suspension));
        self.withdraw(|call| self.held.holds(&call.queue, messages(call)));
    }

    /// Takes back calls that wait for a thread.
    pub fn withdraw(&self, which: impl Fn(&Call) -> bool) {
        for call in self.line.withdraw(which) {
            self.handle(Input::CallEnded {
                id: call.id,
                acked: 0,
                result: CallResult::NotSent,
            });
        }
    }

    fn put_out(&self, lanes: &mut LaneExecutor, calls: &mut Vec<Call>) {
        while let Some(output) = lanes.poll_output() {
            match output {
                Output::Dispatch(call) => {
                    calls.push(call);
                    if calls.len() >= CALLS_AT_ONCE {
                        self.line.push(calls);
                    }
                }
                output => drop(self.events.send(Event::Output(output))),
            }
        }
    }

    fn serve(
        &self,
        lanes: &mut LaneExecutor,
        ended: &mut Vec<(CallId, Outcome)>,
        calls: &mut Vec<Call>,
    ) {
        // From an earlier round: others are at work, so they can begin.
        self.line.push(calls);
        let now = self.clock.now();
        for (id, outcome) in ended.drain(..) {
            let Outcome {
                acked,
                result,
                over,
            } = outcome;
            let no_answer = matches!(result, CallResult::TimedOut | CallResult::Lost { .. });
            lanes.handle(now, Input::CallEnded { id, acked, result });
            if over {
                lanes.handle(now, Input::CallOver { id });
            } else if no_answer {
                self.unanswered.add(now, id);
            }
        }
        self.put_out(lanes, calls);
    }

    /// Runs a call as far as it goes at once; returns the next one for this thread.
    fn run(self: &Arc<Self>, call: Call) -> Option<Call> {
        let (sent, mut running) = match self.begin(call) {
            Ok(begun) => begun,
            Err((sent, outcome)) => return self.end(&sent, outcome),
        };
        // If it has to wait it is polled again as a task, so nobody is to be woken for this poll.
        match running
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(outcome) => self.end(&sent, outcome),
            Poll::Pending => {
                let calls = self.clone();
                self.tasks.spawn(async move {
                    let outcome = running.await;
                    let mut next = calls.end(&sent, outcome);
                    for _ in 0..CALLS_A_TURN {
                        let Some(call) = next.take() else { return };
                        next = calls.run(call);
                    }
                    calls.line.push(&mut Vec::from_iter(next));
                });
                None
            }
        }
    }

    fn begin(&self, call: Call) -> Result<(Sent, Running), (Sent, Outcome)> {
        let Call {
            id,
            queue,
            key,
            message,
            mut rest,
            attempt,
            lease,
        } = call;
        // What cannot be read the handler never sees; a batch ends before it.
        let defect = message.defect.clone();
        let readable = rest.iter().take_while(|message| message.defect.is_none());
        let readable = readable.count();
        let then = rest
            .get(readable)
            .and_then(|message| message.defect.clone());
        rest.truncate(readable);
        let sent = Sent {
            id,
            at: Instant::now(),
            first: message.clone(),
            rest: rest.clone(),
        };
        if let Some(defect) = defect {
            return Err((sent, unreadable(&defect).into()));
        }
        let (held, clock) = (self.held.clone(), self.clock.clone());
        let (of, first, more) = (queue.clone(), message.clone(), rest.clone());
        let may_send =
            move || clock.now() < lease && !held.holds(&of, std::iter::once(&first).chain(&more));
        let delivery = Delivery {
            queue,
            key,
            message,
            rest,
            attempt,
            timeout: self.timeout,
            deadline: SystemTime::now() + self.timeout,
        };
        let handler = self.handler.clone();
        let running = async move {
            let call = AssertUnwindSafe(handler.call(delivery, may_send)).catch_unwind();
            let outcome = call.await.unwrap_or_else(|panic| panicked(&*panic));
            match then {
                Some(defect) if outcome.result == CallResult::Done => Outcome {
                    acked: 1 + readable as u32,
                    result: unreadable(&defect),
                    over: false,
                },
                _ => outcome,
            }
        };
        Ok((sent, Box::pin(running)))
    }

    /// Takes the end of a call to the core; returns the next call for this thread.
    fn end(&self, sent: &Sent, outcome: Outcome) -> Option<Call> {
        self.measures
            .handler_seconds
            .observe(sent.at.elapsed().as_secs_f64());
        let finished = match outcome.result {
            CallResult::Done => usize::MAX,
            _ => outcome.acked as usize,
        };
        for message in sent.messages().take(finished) {
            self.measures.finished(message.born_at_ms);
        }
        let calls = RefCell::default();
        self.gate.put((sent.id, outcome), |lanes, ended| {
            self.serve(lanes, ended, &mut calls.borrow_mut());
        });
        self.line.push_and_pop(&mut calls.borrow_mut())
    }
}

fn messages(call: &Call) -> impl Iterator<Item = &Arc<Message>> {
    std::iter::once(&call.message).chain(&call.rest)
}

fn unreadable(defect: &str) -> CallResult {
    CallResult::Permanent {
        error: format!("the message cannot be read: {defect}"),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Outcome {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    CallResult::Panicked {
        error: format!("the handler panicked: {text}"),
    }
    .into()
}
