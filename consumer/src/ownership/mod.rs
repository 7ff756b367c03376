//! Which queues are ours, and since when we may dispatch from them (P4).
//!
//! Pure: no clock, no I/O. The shell reports what happened and carries out what [`Ownership::poll`] asks
//! for. What is decided about one queue is decided by its [`Tenure`]; here is what concerns all of them:
//! locks of one broker are asked for together, and what is known of other members is told to each.

mod allocation;
mod basis;
#[cfg(test)]
mod explore;
pub mod membership;
mod others;
mod tenure;
mod terms;
#[cfg(test)]
mod tests;

pub use allocation::{Allocator, allocate};
pub use tenure::{Deed, Tenure, Ticket, Wanted};
pub use terms::{Death, Durations, Facts, Held, LEASE, Rules, Terms};

use crate::contract::admin::QueuePhase;
use crate::journal::{Epoch, Head, Incarnation, Keys};
use crate::lane::{Assignment, Time};
use crate::message::QueueId;
use membership::Allocation;
use others::Others;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Locks that are due within this time are asked for with those that are due now.
const TOGETHER: Duration = Duration::from_secs(1);

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
    /// Give a lock back; report with [`Ownership::unlocked`].
    Unlock {
        /// The queue.
        queue: QueueId,
        /// In whose name; none: in ours.
        holder: Option<Incarnation>,
    },
    /// Give back whatever locks this member, which left, may still have at a broker. The journal names an owner that
    /// claimed; who was killed between its lock and its claim left no word, and the broker would keep that lock for
    /// a minute, also from members that never saw it. It is no more than what a broker does that restarts, so no rule
    /// depends on it, and nothing is to be reported.
    Free {
        /// The broker.
        broker: Arc<str>,
        /// Who left.
        holder: Incarnation,
    },
    /// Read the journal, so late that everything acknowledged until now can be seen; report with
    /// [`Ownership::journal_read`].
    Read {
        /// The queue.
        queue: QueueId,
        /// To report with.
        ticket: Ticket,
    },
    /// Append to the journal; report with [`Ownership::appended`].
    Append {
        /// The queue.
        queue: QueueId,
        /// To report with.
        ticket: Ticket,
        /// What.
        record: Record,
    },
    /// The queue is ours: run it, from where the last reading says the group stands.
    Assign {
        /// The queue.
        queue: QueueId,
        /// Its new assignment.
        assignment: Assignment,
        /// End of the lease.
        lease: Time,
        /// Keys that must wait.
        held: Held,
    },
    /// The lease of a running queue was renewed.
    Renew {
        /// Its assignment.
        assignment: Assignment,
        /// New end of the lease.
        lease: Time,
    },
    /// Stop the queue and report with [`Ownership::drained`] once its last commit is acknowledged or took
    /// too long.
    Release {
        /// Its assignment.
        assignment: Assignment,
    },
    /// The queue is not ours any more: forget it.
    Drop {
        /// The queue.
        queue: QueueId,
        /// Its assignment.
        assignment: Assignment,
        /// It was given away in order.
        released: bool,
    },
}

/// A record to append, without what only the shell knows: how far the queue is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A claim.
    Claim {
        /// The highest epoch seen before.
        predecessor: Option<Epoch>,
    },
    /// How far the queue is.
    Progress {
        /// Our epoch.
        epoch: Epoch,
        /// Keys to list.
        waiting: Keys,
    },
    /// The end of our tenure, in which the queue may never have been assigned.
    Released {
        /// Our epoch.
        epoch: Epoch,
        /// Keys to list beside those that run.
        waiting: Keys,
    },
    /// The end of a tenure in which the queue was never run.
    Withdrawn {
        /// Our epoch.
        epoch: Epoch,
        /// Who ran the queue before.
        former: Incarnation,
        /// Keys that one did not run yet.
        waiting: Keys,
    },
}

#[derive(Debug, Default)]
struct Queue {
    tenure: Tenure,
    assignment: Option<Assignment>,
    /// Under which time it stands among those that are due.
    due: Option<Time>,
}

/// The queues allocated to this process, and how far it is in getting or giving each.
#[derive(Debug)]
pub struct Ownership {
    terms: Terms,
    others: Others,
    queues: BTreeMap<QueueId, Queue>,
    /// Queues to poll now: something happened to them. All others have nothing to do before they are due,
    /// which matters where a process has a thousand of them.
    touched: BTreeSet<QueueId>,
    due: BTreeSet<(Time, QueueId)>,
    /// Brokers that are being asked for locks.
    asking: BTreeSet<Arc<str>>,
    assignments: u64,
    actions: Vec<Action>,
}

