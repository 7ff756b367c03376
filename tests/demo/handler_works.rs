//! The sample handler, its judge and its database do what the demo and the tests rely on.

use keylane_tests::judge::Verdict;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sample-handler");

/// A running sample-handler.
struct Running {
    child: Child,
    url: String,
    client: Client,
}

impl Running {
    async fn start(args: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(args)
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("it ended");
        let address = line.strip_prefix("listening on ").unwrap();
        Self {
            child,
            url: format!("http://{address}"),
            client: Client::builder().no_proxy().build().unwrap(),
        }
    }

    async fn post(&self, queue: u32, key: Option<&str>, offset: u64) -> Response {
        let mut request = self
            .client
            .post(&self.url)
            .header("ce-source", format!("rocketmq://broker-a/orders/{queue}"))
            .header("ce-sequence", offset)
            .body("paid");
        if let Some(key) = key {
            request = request.header("ce-partitionkey", key);
        }
        request.send().await.unwrap()
    }

    async fn handled(&self, queue: u32, key: &str, offset: u64) {
        let response = self.post(queue, Some(key), offset).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }

    async fn verdict(&self) -> Verdict {
        let url = format!("{}/verdict", self.url);
        let response = self.client.get(url).send().await.unwrap();
        response.json().await.unwrap()
    }

    async fn put_control(&self, control: Value) -> Response {
        let request = self.client.put(format!("{}/control", self.url));
        request.json(&control).send().await.unwrap()
    }

    /// Stops it by SIGTERM; it has reported its calls when this returns.
    async fn stop(mut self) {
        let id = self.child.id().unwrap().to_string();
        let kill = Command::new("kill").args(["-TERM", &id]).status().await;
        assert!(kill.unwrap().success());
        assert!(self.child.wait().await.unwrap().success());
    }
}

#[tokio::test]
async fn calls_of_a_key_that_moves_between_handlers_are_judged_together() {
    let judge = Running::start(&["judge"]).await;
    let serve = ["serve", "--work-ms", "1", "--judge", &judge.url];
    let (one, two) = tokio::join!(Running::start(&serve), Running::start(&serve));
    for offset in 0..50 {
        let handler = if offset % 2 == 0 { &one } else { &two };
        handler.handled(3, "order-1", offset).await;
        handler.handled(3, "Euro%20%E2%82%AC", 100 + offset).await;
    }
    // Delivered again from 48 on, by another handler.
    for offset in 48..50 {
        two.handled(3, "order-1", offset).await;
    }
    one.stop().await;
    two.stop().await;
    let verdict = judge.verdict().await;
    assert_eq!(
        (verdict.received, verdict.distinct, verdict.duplicates),
        (102, 100, 2)
    );
    assert_eq!((verdict.inversions, verdict.overlaps), (0, 0));
    assert_eq!((verdict.keys, verdict.unfinished), (2, 0));
    assert!(verdict.first_at < verdict.last_at);
}

#[tokio::test]
async fn broken_order_between_two_handlers_is_found() {
    let judge = Running::start(&["judge"]).await;
    let serve = ["serve", "--judge", &judge.url, "--work-ms"];
    let slow = [&serve[..], &["300"]].concat();
    let fast = [&serve[..], &["0"]].concat();
    let (slow, fast) = tokio::join!(Running::start(&slow), Running::start(&fast));
    // The fast handler takes a later message when the slow one has begun or will begin an earlier one.
    tokio::join!(slow.handled(0, "k", 1), fast.handled(0, "k", 2));
    // Another key, and the same key of another queue, may do as they like.
    tokio::join!(slow.handled(0, "other", 3), fast.handled(1, "k", 1));
    let asked = slow.verdict().await;
    assert!(asked.keys > 0, "a handler sends those who ask to the judge");
    slow.stop().await;
    fast.stop().await;
    let verdict = judge.verdict().await;
    assert_eq!(verdict.inversions, 1);
    let told = &verdict.examples[0];
    assert_eq!((told.offset, told.other), (2, 1));
}

