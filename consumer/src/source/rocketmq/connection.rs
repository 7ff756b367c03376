//! Requests to brokers over rocketmq-rust's client, and what works round it.
//!
//! - A client handle answers one call at a time, so each purpose has a handle of its own per broker (and
//!   each queue one for its pulls): a long poll or a broker that is down delays nothing else. Handles of
//!   one broker share a connection. The time that a call waits for its turn is not held against the peer:
//!   a process that takes a thousand queues has a thousand questions at once.
//! - A client takes a limited number of requests at a time, parked pulls included: many queues' pulls are
//!   shared out among several clients.
//! - After five failed connects the client refuses an endpoint for 30 s. A client under a new name has no
//!   such memory, so after failures in a row the handles of that peer are made anew.
//! - A request parked at a broker whose connection died is not failed: every call is bounded here, and
//!   those that are parked end when the handles they use are given up.
//! - The client's own error texts hide addresses: ours name the peer.

use super::access::{Access, Part, Signer};
use super::answer;
use super::relay::{Relay, Trouble};
use crate::message::{QueueId, Topic};
use crate::source::SourceError;
use cheetah_string::CheetahString;
use rocketmq_client_rust::prelude::ClientConfig;
use rocketmq_client_rust::{ClientInstanceHandle, ClientRuntime, ClientRuntimeConfig};
use rocketmq_observability::TelemetryRuntimeGuard;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use rocketmq_protocol::protocol::route::topic_route_data::TopicRouteData;
use rocketmq_runtime::RuntimeOwner;
use rocketmq_transport::api::RPCHook;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Longest time a request may take that does not wait at the broker.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// The broker looks at parked requests every 5 s, so they come back that much late. A request that is
/// given up too early costs its connection.
const PARKED_LATE: Duration = Duration::from_secs(7);
/// Failures in a row after which a peer's handles are made anew, and how often at most.
const RENEW_AFTER: u32 = 3;
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// Handles that were replaced are closed once no call can use them any more.
const CLOSE_AFTER: Duration = Duration::from_secs(40);

/// The client takes 512 requests of one name at a time and refuses the next, and pulls are parked for as
/// long as nothing comes: those of so many queues, and of as many of the retry topic, leave room for others.
const PULLS_A_CONNECTION: u32 = 128;

static NAMES: AtomicU64 = AtomicU64::new(1);

/// What a request is for; requests with the same purpose to the same broker wait for each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    Route,
    Group,
    /// The second id of a member that drains: the broker knows one of each connection.
    Draining,
    Lock,
    Offsets(Share),
    SendBack,
    Journal(Share),
    /// What is asked about all queues of a topic at once.
    All,
    Pull(Topic, u32),
}

impl Purpose {
    /// Which of a peer's connections it uses.
    fn connection(&self) -> u32 {
        match self {
            Self::Pull(_, queue) => queue / PULLS_A_CONNECTION,
            Self::Draining => u32::MAX,
            _ => 0,
        }
    }
}

const SHARES: u32 = 8;

/// Which queues share a handle, so that a thousand of them do not wait for each other, one by one. Requests
/// about one queue keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Share(u32);

impl Share {
    pub fn of(queue: &QueueId) -> Self {
        Self(queue.id % SHARES)
    }
}

/// A handle of the client's, and whose turn it is to use it.
struct Handle {
    client: ClientInstanceHandle,
    turn: Mutex<()>,
}

/// The handles of one peer (a broker, or the name servers).
struct Peer {
    /// Client names, each with a connection of its own.
    names: HashMap<u32, u64>,
    handles: HashMap<Purpose, Arc<Handle>>,
    failures: u32,
    renewed: Option<Instant>,
    /// Ends when the handles are given up.
    in_use: CancellationToken,
}

impl Peer {
    fn new() -> Self {
        Self {
            names: HashMap::new(),
            handles: HashMap::new(),
            failures: 0,
            renewed: None,
            in_use: CancellationToken::new(),
        }
    }

    /// The name of the client that a purpose's handle is one of.
    fn name(&mut self, purpose: &Purpose) -> u64 {
        let connection = purpose.connection();
        let name = self.names.entry(connection);
        *name.or_insert_with(|| NAMES.fetch_add(1, Ordering::Relaxed))
    }
}

/// Connections to one RocketMQ cluster.
pub struct Connection {
    runtime: Arc<ClientRuntime>,
    /// Runs the client's own tasks; ends with us.
    _owner: RuntimeOwner,
    _telemetry: TelemetryRuntimeGuard,
    name_servers: String,
    instance: String,
    access: Access,
    /// Signs requests if they are to be signed. One for all: clients of one name must have the same.
    signer: Option<Arc<dyn RPCHook>>,
    /// Makes the connections if they are to be over TLS.
    relay: Option<Relay>,
    peers: Mutex<HashMap<String, Peer>>,
    /// Made since somebody last asked.
    requests: AtomicU64,
}

