//! Asking the handler whether anything runs, where knowing it saves a wait: for the calls of a process
//! that was here before this one, and for calls of this one that had no answer.

use super::calls::Calls;
use super::tasks::{Event, Events};
use crate::handler::Handler;
use crate::lane::{CallId, Time};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

const AGAIN: Duration = Duration::from_millis(200);
/// A request may lie in a socket of the handler that has not accepted it yet. One that is not begun by
/// the second answer, of a handler that answers others, is taken for one that will not be.
const TWICE: Duration = Duration::from_millis(100);

/// Calls that ended without an answer and may still run.
#[derive(Debug, Default)]
pub struct Unanswered {
    calls: Mutex<Vec<(CallId, Time)>>,
    more: Notify,
}

impl Unanswered {
    fn calls(&self) -> MutexGuard<'_, Vec<(CallId, Time)>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The core was told at this time that a call ended without an answer.
    pub fn add(&self, now: Time, id: CallId) {
        self.calls().push((id, now));
        self.more.notify_one();
    }

    /// Forgets those that ended before this time; returns the others.
    fn since(&self, time: Time) -> Vec<CallId> {
        let mut calls = self.calls();
        calls.retain(|(_, ended)| *ended >= time);
        calls.iter().map(|(id, _)| *id).collect()
    }

    fn remove(&self, over: &[CallId]) {
        self.calls().retain(|(id, _)| !over.contains(id));
    }

    fn clear(&self) {
        self.calls().clear();
    }
}

/// Whether everything that was sent to the handler before this was asked is over; none if it has no way
/// to say.
async fn is_idle<H: Handler>(handler: &H) -> Option<bool> {
    if !handler.idle().await? {
        return Some(false);
    }
    tokio::time::sleep(TWICE).await;
    handler.idle().await
}

/// Tells when nothing of those runs any more that were here before this process. Ends after the call
/// bound, when nothing can.
pub async fn of_predecessors<H: Handler>(handler: Arc<H>, call_bound: Duration, events: Events) {
    let ask = async {
        loop {
            match is_idle(&*handler).await {
                Some(true) => return events.send(Event::HandlerIdle).is_ok(),
                Some(false) => tokio::time::sleep(AGAIN).await,
                None => return false,
            }
        }
    };
    let _ = tokio::time::timeout(call_bound, ask).await;
}

/// Tells the core of calls without an answer that are over sooner than at the call bound; until `leave` is
/// set.
pub async fn of_unanswered<H: Handler>(
    calls: Arc<Calls<H>>,
    call_bound: Duration,
    mut leave: watch::Receiver<bool>,
) {
    let unanswered = calls.unanswered();
    let ask = async {
        loop {
            unanswered.more.notified().await;
            loop {
                let asked = unanswered.since(calls.now().saturating_sub(call_bound));
                if asked.is_empty() {
                    break;
                }
                match is_idle(calls.handler()).await {
                    Some(true) => {
                        calls.over(&asked);
                        unanswered.remove(&asked);
                    }
                    Some(false) => tokio::time::sleep(AGAIN).await,
                    None => unanswered.clear(),
                }
            }
        }
    };
    tokio::select! {
        () = ask => {}
        _ = leave.changed() => {}
    }
}
