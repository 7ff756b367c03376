//! What all parts of the harness must agree on.

use std::time::Duration;

/// The timeout of a handler call, in the consumers' configuration.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// B: how long after it was sent a call may run.
pub const CALL_BOUND: Duration = Duration::from_secs(10);
/// L: how long a lock is good for without its renewal.
pub const LEASE: Duration = Duration::from_secs(10);
/// How often a lock is renewed: at any moment it may be good for so much less than the lease.
pub const RENEW: Duration = Duration::from_secs(3);
/// How often a consumer commits and writes its journal.
pub const PERSIST: Duration = Duration::from_secs(2);
/// What the broker takes to free the locks of a silent owner.
pub const BROKER_FREES: Duration = Duration::from_secs(60);

/// How long calls that run may take to finish when a consumer is asked to end.
pub const DRAINS: Duration = Duration::from_secs(15);

/// Whether the executor in this place of so many can ask its handler if it is idle: all but the last.
pub fn has_idle_probe(member: usize, members: usize) -> bool {
    member + 1 < members
}
