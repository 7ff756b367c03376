//! A real RocketMQ for tests and the demo: Apache RocketMQ 5.3.3 in Java, from Maven.
//!
//! [`Broker`] runs a name server and a broker as plain processes that die with this one, whatever
//! ends it. Everything else takes a name server address, so it also works against a broker in a
//! cluster. Requests here are written to the wire by this module itself and not by the client the
//! product uses: what a test sends and what it sees stay independent of what is tested, and so does
//! [`mqadmin`], RocketMQ's own tool.

mod admin;
mod broker;
mod door;
mod error;
mod jars;
mod message;
mod mqadmin;
mod offsets;
mod producer;
mod remoting;
mod second;
mod secured;

pub use admin::create_topic;
pub use broker::{Broker, Settings};
pub use error::{Result, RocketMqError};
pub use jars::{VERSION, jars};
pub use message::Message;
pub use mqadmin::{QueueProgress, mqadmin, progress};
pub use offsets::Offsets;
pub use producer::{Producer, Sent};
pub use second::Second;
pub use secured::{Authority, Secured};

/// RocketMQ for a cluster, as manifests for this namespace: a StatefulSet of one pod, `rocketmq-0`, with
/// a name server and a broker, and the Service `rocketmq` of the name server at port 9876. Allowed
/// under Pod Security `restricted`; messages go with the pod. From outside the cluster, use the pod's
/// address: the broker gives that to its clients too.
#[must_use]
pub fn manifests(namespace: &str) -> String {
    include_str!("../stack/rocketmq.yaml").replace("@NAMESPACE@", namespace)
}
