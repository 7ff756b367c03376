//! Keylane as a library: a handler that is a function of the program.

mod builder;
mod tls;

pub use builder::Builder;
pub use tls::Tls;

use crate::exec::{Control, Executor, Measures, Options, incarnation};
use crate::handler::func::FuncHandler;
use crate::handler::{Delivery, Outcome};
use crate::source::SourceError;
use crate::source::rocketmq::RocketmqSource;
use std::future::Future;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Consumes a RocketMQ topic with an async function of this process: many messages at once, those of one
/// key one after the other, in order.
///
/// ```no_run
/// use keylane_consumer::{Consumer, Delivery, Failure, terminated};
///
/// async fn handle(delivery: Delivery) -> Result<(), Failure> {
///     let order: u64 = std::str::from_utf8(&delivery.message.body)?.parse()?;
///     println!("{} of {}", order, delivery.key.as_str());
///     Ok(())
/// }
///
/// # async fn run() -> Result<(), keylane_consumer::ConsumerError> {
/// Consumer::builder()
///     .name_servers(["127.0.0.1:9876"])
///     .topic("ORDER_STATUS")
///     .group("order-status")
///     .lanes(256)
///     .shutdown(terminated())
///     .run(handle)
///     .await
/// # }
/// ```
///
/// **The handler** is an `async fn` or a closure from [`Delivery`] to a `Result<(), E>`, where `E` is
/// anything that can be displayed, or a [`Failure`](crate::Failure) to say more, or to an [`Outcome`]. `Ok`
/// finishes the message. An error is an attempt: the message is handled again after `retry.backoff`, up to
/// `retry.maxAttempts`, then the broker copies it to `%DLQ%<group>`. Its key waits meanwhile; other keys go
/// on. A panic is an attempt too. A call that takes longer than [`timeout`](Builder::timeout) is dropped at
/// its next await. A function that blocks its thread keeps it from other calls: use
/// [`spawn_blocking`](tokio::task::spawn_blocking), and await that.
///
/// **Order.** Messages of one queue with one key (`__SHARDINGKEY`, else the first of `KEYS`;
/// [`ordering`](Builder::ordering) says otherwise) are handled one after the other in the order of their
/// queue offsets, through retries and when another process takes the queue over. Producers must send the
/// messages of a key to one queue, as RocketMQ's selector by hash does.
///
/// **At least once.** The committed offset never passes a message that is not finished. What was finished
/// beyond it is kept in the topic `KEYLANE_<group>`, which is made on the brokers, so a clean stop repeats
/// nothing; after a crash at most what finished in the last two seconds or so runs again.
///
/// **Scale.** Several processes may run with the same group: each queue has one owner at a time. Lanes are
/// how many messages are handled at once in this process, whatever the number of queues.
///
/// **Memory.** [`limits`](Builder::limits) bound what is held. A key that does not move (its call takes long,
/// or `onExhausted: Block` waits for a person) holds what follows it, so one that has much of its queue's
/// messages stops that queue when the messages or bytes are used up, before the span is; other queues go on.
/// `keylane_queue_stopped` says so, `keylane_stuck_key_seconds` and `keylane_long_key_messages` name the key.
/// What helps: let the key go on (`DeadLetter`, a shorter [`timeout`](Builder::timeout)), or more memory.
///
/// **Access.** Brokers may have an ACL, and servers may want TLS, and certificates of their clients:
///
/// ```no_run
/// use keylane_consumer::{Consumer, Tls};
///
/// # fn describe() -> Result<keylane_consumer::Builder, Box<dyn std::error::Error>> {
/// let tls = Tls::trusting(std::fs::read("/etc/mq/ca.crt")?)
///     // If certificates are not for the addresses that name servers and brokers are reached by.
///     .server_name("rocketmq.mq.svc")
///     // If servers ask for one.
///     .client_certificate(std::fs::read("/etc/mq/tls.crt")?, std::fs::read("/etc/mq/tls.key")?);
/// let consumer = Consumer::builder()
///     .name_servers(["namesrv.mq:9876"])
///     .credentials("order-status", std::env::var("MQ_SECRET_KEY")?)
///     .tls(tls);
/// # Ok(consumer)
/// # }
/// ```
///
/// The user needs `Sub` and `Get` on the topic, `Sub`, `Get` and `Update` on the group, and `Pub`, `Sub`, `Get`
/// and `Create` on the topic `KEYLANE_<group>`; without order (`Mode::None`) the same on `KEYLANE%<group>`, and
/// `Sub` and `Get` on `%RETRY%<group>`. What was given holds for the life of the consumer: to exchange it, stop
/// this one and start another, which repeats nothing.
///
/// **Threads.** Calls run on the tokio runtime that [`run`](Builder::run) is called on, which must be
/// one of several threads for handlers to run in parallel on several cores. Leases and commits have a
/// thread of their own.
///
/// **Trouble.** Name servers and brokers that are unreachable, or a topic that is missing, do not end the
/// consumer: it says so by [`tracing`] and tries again. `RUST_LOG=info` with `tracing-subscriber` shows it.
#[derive(Debug)]
pub struct Consumer;

