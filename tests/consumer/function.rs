//! An executor whose handler is a function of the test, with a record of what it saw.

use crate::member::Member;
use crate::world::{SOON, World};
use keylane_consumer::handler::func::FuncHandler;
use keylane_consumer::handler::{Delivery, Outcome};
use keylane_consumer::lane::CallResult;
use keylane_consumer::message::Topic;
use keylane_tests::wait;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

/// A message as the handler saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub topic: Topic,
    pub queue: u32,
    pub key: String,
    pub body: String,
    /// How many messages the call had.
    pub batch: usize,
}

/// A failure that counts as an attempt.
pub fn failed() -> CallResult {
    CallResult::Failed {
        error: "the test says so".into(),
        retry_after: None,
    }
}

/// An executor that calls a function.
pub struct Function {
    seen: Arc<Mutex<Vec<Seen>>>,
    member: Member,
}

impl Deref for Function {
    type Target = Member;

    fn deref(&self) -> &Member {
        &self.member
    }
}

impl Function {
    /// An executor with these fields of the spec replaced, for a function that takes everything.
    pub async fn taking(world: &World, changes: &[(&str, &str)]) -> Self {
        Self::start(world, changes, |_| CallResult::Done.into()).await
    }

    /// The same with the function's answers.
    pub async fn start(
        world: &World,
        changes: &[(&str, &str)],
        answer: impl Fn(&Delivery) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let record = seen.clone();
        let handler = FuncHandler::new(move |delivery: Delivery| {
            let batch = delivery.messages().count();
            record
                .lock()
                .unwrap()
                .extend(delivery.messages().map(|message| Seen {
                    topic: delivery.queue.topic,
                    queue: delivery.queue.id,
                    key: message.key.as_deref().unwrap_or_default().to_owned(),
                    body: String::from_utf8_lossy(&message.body).into_owned(),
                    batch,
                }));
            std::future::ready(answer(&delivery))
        });
        let member = Member::start(world, changes, |source| source, handler).await;
        Self { seen, member }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn bodies(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.body).collect()
    }

    pub async fn until_seen(&self, count: usize) -> Vec<Seen> {
        wait::until(SOON, format!("{count} messages seen"), async || {
            let seen = self.seen();
            if seen.len() >= count {
                Ok(seen)
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await
        .unwrap()
    }

    /// Drains and waits for the end.
    pub async fn stop(self) {
        self.member.stop().await;
    }

    /// Ends as by SIGKILL.
    pub async fn kill(self) {
        self.member.kill().await;
    }
}
