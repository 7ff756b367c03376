//! Handlers behind gRPC: a server with a record of its calls, and an executor on a real broker.

use super::world::{Running, World, now};
use keylane_consumer::handler::grpc::proto::handler_server::{self, HandlerServer};
use keylane_consumer::handler::grpc::proto::{Call, HandleRequest, HandleResponse, Result, Status};
use keylane_tests::judge::{Ended, Judge, Micros, Report, Reported, Verdict};
use keylane_tests::wait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Streaming};

type Said = std::result::Result<HandleResponse, tonic::Status>;
type Decide = dyn Fn(&Call) -> Result + Send + Sync;

/// What all processes of a handler share with the test.
pub struct Record {
    judge: Mutex<Judge>,
    reports: AtomicU64,
    pub in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    /// How many messages the calls had, by the number of calls.
    sizes: Mutex<BTreeMap<usize, usize>>,
    pub spans: Mutex<Vec<Span>>,
}

/// A message at work, in the process of this name.
#[derive(Clone, Debug)]
pub struct Span {
    pub process: String,
    message: (u32, u64),
    start: Micros,
    end: Option<Micros>,
}

/// A process of the handler.
#[derive(Clone)]
pub struct Orders {
    name: String,
    pub record: Arc<Record>,
    sequence: Arc<AtomicU64>,
    credit: Option<u32>,
    pub work: Duration,
    decide: Arc<Decide>,
}

impl Orders {
    /// Does everything in 2 ms: the next call of a key that comes too early must find this one running.
    pub fn new() -> Self {
        let record = Record {
            judge: Mutex::default(),
            reports: AtomicU64::new(1),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            sizes: Mutex::default(),
            spans: Mutex::default(),
        };
        Self {
            name: "first".into(),
            record: Arc::new(record),
            sequence: Arc::default(),
            credit: None,
            work: Duration::from_millis(2),
            decide: Arc::new(|call| says(call, Status::Done)),
        }
    }

    /// The next process of the same handler.
    pub fn restarted(&self, name: &str) -> Self {
        Self {
            name: name.into(),
            sequence: Arc::default(),
            ..self.clone()
        }
    }

    pub fn verdict(&self) -> Verdict {
        self.record.judge.lock().unwrap().verdict()
    }

    fn report(&self, calls: Vec<Reported>) {
        let mut judge = self.record.judge.lock().unwrap();
        judge.take(Report {
            handler: self.name.clone(),
            sequence: self.sequence.fetch_add(1, Ordering::SeqCst) + 1,
            at: now(),
            calls,
        });
    }

    fn begin(&self, queue: u32, offset: u64) -> usize {
        let mut spans = self.record.spans.lock().unwrap();
        spans.push(Span {
            process: self.name.clone(),
            message: (queue, offset),
            start: now(),
            end: None,
        });
        spans.len() - 1
    }

