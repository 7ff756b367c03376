//! How others talk to a running executor.

use crate::contract::admin::{LaneTarget, Lanes, Stats};
use crate::contract::offsets::{ResetOffsets, ResetReport};
use crate::contract::spec::ConsumerSpec;
use tokio::sync::{mpsc, oneshot};

/// What can be asked of a running executor.
#[derive(Debug)]
pub enum Request {
    /// What it knows of itself.
    Stats(oneshot::Sender<Stats>),
    /// Its lanes.
    Lanes(oneshot::Sender<Lanes>),
    /// A new lane target; the answer is the target in force.
    SetLanes(LaneTarget, oneshot::Sender<LaneTarget>),
    /// A new spec; the answer are the fields that take effect at the next start only.
    Reconfigure(Box<ConsumerSpec>, oneshot::Sender<Vec<String>>),
    /// These pods are gone, and everything that ran in them is dead.
    PodsGone(Vec<String>, oneshot::Sender<()>),
    /// Give all queues away, as at the end, and stay.
    Drain(oneshot::Sender<()>),
    /// Go on from other offsets.
    ResetOffsets(
        ResetOffsets,
        oneshot::Sender<Result<ResetReport, ResetError>>,
    ),
    /// Whether the handler answers and every broker is known.
    Ready(oneshot::Sender<bool>),
}

/// The executor has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the executor has ended")]
pub struct Gone;

/// Why a request to reset offsets is not obeyed at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResetError {
    /// Not an id.
    #[error("id is {0:?}: write 1 to 63 letters, digits, '.', '_' and '-'")]
    Id(String),
    /// An offset for all queues.
    #[error(
        "to is offset {0}, which means something else in each queue: name one with queue, such as \"broker-a/0\""
    )]
    OffsetOfAll(u64),
    /// Not a queue.
    #[error("queue is {0:?}: write broker name/queue id, such as \"broker-a/0\"")]
    Queue(String),
    /// A queue of another executor, or of nobody.
    #[error("queue {0} is not held by this executor: ask the one whose /v1/stats lists it")]
    NotHeld(String),
    /// One request at a time.
    #[error("request {0:?} is under way: ask again when it is done")]
    Busy(String),
    /// Nothing is committed.
    #[error("consumption is Broadcasting, which keeps no offsets: change startFrom and restart")]
    Broadcasting,
    /// Nothing is held any more.
    #[error("this executor gives its queues away: ask those that take them over")]
    Draining,
}

/// A handle to a running executor. Every answer comes from its event loop, so an answer also says that
/// the loop runs.
#[derive(Clone, Debug)]
pub struct Control(pub(super) mpsc::Sender<Request>);

impl Control {
    /// That of an executor that has ended.
    #[cfg(test)]
    pub(crate) fn ended() -> Self {
        Self(mpsc::channel(1).0)
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        self.0.send(request(reply)).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// What the executor knows of itself.
    pub async fn stats(&self) -> Result<Stats, Gone> {
        self.ask(Request::Stats).await
    }

    /// The lanes with messages, at most 1,000.
    pub async fn lanes(&self) -> Result<Lanes, Gone> {
        self.ask(Request::Lanes).await
    }

    /// Sets how many lanes may run at once, unless a target with a newer (term, sequence) is in force.
    /// Returns the target in force.
    pub async fn set_lanes(&self, target: LaneTarget) -> Result<LaneTarget, Gone> {
        self.ask(|reply| Request::SetLanes(target, reply)).await
    }

    /// Takes over what of a new spec can change in a running executor (see
    /// [`LIVE_FIELDS`](crate::contract::spec::LIVE_FIELDS)). What is suspended is suspended when this
    /// returns. Returns the names of the other fields that differ.
    pub async fn reconfigure(&self, spec: ConsumerSpec) -> Result<Vec<String>, Gone> {
        self.ask(|reply| Request::Reconfigure(Box::new(spec), reply))
            .await
    }

    /// Says that every container of these pods, by their uids, was reported terminated: what they owned
    /// is taken over without waiting for calls of theirs. It must be true.
    pub async fn pods_gone(&self, uids: Vec<String>) -> Result<(), Gone> {
        self.ask(|reply| Request::PodsGone(uids, reply)).await
    }

    /// Begins to give away all queues as at the end of [`Executor::run`](super::Executor::run), which goes on
    /// without any until it is told to end; see [`Stats::drained`].
    pub async fn drain(&self) -> Result<(), Gone> {
        self.ask(Request::Drain).await
    }

    /// Has the group go on from other offsets in the queues of this executor; see [`crate::contract::offsets`].
    /// With `wait` it returns when nothing is under way any more.
    pub async fn reset_offsets(
        &self,
        request: ResetOffsets,
    ) -> Result<Result<ResetReport, ResetError>, Gone> {
        self.ask(|reply| Request::ResetOffsets(request, reply))
            .await
    }

    /// True once the handler answers and the brokers of the topic list this executor as a member.
    pub async fn is_ready(&self) -> Result<bool, Gone> {
        self.ask(Request::Ready).await
    }
}
