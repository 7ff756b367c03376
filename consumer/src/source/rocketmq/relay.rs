//! TLS to name servers and brokers, for a client library that makes its connections in clear.
//!
//! The library's own TLS reads certificates once, knows no other name of a server than its address and hides
//! why a certificate was refused. So its connections go through here: as to a SOCKS proxy on the loopback
//! interface (RFC 1928), which tells the address to go to. Each is made over TLS with what is in force then,
//! so that certificates can be rotated while others stay open.
//!
//! - Whoever shares the network of this process (the handler, in a pod) can reach the port and get no
//!   further: the proxy wants a password (RFC 1929) that is made at random for each process and never leaves
//!   it. Connections that do not show it are few at a time and short.
//! - What went wrong with a server is kept until it has answered, to be told when a request fails.
//! - It runs on a thread of its own: a busy runtime must not delay the renewal of a queue lock.

use super::access::{Access, explain};
use crate::secret::is_same;
use rustls::pki_types::{IpAddr as TlsIp, ServerName};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

/// Longest time to show the password and to say where to go.
const GREETING: Duration = Duration::from_secs(2);
/// Longest time to connect and to shake hands. The client gives up a little later.
const CONNECT: Duration = Duration::from_millis(2_500);
/// Connections at a time that have not shown the password.
const STRANGERS: usize = 64;
const AFTER_ERROR: Duration = Duration::from_millis(100);
const BUFFER: usize = 64 * 1024;
/// Servers whose trouble is kept.
const MOST_TROUBLES: usize = 256;

const SOCKS: u8 = 5;
const BY_PASSWORD: u8 = 2;
const NOTHING_ACCEPTED: u8 = 0xff;
const CONNECT_TO: u8 = 1;
const GRANTED: u8 = 0;
const FAILED: u8 = 1;

/// What is wrong with a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be reached.
    Unreachable(String),
    /// There is no TLS connection that both sides trust.
    Untrusted(String),
}

#[derive(Default)]
struct Troubles(Mutex<HashMap<String, Trouble>>);

impl Troubles {
    fn set(&self, server: &str, trouble: Option<Trouble>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            None => drop(known.remove(server)),
            Some(trouble) if known.len() < MOST_TROUBLES || known.contains_key(server) => {
                known.insert(server.to_owned(), trouble);
            }
            Some(_) => {}
        }
    }
}

/// Relays connections until it is dropped.
pub struct Relay {
    address: SocketAddr,
    password: Arc<str>,
    troubles: Arc<Troubles>,
    _stop: DropGuard,
}

impl Relay {
    /// Listens at a port of its own.
    pub fn start(access: Access) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let password: Arc<str> = format!("{:032x}", rand::random::<u128>()).into();
        let troubles = Arc::<Troubles>::default();
        let stop = CancellationToken::new();
        let relaying = Relaying {
            access,
            password: password.clone(),
            troubles: troubles.clone(),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let stopped = stop.clone();
        std::thread::Builder::new()
            .name("keylane-relay".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = stopped.cancelled() => {}
                        result = relaying.run(listener) => {
                            if let Err(error) = result {
                                warn!("no connections over TLS are made any more: {error}");
                            }
                        }
                    }
                });
            })?;
        Ok(Self {
            address,
            password,
            troubles,
            _stop: stop.drop_guard(),
        })
    }

    /// Sends every connection of the client here, in the words of its configuration.
    pub fn configuration(&self) -> String {
        let proxy = serde_json::json!({
            "addr": self.address.to_string(), "username": "keylane", "password": &*self.password,
        });
        serde_json::json!({"0.0.0.0/0": proxy, "::/0": proxy}).to_string()
    }

    /// What is wrong with a server (host:port), or with the first of several (separated by semicolons) that
    /// something is wrong with.
    pub fn trouble(&self, servers: &str) -> Option<Trouble> {
        let known = self
            .troubles
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        servers
            .split(';')
            .find_map(|server| known.get(server).cloned())
    }
}

#[derive(Clone)]
struct Relaying {
    access: Access,
    password: Arc<str>,
    troubles: Arc<Troubles>,
    strangers: Arc<Semaphore>,
}

