//! What the tests, the demo and the `cluster` command share: a real Kubernetes on this machine, the
//! images it runs, a real RocketMQ, and one way to wait.
#![recursion_limit = "512"]

pub mod cluster;
pub mod images;
pub mod judge;
pub mod rocketmq;
pub mod sample_handler;
pub mod wait;
