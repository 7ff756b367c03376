//! `live.keylane.dev/v1alpha1`: what the pods of an OrderedConsumer know at this moment, for whoever may ask
//! the API server for it.
//!
//! An aggregated API. The API server knows who asks, decides by its roles whether they may, and passes the
//! request on; so the credentials and rights of kubectl decide, and nobody has to reach a pod. Nobody but the
//! API server is answered: it shows a certificate of the front proxy's authority ([`front`]). Every operator
//! answers, whether it leads or not.
//!
//! | request | needs | answer |
//! |---|---|---|
//! | `GET …/namespaces/<namespace>/consumerstats/<name>` | get consumerstats | a [`ConsumerStats`] |
//! | `GET …/namespaces/<namespace>/deadletters/<name>` | get deadletters | a [`Listing`](crate::broker::letters::Listing), of those that were not sent again, or with `?all=true` of all; `limit` (100) of them from behind that named by `after` on |
//! | the same with `?id=<letter>` | get deadletters | a [`Content`](crate::broker::letters::Content) |
//! | `POST …/namespaces/<namespace>/deadletters/<name>/replay`, a [`Replay`](crate::broker::letters::Replay) | create deadletters/replay | a [`Replayed`](crate::broker::letters::Replayed) |
//! | `POST …/namespaces/<namespace>/groups`, a [`Wanted`](crate::broker::groups::Wanted) | create groups | a [`Group`](crate::broker::groups::Group): nothing is changed, but the operator calls the addresses in it |
//!
//! Failures are `Status` objects.

mod api;
mod front;
mod groups;
mod letters;
mod pods;
mod serving;

#[cfg(test)]
pub(crate) use api::router;
pub use api::{ConsumerStats, GROUP, PodStats, RESOURCE, VERSION, path};
pub use groups::path as groups_path;
pub use letters::path as letters_path;
pub use serving::serve;