impl Relaying {
    async fn run(self, listener: std::net::TcpListener) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        // Ended with this.
        let mut connections = JoinSet::new();
        loop {
            // Never closed.
            let Ok(turn) = self.strangers.clone().acquire_owned().await else {
                return Ok(());
            };
            while connections.try_join_next().is_some() {}
            let client = match listener.accept().await {
                Ok((client, _)) => client,
                Err(error) => {
                    debug!("a connection to RocketMQ cannot be accepted: {error}");
                    tokio::time::sleep(AFTER_ERROR).await;
                    continue;
                }
            };
            let this = self.clone();
            connections.spawn(async move {
                let mut client = client;
                let greeting = timeout(GREETING, greet(&mut client, &this.password)).await;
                drop(turn);
                match greeting {
                    Ok(Ok(target)) => this.relay(client, target).await,
                    Ok(Err(error)) => debug!("a connection to the relay was refused: {error}"),
                    Err(_) => debug!("a connection to the relay said nothing"),
                }
            });
        }
    }

    async fn relay(&self, mut client: TcpStream, target: Target) {
        let server = target.to_string();
        let connected = timeout(CONNECT, self.connect(&target)).await;
        let connected = connected.unwrap_or_else(|_| {
            let reason = format!("no connection over TLS within {CONNECT:?}");
            Err(Trouble::Unreachable(reason))
        });
        let tls = match connected {
            Ok(tls) => tls,
            Err(trouble) => {
                self.troubles.set(&server, Some(trouble));
                // It may be gone.
                let _ = answer(&mut client, FAILED).await;
                return;
            }
        };
        if answer(&mut client, GRANTED).await.is_err() {
            return;
        }
        let name = self.name(&target);
        if let Err(trouble) = self.copy(client, tls, &server, name.as_ref()).await {
            self.troubles.set(&server, Some(trouble));
        }
    }

    fn name(&self, target: &Target) -> Option<ServerName<'static>> {
        let named = self.access.server_name().cloned();
        named.or_else(|| target.name())
    }

    async fn connect(&self, target: &Target) -> Result<TlsStream<TcpStream>, Trouble> {
        let unreachable = |error: io::Error| Trouble::Unreachable(error.to_string());
        let stream = match &target.host {
            Host::Ip(ip) => TcpStream::connect((*ip, target.port)).await,
            Host::Name(name) => TcpStream::connect((name.as_str(), target.port)).await,
        };
        let stream = stream.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let name = self.name(target).ok_or_else(|| {
            Trouble::Untrusted(format!(
                "its address is no name that a certificate can be for: set {}",
                self.access.said().server_name()
            ))
        })?;
        let config = self.access.tls().ok_or_else(|| {
            Trouble::Untrusted(format!("{} is not set", self.access.said().tls()))
        })?;
        let handshake = TlsConnector::from(config).connect(name.clone(), stream);
        handshake
            .await
            .map_err(|error| self.untrusted(&error, Some(&name)))
    }

    fn untrusted(&self, error: &io::Error, name: Option<&ServerName<'_>>) -> Trouble {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        Trouble::Untrusted(match (inner, name) {
            (Some(inner), Some(name)) => explain(inner, name, &self.access),
            _ => {
                format!("it ended the connection ({error}): is its TLS enabled (tls.server.mode)?")
            }
        })
    }

    /// Until one side ends. A server that wants another certificate of ours says so only after the
    /// handshake, so it is well once it has said anything else.
    async fn copy(
        &self,
        mut client: TcpStream,
        tls: TlsStream<TcpStream>,
        server: &str,
        name: Option<&ServerName<'_>>,
    ) -> Result<(), Trouble> {
        // Answers wait for nothing; the client does the same.
        let _ = client.set_nodelay(true);
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = tokio::io::split(tls);
        let there = async {
            let mut buffer = vec![0; BUFFER];
            loop {
                match from_client.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => {
                        to_server.write_all(&buffer[..read]).await?;
                        to_server.flush().await?;
                    }
                }
            }
            to_server.shutdown().await
        };
        let mut answered = false;
        let back = async {
            let mut buffer = vec![0; BUFFER];
            loop {
                let read = from_server.read(&mut buffer).await?;
                if read == 0 {
                    return io::Result::Ok(());
                }
                if !answered {
                    answered = true;
                    self.troubles.set(server, None);
                }
                if to_client.write_all(&buffer[..read]).await.is_err() {
                    return Ok(());
                }
            }
        };
        let result = tokio::select! {
            // What the server says last tells why it ended.
            biased;
            result = back => result,
            // The other direction ends in the same way then.
            _ = there => Ok(()),
        };
        match result {
            Err(error) if !answered && error.kind() == io::ErrorKind::InvalidData => {
                Err(self.untrusted(&error, name))
            }
            _ => Ok(()),
        }
    }
}

/// Where a connection is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(formatter),
            Host::Name(name) => write!(formatter, "{name}:{}", self.port),
        }
    }
}

impl Target {
    fn name(&self) -> Option<ServerName<'static>> {
        match &self.host {
            Host::Ip(ip) => Some(ServerName::IpAddress(TlsIp::from(*ip))),
            Host::Name(name) => ServerName::try_from(name.clone()).ok(),
        }
    }
}

fn refused(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}

/// The beginning of a connection: the password, and where it is to go.
async fn greet(client: &mut TcpStream, password: &str) -> io::Result<Target> {
    let [version, methods] = read(client).await?;
    if version != SOCKS {
        return Err(refused("it does not speak SOCKS 5"));
    }
    let methods = text(client, methods).await?;
    if !methods.contains(&BY_PASSWORD) {
        client.write_all(&[SOCKS, NOTHING_ACCEPTED]).await?;
        return Err(refused("it shows no password"));
    }
    client.write_all(&[SOCKS, BY_PASSWORD]).await?;
    let [_version, length] = read(client).await?;
    let _user = text(client, length).await?;
    let [length] = read(client).await?;
    let given = text(client, length).await?;
    if !is_same(&given, password.as_bytes()) {
        client.write_all(&[1, FAILED]).await?;
        return Err(refused("its password is wrong"));
    }
    client.write_all(&[1, GRANTED]).await?;
    let [version, command, _reserved, kind] = read(client).await?;
    if (version, command) != (SOCKS, CONNECT_TO) {
        return Err(refused("it asks for something else than a connection"));
    }
    let host = match kind {
        1 => Host::Ip(Ipv4Addr::from(read::<4>(client).await?).into()),
        4 => Host::Ip(Ipv6Addr::from(read::<16>(client).await?).into()),
        3 => {
            let [length] = read(client).await?;
            let name = String::from_utf8(text(client, length).await?);
            Host::Name(name.map_err(|_| refused("the name of the host is not text"))?)
        }
        _ => return Err(refused("it asks for an address of an unknown kind")),
    };
    let port = u16::from_be_bytes(read(client).await?);
    Ok(Target { host, port })
}

async fn read<const N: usize>(client: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn text(client: &mut TcpStream, length: u8) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length.into()];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn answer(client: &mut TcpStream, answer: u8) -> io::Result<()> {
    // The address that is bound here is of no use to the client.
    client
        .write_all(&[SOCKS, answer, 0, 1, 0, 0, 0, 0, 0, 0])
        .await
}

#[cfg(test)]
mod tests;
