//! `live.keylane.dev/v1alpha1`: what the pods of an OrderedConsumer know at this moment, for whoever may ask
//! the API server for it.
//!
//! An aggregated API. The API server knows who asks, decides by its roles whether they may, and passes the
//! request on; so the credentials and rights of kubectl decide, and nobody has to reach a pod. Nobody but the
//! API server is answered: it shows a certificate of the front proxy's authority ([`front`]). Every operator
//! answers, whether it leads or not.
//!
//! `GET …/namespaces/<namespace>/consumerstats/<name>` is a [`ConsumerStats`]. Failures are `Status` objects.

mod api;
mod front;
mod pods;
mod serving;

pub use api::{ConsumerStats, GROUP, PodStats, RESOURCE, VERSION, path};
pub use serving::{Options, serve};
