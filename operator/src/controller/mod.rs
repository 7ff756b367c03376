//! The reconcile loop.
pub mod build;
pub mod validate;
