#![recursion_limit = "512"]
//! The key-lane executor: runs every key of a RocketMQ topic as its own FIFO lane, many keys of one
//! queue at once, each key in order.

pub mod admin;
pub mod config;
pub mod contract;
pub mod exec;
pub mod handler;
pub mod journal;
pub mod lane;
pub mod message;
pub mod metrics;
pub mod ownership;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod source;
