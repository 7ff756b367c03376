//! Requests to brokers over rocketmq-rust's client, and what works round it.
//!
//! - A client handle answers one call at a time, so each purpose has a handle of its own per broker (and
//!   each queue one for its pulls): a long poll or a broker that is down delays nothing else. Handles of
//!   one broker share a connection.
//! - After five failed connects the client refuses an endpoint for 30 s. A client under a new name has no
//!   such memory, so after failures in a row the handles of that peer are made anew.
//! - A request parked at a broker whose connection died is not failed: every call is bounded here, and
//!   those that are parked end when the handles they use are given up.
//! - The client's own error texts hide addresses: ours name the peer.

use crate::message::Topic;
use crate::source::SourceError;
use cheetah_string::CheetahString;
use rocketmq_client_rust::prelude::ClientConfig;
use rocketmq_client_rust::{ClientInstanceHandle, ClientRuntime, ClientRuntimeConfig};
use rocketmq_observability::TelemetryRuntimeGuard;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use rocketmq_protocol::protocol::route::topic_route_data::TopicRouteData;
use rocketmq_runtime::RuntimeOwner;
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

static NAMES: AtomicU64 = AtomicU64::new(1);

/// What a request is for; requests with the same purpose to the same broker wait for each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    Route,
    Group,
    Lock,
    Offsets,
    SendBack,
    Journal,
    Pull(Topic, u32),
}

/// The handles of one peer (a broker, or the name servers), all under one client name.
struct Peer {
    domain: u64,
    handles: HashMap<Purpose, Arc<ClientInstanceHandle>>,
    failures: u32,
    renewed: Option<Instant>,
    /// Ends when the handles are given up.
    in_use: CancellationToken,
}

impl Peer {
    fn new() -> Self {
        let domain = NAMES.fetch_add(1, Ordering::Relaxed);
        Self {
            domain,
            handles: HashMap::new(),
            failures: 0,
            renewed: None,
            in_use: CancellationToken::new(),
        }
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
    peers: Mutex<HashMap<String, Peer>>,
}

impl Connection {
    pub fn new(name_servers: String, instance: String) -> Result<Self, SourceError> {
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
        Ok(Self {
            runtime,
            _owner: owner,
            _telemetry: telemetry,
            name_servers,
            instance,
            peers: Mutex::default(),
        })
    }

    pub fn name_servers(&self) -> &str {
        &self.name_servers
    }

    /// Asks the name servers for a topic's route; none if they do not know it.
    pub async fn route(&self, topic: &str) -> Result<Option<TopicRouteData>, SourceError> {
        let peer = self.name_servers.clone();
        let (handle, _) = self.handle(&peer, Purpose::Route).await?;
        let timeout = CALL_TIMEOUT.as_millis() as u64;
        let call = async {
            handle
                .topic_route(topic, timeout)
                .await
                .map_err(|error| error.to_string())
        };
        self.bounded(&peer, "for the route of the topic", CALL_TIMEOUT, call)
            .await
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
                .invoke_remoting(&to, request, limit.as_millis() as u64)
                .await
                .map_err(|error| error.to_string())
        };
        let call = self.bounded(address, what, limit, call);
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

    async fn bounded<T>(
        &self,
        peer: &str,
        what: &'static str,
        limit: Duration,
        call: impl Future<Output = Result<T, String>>,
    ) -> Result<T, SourceError> {
        let outcome = match tokio::time::timeout(limit, call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {limit:?}")),
        };
        match outcome {
            Ok(answer) => {
                if let Some(known) = self.peers.lock().await.get_mut(peer) {
                    known.failures = 0;
                }
                Ok(answer)
            }
            Err(reason) => {
                self.failed(peer).await;
                Err(SourceError::Unreachable {
                    peer: peer.to_owned(),
                    what,
                    reason,
                })
            }
        }
    }

    async fn handle(
        &self,
        peer: &str,
        purpose: Purpose,
    ) -> Result<(Arc<ClientInstanceHandle>, CancellationToken), SourceError> {
        let mut peers = self.peers.lock().await;
        let known = peers.entry(peer.to_owned()).or_insert_with(Peer::new);
        if let Some(handle) = known.handles.get(&purpose) {
            return Ok((handle.clone(), known.in_use.clone()));
        }
        let mut config = ClientConfig::default();
        config.set_namesrv_addr(CheetahString::from_slice(&self.name_servers));
        config.set_instance_name(CheetahString::from_slice(&self.instance));
        config.set_vip_channel_enabled(false);
        let failed = |error: rocketmq_client_rust::ClientError| SourceError::Unreachable {
            peer: peer.to_owned(),
            what: "a connection",
            reason: error.to_string(),
        };
        let handle = ClientInstanceHandle::get_or_create(&self.runtime, known.domain, config, None)
            .map_err(failed)?;
        handle.start().await.map_err(failed)?;
        let handle = Arc::new(handle);
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
                handle.shutdown_owned().await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker that takes connections and answers nothing.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_parked_at_a_peer_that_forgot_us_ends_at_once() {
        let peer = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = peer.local_addr().unwrap().to_string();
        let connection = Connection::new("127.0.0.1:1".into(), "parked".into()).unwrap();
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