impl Ownership {
    /// Owns nothing. `me` is the identity of this process, `pod` the part of it that names the pod, if
    /// there is one; `call_bound` is B: how long after it was sent a call may run.
    pub fn new(me: Incarnation, pod: Option<&str>, call_bound: Duration) -> Self {
        Self {
            others: Others::new(me.clone(), pod),
            terms: Terms {
                me,
                durations: Durations::new(call_bound),
                rules: Rules::default(),
            },
            queues: BTreeMap::new(),
            touched: BTreeSet::new(),
            due: BTreeSet::new(),
            asking: BTreeSet::new(),
            assignments: 0,
            actions: Vec::new(),
        }
    }

    /// The queues that are meant for this process now, and those it takes if their owner is frozen.
    pub fn allocate(&mut self, now: Time, allocation: &Allocation) {
        let wanted = |queue: &QueueId| {
            if allocation.ours.contains(queue) {
                Wanted::Yes
            } else if let Some(missing) = allocation.if_released.get(queue) {
                Wanted::IfReleased { missing: *missing }
            } else if allocation.stand_in.contains(queue) {
                Wanted::StandIn
            } else {
                Wanted::No
            }
        };
        let of_interest = allocation.ours.iter().chain(&allocation.stand_in);
        for queue in of_interest.chain(allocation.if_released.keys()) {
            self.queues.entry(queue.clone()).or_default();
        }
        for (queue, state) in &mut self.queues {
            let wanted = wanted(queue);
            if wanted != state.tenure.wanted {
                state.tenure.want(now, wanted, &self.terms);
                self.touched.insert(queue.clone());
            }
        }
    }

    /// The members of the group as a broker sees them, as far as that is trusted.
    pub fn members(&mut self, broker: &Arc<str>, members: BTreeSet<String>) {
        let news = self.others.present(broker, members);
        if news.any {
            self.touch_all();
        }
        let free = news.left.into_iter().map(|holder| Action::Free {
            broker: broker.clone(),
            holder: holder.into(),
        });
        self.actions.extend(free);
    }

    /// Every process that ran in this pod is dead, and so are their handlers.
    pub fn pod_gone(&mut self, pod: &str) {
        self.others.gone(pod);
        self.touch_all();
    }

    /// The handler said, while this process ran, that nothing ran in it: nothing that former processes of
    /// this pod sent there ever will again.
    pub fn handler_idle(&mut self) {
        self.others.idle = true;
        self.touch_all();
    }

    /// The master of a broker has a new address: locks of the former one mean nothing any more, and for a
    /// while both may hand out locks.
    pub fn master_changed(&mut self, now: Time, broker: &str) {
        for queue in self.of_broker(broker) {
            self.with(&queue, |tenure, terms, deeds| {
                tenure.master_changed(now, terms, deeds);
            });
        }
    }

    /// The answer to [`Action::Lock`]; none if there was no answer.
    pub fn lock_reply(
        &mut self,
        now: Time,
        broker: &Arc<str>,
        asked: &BTreeSet<QueueId>,
        locked: Option<&BTreeSet<QueueId>>,
    ) {
        self.asking.remove(broker);
        // Those that became due meanwhile waited for this answer.
        self.touched.extend(self.of_broker(broker));
        for queue in asked {
            let locked = locked.map(|locked| locked.contains(queue));
            self.with(queue, |tenure, terms, deeds| {
                tenure.lock_answered(now, locked, terms, deeds);
            });
        }
    }

    /// [`Action::Unlock`] was carried out, or failed.
    pub fn unlocked(&mut self, queue: &QueueId) {
        self.with(queue, |tenure, _, _| tenure.unlocked());
    }

    /// The answer to [`Action::Read`]; none if the journal could not be read.
    pub fn journal_read(
        &mut self,
        now: Time,
        queue: &QueueId,
        ticket: Ticket,
        head: Option<&Head>,
    ) {
        self.with(queue, |tenure, terms, deeds| {
            tenure.read(now, ticket, head, terms, deeds);
        });
    }

