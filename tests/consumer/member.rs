//! An executor in this process, whatever its handler and its broker.

use crate::world::{SOON, World};
use keylane_consumer::contract::admin::Stats;
use keylane_consumer::contract::spec::ConsumerSpec;
use keylane_consumer::exec::{Control, Executor, Measures, Options, incarnation};
use keylane_consumer::handler::Handler;
use keylane_consumer::source::Source;
use keylane_consumer::source::rocketmq::{Access, RocketmqSource};
use keylane_tests::wait;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// An executor that runs.
pub struct Member {
    pub control: Control,
    measures: Measures,
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
        let access = Access::open(&spec.rocketmq).unwrap();
        Self::enter(&spec, access, wrap, |_| handler).await
    }

    /// The same at brokers that do not let everybody in, with a handler that is made for this incarnation.
    pub async fn enter<S: Source, H: Handler>(
        spec: &ConsumerSpec,
        access: Access,
        wrap: impl FnOnce(RocketmqSource) -> S,
        handler: impl FnOnce(&str) -> H,
    ) -> Self {
        let options = Options::new(incarnation("test"), 64);
        let source = RocketmqSource::connect_with(spec, &options.incarnation, access)
            .await
            .unwrap();
        let handler = handler(&options.incarnation);
        let measures = Measures::new().unwrap();
        let executor = Executor::new(spec, options, wrap(source), handler, measures.clone());
        let (control, shutdown) = (executor.control(), CancellationToken::new());
        let task = tokio::spawn(executor.run(shutdown.clone()));
        Self {
            control,
            measures,
            shutdown,
            task,
        }
    }

    /// Offsets that somebody else moved, as its metrics tell.
    pub fn moved(&self) -> u64 {
        let moved = self.measures.commits.with_label_values(&["different"]);
        moved.get()
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
