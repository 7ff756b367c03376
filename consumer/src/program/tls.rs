//! A listener of TLS connections for axum. Handshakes run beside each other and have a time limit, so that
//! somebody who connects and says nothing keeps nobody out.

use rustls::ServerConfig;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at a time; more connections wait to be accepted.
const AT_ONCE: usize = 64;
/// Pause after a connection that could not be accepted, for want of file descriptors above all.
const AFTER_ERROR: Duration = Duration::from_secs(1);

type Connection = (TlsStream<TcpStream>, SocketAddr);

/// Connections whose handshake is over.
pub struct TlsListener {
    address: SocketAddr,
    accepted: mpsc::Receiver<Connection>,
    accepting: JoinHandle<()>,
}

impl TlsListener {
    /// Accepts connections, each with the configuration there is when it is made.
    pub fn new(
        listener: TcpListener,
        config: impl Fn() -> Arc<ServerConfig> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, accepted) = mpsc::channel(AT_ONCE);
        Ok(Self {
            address,
            accepted,
            accepting: tokio::spawn(accept(listener, config, sender)),
        })
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    config: impl Fn() -> Arc<ServerConfig>,
    accepted: mpsc::Sender<Connection>,
) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    // Never closed.
    while let Ok(turn) = turns.clone().acquire_owned().await {
        let (stream, peer) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                debug!("a connection cannot be accepted: {error}");
                sleep(AFTER_ERROR).await;
                continue;
            }
        };
        let (acceptor, accepted) = (TlsAcceptor::from(config()), accepted.clone());
        tokio::spawn(async move {
            let handshake = timeout(HANDSHAKE, acceptor.accept(stream)).await;
            drop(turn);
            match handshake {
                // The listener may be gone.
                Ok(Ok(stream)) => drop(accepted.send((stream, peer)).await),
                Ok(Err(error)) => debug!("{peer} made no TLS connection: {error}"),
                Err(_) => {
                    debug!("{peer} made no TLS connection within {HANDSHAKE:?}")
                }
            }
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Connection {
        match self.accepted.recv().await {
            Some(connection) => connection,
            // Nothing accepts any more, and nothing will.
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Access;
    use crate::admin::tests::{Made, make, trusting};
    use axum::Router;
    use axum::routing::get;
    use std::path::Path;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const NAME: &str = "executor.test";

    async fn served(access: Arc<Access>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = access.server_config().unwrap();
        let listener = TlsListener::new(listener, move || config.clone()).unwrap();
        let address = listener.address;
        let router = Router::new().route("/", get(|| async { "here" }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// What is answered to somebody who trusts that certificate.
    async fn ask(address: SocketAddr, trusted: &Path) -> io::Result<String> {
        let stream = TcpStream::connect(address).await?;
        let name = NAME.try_into().unwrap();
        let mut stream = trusting(trusted).connect(name, stream).await?;
        let request = format!("GET / HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_certificate_is_exchanged_while_it_is_served() {
        let (Made { access, dir }, other) = (make(NAME), make(NAME));
        let first = dir.path().join("first.crt");
        std::fs::copy(dir.path().join("tls.crt"), &first).unwrap();
        let address = served(access.clone()).await;
        assert!(ask(address, &first).await.unwrap().ends_with("here"));
        assert!(
            ask(address, &other.dir.path().join("tls.crt"))
                .await
                .is_err()
        );
        for file in ["tls.crt", "tls.key"] {
            std::fs::copy(other.dir.path().join(file), dir.path().join(file)).unwrap();
        }
        // Follows the files by itself.
        let following = tokio::spawn(access.follow());
        let new = other.dir.path().join("tls.crt");
        let answer = timeout(Duration::from_secs(10), async {
            loop {
                if let Ok(answer) = ask(address, &new).await {
                    break answer;
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(answer.await.unwrap().ends_with("here"));
        assert!(ask(address, &first).await.is_err());
        following.abort();
    }

    #[tokio::test]
    async fn who_says_nothing_or_speaks_in_clear_keeps_nobody_out() {
        let Made { access, dir } = make(NAME);
        let address = served(access).await;
        let mut silent = Vec::new();
        for _ in 0..AT_ONCE / 2 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut clear = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        clear.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // An alert or nothing, and the end.
        let _closed_either_way = clear.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"));
        let trusted = dir.path().join("tls.crt");
        assert!(ask(address, &trusted).await.unwrap().ends_with("here"));
        // More of them than there are turns: they are thrown out in time.
        for _ in 0..AT_ONCE {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = timeout(HANDSHAKE * 3, ask(address, &trusted)).await;
        assert!(answer.unwrap().unwrap().ends_with("here"));
    }
}