    /// The answer to [`Action::Append`]: the record's offset, none if it is not known to be there.
    pub fn appended(&mut self, now: Time, queue: &QueueId, ticket: Ticket, offset: Option<u64>) {
        self.with(queue, |tenure, terms, _| {
            tenure.appended(now, ticket, offset, terms);
        });
    }

    /// A queue that was to be released has stopped: its last commit is acknowledged, or its drain took too
    /// long. Calls that still run are to be listed in the record that follows.
    pub fn drained(&mut self, queue: &QueueId) {
        self.with(queue, |tenure, _, _| tenure.drained());
    }

    /// This process ends at `by`: queues that are not meant for it any more, and that it would have to wait
    /// for until then in vain, are given back.
    pub fn stop_waiting(&mut self, now: Time, by: Time) {
        let queues: Vec<QueueId> = self.queues.keys().cloned().collect();
        for queue in queues {
            let facts = self.facts(&queue);
            self.with(&queue, |tenure, terms, deeds| {
                tenure.stop_waiting(now, by, facts, terms, deeds);
            });
        }
    }

    /// Our epoch in a queue that is ours, and the keys to list in a progress record.
    pub fn recordable(&self, now: Time, queue: &QueueId) -> Option<(Epoch, Keys)> {
        self.queues.get(queue)?.tenure.recordable(now, &self.terms)
    }

    /// A new assignment of a queue that is ours, for lanes that begin anew under the same claim: its progress
    /// was reset.
    pub fn reassign(&mut self, queue: &QueueId) -> Option<Assignment> {
        let state = self.queues.get_mut(queue)?;
        let of = state.assignment.as_mut()?;
        self.assignments += 1;
        *of = Assignment(self.assignments);
        Some(*of)
    }

    /// What to do now.
    pub fn poll(&mut self, now: Time) -> Vec<Action> {
        while let Some((due, _)) = self.due.first()
            && *due <= now
            && let Some((_, queue)) = self.due.pop_first()
        {
            if let Some(state) = self.queues.get_mut(&queue) {
                state.due = None;
            }
            self.touched.insert(queue);
        }
        #[cfg(test)]
        self.check_untouched(now);
        let polled = std::mem::take(&mut self.touched);
        for queue in &polled {
            let state = self.queues.get(queue);
            if let Some(subject) = state.and_then(|state| state.tenure.subject()) {
                self.others.heard_of(&queue.broker, subject);
            }
            let facts = self.facts(queue);
            self.with(queue, |tenure, terms, deeds| {
                tenure.poll(now, facts, terms, deeds);
            });
        }
        self.ask_for_locks(now, &polled);
        // What was done to them above needs no look of its own.
        self.touched.clear();
        for queue in &polled {
            self.set_due(now, queue);
        }
        std::mem::take(&mut self.actions)
    }

