//! Messages that are given up: in the dead letter queue, as RocketMQ's own tools see it.

use crate::function::{Function, failed};
use crate::world::{SOON, World};
use keylane_consumer::lane::CallResult;
use keylane_consumer::source::{Pulled, Source};
use keylane_tests::rocketmq::{Message, mqadmin};
use keylane_tests::wait;

const QUICK: &str = r#"{"maxAttempts": 2, "backoff": {"initial": "10ms"}}"#;

/// What mqadmin prints of the group's dead letter queue, once it has `text` in it.
async fn until_dead_letters(world: &World, text: &str) -> String {
    let topic = format!("%DLQ%{}", world.group);
    let args = ["printMsg", "-t", &topic, "-d", "true"];
    wait::until(SOON, "the dead letter", async || {
        let printed = mqadmin(&world.broker().name_server(), &args)
            .await
            .map_err(|error| error.to_string())?;
        if printed.contains(text) {
            Ok(printed)
        } else {
            Err(printed)
        }
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_message_goes_to_the_dead_letter_queue_and_its_key_goes_on() {
    let world = World::new("dead", 1).await;
    let producer = world.producer().await;
    for body in ["first", "poison", "after"] {
        producer
            .send_to(0, &Message::keyed("k", body))
            .await
            .unwrap();
    }
    let running = Function::start(&world, &[("retry", QUICK)], |delivery| {
        match &delivery.message.body[..] {
            b"poison" => failed().into(),
            _ => CallResult::Done.into(),
        }
    })
    .await;
    world.until_committed(3).await;
    assert_eq!(running.bodies(), ["first", "poison", "poison", "after"]);
    let stats = running.control.stats().await.unwrap();
    assert_eq!((stats.exhausted, stats.dead_lettered), (1, 1));
    let printed = until_dead_letters(&world, "poison").await;
    assert!(!printed.contains("first"), "{printed}");
    running.stop().await;
}

/// The body says that it is compressed and is not: the handler cannot be given it.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_decompressed_holds_up_nothing() {
    let world = World::new("garbled", 1).await;
    let producer = world.producer().await;
    let garbled = Message::keyed("k", "not compressed at all").system_flag(0x1);
    producer.send_to(0, &garbled).await.unwrap();
    producer
        .send_to(0, &Message::keyed("k", "after"))
        .await
        .unwrap();
    let running = Function::taking(&world, &[]).await;
    world.until_committed(2).await;
    assert_eq!(running.bodies(), ["after"]);
    let stats = running.control.stats().await.unwrap();
    assert_eq!((stats.exhausted, stats.dead_lettered), (1, 1));
    running.stop().await;
    let source = world.source("reader").await;
    match source
        .pull(&world.queue(0), 0, 1, std::time::Duration::ZERO)
        .await
        .unwrap()
    {
        Pulled::Found { messages, .. } => {
            let defect = messages[0].defect.as_deref().unwrap();
            assert!(defect.contains("zlib"), "{defect}");
        }
        other => panic!("{other:?}"),
    }
}

/// With no retry queues the broker would answer success and store nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_retry_queues_is_named_and_its_message_is_kept() {
    let world = World::new("noretry", 1).await;
    let cluster = "keylane";
    let update = async |queues: &str| {
        let args = [
            "updateSubGroup",
            "-c",
            cluster,
            "-g",
            &world.group,
            "-q",
            queues,
        ];
        mqadmin(&world.broker().name_server(), &args).await.unwrap();
    };
    update("0").await;
    world
        .producer()
        .await
        .send_to(0, &Message::keyed("k", "poison"))
        .await
        .unwrap();
    let running = Function::start(&world, &[("retry", QUICK)], |_| failed().into()).await;
    running
        .until_stats("a complaint about the group", |stats| {
            stats
                .broker_error
                .as_ref()
                .is_some_and(|error| error.contains("retryQueueNums"))
        })
        .await;
    let stats = running.control.stats().await.unwrap();
    assert_eq!((stats.completed, stats.dead_lettered), (0, 0));
    update("1").await;
    world.until_committed(1).await;
    until_dead_letters(&world, "poison").await;
    running.stop().await;
}
