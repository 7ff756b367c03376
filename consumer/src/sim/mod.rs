//! A world for the lane core, in virtual time: a broker, processes and handlers that repeat, delay, fail,
//! hand over, are reset and crash, all from one seed. The core is the real one, and so is what decides about commits
//! ([`Commits`](crate::exec::commits::Commits)), whose requests and answers are lost and late here. What else
//! the shell does (leases, journal, hand-over with its waits) is done in its simplest correct form; the real
//! rules of it are explored in every state beside [`crate::ownership`].
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
