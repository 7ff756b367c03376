//! What the tests of the executor share: a topic and a group of their own on a real broker, a handler in
//! this process that keeps the record for the judge, and an executor.

use crate::member::Member;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use keylane_consumer::config::Config;
use keylane_consumer::contract::admin::Stats;
use keylane_consumer::contract::spec::ConsumerSpec;
use keylane_consumer::exec::Control;
use keylane_consumer::handler::Remote;
use keylane_consumer::handler::grpc::Caller;
use keylane_consumer::message::QueueId;
use keylane_consumer::source::rocketmq::{Access, RocketmqSource};
use keylane_consumer::source::{Commit, Source};
use keylane_tests::judge::{Ended, Judge, Micros, Report, Reported, Verdict};
use keylane_tests::rocketmq::{Broker, Message, Producer, Settings};
use keylane_tests::wait;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Long: the machine may be busy with everything else that is tested.
pub const SOON: Duration = Duration::from_secs(120);

enum Mq {
    Shared(&'static Broker),
    Own(Box<Broker>),
}

/// A topic and a group on a broker.
pub struct World {
    mq: Mq,
    pub topic: String,
    pub group: String,
}

/// Offsets of a queue as mqadmin tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub end: u64,
    pub committed: u64,
}

impl World {
    pub async fn new(name: &str, queues: u32) -> Self {
        Self::on(Mq::Shared(Broker::shared().await), name, queues).await
    }

    pub async fn with_own_broker(name: &str, queues: u32) -> Self {
        Self::on(
            Mq::Own(Box::new(Broker::start().await.unwrap())),
            name,
            queues,
        )
        .await
    }

    /// On a broker of its own with lines of broker.conf added.
    pub async fn with_settings(name: &str, queues: u32, settings: Settings<'_>) -> Self {
        let broker = Broker::start_with(settings).await.unwrap();
        Self::on(Mq::Own(Box::new(broker)), name, queues).await
    }

    /// On a broker that is another's too.
    pub async fn at(broker: &'static Broker, name: &str, queues: u32) -> Self {
        Self::on(Mq::Shared(broker), name, queues).await
    }

    async fn on(mq: Mq, name: &str, queues: u32) -> Self {
        let world = Self {
            mq,
            topic: format!("T_{name}"),
            group: format!("G_{name}"),
        };
        world
            .broker()
            .create_topic(&world.topic, queues)
            .await
            .unwrap();
        world
    }

    pub fn broker(&self) -> &Broker {
        match &self.mq {
            Mq::Shared(broker) => broker,
            Mq::Own(broker) => broker,
        }
    }

    pub async fn restart_broker(&mut self) {
        self.own_broker().restart().await.unwrap();
    }

    /// Restarts the broker and keeps what it has stored, for [`World::truncate_log`].
    pub async fn keep_log(&mut self) {
        self.own_broker().keep_log().await.unwrap();
    }

    /// Restarts the broker without what it stored since its log was kept.
    pub async fn truncate_log(&mut self) {
        self.own_broker().truncate_log().await.unwrap();
    }

    fn own_broker(&mut self) -> &mut Broker {
        match &mut self.mq {
            Mq::Own(broker) => broker,
            Mq::Shared(_) => panic!("the shared broker is not this test's to restart"),
        }
    }

    pub async fn producer(&self) -> Producer {
        self.broker().producer(&self.topic).await.unwrap()
    }

    /// Sends `count` messages, keys `order-0` to `order-<keys - 1>` in turn.
    pub async fn produce(&self, count: u64, keys: u64) {
        let messages = (0..count)
            .map(|number| Message::keyed(&format!("order-{}", number % keys), format!("{number}")));
        self.producer().await.send_all(messages).await.unwrap();
    }

    pub async fn progress(&self) -> Vec<Progress> {
        let queues = self
            .broker()
            .progress(&self.group, &self.topic)
            .await
            .unwrap_or_default();
        let queues = queues.iter();
        queues
            .map(|queue| Progress {
                end: queue.broker_offset.unsigned_abs(),
                committed: queue.consumer_offset.unsigned_abs(),
            })
            .collect()
    }

    /// Waits until mqadmin sees all of `count` messages committed.
    pub async fn until_committed(&self, count: u64) {
        wait::until(SOON, "everything committed", async || {
            let progress = self.progress().await;
            let committed: u64 = progress.iter().map(|queue| queue.committed).sum();
            let even = progress.iter().all(|queue| queue.committed == queue.end);
            if even && committed == count {
                Ok(())
            } else {
                Err(format!("{progress:?}"))
            }
        })
        .await
        .unwrap();
    }

