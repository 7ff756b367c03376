#![recursion_limit = "512"]
//! The Kubernetes operator of Keylane: deploys OrderedConsumers and tunes their lanes and replicas.
//! Beside it `kubectl keylane`, which looks into them.

pub mod broker;
pub mod certificate;
pub mod controller;
pub mod crd;
pub mod leader;
pub mod live;
pub mod metrics;
pub mod names;
pub mod plugin;
pub mod pods;
#[cfg(test)]
mod reference;
pub mod scale;
pub mod served;
pub mod server;
pub mod simulate;
pub mod traces;

/// Chooses the TLS implementation of this process. More than one is linked, so nobody else can; to be
/// called before the first connection, and harmless if called again.
pub fn install_crypto() {
    // An error says that one was chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
