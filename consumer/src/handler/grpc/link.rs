//! The stream to the handler: opened, kept, and opened again.
//!
//! A stream is opened once the handler says that it serves, and calls are held back while it says otherwise.
//! One task reads, the connection's own task writes: it asks [`Outgoing`] for the next request when it can
//! take one, and leases are checked in that very step. Before it collects what waits it lets every other
//! task of its thread have a turn, so that calls which begin together go out together.

use super::desk::{Answer, Desk, Waiting};
use super::health::{self, Health, Watched};
use super::proto::handler_client::HandlerClient;
use super::proto::{HandleRequest, HandleResponse, Hello};
use crate::handler::Outcome;
use futures::Stream;
use futures::task::AtomicWaker;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, info};

/// Pauses between attempts to open a stream: the first, doubled up to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];
/// Pause between questions to a handler that does not say yet that it serves.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Time for a handler to answer the hello.
const WELCOME_WITHIN: Duration = Duration::from_secs(5);

pub type Reply = oneshot::Sender<Outcome>;

/// The way to one handler.
pub struct Link {
    address: String,
    endpoint: Endpoint,
    hello: Hello,
    state: Mutex<State>,
    /// The newest stream; one before it may still be asked for requests.
    newest: AtomicU64,
    /// The one who writes to it, if he has nothing to write.
    writer: AtomicWaker,
    timer: Notify,
}

struct State {
    desk: Desk<Reply>,
    /// The timer will look by itself.
    is_timed: bool,
}

