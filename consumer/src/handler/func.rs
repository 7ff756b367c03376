//! Handlers in this process: an async function.
//!
//! A call that takes too long is dropped at its next await, and nothing of it runs after that: its key
//! goes on at once. A panic is a failed attempt of its message. A function that blocks its thread cannot
//! be dropped and keeps that thread from other calls until it returns; leases, commits and everything
//! else of the executor go on meanwhile. Work that blocks belongs into `tokio::task::spawn_blocking`, and
//! what that started may outlive a dropped call: await it in the function, or fence it.

use super::{Delivery, Handler, Outcome};
use crate::lane::CallResult;
use std::future::Future;

/// Handles messages with an async function. It answers with [`CallResult::Done`] or with how it failed,
/// or with an [`Outcome`] to acknowledge the first messages of a batch only.
#[derive(Clone, Debug)]
pub struct FuncHandler<F>(F);

impl<F, R, O> FuncHandler<F>
where
    F: Fn(Delivery) -> R + Send + Sync + 'static,
    R: Future<Output = O> + Send,
    O: Into<Outcome>,
{
    /// A handler that calls this function.
    pub fn new(function: F) -> Self {
        Self(function)
    }
}

impl<F, R, O> Handler for FuncHandler<F>
where
    F: Fn(Delivery) -> R + Send + Sync + 'static,
    R: Future<Output = O> + Send,
    O: Into<Outcome>,
{
    async fn call(&self, delivery: Delivery, may_send: impl Fn() -> bool + Send) -> Outcome {
        if !may_send() {
            return CallResult::NotSent.into();
        }
        let timeout = delivery.timeout;
        match tokio::time::timeout(timeout, (self.0)(delivery)).await {
            Ok(outcome) => outcome.into(),
            // The future is dropped: the call is over.
            Err(_) => Outcome {
                over: true,
                ..CallResult::TimedOut.into()
            },
        }
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::LaneKey;
    use crate::message::{Message, QueueId};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, SystemTime};

    fn delivery() -> Delivery {
        Delivery {
            queue: QueueId::new("b", 0),
            key: LaneKey::Shared,
            message: Arc::new(Message::default()),
            rest: vec![Arc::new(Message::default())],
            attempt: 1,
            timeout: Duration::from_millis(20),
            deadline: SystemTime::now(),
        }
    }

    #[tokio::test]
    async fn a_function_may_answer_for_all_or_for_the_first_messages() {
        let all = FuncHandler::new(async |_| CallResult::Done);
        assert_eq!(all.call(delivery(), || true).await, CallResult::Done.into());
        let one = FuncHandler::new(async |delivery: Delivery| {
            assert_eq!(delivery.messages().count(), 2);
            Outcome {
                acked: 1,
                ..CallResult::TimedOut.into()
            }
        });
        assert_eq!(one.call(delivery(), || true).await.acked, 1);
    }

    #[tokio::test]
    async fn a_call_that_takes_too_long_is_dropped_and_over() {
        struct Dropped(Arc<AtomicBool>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let dropped = Arc::new(AtomicBool::new(false));
        let flag = dropped.clone();
        let endless = FuncHandler::new(move |_| {
            let guard = Dropped(flag.clone());
            async move {
                let _guard = guard;
                std::future::pending::<CallResult>().await
            }
        });
        let outcome = endless.call(delivery(), || true).await;
        assert_eq!((outcome.result, outcome.over), (CallResult::TimedOut, true));
        assert!(dropped.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn past_the_lease_the_function_is_not_called() {
        let called = Arc::new(AtomicBool::new(false));
        let flag = called.clone();
        let handler = FuncHandler::new(move |_| {
            flag.store(true, Ordering::SeqCst);
            std::future::ready(CallResult::Done)
        });
        assert_eq!(
            handler.call(delivery(), || false).await,
            CallResult::NotSent.into()
        );
        assert!(!called.load(Ordering::SeqCst));
    }
}