impl Connection {
    pub fn new(
        name_servers: String,
        instance: String,
        access: Access,
    ) -> Result<Self, SourceError> {
        let failed = |reason: String| SourceError::Unreachable {
            peer: name_servers.clone(),
            what: "the set-up of the RocketMQ client",
            reason,
        };
        let owner = RuntimeOwner::new().map_err(|error| failed(error.to_string()))?;
        let telemetry = TelemetryRuntimeGuard::noop();
        let context = owner.root_context().component("keylane");
        let runtime =
            ClientRuntime::try_new(context, ClientRuntimeConfig::default(), telemetry.handle())
                .map_err(|error| failed(error.to_string()))?;
        let relay = access
            .is_encrypted()
            .then(|| Relay::start(access.clone()))
            .transpose()
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            runtime,
            signer: access
                .signs()
                .then(|| Arc::new(Signer(access.clone())) as Arc<dyn RPCHook>),
            access,
            relay,
            _owner: owner,
            _telemetry: telemetry,
            name_servers,
            instance,
            peers: Mutex::default(),
            requests: AtomicU64::new(0),
        })
    }

    /// Requests that were made since this was last asked.
    pub fn take_requests(&self) -> u64 {
        self.requests.swap(0, Ordering::Relaxed)
    }

    pub fn name_servers(&self) -> &str {
        &self.name_servers
    }

    /// Who we are to the brokers, and the field that says it.
    pub fn who(&self) -> (String, &'static str) {
        let field = self.access.said().field(Part::AccessKey);
        (self.access.who(), field)
    }

    /// Why a peer did not answer. What went wrong with the connection is known better than the client tells.
    fn no_answer(&self, peer: &str, what: &'static str, reason: String) -> SourceError {
        let peer_name = || peer.to_owned();
        let relay = self.relay.as_ref();
        match relay.and_then(|relay| relay.trouble(peer)) {
            Some(Trouble::Untrusted(reason)) => SourceError::Untrusted {
                peer: peer_name(),
                what,
                reason,
            },
            Some(Trouble::Unreachable(reason)) => SourceError::Unreachable {
                peer: peer_name(),
                what,
                reason,
            },
            None => SourceError::Unreachable {
                peer: peer_name(),
                what,
                reason,
            },
        }
    }

    /// Asks the name servers for a topic's route; none if they do not know it.
    pub async fn route(&self, topic: &str) -> Result<Option<TopicRouteData>, SourceError> {
        let peer = self.name_servers.clone();
        let (handle, _) = self.handle(&peer, Purpose::Route).await?;
        let timeout = CALL_TIMEOUT.as_millis() as u64;
        let call = async {
            handle
                .client
                .topic_route(topic, timeout)
                .await
                .map_err(|error| error.to_string())
        };
        let what = "for the route of the topic";
        let call = self.bounded(&peer, what, CALL_TIMEOUT, &handle.turn, call);
        let found = call.await?;
        if let Some(data) = &found {
            answer::followable(data).map_err(|reason| SourceError::Malformed {
                peer: peer.clone(),
                what,
                reason,
            })?;
        }
        Ok(found)
    }

    /// Sends a request to a broker; the answer is whatever it answered. `wait` is the time the request may
    /// wait at the broker.
    pub async fn invoke(
        &self,
        address: &str,
        purpose: Purpose,
        what: &'static str,
        request: RemotingCommand,
        wait: Duration,
    ) -> Result<RemotingCommand, SourceError> {
        let (handle, in_use) = self.handle(address, purpose).await?;
        let limit = if wait.is_zero() {
            CALL_TIMEOUT
        } else {
            wait + PARKED_LATE + CALL_TIMEOUT
        };
        let to = CheetahString::from_slice(address);
        let call = async {
            handle
                .client
                .invoke_remoting(&to, request, limit.as_millis() as u64)
                .await
                .map_err(|error| error.to_string())
        };
        let call = self.bounded(address, what, limit, &handle.turn, call);
        if wait.is_zero() {
            return call.await;
        }
        tokio::select! {
            answer = call => answer,
            // No failure of the peer: what was parked there was given up by us.
            () = in_use.cancelled() => Err(SourceError::Unreachable {
                peer: address.to_owned(),
                what,
                reason: "the connection it was parked on was lost".into(),
            }),
        }
    }

    /// Makes a call once its turn has come, both within the limit.
    async fn bounded<T>(
        &self,
        peer: &str,
        what: &'static str,
        limit: Duration,
        turn: &Mutex<()>,
        call: impl Future<Output = Result<T, String>>,
    ) -> Result<T, SourceError> {
        let unreachable = |reason| self.no_answer(peer, what, reason);
        let begun = Instant::now();
        let Ok(_turn) = tokio::time::timeout(limit, turn.lock()).await else {
            let reason = format!("the requests before it took {limit:?}");
            return Err(unreachable(reason));
        };
        self.requests.fetch_add(1, Ordering::Relaxed);
        let left = limit.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, call).await {
            Ok(Ok(answer)) => {
                if let Some(known) = self.peers.lock().await.get_mut(peer) {
                    known.failures = 0;
                }
                Ok(answer)
            }
            Ok(Err(reason)) => {
                self.failed(peer).await;
                Err(unreachable(reason))
            }
            Err(_) => {
                // A peer that was asked late may not be blamed for being late.
                if left > limit / 2 {
                    self.failed(peer).await;
                }
                Err(unreachable(format!("no answer within {left:?}")))
            }
        }
    }

    async fn handle(
        &self,
        peer: &str,
        purpose: Purpose,
    ) -> Result<(Arc<Handle>, CancellationToken), SourceError> {
        let mut peers = self.peers.lock().await;
        let known = peers.entry(peer.to_owned()).or_insert_with(Peer::new);
        if let Some(handle) = known.handles.get(&purpose) {
            return Ok((handle.clone(), known.in_use.clone()));
        }
        let mut config = ClientConfig::default();
        config.set_namesrv_addr(CheetahString::from_slice(&self.name_servers));
        config.set_instance_name(CheetahString::from_slice(&self.instance));
        config.set_vip_channel_enabled(false);
        if let Some(relay) = &self.relay {
            config.set_socks_proxy_config(relay.configuration().into());
        }
        let failed = |error: rocketmq_client_rust::ClientError| SourceError::Unreachable {
            peer: peer.to_owned(),
            what: "a connection",
            reason: error.to_string(),
        };
        let name = known.name(&purpose);
        let client =
            ClientInstanceHandle::get_or_create(&self.runtime, name, config, self.signer.clone())
                .map_err(failed)?;
        client.start().await.map_err(failed)?;
        let turn = Mutex::default();
        let handle = Arc::new(Handle { client, turn });
        known.handles.insert(purpose, handle.clone());
        Ok((handle, known.in_use.clone()))
    }

    /// Counts a failure; after some in a row the peer gets new handles.
    async fn failed(&self, peer: &str) {
        let mut peers = self.peers.lock().await;
        let Some(known) = peers.get_mut(peer) else {
            return;
        };
        known.failures += 1;
        if known.failures >= RENEW_AFTER {
            Self::renew(known);
        }
    }

    /// A peer forgot us though nothing failed: our connection to it broke and was made again, and what was
    /// parked on the former one is never answered.
    pub async fn forgotten(&self, peer: &str) {
        if let Some(known) = self.peers.lock().await.get_mut(peer) {
            Self::renew(known);
        }
    }

    /// Gives a peer new handles, but not again and again.
    fn renew(known: &mut Peer) {
        if known.renewed.is_some_and(|at| at.elapsed() < RENEW_EVERY) {
            return;
        }
        let old = std::mem::replace(known, Peer::new());
        known.renewed = Some(Instant::now());
        old.in_use.cancel();
        tokio::spawn(async move {
            tokio::time::sleep(CLOSE_AFTER).await;
            for handle in old.handles.into_values() {
                handle.client.shutdown_owned().await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::spec::Rocketmq;

    /// A broker that takes connections and answers nothing.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_parked_at_a_peer_that_forgot_us_ends_at_once() {
        let peer = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = peer.local_addr().unwrap().to_string();
        let rocketmq = Rocketmq {
            name_servers: vec!["127.0.0.1:1".into()],
            credentials_secret_ref: None,
            tls: None,
        };
        let access = Access::open(&rocketmq).unwrap();
        let connection = Connection::new("127.0.0.1:1".into(), "parked".into(), access).unwrap();
        let request = RemotingCommand::create_remoting_command(11);
        let long = Duration::from_secs(15);
        let purpose = Purpose::Pull(Topic::Main, 0);
        let parked = connection.invoke(&address, purpose, "a pull", request, long);
        let forgotten = async {
            let stream = peer.accept().await;
            connection.forgotten(&address).await;
            stream
        };
        let both = async { tokio::join!(parked, forgotten) };
        let (answer, _stream) = tokio::time::timeout(CALL_TIMEOUT, both).await.unwrap();
        let reason = answer.err().unwrap().to_string();
        assert!(reason.contains("was lost"), "{reason}");
    }
}