impl Link {
    pub fn new(
        address: String,
        endpoint: Endpoint,
        hello: Hello,
        timeout: Duration,
        grace: Duration,
    ) -> Self {
        let why = format!("handler at {address}: no stream was opened yet");
        Self {
            address,
            endpoint,
            hello,
            state: Mutex::new(State {
                desk: Desk::new(timeout, grace, why),
                is_timed: false,
            }),
            newest: AtomicU64::new(0),
            writer: AtomicWaker::new(),
            timer: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether calls are taken now; the error says why not.
    pub fn takes_calls(&self) -> Result<(), String> {
        self.state().desk.takes_calls().map_err(str::to_owned)
    }

    /// See [`crate::handler::Handler::idle`].
    pub fn idle(&self) -> Option<bool> {
        self.state().desk.idle()
    }

    /// Takes a call; its answer comes by its reply.
    pub fn put(&self, call: Waiting<Reply>) {
        let mut state = self.state();
        let answer = state.desk.put(call);
        let untimed = answer.is_none() && !std::mem::replace(&mut state.is_timed, true);
        drop(state);
        match answer {
            Some(answer) => give([answer]),
            None => self.writer.wake(),
        }
        if untimed {
            self.timer.notify_one();
        }
    }

    /// Ends what has taken too long, for ever.
    pub async fn watch_time(self: Arc<Self>) {
        loop {
            let next = self.tick();
            // There may be calls to cancel.
            self.writer.wake();
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => self.timer.notified().await,
            }
        }
    }

    /// Ends what has taken too long now; says when to look again.
    fn tick(&self) -> Option<Instant> {
        let mut state = self.state();
        let (answers, next) = state.desk.tick(Instant::now());
        state.is_timed = next.is_some();
        drop(state);
        give(answers);
        next
    }

    /// Opens a stream, and another when it ends, for ever.
    pub async fn keep(self: Arc<Self>) {
        let [mut pause, longest] = PAUSES;
        for stream in 1.. {
            let mut was_open = false;
            let reason = match self.serve(stream, &mut was_open).await {
                Ok(()) => "it ended the stream".into(),
                Err(reason) => reason,
            };
            let why = format!("handler at {}: {reason}", self.address);
            if was_open {
                info!("{why}; it is called again once there is a new stream");
                pause = PAUSES[0];
            } else {
                debug!("{why}");
            }
            self.closed(why);
            tokio::time::sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }

    fn opened(&self, stream: u64, welcome: HandleResponse) {
        let answers = self.state().desk.open(stream, welcome);
        give(answers);
        self.writer.wake();
    }

    fn closed(&self, why: String) {
        let answers = self.state().desk.close(why);
        give(answers);
    }

    /// Waits until the handler says that it serves; gives the name to watch it by, if it has one.
    async fn until_serving(&self, channel: &Channel) -> Result<Option<&'static str>, String> {
        loop {
            match health::check(channel).await? {
                Health::Serving(name) => return Ok(name),
                Health::NotServing(word) => self.closed(self.says(word)),
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    fn says(&self, word: &str) -> String {
        format!("handler at {}: it says that it is {word}", self.address)
    }

    /// Holds calls back while the handler says that it does not serve. What it said last counts until it says
    /// more, also where watching it has to begin again; of one that cannot be watched its stream alone counts.
    async fn follow_health(&self, channel: Channel, name: &'static str) {
        let mut has_spoken = false;
        loop {
            let mut watched = Watched::of(channel.clone(), name).await;
            while let Some(said) = watched.next().await {
                has_spoken = true;
                match said {
                    Ok(()) => self.state().desk.resume(),
                    Err(word) => self.pause(word),
                }
            }
            if !has_spoken {
                return;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    fn pause(&self, word: &str) {
        let why = self.says(word);
        let mut state = self.state();
        let is_news = state.desk.takes_calls() != Err(why.as_str());
        let answers = state.desk.pause(why.clone());
        drop(state);
        give(answers);
        if is_news {
            info!("{why}; it is called again once it is SERVING");
        }
    }

    /// Opens a stream and reads it to its end.
    async fn serve(self: &Arc<Self>, stream: u64, was_open: &mut bool) -> Result<(), String> {
        let channel = self.endpoint.connect().await;
        let channel = channel.map_err(|error| crate::handler::causes(&error))?;
        let watch_by = self.until_serving(&channel).await?;
        self.newest.store(stream, Ordering::SeqCst);
        let outgoing = Outgoing {
            link: self.clone(),
            stream,
            hello: Some(self.hello.clone()),
            has_waited: false,
        };
        let mut client = HandlerClient::new(channel.clone());
        let welcome = async {
            let response = client.handle(outgoing).await.map_err(said)?;
            let mut incoming = response.into_inner();
            let welcome = incoming.message().await.map_err(said)?;
            let welcome = welcome.ok_or("it ended the stream without an answer to the hello")?;
            Ok::<_, String>((incoming, welcome))
        };
        let welcome = tokio::time::timeout(WELCOME_WITHIN, welcome).await;
        let (mut incoming, welcome) = welcome.map_err(|_| {
            format!("it did not answer the hello within {WELCOME_WITHIN:?}: its first response must come at once")
        })??;
        self.opened(stream, welcome);
        *was_open = true;
        let reading = async {
            while let Some(response) = incoming.message().await.map_err(said)? {
                let answers = self.state().desk.read(response);
                give(answers);
                // There may be credit.
                self.writer.wake();
            }
            Ok::<_, String>(())
        };
        let watching = async {
            if let Some(name) = watch_by {
                self.follow_health(channel, name).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            ended = reading => ended,
            ended = watching => ended,
        }
    }
}

fn give(answers: impl IntoIterator<Item = Answer<Reply>>) {
    for (reply, outcome) in answers {
        // Nobody waits for it if the executor is ending.
        let _ = reply.send(outcome);
    }
}

fn said(status: tonic::Status) -> String {
    let causes = std::error::Error::source(&status).map(crate::handler::causes);
    let (code, message) = (status.code(), status.message());
    match (code, causes) {
        (tonic::Code::Unimplemented, _) => {
            format!("it does not serve keylane.v1.Handler ({message})")
        }
        (_, Some(causes)) => format!("{message} ({code:?}): {causes}"),
        (_, None) => format!("{message} ({code:?})"),
    }
}

/// The requests of a stream.
struct Outgoing {
    link: Arc<Link>,
    stream: u64,
    hello: Option<Hello>,
    /// Others have had their turn.
    has_waited: bool,
}

impl Stream for Outgoing {
    type Item = HandleRequest;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<HandleRequest>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(HandleRequest {
                hello: Some(hello),
                ..HandleRequest::default()
            }));
        }
        let link = self.link.clone();
        if link.newest.load(Ordering::SeqCst) != self.stream {
            return Poll::Ready(None);
        }
        link.writer.register(context.waker());
        let mut state = link.state();
        if !state.desk.has_work(self.stream) {
            self.has_waited = false;
            return Poll::Pending;
        }
        if !self.has_waited {
            self.has_waited = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut answers = Vec::new();
        let request = state.desk.write(self.stream, &mut answers);
        drop(state);
        give(answers);
        self.has_waited = false;
        match request {
            Some(request) => Poll::Ready(Some(request)),
            None => {
                // Nothing of what waited may be sent; there may be more.
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}