    /// The OrderedConsumer with these fields of the spec replaced.
    pub fn document(&self, handler_port: u16, changes: &[(&str, &str)]) -> Value {
        let mut document = json!({
            "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer",
            "metadata": {"name": "test"},
            "spec": {
                "rocketmq": {"nameServers": [self.broker().name_server()]},
                "topic": self.topic, "consumerGroup": self.group,
                "handler": {"http": {"port": handler_port, "path": "/events"}, "timeout": "5s"},
                "drain": {"timeout": "10s"},
            }
        });
        for (field, value) in changes {
            document["spec"][*field] = serde_json::from_str(value).unwrap();
        }
        document
    }

    pub fn spec(&self, handler_port: u16, changes: &[(&str, &str)]) -> ConsumerSpec {
        let text = self.document(handler_port, changes).to_string();
        Config::parse(&text, Path::new("test.yaml"))
            .unwrap()
            .spec()
            .clone()
    }

    /// A client of the group that is not a Keylane executor.
    pub async fn source(&self, client_id: &str) -> RocketmqSource {
        let source = RocketmqSource::connect(&self.spec(1, &[]), client_id)
            .await
            .unwrap();
        source.route().await.unwrap();
        source
    }

    pub fn queue(&self, id: u32) -> QueueId {
        QueueId::new(self.broker().name(), id)
    }

    pub async fn commit_as_somebody_else(&self, queue: u32, offset: u64) {
        let source = self.source("somebody-else").await;
        let stored = source.commit(&self.queue(queue), offset).await.unwrap();
        assert_eq!(stored, Commit::Stored);
    }
}

/// A handler in this process, with a record of every call.
#[derive(Clone, Default)]
pub struct Handler {
    calls: Arc<AtomicU64>,
    running: Arc<AtomicU64>,
    status: Arc<AtomicU16>,
    fail_keys: Arc<Mutex<BTreeSet<String>>>,
    /// Connections that end with a call of this key, which goes on.
    lose: Arc<Mutex<BTreeMap<String, u32>>>,
    /// How long the next call of a key takes.
    slow: Arc<Mutex<BTreeMap<String, Duration>>>,
    bodies: Arc<Mutex<Vec<usize>>>,
    done: Arc<Mutex<Vec<Done>>>,
    record: Arc<Mutex<Judge>>,
}

/// A call that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub queue: String,
    pub offset: u64,
    pub start: Micros,
    pub end: Micros,
}

pub fn now() -> Micros {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_micros() as Micros
}

impl Handler {
    /// Serves on a free port of 127.0.0.1, or on the one given.
    pub async fn serve(&self, port: u16) -> u16 {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
            .await
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        port
    }

    /// What it serves.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/events", post(handle))
            .route("/idle", get(idle))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(self.clone())
    }

    pub fn answer_all_with(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    pub fn fail_key(&self, key: &str) {
        self.fail_keys.lock().unwrap().insert(key.to_owned());
    }

    /// Calls of this key do not fail any more.
    pub fn mend_key(&self, key: &str) {
        self.fail_keys.lock().unwrap().remove(key);
    }

    /// Loses the connection of so many calls of this key.
    pub fn lose_key(&self, key: &str, times: u32) {
        self.lose.lock().unwrap().insert(key.to_owned(), times);
    }

    /// The next call of this key takes so long.
    pub fn slow_down(&self, key: &str, by: Duration) {
        self.slow.lock().unwrap().insert(key.to_owned(), by);
    }

    /// Whether that call has begun.
    pub fn is_slowed_down(&self, key: &str) -> bool {
        !self.slow.lock().unwrap().contains_key(key)
    }

    fn loses(&self, key: &str) -> bool {
        let mut lose = self.lose.lock().unwrap();
        let left = lose.get_mut(key).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    }

    pub fn verdict(&self) -> Verdict {
        self.record.lock().unwrap().verdict()
    }

    /// Sizes of the bodies that came, sorted.
    pub fn body_sizes(&self) -> Vec<usize> {
        let mut sizes = self.bodies.lock().unwrap().clone();
        sizes.sort_unstable();
        sizes
    }

    /// Every call that succeeded, in the order of their ends.
    pub fn done(&self) -> Vec<Done> {
        self.done.lock().unwrap().clone()
    }

    /// The longest time without the start of a call in any one queue, from `since` on.
    pub fn longest_gap(&self, since: Micros) -> Duration {
        self.longest_gap_beside(since, "")
    }

    /// The same in any but this one.
    pub fn longest_gap_beside(&self, since: Micros, queue: &str) -> Duration {
        let mut starts: BTreeMap<String, Vec<Micros>> = BTreeMap::new();
        for done in self.done() {
            starts.entry(done.queue).or_default().push(done.start);
        }
        starts.remove(queue);
        let gaps = starts.values_mut().flat_map(|starts| {
            starts.sort_unstable();
            let from = starts.partition_point(|start| *start < since).max(1) - 1;
            starts[from..]
                .windows(2)
                .map(|pair| pair[1] - pair[0])
                .collect::<Vec<_>>()
        });
        Duration::from_micros(gaps.max().unwrap_or_default())
    }

    fn take(&self, call: Reported) {
        let mut record = self.record.lock().unwrap();
        let sequence = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        record.take(Report {
            handler: "test".into(),
            sequence,
            at: now(),
            calls: vec![call],
        });
    }
}

