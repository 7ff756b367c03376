//! Connections to one handler that speaks HTTP/2: many requests at a time on each.
//!
//! Whether a handler speaks HTTP/2 without TLS nothing tells beforehand, so the OrderedConsumer says it
//! (`handler.http.version`) and the connection begins with it (RFC 9113, section 3.3). To find out by trying
//! would put a request that is none into the logs of every handler that does not, and hide it when one that
//! should no longer does.
//!
//! A connection has a task of its own. A request is given to it only when the handler takes one stream more
//! there; beyond that another connection is opened. So it does not wait between the check of the lease and
//! the write. A call that is given up resets its stream and nothing else.

use super::pool::{Answer, ExchangeError, LONGEST_BODY};
use crate::handler::{Address, causes};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Most streams at a time on a connection, whatever the handler takes: with more, two connections are
/// faster than one.
const STREAMS: usize = 100;

/// The connections to one address.
#[derive(Debug)]
pub struct Streams {
    address: Address,
    connections: Mutex<Vec<Arc<Connection>>>,
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Connection {
    sender: http2::SendRequest<Full<Bytes>>,
    taken: AtomicUsize,
    /// Streams that the handler takes, as its settings say.
    most: Arc<AtomicUsize>,
}

/// One stream of a connection.
#[derive(Debug)]
struct Stream(Arc<Connection>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Streams {
    /// No connections yet to `address`.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            connections: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// Sends a request and reads the answer to its end. `may_send` is asked immediately before the request
    /// is given to the connection.
    pub async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        may_send: impl Fn() -> bool,
    ) -> Result<Answer, ExchangeError> {
        let mut request = request;
        loop {
            let (stream, is_new) = self.stream().await.map_err(ExchangeError::NotSent)?;
            if !may_send() {
                return Err(ExchangeError::Withheld);
            }
            let answer = stream.0.sender.clone().try_send_request(request);
            match answer.await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let body = Limited::new(body, LONGEST_BODY).collect().await;
                    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
                    return Ok(Answer { head, body });
                }
                Err(mut error) => match (error.take_message(), is_new) {
                    (Some(unsent), false) => request = unsent,
                    (Some(_), true) => return Err(ExchangeError::NotSent(causes(error.error()))),
                    (None, _) => return Err(ExchangeError::Lost(causes(error.error()))),
                },
            }
        }
    }

    /// A stream, and whether its connection is new.
    async fn stream(&self) -> Result<(Stream, bool), String> {
        if let Some(stream) = self.free() {
            return Ok((stream, false));
        }
        let _one_at_a_time = self.opening.lock().await;
        if let Some(stream) = self.free() {
            return Ok((stream, false));
        }
        let connection = Arc::new(open(&self.address).await?);
        connection.taken.store(1, Ordering::SeqCst);
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connections.push(connection.clone());
        Ok((Stream(connection), true))
    }

    /// A stream of a connection that is open and takes one more.
    fn free(&self) -> Option<Stream> {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| !connection.sender.is_closed());
        let free = connections.iter().find(|connection| {
            let most = STREAMS.min(connection.most.load(Ordering::SeqCst));
            // The lock is held, so nobody else takes one meanwhile.
            connection.taken.load(Ordering::SeqCst) < most
        })?;
        free.taken.fetch_add(1, Ordering::SeqCst);
        Some(Stream(free.clone()))
    }
}

async fn open(address: &Address) -> Result<Connection, String> {
    let stream = TokioIo::new(address.connect().await?);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .map_err(|error| causes(&error))?;
    let most = Arc::new(AtomicUsize::new(STREAMS));
    let said = most.clone();
    tokio::spawn(async move {
        let mut connection = pin!(connection);
        poll_fn(|context| {
            // How it ended its requests say.
            let ended = connection.as_mut().poll(context).map(drop);
            said.store(connection.current_max_send_streams(), Ordering::SeqCst);
            ended
        })
        .await;
    });
    Ok(Connection {
        sender,
        taken: AtomicUsize::new(0),
        most,
    })
}
