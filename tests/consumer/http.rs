//! Handlers behind HTTP: the ways they can be reached, and what they are told.

use super::world::{Handler, Running, World};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, Method, StatusCode, Version};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use keylane_tests::rocketmq::Message;
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Heads of the requests that a handler got.
#[derive(Clone, Default)]
struct Heads(Arc<Mutex<Vec<(Version, HeaderMap)>>>);

impl Heads {
    /// The handler's routes, with a note of every call.
    fn of(&self, handler: &Handler) -> axum::Router {
        let heads = self.clone();
        handler
            .router()
            .layer(from_fn(move |request: Request, next: Next| {
                heads.clone().note(request, next)
            }))
    }

    async fn note(self, request: Request, next: Next) -> Response {
        if request.method() == Method::POST {
            let head = (request.version(), request.headers().clone());
            self.0.lock().unwrap().push(head);
        }
        next.run(request).await
    }
}

/// Many calls at a time over few connections, each key in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_may_speak_http_2() {
    let world = World::new("h2c", 4).await;
    world.produce(2_000, 100).await;
    let (handler, heads) = (Handler::default(), Heads::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let routes = heads.of(&handler);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let spec = format!(r#"{{"http": {{"port": {port}, "path": "/events", "version": "HTTP2"}}}}"#);
    let running = Running::with(&world, handler, port, &[("handler", &spec)]).await;
    running.until_handled(2_000).await;
    world.until_committed(2_000).await;
    let verdict = running.verdict();
    assert_eq!((verdict.inversions, verdict.overlaps), (0, 0));
    assert_eq!((verdict.duplicates, verdict.failed), (0, 0));
    let heads = heads.0.lock().unwrap().clone();
    assert!(heads.iter().all(|(version, _)| *version == Version::HTTP_2));
    running.stop().await;
}

/// A message that is a CloudEvent comes to a handler behind a Unix socket as the event it is.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_keeps_its_own_attributes_on_its_way_through_a_unix_socket() {
    let world = World::new("event", 1).await;
    let (handler, heads) = (Handler::default(), Heads::default());
    let directory = tempfile::Builder::new()
        .prefix("keylane-socket")
        .tempdir_in("/tmp")
        .unwrap();
    let path = directory.path().join("handler.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let routes = heads.of(&handler);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let spec = format!(r#"{{"http": {{"unixSocket": {path:?}, "path": "/events"}}}}"#);
    let running = Running::with(&world, handler, 0, &[("handler", &spec)]).await;
    let event = Message::keyed("order-7", "{}")
        .property("CE_specversion", "1.0")
        .property("CE_id", "event-1")
        .property("CE_source", "/shop")
        .property("CE_type", "shop.paid")
        .property("CE_region", "eu")
        .property("CE_contenttype", "application/json")
        .property(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
    let plain = Message::keyed("order-7", "plain").property("tracestate", "a=b");
    world
        .producer()
        .await
        .send_all([event, plain])
        .await
        .unwrap();
    running
        .until(|verdict| verdict.received == 2, "2 calls")
        .await;
    world.until_committed(2).await;
    let heads = heads.0.lock().unwrap().clone();
    let get = |call: usize, name: &str| {
        let value = heads[call].1.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    for (name, value) in [
        ("ce-id", "event-1"),
        ("ce-source", "/shop"),
        ("ce-type", "shop.paid"),
        ("ce-region", "eu"),
        ("content-type", "application/json"),
        ("ce-keylaneoffset", "0"),
        ("ce-keylanekey", "order-7"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ] {
        assert_eq!(get(0, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(
        get(1, "ce-type").as_deref(),
        Some("dev.keylane.rocketmq.message")
    );
    assert_eq!(get(1, "ce-sequence").as_deref(), Some("1"));
    assert_eq!(get(1, "tracestate").as_deref(), Some("a=b"));
    running.stop().await;
}

/// Events of the batches that a handler got, each with the content type of its call.
type Events = Arc<Mutex<Vec<(String, Value)>>>;

async fn collect(State(events): State<Events>, headers: HeaderMap, body: String) -> StatusCode {
    let kind = headers["content-type"].to_str().unwrap();
    let batch: Vec<Value> = serde_json::from_str(&body).unwrap();
    let batch = batch.into_iter().map(|event| (kind.to_owned(), event));
    events.lock().unwrap().extend(batch);
    StatusCode::NO_CONTENT
}

/// In a batch an event of its producer's is the event it is, beside messages that are none, in their order.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_events_and_messages_with_their_traces_and_bodies() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let world = World::new("event-batch", 1).await;
    let plain = |body: &'static str| Message::keyed("order-7", body);
    let event = plain("{}")
        .property("CE_specversion", "1.0")
        .property("CE_id", "event-1")
        .property("CE_source", "/shop")
        .property("CE_type", "shop.paid")
        .property("CE_contenttype", "application/json");
    let messages = [
        plain("first").property("traceparent", TRACE),
        event,
        plain("last"),
    ];
    world.producer().await.send_all(messages).await.unwrap();
    let events = Events::default();
    let routes = Router::new()
        .route("/events", post(collect))
        .with_state(events.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let spec = format!(
        r#"{{"http": {{"port": {port}, "path": "/events"}}, "batch": {{"maxMessages": 4}}}}"#
    );
    let running = Running::with(&world, Handler::default(), port, &[("handler", &spec)]).await;
    world.until_committed(3).await;
    running.stop().await;
    let events = events.lock().unwrap().clone();
    let batch = "application/cloudevents-batch+json; charset=utf-8";
    assert!(events.iter().all(|(kind, _)| kind == batch), "{events:?}");
    let [(_, first), (_, event), (_, last)] = &events[..] else {
        panic!("{events:?}");
    };
    for (event, field, wanted) in [
        (first, "type", "dev.keylane.rocketmq.message"),
        (first, "sequence", "0"),
        (first, "partitionkey", "order-7"),
        (first, "traceparent", TRACE),
        (first, "data_base64", "Zmlyc3Q="),
        (event, "type", "shop.paid"),
        (event, "id", "event-1"),
        (event, "source", "/shop"),
        (event, "datacontenttype", "application/json"),
        (event, "keylaneoffset", "1"),
        (event, "keylanekey", "order-7"),
        (event, "data_base64", "e30="),
        (last, "sequence", "2"),
        (last, "data_base64", "bGFzdA=="),
    ] {
        assert_eq!(event[field], wanted, "{field} of {event}");
    }
    assert!(event.get("sequence").is_none(), "{event}");
}

/// A call that came to a handler which answers by what the message says.
struct Came {
    at: Instant,
    body: String,
    attempt: String,
}

type Calls = Arc<Mutex<Vec<Came>>>;

/// What is poison is never taken, what is early not before the third time.
async fn answer(State(calls): State<Calls>, headers: HeaderMap, body: String) -> Response {
    let mut calls = calls.lock().unwrap();
    let earlier = calls.iter().filter(|call| call.body == body).count();
    let response = match body.as_str() {
        "poison" => StatusCode::UNPROCESSABLE_ENTITY.into_response(),
        "early" if earlier < 2 => {
            (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "1")]).into_response()
        }
        _ => StatusCode::NO_CONTENT.into_response(),
    };
    calls.push(Came {
        at: Instant::now(),
        attempt: headers["ce-attempt"].to_str().unwrap().to_owned(),
        body,
    });
    response
}

/// 422 goes to the dead letter topic at once; 429 comes again when it is wanted, as the attempt it was.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_never_taken_and_what_comes_too_early_is_told_by_its_status() {
    let world = World::new("statuses", 1).await;
    let bodies = ["first", "poison", "early", "after"];
    let messages = bodies.map(|body| Message::keyed("order-1", body));
    world.producer().await.send_all(messages).await.unwrap();
    let calls = Calls::default();
    let routes = Router::new()
        .route("/events", post(answer))
        .with_state(calls.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let running = Running::with(&world, Handler::default(), port, &[]).await;
    world.until_committed(4).await;
    let stats = running.control().stats().await.unwrap();
    assert_eq!((stats.exhausted, stats.dead_lettered), (1, 1));
    assert_eq!(stats.refused, 2);
    let letter = stats.dead_letters.first().unwrap();
    assert!(letter.last_error.contains("422"), "{}", letter.last_error);
    running.stop().await;
    let calls = calls.lock().unwrap();
    let came: Vec<&str> = calls.iter().map(|call| call.body.as_str()).collect();
    assert_eq!(
        came,
        ["first", "poison", "early", "early", "early", "after"]
    );
    assert!(calls.iter().all(|call| call.attempt == "1"));
    for pair in calls[2..5].windows(2) {
        let waited = pair[1].at - pair[0].at;
        assert!(waited >= Duration::from_secs(1), "{waited:?}");
    }
}
