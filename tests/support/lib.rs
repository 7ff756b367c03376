//! What the tests, the demo and the `cluster` command share: a real Kubernetes on this machine and
//! the images it runs.
#![recursion_limit = "512"]

pub mod cluster;
pub mod images;