async fn handle(
    State(handler): State<Handler>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> StatusCode {
    let key = headers.get("ce-partitionkey");
    let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
    let lost = handler.loses(key);
    // A call goes on when its caller dies.
    let call = tokio::spawn(called(handler, headers, body.len()));
    // The server drops the connection of a call that panics.
    assert!(!lost, "this connection is to be lost");
    call.await.unwrap()
}

async fn idle(State(handler): State<Handler>) -> StatusCode {
    match handler.running.load(Ordering::SeqCst) {
        0 => StatusCode::OK,
        _ => StatusCode::CONFLICT,
    }
}

async fn called(handler: Handler, headers: HeaderMap, size: usize) -> StatusCode {
    static CALLS: AtomicU64 = AtomicU64::new(1);
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let (id, start, key) = (
        CALLS.fetch_add(1, Ordering::SeqCst),
        now(),
        text("ce-partitionkey"),
    );
    let call = Reported {
        id,
        queue: text("ce-source").unwrap_or_default(),
        key: key.clone(),
        offset: text("ce-sequence")
            .and_then(|offset| offset.parse().ok())
            .unwrap_or(u64::MAX),
        start,
        end: None,
    };
    handler.running.fetch_add(1, Ordering::SeqCst);
    handler.take(call.clone());
    // The next call of a key that comes too early must find this one running.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let slow = |key: &String| handler.slow.lock().unwrap().remove(key);
    if let Some(slow) = key.as_ref().and_then(slow) {
        tokio::time::sleep(slow).await;
    }
    let status = match handler.status.load(Ordering::SeqCst) {
        _ if key.is_some_and(|key| handler.fail_keys.lock().unwrap().contains(&key)) => 500,
        0 => 204,
        status => status,
    };
    let ok = status < 300;
    if ok {
        handler.bodies.lock().unwrap().push(size);
        handler.done.lock().unwrap().push(Done {
            queue: call.queue.clone(),
            offset: call.offset,
            start,
            end: now(),
        });
    }
    handler.take(Reported {
        end: Some(Ended { at: now(), ok }),
        ..call
    });
    handler.running.fetch_sub(1, Ordering::SeqCst);
    StatusCode::from_u16(status).unwrap()
}

/// An executor in this process and its handler.
pub struct Running {
    handler: Handler,
    member: Member,
}

impl Running {
    /// Starts both, with these fields of the spec replaced.
    pub async fn start(world: &World, changes: &[(&str, &str)]) -> Self {
        let handler = Handler::default();
        let port = handler.serve(0).await;
        Self::with(world, handler, port, changes).await
    }

    /// Starts an executor for a handler that may not be there yet.
    pub async fn with(
        world: &World,
        handler: Handler,
        port: u16,
        changes: &[(&str, &str)],
    ) -> Self {
        let spec = world.spec(port, changes);
        let access = Access::open(&spec.rocketmq).unwrap();
        Self::enter(handler, &spec, access).await
    }

    /// Starts an executor at brokers that do not let everybody in.
    pub async fn enter(handler: Handler, spec: &ConsumerSpec, access: Access) -> Self {
        let remote = |me: &str| {
            let caller = Caller {
                instance: me.to_owned(),
                incarnation: me.to_owned(),
            };
            Remote::new(spec, caller).unwrap()
        };
        let member = Member::enter(spec, access, |source| source, remote).await;
        Self { handler, member }
    }

    pub fn handler(&self) -> &Handler {
        &self.handler
    }

    pub fn control(&self) -> &Control {
        &self.member.control
    }

    pub fn verdict(&self) -> Verdict {
        self.handler.verdict()
    }

    pub async fn until(&self, condition: impl Fn(&Verdict) -> bool, what: &str) {
        wait::until(SOON, what, async || {
            let verdict = self.verdict();
            if condition(&verdict) {
                return Ok(());
            }
            let stats = self.control().stats().await;
            let trouble = stats.ok().and_then(|stats| stats.broker_error);
            Err(format!("{verdict:?} {trouble:?}"))
        })
        .await
        .unwrap();
    }

    pub async fn until_handled(&self, count: u64) {
        self.until(
            |verdict| verdict.distinct >= count,
            &format!("{count} messages handled"),
        )
        .await;
    }

    pub async fn until_stats(&self, condition: impl Fn(&Stats) -> bool, what: &str) -> Stats {
        self.member.until_stats(what, condition).await
    }

    /// Drains and waits for the end.
    pub async fn stop(self) {
        self.member.stop().await;
    }
}
