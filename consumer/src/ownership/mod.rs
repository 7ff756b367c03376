//! Which queues are ours, and since when we may dispatch from them (P4).
//!
//! Pure: no clock, no I/O. The shell reports what happened and carries out what [`Ownership::poll`]
//! asks for.
//!
//! A queue is used only under the broker's queue lock, with a local lease L measured from the moment the
//! lock request was sent. The broker's lock alone is not enough: its table is lost by a restart, and
//! nothing in a lock says whether calls of the former owner still run. So after the lock comes a wait
//! of L + B, where B is the call bound: the former owner's last lease was sent before our lock was
//! granted and is over L later; calls it sent until then are over B after that. What a clean hand-over
//! could tell is not known here, so every hand-over waits.
//!
//! One case waits less: nobody has ever dispatched from the queue. Every owner commits a starting offset
//! before it dispatches, and waits L after the acknowledgement, twice the broker's flush interval, so
//! that the offset outlives the broker. If we found no committed offset at a time t and had the lock
//! before t + L, then any owner's starting offset was acknowledged after t, so nobody dispatched before
//! t + L, and afterwards the lock was ours: the wait is L alone.
//!
//! In both cases the lock must be confirmed by a renewal sent after the wait, and the committed offset is
//! read after that. A renewal within the lease needs no wait even if the broker lost its table in
//! between: a process that had the lock meanwhile had it for less than L, and waits at least L.

mod allocation;
pub mod membership;
#[cfg(test)]
mod tests;

pub use allocation::allocate;

use crate::contract::admin::QueuePhase;
use crate::lane::{Assignment, Time};
use crate::message::QueueId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The local lease L of a queue lock.
pub const LEASE: Duration = Duration::from_secs(10);
const RENEW_EVERY: Duration = Duration::from_secs(3);
const LOCK_EVERY: Duration = Duration::from_millis(200);
const START_RETRY: Duration = Duration::from_millis(500);

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lock or renew; report with [`Ownership::lock_reply`].
    Lock {
        /// Broker name.
        broker: Arc<str>,
        /// Queues on that broker.
        queues: BTreeSet<QueueId>,
    },
    /// Find where the group stands, committing a starting offset if it never did; report with
    /// [`Ownership::start_found`] or [`Ownership::start_failed`].
    FindStart {
        /// The queue.
        queue: QueueId,
    },
    /// The queue is ours: run it.
    Assign {
        /// The queue.
        queue: QueueId,
        /// Its new assignment.
        assignment: Assignment,
        /// First unfinished offset.
        start: u64,
        /// End of the lease.
        lease: Time,
    },
    /// The lease of a running queue was renewed.
    Renew {
        /// Its assignment.
        assignment: Assignment,
        /// New end of the lease.
        lease: Time,
    },
    /// Stop the queue and report with [`Ownership::released`] once its last commit is acknowledged.
    Release {
        /// Its assignment.
        assignment: Assignment,
    },
    /// The queue is lost: forget it.
    Drop {
        /// The queue.
        queue: QueueId,
        /// Its assignment.
        assignment: Assignment,
    },
    /// Give the lock back.
    Unlock {
        /// The queue.
        queue: QueueId,
    },
}

/// Where the group stands in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// First unfinished offset.
    pub offset: u64,
    /// Set if there was no committed offset and we committed this one.
    pub first: Option<First>,
}

/// When a starting offset was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// A query sent at this time or later found no committed offset.
    pub none_at: Time,
    /// The starting offset was acknowledged at this time.
    pub committed_at: Time,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Locking,
    /// Locked; asks whether the group ever was here. `next` is when to ask (again).
    Probing {
        lease: Time,
        locked_at: Time,
        next: Option<Time>,
    },
    /// Waits until nothing of a former owner can run.
    Waiting {
        lease: Time,
        until: Time,
    },
    /// The wait is over; a renewal sent at `since` or later must confirm the lock.
    Confirming {
        lease: Time,
        since: Time,
    },
    /// Confirmed; reads where to begin.
    Starting {
        lease: Time,
        next: Option<Time>,
    },
    Owned {
        lease: Time,
        assignment: Assignment,
    },
    Releasing {
        lease: Time,
        assignment: Assignment,
    },
}

impl Phase {
    fn lease(self) -> Option<Time> {
        match self {
            Self::Locking => None,
            Self::Probing { lease, .. }
            | Self::Waiting { lease, .. }
            | Self::Confirming { lease, .. }
            | Self::Starting { lease, .. }
            | Self::Owned { lease, .. }
            | Self::Releasing { lease, .. } => Some(lease),
        }
    }

    fn assignment(self) -> Option<Assignment> {
        match self {
            Self::Owned { assignment, .. } | Self::Releasing { assignment, .. } => Some(assignment),
            _ => None,
        }
    }

    fn renewed(mut self, until: Time) -> Self {
        match &mut self {
            Self::Locking => {}
            Self::Probing { lease, .. }
            | Self::Waiting { lease, .. }
            | Self::Confirming { lease, .. }
            | Self::Starting { lease, .. }
            | Self::Owned { lease, .. }
            | Self::Releasing { lease, .. } => *lease = until.max(*lease),
        }
        self
    }
}