    async fn call(self, call: Call) -> Result {
        let record = &self.record;
        let now_in_flight = record.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        record
            .most_in_flight
            .fetch_max(now_in_flight, Ordering::SeqCst);
        let count = call.messages.len();
        *record.sizes.lock().unwrap().entry(count).or_default() += 1;
        let mut result = Result::default();
        for (index, message) in call.messages.iter().enumerate() {
            let reported = Reported {
                id: record.reports.fetch_add(1, Ordering::SeqCst),
                queue: format!("{}/{}", call.broker, call.queue_id),
                key: call.key.clone(),
                offset: message.offset,
                start: now(),
                end: None,
            };
            self.report(vec![reported.clone()]);
            let span = self.begin(call.queue_id, message.offset);
            tokio::time::sleep(self.work).await;
            record.spans.lock().unwrap()[span].end = Some(now());
            result = (self.decide)(&call);
            let done = result.status() == Status::Done || index < result.acked as usize;
            let end = Some(Ended {
                at: now(),
                ok: done,
            });
            self.report(vec![Reported { end, ..reported }]);
            if !done {
                break;
            }
        }
        record.in_flight.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

fn says(call: &Call, status: Status) -> Result {
    Result {
        call_id: call.id,
        status: status.into(),
        reason: "as the test says".into(),
        ..Result::default()
    }
}

#[tonic::async_trait]
impl handler_server::Handler for Orders {
    type HandleStream = ReceiverStream<Said>;

    async fn handle(
        &self,
        request: Request<Streaming<HandleRequest>>,
    ) -> std::result::Result<Response<Self::HandleStream>, tonic::Status> {
        let mut incoming = request.into_inner();
        let (say, said) = mpsc::channel(64);
        let orders = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = incoming.message().await {
                if request.hello.is_some() {
                    let welcome = HandleResponse {
                        max_in_flight: orders.credit,
                        earlier_running: Some(0),
                        ..HandleResponse::default()
                    };
                    say.send(Ok(welcome)).await.unwrap();
                }
                for call in request.calls {
                    let (orders, say) = (orders.clone(), say.clone());
                    tokio::spawn(async move {
                        let results = vec![orders.call(call).await];
                        let response = HandleResponse {
                            results,
                            ..HandleResponse::default()
                        };
                        let _ = say.send(Ok(response)).await;
                    });
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(said)))
    }
}

/// A process of the handler, as far as its connections and calls end at once when it is killed.
pub struct Process {
    runtime: Option<tokio::runtime::Runtime>,
    pub port: u16,
}

impl Process {
    /// On this port, or on a free one if it is 0.
    fn start(orders: &Orders, port: u16) -> Self {
        Self::serving(routes(orders), port)
    }

    /// The same with these routes.
    pub fn serving(routes: axum::Router, port: u16) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, routes).await
        });
        Self {
            runtime: Some(runtime),
            port,
        }
    }

    pub fn spec(&self) -> String {
        format!(r#"{{"grpc": {{"port": {}}}, "timeout": "5s"}}"#, self.port)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let runtime = self.runtime.take().unwrap();
        tokio::task::block_in_place(|| runtime.shutdown_timeout(Duration::from_secs(10)));
    }
}

pub fn routes(orders: &Orders) -> axum::Router {
    let service = HandlerServer::new(orders.clone());
    axum::Router::new().route_service("/keylane.v1.Handler/{*method}", service)
}

pub async fn until(orders: &Orders, what: &str, condition: impl Fn(&Verdict) -> bool) -> Verdict {
    wait::until(super::world::SOON, what, async || {
        let verdict = orders.verdict();
        if condition(&verdict) {
            Ok(verdict)
        } else {
            Err(format!("{verdict:?}"))
        }
    })
    .await
    .unwrap()
}

pub fn assert_in_order(verdict: &Verdict) {
    let broken = (verdict.inversions, verdict.overlaps);
    assert_eq!(broken, (0, 0), "{:?}", verdict.examples);
}

/// Everything arrives, each key in order, in calls side by side, and every queue is committed to its end.
#[tokio::test(flavor = "multi_thread")]
async fn every_key_keeps_its_order_behind_grpc() {
    let world = World::new("grpc", 4).await;
    world.produce(5_000, 100).await;
    let orders = Orders::new();
    let process = Process::start(&orders, 0);
    let running = Running::start(&world, &[("handler", &process.spec())]).await;
    let all = until(&orders, "5,000 handled", |so_far| so_far.distinct == 5_000).await;
    world.until_committed(5_000).await;
    assert_in_order(&all);
    assert_eq!((all.duplicates, all.failed), (0, 0));
    assert!(orders.record.most_in_flight.load(Ordering::SeqCst) > 8);
    running.stop().await;
}

/// A handler that is killed with calls in flight and comes back loses nothing and no order; the messages
/// it had are suspects and come again one at a time, at once, as its first word is that nothing runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_behind_grpc_that_is_killed_loses_nothing() {
    let world = World::new("grpc-killed", 2).await;
    let mut orders = Orders::new();
    orders.work = Duration::from_millis(100);
    let process = Process::start(&orders, 0);
    let port = process.port;
    let running = Running::start(&world, &[("handler", &process.spec())]).await;
    // Ten seconds of work: however late this test looks, it kills in the middle.
    world.produce(4_000, 40).await;
    until(&orders, "60 handled", |so_far| so_far.distinct >= 60).await;
    drop(process);
    let killed_at = now();
    let spans = || orders.record.spans.lock().unwrap().clone();
    let had = spans().into_iter().filter(|span| span.end.is_none());
    let had: BTreeSet<_> = had.map(|span| span.message).collect();
    assert!(had.len() > 8, "in flight were {had:?}");
    let mut second = orders.restarted("second");
    second.work = Duration::from_millis(5);
    let _process = Process::start(&second, port);
    let all = until(&orders, "4,000 handled", |so_far| so_far.distinct == 4_000).await;
    world.until_committed(4_000).await;
    assert_in_order(&all);
    let mut suspects: Vec<_> = spans()
        .into_iter()
        .filter(|span| span.process == "second" && had.contains(&span.message))
        .collect();
    suspects.sort_by_key(|span| span.start);
    for pair in suspects.windows(2) {
        assert!(pair[0].end <= Some(pair[1].start), "{pair:?}");
    }
    // Without that word they would have waited for the call bound of 10 s.
    let waited = Duration::from_micros(suspects[0].start - killed_at);
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    running.stop().await;
}

