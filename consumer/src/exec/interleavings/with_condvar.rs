//! What waits for a condition, over loom's own locks: it takes none that another thread may hold.

mod sync {
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
}

#[path = "../runners.rs"]
#[expect(clippy::duplicate_mod, reason = "the same source over other locks")]
pub mod runners;
