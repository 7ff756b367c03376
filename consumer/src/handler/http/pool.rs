//! Connections to one handler: HTTP/1.1, kept alive, one request at a time on each.
//!
//! A connection is driven by the call that uses it, not by a task of its own: the request is written in
//! the very poll that follows the check of the lease, and an answer wakes nobody but its call.
//!
//! A request is only repeated on another connection when it was never written. Servers close connections
//! that were idle for a while (5 s is a common default, the shortest in wide use is 2 s), and a request
//! that crosses such a close is lost with no way to tell whether it was read; so a connection is not used
//! again after [`IDLE_LIMIT`].

use crate::handler::{Address, Socket};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How long a connection may have been idle to be used again.
const IDLE_LIMIT: Duration = Duration::from_secs(1);
/// An answer with a longer body costs its connection.
pub(super) const LONGEST_BODY: usize = 64 << 10;
const READ_BUFFER: usize = 16 << 10;

type Driver = http1::Connection<TokioIo<Socket>, Full<Bytes>>;

/// The connections to one address.
#[derive(Debug)]
pub struct Pool {
    address: Address,
    /// The one used last, at the back, is used next, so that what is not needed grows old.
    idle: Mutex<VecDeque<Connection>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ExchangeError {
    /// The handler has not seen the request.
    NotSent(String),
    /// The handler may have seen the request, and may still work on it.
    Lost(String),
    /// What was to be asked before sending said no; the handler has not seen the request.
    Withheld,
}

/// An answer: its head, and as much of its body as is kept.
#[derive(Debug)]
pub struct Answer {
    /// Status and headers.
    pub head: http::response::Parts,
    /// The body, empty if it was too long or broke off.
    pub body: Bytes,
}

impl Pool {
    /// No connections yet to `address`.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            idle: Mutex::default(),
        }
    }

    /// Sends a request and reads the answer to its end. `may_send` is asked immediately before the request
    /// is written.
    pub async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        may_send: impl Fn() -> bool,
    ) -> Result<Answer, ExchangeError> {
        let mut request = request;
        loop {
            let kept = self.kept();
            let is_new = kept.is_none();
            let mut connection = match kept {
                Some(connection) => connection,
                None => Connection::open(&self.address)
                    .await
                    .map_err(ExchangeError::NotSent)?,
            };
            if !may_send() {
                self.keep(connection);
                return Err(ExchangeError::Withheld);
            }
            match connection.send(request).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let body = connection.read(body).await;
                    if connection.is_reusable().await {
                        self.keep(connection);
                    }
                    return Ok(Answer { head, body });
                }
                Err((Some(unsent), _)) if !is_new => request = unsent,
                Err((Some(_), reason)) => return Err(ExchangeError::NotSent(reason)),
                Err((None, reason)) => return Err(ExchangeError::Lost(reason)),
            }
        }
    }

    /// The youngest idle connection that is still open.
    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = idle.pop_back()?;
        if connection.idle_since.elapsed() < IDLE_LIMIT {
            return Some(connection);
        }
        // The others have been idle for longer.
        idle.clear();
        None
    }

    /// Keeps a connection for the next call, and closes those that have become too old for one.
    fn keep(&self, mut connection: Connection) {
        connection.idle_since = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push_back(connection);
        while idle
            .pop_front_if(|oldest| oldest.idle_since.elapsed() >= IDLE_LIMIT)
            .is_some()
        {}
    }
}

struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Pin<Box<Driver>>,
    closed: bool,
    idle_since: Instant,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl Connection {
    async fn open(address: &Address) -> Result<Self, String> {
        let stream = address.connect().await?;
        let (sender, driver) = http1::Builder::new()
            .read_buf_exact_size(Some(READ_BUFFER))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        Ok(Self {
            sender,
            driver: Box::pin(driver),
            closed: false,
            idle_since: Instant::now(),
        })
    }

    /// Moves bytes; notes the end of the connection.
    fn drive(&mut self, context: &mut Context<'_>) {
        if !self.closed && self.driver.as_mut().poll(context).is_ready() {
            self.closed = true;
        }
    }

    /// Polls `work` and the connection until `work` is done. It ends by itself once the connection does.
    async fn run<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            self.drive(context);
            work.as_mut().poll(context)
        })
        .await
    }

    /// Sends a request; an error comes with the request if it was never written.
    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, (Option<Request<Full<Bytes>>>, String)> {
        // An idle connection that was closed by the handler is noticed here, before anything is written.
        poll_fn(|context| {
            self.drive(context);
            Poll::Ready(())
        })
        .await;
        if self.closed || !self.sender.is_ready() {
            return Err((Some(request), "the connection was closed".into()));
        }
        let sent = self.sender.try_send_request(request);
        self.run(sent).await.map_err(|mut error| {
            let request = error.take_message();
            (request, crate::handler::causes(error.error()))
        })
    }

    /// Reads a body to its end; empty if it is too long or breaks off.
    async fn read(&mut self, body: Incoming) -> Bytes {
        let collected = self.run(Limited::new(body, LONGEST_BODY).collect()).await;
        collected.map(|body| body.to_bytes()).unwrap_or_default()
    }

    /// Brings the connection to where it takes the next request; false if it never will.
    async fn is_reusable(&mut self) -> bool {
        poll_fn(|context| {
            self.drive(context);
            match self.sender.poll_ready(context) {
                Poll::Ready(ready) => Poll::Ready(ready.is_ok() && !self.closed),
                Poll::Pending if self.closed => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    fn request() -> Request<Full<Bytes>> {
        let request = Request::post("/").header("host", "handler");
        request
            .body(Full::new(Bytes::from_static(b"message")))
            .unwrap()
    }

    /// Reads one request with the body `message`; none if the connection ends before.
    async fn read(stream: &mut TcpStream) -> Option<()> {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\nmessage") {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.ok()?;
            read.extend(byte);
        }
        Some(())
    }

    async fn listen() -> (TcpListener, Pool) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let pool = Pool::new(Address::Port(port));
        (listener, pool)
    }

    #[tokio::test]
    async fn one_connection_serves_one_call_after_the_other() {
        let (listener, pool) = listen().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..3 {
                read(&mut stream).await.unwrap();
                stream.write_all(OK).await.unwrap();
            }
        });
        for _ in 0..3 {
            let answer = pool.exchange(request(), || true).await.unwrap();
            assert_eq!(answer.body, "ok");
        }
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_the_handler_closed_while_idle_loses_no_call() {
        let (listener, pool) = listen().await;
        let (closed, is_closed) = tokio::sync::oneshot::channel();
        let server = tokio::spawn(async move {
            let (mut first, _) = listener.accept().await.unwrap();
            read(&mut first).await.unwrap();
            first.write_all(OK).await.unwrap();
            first.shutdown().await.unwrap();
            closed.send(()).unwrap();
            let (mut second, _) = listener.accept().await.unwrap();
            read(&mut second).await.unwrap();
            second.write_all(OK).await.unwrap();
        });
        pool.exchange(request(), || true).await.unwrap();
        is_closed.await.unwrap();
        pool.exchange(request(), || true).await.unwrap();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_call_whose_connection_ends_after_it_was_sent_is_lost_and_not_repeated() {
        let (listener, pool) = listen().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read(&mut stream).await.unwrap();
            drop(stream);
            listener
        });
        let error = pool.exchange(request(), || true).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Lost(_)), "{error:?}");
        drop(server.await.unwrap());
        let error = pool.exchange(request(), || true).await.unwrap_err();
        assert!(matches!(error, ExchangeError::NotSent(_)), "{error:?}");
    }

    #[tokio::test]
    async fn what_is_withheld_is_never_written() {
        let (listener, pool) = listen().await;
        let error = pool.exchange(request(), || false).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Withheld), "{error:?}");
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(pool);
        assert_eq!(read(&mut stream).await, None);
    }

    #[tokio::test]
    async fn connections_that_are_not_needed_any_more_are_closed_while_another_is_used() {
        let (listener, pool) = listen().await;
        let server = tokio::spawn(async move {
            let (mut first, _) = listener.accept().await.unwrap();
            let (mut second, _) = listener.accept().await.unwrap();
            for stream in [&mut first, &mut second] {
                read(stream).await.unwrap();
            }
            for stream in [&mut first, &mut second] {
                stream.write_all(OK).await.unwrap();
            }
            // One of them is used from now on, until the other ends.
            loop {
                let (came, stream) = tokio::select! {
                    came = read(&mut first) => (came, &mut first),
                    came = read(&mut second) => (came, &mut second),
                };
                match came {
                    Some(()) => stream.write_all(OK).await.unwrap(),
                    None => return,
                }
            }
        });
        let call = || pool.exchange(request(), || true);
        let (first, second) = tokio::join!(call(), call());
        assert!(first.is_ok() && second.is_ok());
        let calls = async {
            loop {
                call().await.unwrap();
                tokio::time::sleep(IDLE_LIMIT / 10).await;
            }
        };
        let ended = tokio::time::timeout(IDLE_LIMIT * 10, async {
            tokio::select! {
                ended = server => ended.unwrap(),
                () = calls => {}
            }
        });
        ended.await.expect("the other connection ends");
    }
}
