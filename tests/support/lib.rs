//! What the tests, the demo and the `cluster` command share: a real Kubernetes on this machine, the
//! images it runs, a real RocketMQ, a Kafka to compare with, a judge of the order of handler calls,
//! and one way to wait.
#![recursion_limit = "512"]

mod arguments;
pub mod cluster;
pub mod goal;
pub mod images;
pub mod jars;
pub mod judge;
pub mod kafka;
pub mod piece;
pub mod plugin;
mod processes;
pub mod rocketmq;
pub mod samples;
pub mod stack;
pub mod terminal;
pub mod usage;
pub mod wait;

pub use arguments::arguments;
