//! Handlers behind gRPC that say how they are, by the standard protocol.

use crate::grpc::{Orders, Process, assert_in_order, routes, until};
use crate::world::{Running, SOON, World};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use futures::StreamExt;
use futures::stream::Take;
use keylane_consumer::handler::grpc::SERVICE;
use keylane_tests::wait;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tonic::Status;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{self, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::{HealthReporter, HealthService, WatchStream};

/// What a process says of its health, and what it was asked.
#[derive(Clone, Default)]
struct Health {
    reporter: HealthReporter,
    checks: Arc<AtomicUsize>,
    streams: Arc<AtomicUsize>,
}

impl Health {
    async fn say(&self, service: &str, status: ServingStatus) {
        self.reporter.set_service_status(service, status).await;
    }

    fn service(&self) -> HealthService {
        HealthService::from_health_reporter(self.reporter.clone())
    }

    /// The routes of a handler with those of a health service beside them.
    fn beside(&self, orders: &Orders, service: impl health_server::Health) -> axum::Router {
        let asked = self.clone();
        routes(orders)
            .route_service(
                "/grpc.health.v1.Health/{*method}",
                HealthServer::new(service),
            )
            .layer(from_fn(move |request: Request, next: Next| {
                asked.clone().count(request, next)
            }))
    }

    async fn count(self, request: Request, next: Next) -> Response {
        match request.uri().path() {
            "/grpc.health.v1.Health/Check" => self.checks.fetch_add(1, Ordering::SeqCst),
            "/keylane.v1.Handler/Handle" => self.streams.fetch_add(1, Ordering::SeqCst),
            _ => 0,
        };
        next.run(request).await
    }

    /// How many streams were opened until it was asked so often.
    async fn streams_after(&self, checks: usize) -> usize {
        wait::until(SOON, format!("{checks} health checks"), async || match self
            .checks
            .load(Ordering::SeqCst)
        {
            so_far if so_far < checks => Err(format!("{so_far} so far")),
            _ => Ok(()),
        })
        .await
        .unwrap();
        self.streams.load(Ordering::SeqCst)
    }
}

/// One whose every watch ends with its first word, as where a proxy lets no call last.
struct Brief(HealthService);

#[tonic::async_trait]
impl health_server::Health for Brief {
    type WatchStream = Take<WatchStream>;

    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        self.0.check(request).await
    }

    async fn watch(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let watched = self.0.watch(request).await?;
        Ok(watched.map(|said| said.take(1)))
    }
}

/// By the name of the service; by that of the whole server where the service has none.
#[tokio::test(flavor = "multi_thread")]
async fn no_stream_is_opened_before_the_handler_says_that_it_serves() {
    for (name, service) in [("grpc-health", SERVICE), ("grpc-health-all", "")] {
        let world = World::new(name, 2).await;
        world.produce(200, 20).await;
        let (orders, health) = (Orders::new(), Health::default());
        health.say(service, ServingStatus::NotServing).await;
        let process = Process::serving(health.beside(&orders, health.service()), 0);
        let running = Running::start(&world, &[("handler", &process.spec())]).await;
        assert_eq!(health.streams_after(8).await, 0, "{service:?}");
        let stats = running.control().stats().await.unwrap();
        assert!(!stats.handler_available && stats.dispatched == 0);
        health.say(service, ServingStatus::Serving).await;
        let all = until(&orders, "200 handled", |so_far| so_far.distinct == 200).await;
        assert_in_order(&all);
        assert_eq!((all.duplicates, all.failed), (0, 0));
        running.stop().await;
    }
}

/// A handler that is killed and comes back before it can work gets nothing until it can; nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_comes_back_and_does_not_serve_yet_gets_no_call() {
    let world = World::new("grpc-unready", 2).await;
    let (mut orders, health) = (Orders::new(), Health::default());
    orders.work = Duration::from_millis(100);
    health.say(SERVICE, ServingStatus::Serving).await;
    let process = Process::serving(health.beside(&orders, health.service()), 0);
    let port = process.port;
    let running = Running::start(&world, &[("handler", &process.spec())]).await;
    world.produce(2_000, 40).await;
    until(&orders, "60 handled", |so_far| so_far.distinct >= 60).await;
    drop(process);

    let (mut second, starting) = (orders.restarted("second"), Health::default());
    second.work = Duration::from_millis(5);
    starting.say(SERVICE, ServingStatus::NotServing).await;
    let _process = Process::serving(starting.beside(&second, starting.service()), port);
    assert_eq!(starting.streams_after(8).await, 0);
    let of_second = || {
        let spans = orders.record.spans.lock().unwrap();
        spans.iter().filter(|span| span.process == "second").count()
    };
    assert_eq!(of_second(), 0);
    starting.say(SERVICE, ServingStatus::Serving).await;
    let all = until(&orders, "2,000 handled", |so_far| so_far.distinct == 2_000).await;
    world.until_committed(2_000).await;
    assert_in_order(&all);
    assert!(of_second() > 0);
    running.stop().await;
}

/// What runs goes on, and is no failure; nothing else begins until the handler serves again.
async fn holds_back_and_goes_on(name: &str, routes: impl Fn(&Health, &Orders) -> axum::Router) {
    let world = World::new(name, 2).await;
    let (mut orders, health) = (Orders::new(), Health::default());
    orders.work = Duration::from_millis(50);
    health.say(SERVICE, ServingStatus::Serving).await;
    let process = Process::serving(routes(&health, &orders), 0);
    let running = Running::start(&world, &[("handler", &process.spec())]).await;
    world.produce(4_000, 40).await;
    until(&orders, "100 handled", |so_far| so_far.distinct >= 100).await;
    health.say(SERVICE, ServingStatus::NotServing).await;
    running
        .until_stats(
            |stats| !stats.handler_available && stats.busy_lanes == 0,
            "calls held back, and none running",
        )
        .await;
    let begun = || orders.record.spans.lock().unwrap().len();
    let (before, stats) = (begun(), running.control().stats().await.unwrap());
    assert!(before < 4_000, "it was over before");
    // Probes would have come by then.
    let later = stats.uptime_seconds + 2.0;
    let stats = running
        .until_stats(|stats| stats.uptime_seconds > later, "some time later")
        .await;
    assert!(!stats.handler_available);
    assert_eq!(begun(), before);
    assert_eq!(orders.record.in_flight.load(Ordering::SeqCst), 0);
    health.say(SERVICE, ServingStatus::Serving).await;
    let all = until(&orders, "4,000 handled", |so_far| so_far.distinct == 4_000).await;
    assert_in_order(&all);
    assert_eq!((all.duplicates, all.failed), (0, 0));
    assert_eq!(health.streams.load(Ordering::SeqCst), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_serves_no_more_is_given_no_call_on_its_open_stream() {
    let routes = |health: &Health, orders: &Orders| health.beside(orders, health.service());
    holds_back_and_goes_on("grpc-paused", routes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_whose_watch_ends_is_watched_again_and_its_last_word_counts_meanwhile() {
    let routes = |health: &Health, orders: &Orders| health.beside(orders, Brief(health.service()));
    holds_back_and_goes_on("grpc-brief", routes).await;
}
