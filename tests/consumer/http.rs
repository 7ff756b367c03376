//! Handlers behind HTTP: the ways they can be reached, and what they are told.

use super::world::{Handler, Running, World};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Version};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use keylane_tests::rocketmq::Message;
use std::sync::{Arc, Mutex};

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
