//! The port to whoever handles messages.

pub mod http;

use crate::lane::{CallResult, LaneKey};
use crate::message::{Message, QueueId};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// One call of a handler.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Queue of the message.
    pub queue: QueueId,
    /// Key of the message.
    pub key: LaneKey,
    /// The message.
    pub message: Arc<Message>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Longest time the call may take.
    pub timeout: Duration,
    /// When that time is over.
    pub deadline: SystemTime,
}

/// Handles messages. A call that takes longer than its timeout is the handler's to cancel: it then
/// reports [`CallResult::TimedOut`].
pub trait Handler: Send + Sync + 'static {
    /// Handles one message. `may_send` is asked immediately before anything is sent; if it says no the
    /// handler must not see the message, and the result is [`CallResult::NotSent`].
    fn call(
        &self,
        delivery: Delivery,
        may_send: impl Fn() -> bool + Send,
    ) -> impl Future<Output = CallResult> + Send;

    /// Whether the handler can be called; the error says in words why not.
    fn ready(&self) -> impl Future<Output = Result<(), String>> + Send;
}
