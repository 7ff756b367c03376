#![recursion_limit = "512"]
//! The executor against a real broker: in this process where that is enough, as the real program where
//! signals and two members of a group matter. Order and completeness are judged from the handler's side,
//! offsets by mqadmin.

mod adapter;
mod bad_input;
mod bench;
mod brokers;
mod chaos;
mod compressed;
mod dead_letters;
mod drain;
mod faulty;
mod filters;
mod function;
mod generated;
mod groups;
mod grpc;
mod hand_over;
mod health;
mod http;
mod idle;
mod journal;
mod library;
mod many_queues;
mod member;
mod modes;
mod offsets;
mod process;
mod redaction;
mod replays;
mod resets;
mod samples;
mod secured;
mod suspects;
mod suspension;
mod together;
mod world;

use world::{Running, World};

/// Everything is consumed, each key in order, and mqadmin sees every queue committed to its end.
#[tokio::test(flavor = "multi_thread")]
async fn every_key_keeps_its_order_and_everything_is_committed() {
    let world = World::new("order", 4).await;
    world.produce(5_000, 100).await;
    let running = Running::start(&world, &[]).await;
    running.until_handled(5_000).await;
    world.until_committed(5_000).await;
    let verdict = running.verdict();
    assert_eq!(
        (verdict.inversions, verdict.overlaps, verdict.failed),
        (0, 0, 0)
    );
    assert_eq!((verdict.distinct, verdict.duplicates), (5_000, 0));
    running.stop().await;
}

/// A handler that fails everything for a while delays messages and loses none.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_and_recovers_loses_nothing() {
    let world = World::new("recovers", 2).await;
    let running = Running::start(&world, &[]).await;
    running.handler().answer_all_with(500);
    world.produce(300, 20).await;
    running
        .until(|verdict| verdict.failed >= 40, "40 failed calls")
        .await;
    running.handler().answer_all_with(503);
    running
        .until(|verdict| verdict.failed >= 60, "60 failed calls")
        .await;
    running.handler().answer_all_with(200);
    running.until_handled(300).await;
    world.until_committed(300).await;
    let verdict = running.verdict();
    assert_eq!(
        (verdict.inversions, verdict.overlaps, verdict.distinct),
        (0, 0, 300)
    );
    running.stop().await;
}

/// A key whose message always fails holds back the commit of its queue and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_always_fails_is_blocked_visibly_and_delays_nobody_else() {
    let world = World::new("blocked", 2).await;
    let running = Running::start(
        &world,
        &[("retry", r#"{"maxAttempts": 3, "onExhausted": "Block"}"#)],
    )
    .await;
    running.handler().fail_key("order-7");
    world.produce(1_000, 50).await;
    running.until_handled(1_000 - 20).await;
    let stats = running
        .until_stats(|stats| stats.blocked_keys == 1, "a blocked key")
        .await;
    let blocked = &stats.blocked[0];
    assert_eq!((blocked.key.as_str(), blocked.attempts), ("order-7", 3));
    assert!(blocked.last_error.contains("500"), "{}", blocked.last_error);
    let committed: u64 = world
        .progress()
        .await
        .iter()
        .map(|queue| queue.committed)
        .sum();
    assert!(
        committed < 1_000,
        "committed {committed} past a message that was not handled"
    );
    running.stop().await;
}

/// The broker dies and comes back: nothing is lost, no key loses its order.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_restarts_costs_no_message_and_no_order() {
    let mut world = World::with_own_broker("restart", 2).await;
    let running = Running::start(&world, &[]).await;
    world.produce(2_000, 100).await;
    running.until_handled(500).await;
    world.restart_broker().await;
    world.produce(1_000, 100).await;
    running.until_handled(3_000).await;
    world.until_committed(3_000).await;
    let verdict = running.verdict();
    assert_eq!(
        (verdict.inversions, verdict.overlaps, verdict.distinct),
        (0, 0, 3_000)
    );
    running.stop().await;
}
