//! Modes of ordering and of consumption, and batches.

use crate::function::{Function, failed};
use crate::world::World;
use keylane_consumer::contract::admin::LaneTarget;
use keylane_consumer::handler::Outcome;
use keylane_consumer::lane::CallResult;
use keylane_consumer::message::Topic;
use keylane_consumer::source::Source;
use keylane_tests::rocketmq::Message;
use std::sync::atomic::{AtomicBool, Ordering};

/// Mode None: a failed message waits at the broker, and comes back through the retry topic.
#[tokio::test(flavor = "multi_thread")]
async fn without_order_a_failed_message_comes_back_from_the_retry_topic() {
    let levels = ("messageDelayLevel", "1s 1s 1s 1s 1s 1s 1s 1s 1s");
    let world = World::with_settings("none", 1, &[levels]).await;
    let producer = world.producer().await;
    for body in ["one", "fails once", "three"] {
        producer
            .send_to(0, &Message::keyed("k", body))
            .await
            .unwrap();
    }
    let running =
        Function::start(
            &world,
            &[("ordering", r#"{"mode": "None"}"#)],
            |delivery| match &delivery.message.body[..] {
                b"fails once" if delivery.queue.topic == Topic::Main => failed().into(),
                _ => CallResult::Done.into(),
            },
        )
        .await;
    let seen = running.until_seen(4).await;
    assert_eq!(
        (seen[3].topic, seen[3].body.as_str()),
        (Topic::Retry, "fails once")
    );
    assert_eq!(
        seen.iter().filter(|seen| seen.topic == Topic::Main).count(),
        3
    );
    world.until_committed(3).await;
    let stats = running
        .until_stats("the retry topic committed", |stats| {
            let retry = stats.queues.iter().find(|queue| queue.retry);
            retry.is_some_and(|queue| queue.committed == Some(1))
        })
        .await;
    assert_eq!((stats.sent_back, stats.dead_lettered), (1, 0));
    running.stop().await;
}

/// Mode None: one that always fails ends in the dead letter queue.
#[tokio::test(flavor = "multi_thread")]
async fn without_order_attempts_are_counted_across_the_retry_topic() {
    let levels = ("messageDelayLevel", "1s 1s 1s 1s 1s 1s 1s 1s 1s");
    let world = World::with_settings("nonedead", 1, &[levels]).await;
    world
        .producer()
        .await
        .send_to(0, &Message::keyed("k", "poison"))
        .await
        .unwrap();
    let changes = [
        ("ordering", r#"{"mode": "None"}"#),
        ("retry", r#"{"maxAttempts": 3}"#),
    ];
    let running = Function::start(&world, &changes, |_| failed().into()).await;
    let stats = running
        .until_stats("a dead letter", |stats| stats.dead_lettered == 1)
        .await;
    assert_eq!((stats.sent_back, stats.exhausted), (2, 1));
    assert_eq!(running.seen().len(), 3);
    running.stop().await;
}

/// Decisions come over the network, from one leader after another: what is older never undoes what is newer.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_target_older_than_the_one_in_force_is_refused() {
    let world = World::new("targets", 1).await;
    let running = Function::taking(&world, &[]).await;
    let target = |lanes, term, sequence| LaneTarget {
        lanes,
        term,
        sequence,
    };
    for (sent, in_force) in [
        (target(7, 2, 5), target(7, 2, 5)),
        // The same leader's earlier word, and one of the leader before, however far that had counted.
        (target(9, 2, 4), target(7, 2, 5)),
        (target(9, 1, 900), target(7, 2, 5)),
        (target(8, 2, 6), target(8, 2, 6)),
        // The next leader counts from the beginning.
        (target(3, 3, 1), target(3, 3, 1)),
    ] {
        let answer = running.control.set_lanes(sent).await.unwrap();
        assert_eq!(answer, in_force, "{sent:?}");
        let stats = running.control.stats().await.unwrap();
        assert_eq!(stats.lanes, in_force);
    }
    running.stop().await;
}

/// Mode Queue: keys do not matter, and one message of a queue runs at a time.
#[tokio::test(flavor = "multi_thread")]
async fn in_mode_queue_all_messages_of_a_queue_keep_their_order() {
    let world = World::new("queue", 2).await;
    world.produce(200, 20).await;
    let running = Function::taking(&world, &[("ordering", r#"{"mode": "Queue"}"#)]).await;
    world.until_committed(200).await;
    for queue in 0..2 {
        let seen = running.seen();
        let numbers: Vec<u64> = seen
            .iter()
            .filter(|seen| seen.queue == queue)
            .map(|seen| seen.body.parse().unwrap())
            .collect();
        assert!(!numbers.is_empty() && numbers.is_sorted(), "{numbers:?}");
    }
    running.stop().await;
}

/// A batch is consecutive messages of one key; what is not acknowledged comes again, in order.
#[tokio::test(flavor = "multi_thread")]
async fn the_acknowledged_first_messages_of_a_batch_do_not_come_again() {
    let world = World::new("batch", 1).await;
    let producer = world.producer().await;
    for number in 0..12 {
        producer
            .send_to(0, &Message::keyed("k", format!("{number}")))
            .await
            .unwrap();
    }
    let failed_once = AtomicBool::new(false);
    let running = Function::start(
        &world,
        &[
            (
                "handler",
                r#"{"http": {"port": 1}, "batch": {"maxMessages": 4}}"#,
            ),
            ("retry", r#"{"backoff": {"initial": "10ms"}}"#),
        ],
        move |delivery| {
            let fifth = delivery
                .messages()
                .position(|message| &message.body[..] == b"5");
            match fifth {
                Some(at) if !failed_once.swap(true, Ordering::SeqCst) => Outcome {
                    acked: at as u32,
                    ..failed().into()
                },
                _ => CallResult::Done.into(),
            }
        },
    )
    .await;
    world.until_committed(12).await;
    let seen = running.seen();
    assert!(seen.iter().any(|seen| seen.batch == 4), "{seen:?}");
    assert!(seen.iter().all(|seen| seen.batch <= 4));
    let of = |body: &str| seen.iter().filter(|seen| seen.body == body).count();
    for number in 0..5 {
        assert_eq!(of(&number.to_string()), 1, "{seen:?}");
    }
    // What followed the failed one in its batch was not finished either.
    assert_eq!(of("5"), 2, "{seen:?}");
    // From the second call of 5 on, everything is in order.
    let again = seen.iter().rposition(|seen| seen.body == "5").unwrap();
    let after: Vec<u64> = seen[again..]
        .iter()
        .map(|seen| seen.body.parse().unwrap())
        .collect();
    assert_eq!(after, Vec::from_iter(5..12));
    running.stop().await;
}

/// apache/rocketmq #8772: while two consume, whoever asks for the locks gets them.
#[tokio::test(flavor = "multi_thread")]
async fn broadcasting_consumers_fight_for_queue_locks() {
    let world = World::new("nolocks", 2).await;
    world.produce(20, 10).await;
    let changes = [("consumption", r#""Broadcasting""#)];
    let one = Function::taking(&world, &changes).await;
    let two = Function::taking(&world, &changes).await;
    let observer = world.source("observer").await;
    for (round, count) in [20, 40, 60].into_iter().enumerate() {
        one.until_seen(count).await;
        two.until_seen(count).await;
        let all = std::collections::BTreeSet::from([world.queue(0), world.queue(1)]);
        let locked = observer.lock(world.broker().name(), &all).await.unwrap();
        assert_eq!(locked, all, "round {round}");
        // That somebody has the locks holds nobody up either.
        world.produce(20, 10).await;
    }
    one.until_seen(80).await;
    two.until_seen(80).await;
    one.stop().await;
    two.stop().await;
}

/// Broadcasting: every process gets everything, and nothing is committed or locked.
#[tokio::test(flavor = "multi_thread")]
async fn in_broadcasting_every_process_gets_every_message() {
    let world = World::new("broadcast", 2).await;
    world.produce(50, 10).await;
    let changes = [("consumption", r#""Broadcasting""#)];
    let one = Function::taking(&world, &changes).await;
    let two = Function::taking(&world, &changes).await;
    one.until_seen(50).await;
    two.until_seen(50).await;
    world.produce(50, 10).await;
    one.until_seen(100).await;
    two.until_seen(100).await;
    one.stop().await;
    two.stop().await;
    let source = world.source("observer").await;
    for id in 0..2 {
        let queue = world.queue(id);
        assert_eq!(source.committed(&queue).await.unwrap(), None);
        let all = std::collections::BTreeSet::from([queue]);
        assert_eq!(source.lock(world.broker().name(), &all).await.unwrap(), all);
    }
}
