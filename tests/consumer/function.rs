//! An executor whose handler is a function of the test, with a record of what it saw.

use crate::world::{SOON, World};
use keylane_consumer::contract::admin::Stats;
use keylane_consumer::exec::{Control, Executor, Measures, Options, incarnation};
use keylane_consumer::handler::func::FuncHandler;
use keylane_consumer::handler::{Delivery, Handler, Outcome};
use keylane_consumer::lane::CallResult;
use keylane_consumer::message::Topic;
use keylane_consumer::source::Source;
use keylane_consumer::source::rocketmq::RocketmqSource;
use keylane_tests::wait;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

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

/// An executor in this process.
pub struct Member {
    pub control: Control,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Member {
    /// With these fields of the spec replaced, on the broker as seen through `wrap`.
    pub async fn start<S: Source>(
        world: &World,
        changes: &[(&str, &str)],
        wrap: impl FnOnce(RocketmqSource) -> S,
        handler: impl Handler,
    ) -> Self {
        let spec = world.spec(1, changes);
        let options = Options::new(incarnation("test"), 64);
        let source = RocketmqSource::connect(&spec, &options.incarnation)
            .await
            .unwrap();
        let measures = Measures::new().unwrap();
        let executor = Executor::new(&spec, options, wrap(source), handler, measures);
        let (control, shutdown) = (executor.control(), CancellationToken::new());
        let task = tokio::spawn(executor.run(shutdown.clone()));
        Self {
            control,
            shutdown,
            task,
        }
    }

    pub async fn until_stats(&self, what: &str, condition: impl Fn(&Stats) -> bool) -> Stats {
        wait::until(SOON, what, async || {
            let stats = self.control.stats().await;
            let stats = stats.map_err(|gone| gone.to_string())?;
            if condition(&stats) {
                Ok(stats)
            } else {
                Err(format!("{stats:?}"))
            }
        })
        .await
        .unwrap()
    }

    /// Drains and waits for the end.
    pub async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(SOON, self.task).await;
        ended.expect("the executor drains").unwrap();
    }

    /// Ends as by SIGKILL: nothing is written, committed or given back.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
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
