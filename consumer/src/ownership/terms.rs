//! What all queues of a process have in common: who we are, how long things last, which rules hold.

use crate::journal::Incarnation;
use crate::lane::Time;
use std::time::Duration;

/// The local lease L of a queue lock.
pub const LEASE: Duration = Duration::from_secs(10);

/// How long things last.
#[derive(Clone, Debug)]
pub struct Durations {
    /// The local lease L of a queue lock.
    pub lease: Duration,
    /// L + B: after it nothing that a former owner started can run.
    pub wait: Duration,
    /// The call bound B: how long after it was sent a call may run.
    pub call_bound: Duration,
    /// Time between a lock that was granted and its renewal.
    pub renew_every: Duration,
    /// Time between a lock that was refused and the next try.
    pub lock_every: Duration,
    /// The same for a queue that is not ours unless its owner is frozen.
    pub stand_in_every: Duration,
    /// How long whoever a queue is meant for may take to have its lock: again, after a broker forgot it, or
    /// once its former owner has given it away.
    pub stand_in_returns: Duration,
    /// The same for a queue whose owner is not on the last list.
    pub if_released_every: Duration,
    /// How long the queue of a frozen owner is kept before it can show that it is back.
    pub stand_in_for: Duration,
    /// Time before something that failed at the journal is tried again.
    pub journal_retry: Duration,
    /// Time between unlocks in the name of an owner that is gone, where somebody else has the lock.
    pub free_every: Duration,
    /// How long a lock request that was not answered may still reach the broker.
    pub doubt: Duration,
    /// Time between the unlocks that answer such a request, where the queue is not wanted.
    pub doubt_every: Duration,
}

impl Durations {
    /// The usual ones, for a call bound.
    pub fn new(call_bound: Duration) -> Self {
        Self {
            lease: LEASE,
            wait: LEASE + call_bound,
            call_bound,
            renew_every: Duration::from_secs(3),
            lock_every: Duration::from_millis(200),
            stand_in_every: Duration::from_millis(500),
            stand_in_returns: Duration::from_secs(3),
            if_released_every: Duration::from_millis(400),
            stand_in_for: Duration::from_secs(60),
            journal_retry: Duration::from_millis(300),
            free_every: Duration::from_secs(1),
            // A lock that nobody renews ends after 60 s by itself.
            doubt: Duration::from_secs(60),
            doubt_every: Duration::from_secs(5),
        }
    }
}

/// The rules of the protocol beyond lock, claim and wait. Each closes a counterexample that a search of
/// all states found; the explorer in this module's tests shows that each is needed, by leaving it out.
/// Nothing but that leaves one out.
#[derive(Clone, Debug)]
pub struct Rules {
    /// 1: an exemption from the wait holds only if nothing lies between the records read and our claim.
    pub direct_claim: bool,
    /// 2: every wait starts when the claim is acknowledged.
    pub wait_from_acknowledgement: bool,
    /// 3: a lock that comes back continues the tenure only under the epoch we hold, acknowledged. A claim
    /// that merely bears our name is somebody else's.
    pub own_epoch_only: bool,
    /// 4: *released* is written only by an owner whose wait is over, and lists inherited keys too.
    pub release_after_wait: bool,
    /// 5: proof of death counts only against an epoch that ran, by its record.
    pub proof_needs_record: bool,
    /// 6: *progress* lists the keys that still wait, and every exemption waits for them.
    pub waiting_keys_recorded: bool,
    /// 7: a renewal counts only once the journal, read after it, shows no newer claim.
    pub renewal_reads_journal: bool,
    /// 9: *withdrawn* is no *released*: whoever comes next waits as the claim did that was withdrawn, for its
    /// own knowledge of the former owner.
    pub withdrawn_passes_on: bool,
    /// (d): the journal is read just before the first dispatch too.
    pub start_reads_journal: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            direct_claim: true,
            wait_from_acknowledgement: true,
            own_epoch_only: true,
            release_after_wait: true,
            proof_needs_record: true,
            waiting_keys_recorded: true,
            renewal_reads_journal: true,
            withdrawn_passes_on: true,
            start_reads_journal: true,
        }
    }
}

/// What all queues of a process have in common.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Identity of this process.
    pub me: Incarnation,
    /// How long things last.
    pub durations: Durations,
    /// Which rules hold.
    pub rules: Rules,
}

/// What is known of another incarnation, from outside of broker and journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Facts {
    /// It is not on the broker's list of members. It may run all the same.
    pub absent: bool,
    /// Whether it is proven dead.
    pub death: Death,
    /// Its handler says that nothing of it runs there.
    pub idle: bool,
    /// Another process of its pod is on the list, who knows at once what became of it.
    pub back: bool,
}

/// What is proven dead of an incarnation. Closed connections and pod objects that vanish prove nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Death {
    /// Nothing.
    #[default]
    Unproven,
    /// The process; its handler may run on. An executor that starts in a pod proves this of those that ran
    /// there before.
    Executor,
    /// The process and its handler: every container of the pod was reported terminated.
    Pod,
}

/// Keys that are not run before a time, because a former owner's calls may run until then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Held {
    /// The keys.
    pub keys: crate::journal::Keys,
    /// Until when.
    pub until: Time,
}