#[derive(Debug, Default)]
struct BrokerState {
    asking: bool,
    next_lock: Time,
    next_renewal: Time,
    /// Locks granted before this time may be contradicted by the broker's former master.
    distrusted_until: Time,
}

/// The queues allocated to this process, and how far it is in getting or giving each.
#[derive(Debug)]
pub struct Ownership {
    call_bound: Duration,
    queues: BTreeMap<QueueId, Phase>,
    allocated: BTreeSet<QueueId>,
    brokers: BTreeMap<Arc<str>, BrokerState>,
    assignments: u64,
    actions: Vec<Action>,
}

impl Ownership {
    /// Owns nothing. `call_bound` is B: how long after it was sent a call may run.
    pub fn new(call_bound: Duration) -> Self {
        Self {
            call_bound,
            queues: BTreeMap::new(),
            allocated: BTreeSet::new(),
            brokers: BTreeMap::new(),
            assignments: 0,
            actions: Vec::new(),
        }
    }

    /// The queues that are meant for this process now.
    pub fn allocate(&mut self, allocated: BTreeSet<QueueId>) {
        for queue in &allocated {
            self.queues.entry(queue.clone()).or_insert(Phase::Locking);
        }
        let given: Vec<_> = self
            .queues
            .keys()
            .filter(|queue| !allocated.contains(*queue))
            .cloned()
            .collect();
        self.allocated = allocated;
        for queue in given {
            match self.queues[&queue] {
                Phase::Owned { lease, assignment } => {
                    self.queues
                        .insert(queue, Phase::Releasing { lease, assignment });
                    self.actions.push(Action::Release { assignment });
                }
                Phase::Releasing { .. } => {}
                // Nothing of it ever ran here.
                phase => {
                    self.queues.remove(&queue);
                    if phase.lease().is_some() {
                        self.actions.push(Action::Unlock { queue });
                    }
                }
            }
        }
    }

    /// The master of a broker has a new address: locks of the former one mean nothing any more, and for a
    /// while both may hand out locks.
    pub fn master_changed(&mut self, now: Time, broker: &str) {
        self.brokers
            .entry(broker.into())
            .or_default()
            .distrusted_until = now + LEASE;
        let lost: Vec<_> = self
            .queues
            .keys()
            .filter(|queue| &*queue.broker == broker)
            .cloned()
            .collect();
        for queue in lost {
            self.lose(&queue);
        }
    }

    /// The answer to [`Action::Lock`], asked at `sent`; none if there was no answer.
    pub fn lock_reply(
        &mut self,
        now: Time,
        sent: Time,
        broker: &Arc<str>,
        asked: &BTreeSet<QueueId>,
        locked: Option<&BTreeSet<QueueId>>,
    ) {
        self.expire(now);
        let state = self.brokers.entry(broker.clone()).or_default();
        state.asking = false;
        state.next_lock = now + LOCK_EVERY;
        let Some(locked) = locked else { return };
        let distrusted_until = state.distrusted_until;
        let lease = sent + LEASE;
        for queue in asked {
            let Some(phase) = self.queues.get(queue).copied() else {
                // It went to somebody else while we asked.
                if locked.contains(queue) {
                    self.actions.push(Action::Unlock {
                        queue: queue.clone(),
                    });
                }
                continue;
            };
            if !locked.contains(queue) {
                if phase.lease().is_some() {
                    self.lose(queue);
                }
                continue;
            }
            let next = match phase {
                Phase::Locking => {
                    let locked_at = now.max(distrusted_until);
                    Phase::Probing {
                        lease,
                        locked_at,
                        next: Some(now),
                    }
                }
                Phase::Confirming { since, .. } if sent >= since => Phase::Starting {
                    lease,
                    next: Some(now),
                },
                phase => phase.renewed(lease),
            };
            if let Some(assignment) = next.assignment() {
                self.actions.push(Action::Renew { assignment, lease });
            }
            self.queues.insert(queue.clone(), next);
        }
    }

    /// The answer to [`Action::FindStart`].
    pub fn start_found(&mut self, now: Time, queue: &QueueId, start: Start) {
        self.expire(now);
        match self.queues.get(queue).copied() {
            Some(Phase::Probing {
                lease,
                locked_at,
                next: None,
            }) => {
                let until = match start.first {
                    Some(first) if locked_at < first.none_at + LEASE => first.committed_at + LEASE,
                    _ => locked_at + LEASE + self.call_bound,
                };
                self.queues
                    .insert(queue.clone(), Phase::Waiting { lease, until });
            }
            Some(Phase::Starting { lease, next: None }) => {
                self.assignments += 1;
                let assignment = Assignment(self.assignments);
                self.queues
                    .insert(queue.clone(), Phase::Owned { lease, assignment });
                self.actions.push(Action::Assign {
                    queue: queue.clone(),
                    assignment,
                    start: start.offset,
                    lease,
                });
            }
            _ => {}
        }
    }

