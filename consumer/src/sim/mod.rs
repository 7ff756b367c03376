//! A world for the lane core, in virtual time: a broker, processes and handlers that repeat, delay, fail,
//! hand over and crash, all from one seed. The core is the real one; what the shell does around it (leases,
//! commits, journal, hand-over with its waits) is done here in its simplest correct form.
//!
//! A world panics where a promise is broken. The same [`Plan`] gives the same world, so a seed that failed
//! can be looked at again.

mod broker;
mod faults;
mod handler;
mod judge;
mod plan;
mod shell;
mod steady;
mod world;

#[cfg(test)]
mod tests;

pub use plan::{Mode, Plan};
pub use steady::Steady;
pub use world::{Outcome, World};