    /// When to poll again at the latest.
    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        if self.touched.is_empty() {
            self.due.first().map(|(due, _)| *due)
        } else {
            Some(now)
        }
    }

    /// Notes when a queue is to be polled again; forgets one that is over.
    fn set_due(&mut self, now: Time, queue: &QueueId) {
        let facts = self.facts(queue);
        let Some(state) = self.queues.get_mut(queue) else {
            return;
        };
        if let Some(before) = state.due.take() {
            self.due.remove(&(before, queue.clone()));
        }
        if state.tenure.is_over() {
            self.queues.remove(queue);
            return;
        }
        // A lock that is due waits for the answer its broker owes.
        let asking = self.asking.contains(&queue.broker);
        let lock = state.tenure.next_lock().filter(|at| *at > now || !asking);
        let step = state.tenure.next_step(now, facts, &self.terms);
        state.due = lock.into_iter().chain(step).min();
        if let Some(due) = state.due {
            self.due.insert((due, queue.clone()));
        }
    }

    fn touch_all(&mut self) {
        self.touched = self.queues.keys().cloned().collect();
    }

    /// What is not polled has nothing to do.
    #[cfg(test)]
    fn check_untouched(&self, now: Time) {
        for (queue, state) in &self.queues {
            if self.touched.contains(queue) {
                continue;
            }
            let (mut tenure, mut deeds) = (state.tenure.clone(), Vec::new());
            tenure.poll(now, self.facts(queue), &self.terms, &mut deeds);
            assert!(
                deeds.is_empty() && tenure == state.tenure,
                "{queue} at {now:?}: {:?}",
                state.tenure
            );
            assert!(!tenure.is_over(), "{queue} is over");
            assert!(
                !tenure.is_lock_due(now) || self.asking.contains(&queue.broker),
                "{queue}: a lock is due"
            );
        }
    }

    /// Every queue held or meant for us and its phase, for people to look at.
    pub fn phases(&self) -> impl Iterator<Item = (&QueueId, QueuePhase, Option<Assignment>)> {
        self.queues
            .iter()
            .filter_map(|(queue, state)| Some((queue, state.tenure.shown()?, state.assignment)))
    }

    /// True if no queue is held or wanted.
    pub fn is_empty(&self) -> bool {
        self.queues.values().all(|queue| queue.tenure.is_idle())
    }

    fn of_broker(&self, broker: &str) -> Vec<QueueId> {
        let queues = self.queues.keys();
        queues
            .filter(|queue| &*queue.broker == broker)
            .cloned()
            .collect()
    }

    fn facts(&self, queue: &QueueId) -> Facts {
        let subject = self.queues.get(queue).and_then(|of| of.tenure.subject());
        subject.map_or_else(Facts::default, |subject| {
            self.others.facts(&queue.broker, subject)
        })
    }

    /// Lets one queue's machine take something in, and passes on what it asks for.
    fn with(&mut self, queue: &QueueId, take: impl FnOnce(&mut Tenure, &Terms, &mut Vec<Deed>)) {
        let mut deeds = Vec::new();
        let Some(state) = self.queues.get_mut(queue) else {
            return;
        };
        take(&mut state.tenure, &self.terms, &mut deeds);
        self.touched.insert(queue.clone());
        for deed in deeds {
            self.pass_on(queue.clone(), deed);
        }
    }

    fn pass_on(&mut self, queue: QueueId, deed: Deed) {
        let Some(state) = self.queues.get_mut(&queue) else {
            return;
        };
        let append = |queue, ticket, record| Action::Append {
            queue,
            ticket,
            record,
        };
        let action = match deed {
            Deed::Read(ticket) => Action::Read { queue, ticket },
            Deed::Claim {
                ticket,
                predecessor,
            } => append(queue, ticket, Record::Claim { predecessor }),
            Deed::Progress {
                ticket,
                epoch,
                waiting,
            } => append(queue, ticket, Record::Progress { epoch, waiting }),
            Deed::Released {
                ticket,
                epoch,
                waiting,
            } => append(queue, ticket, Record::Released { epoch, waiting }),
            Deed::Withdrawn {
                ticket,
                epoch,
                former,
                waiting,
            } => {
                let record = Record::Withdrawn {
                    epoch,
                    former,
                    waiting,
                };
                append(queue, ticket, record)
            }
            Deed::Unlock => Action::Unlock {
                queue,
                holder: None,
            },
            Deed::UnlockFor(holder) => Action::Unlock {
                queue,
                holder: Some(holder),
            },
            Deed::Assign { lease, held } => {
                self.assignments += 1;
                let assignment = Assignment(self.assignments);
                state.assignment = Some(assignment);
                Action::Assign {
                    queue,
                    assignment,
                    lease,
                    held,
                }
            }
            Deed::Renew { lease } => match state.assignment {
                Some(assignment) => Action::Renew { assignment, lease },
                None => return,
            },
            Deed::Drain => match state.assignment {
                Some(assignment) => Action::Release { assignment },
                None => return,
            },
            Deed::Drop { released } => match state.assignment.take() {
                Some(assignment) => Action::Drop {
                    queue,
                    assignment,
                    released,
                },
                None => return,
            },
        };
        self.actions.push(action);
    }

    fn ask_for_locks(&mut self, now: Time, polled: &BTreeSet<QueueId>) {
        let due = |queue: &&QueueId| {
            let state = self.queues.get(*queue);
            state.is_some_and(|state| state.tenure.is_lock_due(now))
                && !self.asking.contains(&queue.broker)
        };
        let brokers: BTreeSet<Arc<str>> = polled
            .iter()
            .filter(due)
            .map(|queue| queue.broker.clone())
            .collect();
        for broker in brokers {
            let mut queues = BTreeSet::new();
            for (queue, state) in &mut self.queues {
                if queue.broker == broker && state.tenure.is_lock_due(now + TOGETHER) {
                    state.tenure.lock_asked(now);
                    queues.insert(queue.clone());
                }
            }
            self.asking.insert(broker.clone());
            self.actions.push(Action::Lock { broker, queues });
        }
    }
}
