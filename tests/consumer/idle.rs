//! A handler that says when nothing runs in it, by `handler.http.idlePath`.

use crate::hand_over::{after, until, while_sending};
use crate::process::Process;
use crate::world::{Done, Handler, Running, World, now};
use serde_json::{Value, json};
use std::time::Duration;

/// How long calls of the OrderedConsumers here may run: their timeout, and 5 s.
const CALL_BOUND: Duration = Duration::from_secs(10);

fn with_idle_path(world: &World, port: u16) -> Value {
    let mut document = world.document(port, &[]);
    document["spec"]["handler"]["http"]["idlePath"] = json!("/idle");
    document
}

/// The executor of a pod is killed and started again beside its handler.
async fn restarted(name: &str, idle: bool) -> Duration {
    let world = World::new(name, 2).await;
    let handler = Handler::default();
    let port = handler.serve(0).await;
    let document = match idle {
        true => with_idle_path(&world, port),
        false => world.document(port, &[]),
    };
    let pod = ["--pod-uid", name];
    let restart = async {
        let first = Process::run_with(&document, &pod).await;
        // Long enough for a record of what ran.
        until(&handler, "work for a while", |done| done.len() > 300).await;
        let killed = now();
        drop(first);
        let second = Process::run_with(&document, &pod).await;
        until(&handler, "work again", |done| {
            after(done, killed + 1_000_000) > 300
        })
        .await;
        (second, handler.longest_gap(killed))
    };
    let (second, gap) = while_sending(&world, 2, Duration::from_millis(20), restart).await;
    assert_eq!(second.terminate().await, Some(0));
    let verdict = handler.verdict();
    assert_eq!((verdict.inversions, verdict.overlaps), (0, 0));
    println!("idle path {idle}: {gap:?}");
    gap
}

/// What the dead executor had sent is over as soon as the handler says so.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_restarted_beside_an_idle_handler_waits_for_nothing() {
    let gap = restarted("pod-idle", true).await;
    assert!(gap <= Duration::from_secs(5), "{gap:?}");
}

/// Nobody says so: until the call bound it may run.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_restarted_beside_a_handler_that_says_nothing_waits_for_the_call_bound() {
    let gap = restarted("pod-silent", false).await;
    let bound = CALL_BOUND..CALL_BOUND + Duration::from_secs(2);
    assert!(bound.contains(&gap), "{gap:?}");
}

/// Starts of the calls of a key whose first call is lost.
async fn lost(name: &str, idle: bool) -> Duration {
    let world = World::new(name, 1).await;
    let handler = Handler::default();
    let port = handler.serve(0).await;
    handler.lose_key("order-0", 1);
    let http = match idle {
        true => json!({"port": port, "path": "/events", "idlePath": "/idle"}),
        false => json!({"port": port, "path": "/events"}),
    };
    let field = json!({"http": http, "timeout": "5s"}).to_string();
    let running = Running::with(&world, handler.clone(), port, &[("handler", &field)]).await;
    world.produce(2, 1).await;
    running.until_handled(2).await;
    let done: Vec<Done> = handler.done();
    // Its connection was lost and it went on: both calls of the first message ended well.
    let starts: Vec<_> = done.iter().filter(|done| done.offset == 0).collect();
    assert_eq!(starts.len(), 2, "{done:?}");
    let verdict = running.verdict();
    assert_eq!((verdict.inversions, verdict.overlaps), (0, 0));
    running.stop().await;
    Duration::from_micros(starts[1].start - starts[0].start)
}

/// A call whose connection is lost may run on: its key waits until the handler says that nothing does.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_call_was_lost_goes_on_when_the_handler_is_idle() {
    let waited = lost("lost-idle", true).await;
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    let waited = lost("lost-silent", false).await;
    // From when it was decided, which is a moment before the handler sees it.
    assert!(waited > CALL_BOUND - Duration::from_secs(1), "{waited:?}");
}