#[tokio::test]
async fn keys_fail_as_told_and_recover_when_told() {
    let handler = Running::start(&["serve", "--fail-key", "bad"]).await;
    let bad = || handler.post(0, Some("bad"), 1);
    assert_eq!(bad().await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    handler.handled(0, "good", 2).await;

    let refused = handler.put_control(json!({"failStatus": 200})).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let told = json!({"failAll": true, "failStatus": 503, "workMs": 1});
    assert!(handler.put_control(told).await.status().is_success());
    assert_eq!(bad().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(handler.put_control(json!({})).await.status().is_success());
    handler.handled(0, "bad", 1).await;

    let verdict = handler.verdict().await;
    assert_eq!((verdict.failed, verdict.distinct), (2, 2));
    assert_eq!(verdict.inversions, 0);
    let forget = handler.client.delete(format!("{}/verdict", handler.url));
    assert!(forget.send().await.unwrap().status().is_success());
    assert_eq!(handler.verdict().await, Verdict::default());
}

#[tokio::test]
async fn messages_without_a_key_or_without_a_place_are_told_apart() {
    let handler = Running::start(&["serve"]).await;
    let unkeyed = handler.post(0, None, 7).await;
    assert_eq!(unkeyed.status(), StatusCode::NO_CONTENT);
    let placeless = handler.client.post(&handler.url).send().await.unwrap();
    assert_eq!(placeless.status(), StatusCode::BAD_REQUEST);
    assert!(placeless.text().await.unwrap().contains("ce-sequence"));
    assert_eq!(handler.verdict().await.received, 1);
}

#[tokio::test]
async fn a_database_that_is_not_there_is_no_fault_of_the_message() {
    // Nothing listens on port 1.
    let database = "postgres://orders@127.0.0.1:1/orders";
    let handler = Running::start(&["serve", "--postgres", database]).await;
    let request = handler.client.post(&handler.url);
    let request = request.header("ce-source", "q").header("ce-sequence", 1);
    let order = request
        .try_clone()
        .unwrap()
        .body(r#"{"order":"a","event":1}"#);
    let answer = order.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let reason = answer.text().await.unwrap();
    assert!(reason.contains("database"), "{reason}");
    let answer = request.body("paid").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
}

/// Tells a process what to do, as it is told in its container.
async fn control(process: &Running, what: &str) -> (bool, String) {
    let mut command = Command::new(PROGRAM);
    command.args(["control", what, "--url", &process.url]);
    let output = command.output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[tokio::test]
async fn a_handler_does_what_its_database_can_and_both_are_told_otherwise_while_they_run() {
    let database = Running::start(&["database", "--connections", "0"]).await;
    let handler = Running::start(&["serve", "--database", &database.url]).await;
    // It waits for a connection until there is one.
    let more = control(&database, r#"{"connections": 1, "workMs": 1}"#);
    let ((), (told, text)) = tokio::join!(handler.handled(0, "a", 1), more);
    assert!(told && text.contains(r#""connections":1"#), "{text}");
    let (told, text) = control(&database, r#"{"conections": 2}"#).await;
    assert!(!told && text.contains("conections"), "{text}");

    let (told, text) = control(&handler, r#"{"failBodies": ["aid"]}"#).await;
    assert!(told, "{text}");
    let failed = handler.post(0, Some("a"), 2).await;
    assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let (told, text) = control(&handler, "{}").await;
    assert!(told, "{text}");
    handler.handled(0, "a", 2).await;

    database.stop().await;
    let without = handler.post(0, Some("a"), 3).await;
    assert_eq!(without.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn wrong_options_are_named() {
    for (args, named) in [
        (["serve", "--judge", "judge:x/"], "--judge"),
        (["serve", "--path", "/verdict"], "--path"),
        (["serve", "--postgres", "orders:x/"], "--postgres"),
        (["serve", "--database", "database"], "--database"),
        (["serve", "--listen", "192.0.2.1"], "cannot listen"),
    ] {
        let mut child = Command::new(PROGRAM)
            .args(args)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut text = String::new();
        let mut errors = child.stderr.take().unwrap();
        errors.read_to_string(&mut text).await.unwrap();
        assert!(!child.wait().await.unwrap().success());
        assert!(text.contains(named), "{text}");
    }
}

#[tokio::test]
async fn a_relay_hands_calls_on_and_is_idle_when_those_are_over_whose_callers_are_gone() {
    use axum::Router;
    use axum::extract::State;
    use axum::http::HeaderMap;
    use axum::routing::post;
    use tokio::sync::{Semaphore, mpsc};

    type Recorder = State<(mpsc::UnboundedSender<String>, std::sync::Arc<Semaphore>)>;
    async fn called(State((told, may_end)): Recorder, headers: HeaderMap) -> StatusCode {
        let offset = headers["ce-sequence"].to_str().unwrap().to_owned();
        told.send(offset).unwrap();
        may_end.acquire().await.unwrap().forget();
        StatusCode::IM_A_TEAPOT
    }

    let (tells, mut told) = mpsc::unbounded_channel();
    let may_end = std::sync::Arc::new(Semaphore::new(1));
    let recorder = Router::new()
        .route("/pods/a/", post(called))
        .with_state((tells, may_end.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = format!("http://{}/pods/a", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, recorder).await });
    let relay = Running::start(&["relay", "--to", &to]).await;
    let idle = async || {
        let answer = relay.client.get(format!("{}/idle", relay.url)).send();
        answer.await.unwrap().status()
    };

    assert_eq!(idle().await, StatusCode::OK);
    let answer = relay.post(0, Some("k"), 7).await;
    assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(told.recv().await.unwrap(), "7");
    let caller = relay.post(0, Some("k"), 8);
    let offset = tokio::select! {
        _ = caller => panic!("it was answered"),
        offset = told.recv() => offset.unwrap(),
    };
    // Its caller is gone, and it goes on.
    assert_eq!(offset, "8");
    assert_eq!(idle().await, StatusCode::CONFLICT);
    may_end.add_permits(1);
    while idle().await != StatusCode::OK {
        tokio::task::yield_now().await;
    }
    relay.stop().await;
}