/// A handler that wants one call at a time gets one, and what waits for it is no failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_credit_of_one_means_one_call_at_a_time() {
    let world = World::new("grpc-credit", 2).await;
    world.produce(600, 60).await;
    let mut orders = Orders::new();
    orders.credit = Some(1);
    let process = Process::start(&orders, 0);
    let running = Running::start(&world, &[("handler", &process.spec())]).await;
    let all = until(&orders, "600 handled", |so_far| so_far.distinct == 600).await;
    assert_in_order(&all);
    assert_eq!((all.duplicates, all.failed), (0, 0));
    assert_eq!(orders.record.most_in_flight.load(Ordering::SeqCst), 1);
    let stats = running.control().stats().await.unwrap();
    assert!(stats.handler_available);
    running.stop().await;
}

/// What the handler will never take goes to the dead letter topic, and its key goes on.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_permanent_behind_grpc_is_dead_lettered() {
    let world = World::new("grpc-poison", 1).await;
    world.produce(100, 10).await;
    let mut orders = Orders::new();
    orders.decide = Arc::new(|call| {
        let poison = call.messages[0].body == "42";
        says(
            call,
            if poison {
                Status::Permanent
            } else {
                Status::Done
            },
        )
    });
    let process = Process::start(&orders, 0);
    let running = Running::start(&world, &[("handler", &process.spec())]).await;
    let all = until(&orders, "99 handled", |so_far| so_far.distinct == 99).await;
    world.until_committed(100).await;
    assert_eq!((all.failed, all.overlaps), (1, 0));
    let stats = running.control().stats().await.unwrap();
    assert_eq!((stats.exhausted, stats.dead_lettered), (1, 1));
    running.stop().await;
}

/// A batch of which the handler did the first messages goes on with the one after them.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_acknowledged_as_far_as_it_was_done() {
    let world = World::new("grpc-batch", 1).await;
    world.produce(300, 3).await;
    let mut orders = Orders::new();
    orders.decide = Arc::new(|call| match call.messages.len() {
        1 => says(call, Status::Done),
        _ => Result {
            acked: 1,
            ..says(call, Status::Failed)
        },
    });
    let process = Process::start(&orders, 0);
    let handler = process
        .spec()
        .replace("\"timeout\"", r#""batch": {"maxMessages": 4}, "timeout""#);
    let retry = r#"{"backoff": {"initial": "1ms", "max": "2ms"}}"#;
    let changes = [("handler", &*handler), ("retry", retry)];
    let running = Running::start(&world, &changes).await;
    let all = until(&orders, "300 handled", |so_far| so_far.distinct == 300).await;
    world.until_committed(300).await;
    assert_in_order(&all);
    assert_eq!(
        all.duplicates, 0,
        "what was acknowledged does not come again"
    );
    let sizes = orders.record.sizes.lock().unwrap().clone();
    assert!(sizes.contains_key(&4), "{sizes:?}");
    running.stop().await;
}

/// A handler behind a Unix socket, of gRPC as of HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_may_listen_on_a_unix_socket() {
    let world = World::new("grpc-socket", 2).await;
    world.produce(500, 20).await;
    let directory = tempfile::Builder::new()
        .prefix("keylane-socket")
        .tempdir_in("/tmp")
        .unwrap();
    let path = directory.path().join("handler.sock");
    let orders = Orders::new();
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let routes = routes(&orders);
    let server = tokio::spawn(async move { axum::serve(listener, routes).await });
    let handler = format!(r#"{{"grpc": {{"unixSocket": {path:?}}}}}"#);
    let running = Running::start(&world, &[("handler", &handler)]).await;
    let all = until(&orders, "500 handled", |so_far| so_far.distinct == 500).await;
    assert_in_order(&all);
    running.stop().await;
    server.abort();
}
