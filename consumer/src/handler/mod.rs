//! The port to whoever handles messages.
//!
//! | handler | in the OrderedConsumer | what it serves or is |
//! |---|---|---|
//! | [`http`], in any language | `handler: {http: {port: 8080, path: /events}}` | `POST` of CloudEvents 1.0; `version: HTTP2` for many calls on a connection |
//! | [`grpc`], in any language | `handler: {grpc: {port: 8080}}` | `keylane.v1.Handler` of `consumer/proto/keylane/v1/handler.proto`: many calls on one stream |
//! | [`func`], in Rust | none: [`Consumer`](crate::Consumer) | an async function of the same process |
//!
//! In place of `port` both of the first take `unixSocket: /run/handler/handler.sock`. Whatever the kind, the
//! calls of one key come one after the other and in order, and a call is over `handler.timeout` and a grace
//! of 5 s after it was sent: a handler must not work on it longer.

mod failure;
pub mod func;
pub mod grpc;
pub mod http;
mod remote;

use crate::lane::{CallResult, LaneKey};
use crate::message::{Message, QueueId};
use std::fmt::Write;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use failure::Failure;
pub use remote::{Address, Remote, RemoteError};
use remote::{CONNECT_TIMEOUT, Socket};

/// One call of a handler.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Queue of the messages.
    pub queue: QueueId,
    /// Lane of the messages.
    pub key: LaneKey,
    /// The first message.
    pub message: Arc<Message>,
    /// The messages that follow it in its lane, in order; none unless handler.batch allows it.
    pub rest: Vec<Arc<Message>>,
    /// 1 for the first attempt of the first message.
    pub attempt: u32,
    /// Longest time the call may take.
    pub timeout: Duration,
    /// When that time is over.
    pub deadline: SystemTime,
}

impl Delivery {
    /// All messages, in order.
    pub fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        std::iter::once(&self.message).chain(&self.rest)
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How many of its messages are finished, from the first on. Of no account if `result` is
    /// [`CallResult::Done`]: then all are.
    pub acked: u32,
    /// About the first message that is not finished.
    pub result: CallResult,
    /// Nothing of the call can run any more, though it had no answer ([`CallResult::TimedOut`],
    /// [`CallResult::Lost`]): its key need not wait for the call bound.
    pub over: bool,
}

impl From<CallResult> for Outcome {
    /// About the first message.
    fn from(result: CallResult) -> Self {
        Self {
            acked: 0,
            result,
            over: false,
        }
    }
}

/// Handles messages. A call that takes longer than its timeout is the handler's to cancel: it then
/// reports [`CallResult::TimedOut`].
pub trait Handler: Send + Sync + 'static {
    /// Handles the messages of one call. `may_send` is asked immediately before anything is sent; if it
    /// says no the handler must not see the messages, and the result is [`CallResult::NotSent`].
    fn call(
        &self,
        delivery: Delivery,
        may_send: impl Fn() -> bool + Send + 'static,
    ) -> impl Future<Output = Outcome> + Send;

    /// Whether the handler can be called; the error says in words why not.
    fn ready(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Whether nothing runs in the handler, of this process's calls and of those of processes that were
    /// here before it. None: this handler has no way to say. One that has a way and does not answer in
    /// time is not idle.
    fn idle(&self) -> impl Future<Output = Option<bool>> + Send {
        std::future::ready(None)
    }
}

/// An error with its causes; the clients' own texts name only the outermost.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
