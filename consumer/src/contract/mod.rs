//! What the executor, the operator and users agree on: the shape of an `OrderedConsumer` as far as the
//! executor obeys it ([`spec`]), the admin API of a pod ([`admin`], [`offsets`]) and the fixed names and ports of a pod.
//!
//! Everything here is plain data: no I/O, no clock. The operator depends on this module, never the
//! other way round.

pub mod admin;
pub mod duration;
pub mod offsets;
pub mod quantity;
pub mod socket;
pub mod spec;

/// API group and version of the resource.
pub const API_VERSION: &str = "keylane.dev/v1alpha1";
/// Kind of the resource.
pub const KIND: &str = "OrderedConsumer";

/// Port of the probes (`/livez`, `/readyz`) of an executor.
pub const PROBE_PORT: u16 = 9401;
/// Port of `/metrics` of an executor.
pub const METRICS_PORT: u16 = 9402;
/// Port of the authenticated admin API of an executor.
pub const ADMIN_PORT: u16 = 9403;

/// How long a cancelled handler call may still run before it counts as over (seconds). Together with
/// `handler.timeout` it is the call bound B of the order promise.
pub const CANCEL_GRACE_SECONDS: u64 = 5;
