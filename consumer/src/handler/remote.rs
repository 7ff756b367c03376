//! Handlers in another process: where they listen, and which kind there is.

use super::grpc::{Caller, GrpcHandler};
use super::http::{HttpHandler, HttpHandlerError};
use super::{Delivery, Handler, Outcome};
use crate::contract::socket::SocketPath;
use crate::contract::spec::ConsumerSpec;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

/// Where a handler listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A port of 127.0.0.1.
    Port(u16),
    /// A Unix socket.
    Socket(PathBuf),
}

/// A connection to a handler.
pub type Socket = Either<TcpStream, UnixStream>;

/// Time to connect.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

impl Address {
    /// Connects; the error says in words why not, and what to do where that is known.
    pub(super) async fn connect(&self) -> Result<Socket, String> {
        let connect = async {
            match self {
                Self::Port(port) => {
                    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await?;
                    stream.set_nodelay(true)?;
                    Ok(Either::Left(stream))
                }
                Self::Socket(path) => UnixStream::connect(path).await.map(Either::Right),
            }
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
        let connected =
            connected.map_err(|_| format!("no connection within {CONNECT_TIMEOUT:?}"))?;
        connected.map_err(|error: io::Error| match (self, error.kind()) {
            (Self::Socket(_), io::ErrorKind::PermissionDenied) => format!(
                "{error}: the handler must let other users of the pod connect (chmod 0666 once it is bound)"
            ),
            _ => error.to_string(),
        })
    }

    /// What an OrderedConsumer says of an endpoint, if it says either; the port if it says both.
    pub fn new(port: Option<u16>, socket: Option<&SocketPath>) -> Option<Self> {
        let socket = || socket.map(|socket| Self::Socket(socket.path().to_owned()));
        port.map(Self::Port).or_else(socket)
    }
}

/// For people.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "127.0.0.1:{port}"),
            Self::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The handler of an OrderedConsumer.
// One a process: the larger kind wastes nothing.
#[allow(clippy::large_enum_variant)]
pub enum Remote {
    /// Behind HTTP.
    Http(HttpHandler),
    /// Behind gRPC.
    Grpc(GrpcHandler),
}

/// Why a handler cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Nothing is said of where it listens.
    #[error(
        "spec.handler says not where the handler listens: give a port or unixSocket in http or grpc"
    )]
    Nowhere,
    /// What is said of HTTP cannot be.
    #[error(transparent)]
    Http(#[from] HttpHandlerError),
    /// Where it listens cannot be connected to.
    #[error("handler.grpc: {0}")]
    Grpc(#[from] tonic::transport::Error),
}

impl Remote {
    /// The handler of this consumer. It must be called on a tokio runtime, which keeps the connection of a
    /// handler behind gRPC.
    pub fn new(spec: &ConsumerSpec, caller: Caller) -> Result<Self, RemoteError> {
        if let Some(http) = &spec.handler.http {
            return Ok(Self::Http(HttpHandler::new(spec, http)?));
        }
        let grpc = spec.handler.grpc.as_ref().ok_or(RemoteError::Nowhere)?;
        let address =
            Address::new(grpc.port, grpc.unix_socket.as_ref()).ok_or(RemoteError::Nowhere)?;
        Ok(Self::Grpc(GrpcHandler::new(spec, &address, caller)?))
    }
}

impl Handler for Remote {
    async fn call(
        &self,
        delivery: Delivery,
        may_send: impl Fn() -> bool + Send + 'static,
    ) -> Outcome {
        match self {
            Self::Http(handler) => handler.call(delivery, may_send).await,
            Self::Grpc(handler) => handler.call(delivery, may_send).await,
        }
    }

    async fn ready(&self) -> Result<(), String> {
        match self {
            Self::Http(handler) => handler.ready().await,
            Self::Grpc(handler) => handler.ready().await,
        }
    }

    async fn idle(&self) -> Option<bool> {
        match self {
            Self::Http(handler) => handler.idle().await,
            Self::Grpc(handler) => handler.idle().await,
        }
    }
}
