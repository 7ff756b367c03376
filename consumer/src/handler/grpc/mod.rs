//! Handlers behind gRPC: many calls on one stream, `keylane.v1.Handler`.
//!
//! The protocol, with what each side promises, is `consumer/proto/keylane/v1/handler.proto`. The handler is
//! the server. A call ends by its result:
//!
//! | result | meaning |
//! |---|---|
//! | `STATUS_DONE` | done |
//! | `STATUS_PERMANENT` | permanent: the handler will never take this message |
//! | `STATUS_NOT_TAKEN`, no stream, not `SERVING` | not taken: says nothing about the message, not an attempt |
//! | `STATUS_FAILED`, none in time, stream broken | a failed attempt |
//!
//! Many calls go in one request, as many results as are ready may come in one response. A call that finds
//! the handler's credit used up waits; that is not an attempt, and whether the queue is still ours is
//! checked after the wait, immediately before the call is written. A stream is opened once the handler says that
//! it is `SERVING`, and is given no more calls while it says otherwise (`health`).

mod convert;
mod desk;
mod health;
mod link;
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
#[rustfmt::skip]
pub mod proto;

use super::{Address, CONNECT_TIMEOUT, Delivery, Handler, Outcome};
use crate::contract::CANCEL_GRACE_SECONDS;
use crate::contract::spec::ConsumerSpec;
use crate::lane::CallResult;
use desk::Waiting;
use link::Link;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Endpoint;

/// The service, as health checks name it.
pub const SERVICE: &str = "keylane.v1.Handler";

/// A gRPC handler in the same pod.
pub struct GrpcHandler {
    link: Arc<Link>,
    address: String,
    _running: DropGuard,
}

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The executor beyond its restarts: the uid of its pod, or the incarnation if it is in none.
    pub instance: String,
    /// This process.
    pub incarnation: String,
}

impl GrpcHandler {
    /// The handler of this consumer at `address`; begins to connect, on the tokio runtime that this is
    /// called on, which must be one.
    pub fn new(
        spec: &ConsumerSpec,
        address: &Address,
        caller: Caller,
    ) -> Result<Self, tonic::transport::Error> {
        let endpoint = match address {
            Address::Port(port) => format!("http://127.0.0.1:{port}"),
            Address::Socket(path) => format!("unix://{}", path.display()),
        };
        let endpoint = Endpoint::from_shared(endpoint)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let hello = proto::Hello {
            topic: spec.topic.clone(),
            consumer_group: spec.consumer_group.clone(),
            instance: caller.instance,
            incarnation: caller.incarnation,
        };
        let timeout = spec.handler.timeout.get();
        let address = address.to_string();
        let grace = Duration::from_secs(CANCEL_GRACE_SECONDS);
        let link = Link::new(address.clone(), endpoint, hello, timeout, grace);
        let (link, running) = (Arc::new(link), CancellationToken::new());
        let (keep, time) = (link.clone().keep(), link.clone().watch_time());
        tokio::spawn(running.clone().run_until_cancelled_owned(keep));
        tokio::spawn(running.clone().run_until_cancelled_owned(time));
        Ok(Self {
            link,
            address,
            _running: running.drop_guard(),
        })
    }
}

impl Handler for GrpcHandler {
    async fn call(
        &self,
        delivery: Delivery,
        may_send: impl Fn() -> bool + Send + 'static,
    ) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        self.link.put(Waiting {
            delivery,
            may_send: Box::new(may_send),
            since: Instant::now(),
            reply,
        });
        outcome.await.unwrap_or_else(|_| {
            let error = format!("handler at {}: given up", self.address);
            CallResult::Lost { error }.into()
        })
    }

    async fn ready(&self) -> Result<(), String> {
        self.link.takes_calls()
    }

    /// By what it last said of earlier streams.
    async fn idle(&self) -> Option<bool> {
        self.link.idle()
    }
}
