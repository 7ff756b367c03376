#![recursion_limit = "512"]
//! The key-lane executor: runs every key of a RocketMQ topic as its own FIFO lane, many keys of one
//! queue at once, each key in order.
//!
//! Two ways to use it: the program `keylane-consumer`, which calls a handler in another process, and
//! [`Consumer`], which calls an async function of yours in this one. The page of the latter begins there.

pub mod admin;
pub mod cli;
pub mod config;
mod consumer;
pub mod contract;
pub mod exec;
pub mod handler;
pub mod journal;
pub mod lane;
pub mod message;
pub mod metrics;
pub mod ownership;
pub mod program;
mod secret;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod source;

pub use consumer::{Builder, Consumer, ConsumerError, Running, Tls, terminated};
pub use handler::{Delivery, Failure, Outcome};
