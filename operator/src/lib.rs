#![recursion_limit = "512"]
//! The Kubernetes operator of Keylane: deploys OrderedConsumers and tunes their lanes and replicas.

pub mod controller;
pub mod crd;
pub mod names;