    /// [`Action::FindStart`] failed; it is asked for again.
    pub fn start_failed(&mut self, now: Time, queue: &QueueId) {
        if let Some(Phase::Probing { next, .. } | Phase::Starting { next, .. }) =
            self.queues.get_mut(queue)
        {
            *next = Some(now + START_RETRY);
        }
    }

    /// A queue that was to be released is drained and its last commit acknowledged, or its drain took too
    /// long: the lock goes back. Calls that still run are covered by the wait of the next owner.
    pub fn released(&mut self, queue: &QueueId) {
        if let Some(Phase::Releasing { assignment, .. }) = self.queues.get(queue).copied() {
            self.actions.push(Action::Drop {
                queue: queue.clone(),
                assignment,
            });
            self.actions.push(Action::Unlock {
                queue: queue.clone(),
            });
            self.forget(queue);
        }
    }

    /// What to do now.
    pub fn poll(&mut self, now: Time) -> Vec<Action> {
        self.expire(now);
        for (queue, phase) in &mut self.queues {
            match phase {
                Phase::Waiting { lease, until } if now >= *until => {
                    *phase = Phase::Confirming {
                        lease: *lease,
                        since: now,
                    };
                    self.brokers
                        .entry(queue.broker.clone())
                        .or_default()
                        .next_renewal = now;
                }
                Phase::Probing { next, .. } | Phase::Starting { next, .. }
                    if next.is_some_and(|at| now >= at) =>
                {
                    *next = None;
                    self.actions.push(Action::FindStart {
                        queue: queue.clone(),
                    });
                }
                _ => {}
            }
        }
        self.ask_for_locks(now);
        std::mem::take(&mut self.actions)
    }

    /// When to poll again at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        let phases = self.queues.values().filter_map(|phase| match phase {
            Phase::Waiting { lease, until } => Some((*until).min(*lease)),
            Phase::Probing {
                next: Some(next),
                lease,
                ..
            }
            | Phase::Starting {
                next: Some(next),
                lease,
            } => Some((*next).min(*lease)),
            phase => phase.lease(),
        });
        let brokers = self.brokers.iter().filter(|(_, state)| !state.asking);
        let locks = brokers.filter_map(|(broker, state)| {
            let mut phases = self
                .queues
                .iter()
                .filter(|(queue, _)| queue.broker == *broker)
                .peekable();
            phases.peek()?;
            let locking = phases.any(|(_, phase)| matches!(phase, Phase::Locking));
            Some(if locking {
                state.next_lock.min(state.next_renewal)
            } else {
                state.next_renewal
            })
        });
        phases.chain(locks).min()
    }

    /// Every queue and its phase, for people to look at.
    pub fn phases(&self) -> impl Iterator<Item = (&QueueId, QueuePhase, Option<Assignment>)> {
        self.queues.iter().map(|(queue, phase)| {
            let shown = match phase {
                Phase::Locking => QueuePhase::Locking,
                Phase::Owned { .. } => QueuePhase::Owned,
                Phase::Releasing { .. } => QueuePhase::Releasing,
                _ => QueuePhase::Waiting,
            };
            (queue, shown, phase.assignment())
        })
    }

    /// True if no queue is held or wanted.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    fn ask_for_locks(&mut self, now: Time) {
        let names: BTreeSet<Arc<str>> = self
            .queues
            .keys()
            .map(|queue| queue.broker.clone())
            .collect();
        for broker in names {
            let state = self.brokers.entry(broker.clone()).or_default();
            if state.asking {
                continue;
            }
            let of_broker = self
                .queues
                .iter()
                .filter(|(queue, _)| queue.broker == broker);
            let renew = now >= state.next_renewal;
            let lock = now >= state.next_lock;
            let queues: BTreeSet<QueueId> = of_broker
                .filter(|(_, phase)| if phase.lease().is_some() { renew } else { lock })
                .map(|(queue, _)| queue.clone())
                .collect();
            if renew {
                state.next_renewal = now + RENEW_EVERY;
            }
            if !queues.is_empty() {
                state.asking = true;
                self.actions.push(Action::Lock { broker, queues });
            }
        }
    }

    /// Ends what is past its lease.
    fn expire(&mut self, now: Time) {
        let over: Vec<_> = self
            .queues
            .iter()
            .filter(|(_, phase)| phase.lease().is_some_and(|lease| now >= lease))
            .map(|(queue, _)| queue.clone())
            .collect();
        for queue in over {
            self.lose(&queue);
        }
    }

    fn lose(&mut self, queue: &QueueId) {
        if let Some(assignment) = self.queues.get(queue).and_then(|phase| phase.assignment()) {
            self.actions.push(Action::Drop {
                queue: queue.clone(),
                assignment,
            });
        }
        self.forget(queue);
    }

    /// Starts over with a queue, or is done with it if it is no longer meant for us.
    fn forget(&mut self, queue: &QueueId) {
        if self.allocated.contains(queue) {
            self.queues.insert(queue.clone(), Phase::Locking);
        } else {
            self.queues.remove(queue);
        }
    }
}