impl Consumer {
    /// A consumer to describe: [`name_servers`](Builder::name_servers), [`topic`](Builder::topic) and
    /// [`group`](Builder::group) must be given, everything else has a default.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

/// Why a consumer cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// Something that was said of it cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The client of RocketMQ cannot be set up.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The measures cannot be made.
    #[error(transparent)]
    Measures(#[from] prometheus::Error),
    /// Its event loop panicked.
    #[error("the consumer broke: {0}")]
    Broken(#[from] JoinError),
}

/// A consumer that runs. When this is dropped it drains, unattended: [`stop`](Running::stop) waits for that.
#[derive(Debug)]
pub struct Running {
    control: Control,
    measures: Measures,
    shutdown: DropGuard,
    task: JoinHandle<()>,
}

impl Running {
    pub(self) async fn start<F, R, O>(builder: Builder, function: F) -> Result<Self, ConsumerError>
    where
        F: Fn(Delivery) -> R + Send + Sync + 'static,
        R: Future<Output = O> + Send + 'static,
        O: Into<Outcome> + Send + 'static,
    {
        let access = builder.access();
        let (spec, lanes) = builder.check().map_err(ConsumerError::Invalid)?;
        let access = access.map_err(|wrong| ConsumerError::Invalid(wrong.to_string()))?;
        let options = Options::new(incarnation("lib"), lanes);
        let source = RocketmqSource::connect_with(&spec, &options.incarnation, access).await?;
        let measures = Measures::new()?;
        let handler = FuncHandler::new(function);
        let executor = Executor::new(&spec, options, source, handler, measures.clone());
        let shutdown = CancellationToken::new();
        Ok(Self {
            control: executor.control(),
            measures,
            task: tokio::spawn(executor.run(shutdown.clone())),
            shutdown: shutdown.drop_guard(),
        })
    }

    /// Asks and steers it: its state, lanes, and what of its description can change.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Its histograms and counters, for [`Metrics`](crate::metrics::Metrics).
    pub fn measures(&self) -> &Measures {
        &self.measures
    }

    /// Drains: nothing new begins, calls that run finish (within [`drain_timeout`](Builder::drain_timeout)),
    /// what is finished is committed and acknowledged, the queues are given back.
    pub async fn stop(self) -> Result<(), ConsumerError> {
        drop(self.shutdown);
        Ok(self.task.await?)
    }

    /// Waits until it has ended, which it does if its event loop panicked.
    async fn broken(&mut self) -> ConsumerError {
        match (&mut self.task).await {
            Ok(()) => ConsumerError::Invalid("the consumer ended without being told to".into()),
            Err(error) => error.into(),
        }
    }
}

/// Ends at the first SIGTERM or SIGINT (Ctrl-C) from now on; these then no longer end the process by
/// themselves.
pub async fn terminated() {
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            // Without it the signal ends the process, as it would by itself.
            Err(error) => {
                tracing::warn!("no signal can be waited for: {error}");
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::interrupt()) => {}
    }
}
