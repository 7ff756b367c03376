//! The RocketMQ adapter, method by method.

use crate::world::World;
use keylane_consumer::source::{Commit, Pulled, Source, SourceError};
use keylane_tests::rocketmq::Message;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_read_back_and_a_group_that_never_committed_reads_as_none() {
    let world = World::new("a_commit", 1).await;
    let (source, queue) = (world.source("one").await, world.queue(0));
    assert_eq!(source.committed(&queue).await.unwrap(), None);
    // A group is known to the broker from its first heartbeat.
    source.heartbeat(world.broker().name()).await.unwrap();
    assert_eq!(source.commit(&queue, 0).await.unwrap(), Commit::Stored);
    assert_eq!(source.committed(&queue).await.unwrap(), Some(0));
    assert_eq!(source.commit(&queue, 5).await.unwrap(), Commit::Stored);
    assert_eq!(source.committed(&queue).await.unwrap(), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_locked_by_one_client_at_a_time() {
    let world = World::new("a_lock", 2).await;
    let (one, two) = (world.source("one").await, world.source("two").await);
    let (broker, queues) = (
        world.broker().name(),
        BTreeSet::from([world.queue(0), world.queue(1)]),
    );
    assert_eq!(one.lock(broker, &queues).await.unwrap(), queues);
    assert_eq!(
        one.lock(broker, &queues).await.unwrap(),
        queues,
        "a renewal"
    );
    assert!(two.lock(broker, &queues).await.unwrap().is_empty());
    one.unlock(broker, &BTreeSet::from([world.queue(1)]))
        .await
        .unwrap();
    assert_eq!(
        two.lock(broker, &queues).await.unwrap(),
        BTreeSet::from([world.queue(1)])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_with_a_heartbeat_and_go_when_they_leave() {
    let world = World::new("a_member", 1).await;
    let (source, broker) = (world.source("one").await, world.broker().name());
    assert!(source.members(broker).await.unwrap().is_empty());
    source.heartbeat(broker).await.unwrap();
    assert_eq!(
        source.members(broker).await.unwrap(),
        BTreeSet::from(["one".to_owned()])
    );
    source.leave(broker).await.unwrap();
    assert!(source.members(broker).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_gives_all_kinds_of_messages_whole() {
    let world = World::new("a_pull", 1).await;
    let producer = world.producer().await;
    let large = vec![b'x'; (4 << 20) - 1024];
    producer
        .send_to(0, &Message::keyed("k", "plain").property("color", "blue"))
        .await
        .unwrap();
    producer.send_to(0, &Message::keyed("k", "")).await.unwrap();
    producer
        .send_to(0, &Message::keyed("k", large.clone()))
        .await
        .unwrap();
    let source = world.source("one").await;
    source.heartbeat(world.broker().name()).await.unwrap();
    let (mut offset, mut messages) = (0, Vec::new());
    while messages.len() < 3 {
        match source
            .pull(&world.queue(0), offset, 32, WAIT)
            .await
            .unwrap()
        {
            Pulled::Found {
                messages: found,
                next,
            } => {
                messages.extend(found);
                offset = next;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        messages
            .iter()
            .map(|message| message.offset)
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(messages[0].body.as_ref(), b"plain");
    assert_eq!(messages[0].properties.get("color"), Some("blue"));
    assert!(messages[1].body.is_empty());
    assert_eq!(messages[2].body.len(), large.len());
    assert_eq!(source.bounds(&world.queue(0)).await.unwrap(), (0, 3));
    assert_eq!(source.offset_at(&world.queue(0), 0).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_waits_for_a_message_and_delays_nothing_else() {
    let world = World::new("a_poll", 1).await;
    let source = world.source("one").await;
    source.heartbeat(world.broker().name()).await.unwrap();
    let (queue, producer) = (world.queue(0), world.producer().await);
    let started = Instant::now();
    let pull = source.pull(&queue, 0, 32, Duration::from_secs(30));
    let meanwhile = async {
        for offset in 1..=50 {
            assert_eq!(source.commit(&queue, offset).await.unwrap(), Commit::Stored);
        }
        producer
            .send_to(0, &Message::keyed("k", "late"))
            .await
            .unwrap();
    };
    let (pulled, ()) = tokio::join!(pull, meanwhile);
    assert!(matches!(pulled.unwrap(), Pulled::Found { next: 1, .. }));
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_the_broker_does_not_have_is_out_of_range() {
    let world = World::new("a_range", 1).await;
    let source = world.source("one").await;
    source.heartbeat(world.broker().name()).await.unwrap();
    world
        .producer()
        .await
        .send_to(0, &Message::keyed("k", "m"))
        .await
        .unwrap();
    // The broker shows what it has acknowledged a moment later.
    let shown = source.pull(&world.queue(0), 0, 32, WAIT).await.unwrap();
    assert!(matches!(shown, Pulled::Found { next: 1, .. }), "{shown:?}");
    let pulled = source.pull(&world.queue(0), 99, 32, WAIT).await.unwrap();
    assert!(
        matches!(pulled, Pulled::OutOfRange { min: 0, max: 1 }),
        "{pulled:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_topic_and_a_wrong_name_server_are_told_apart_and_named() {
    let world = World::new("a_route", 1).await;
    let connect = async |change: (&str, &str)| {
        use keylane_consumer::source::rocketmq::RocketmqSource;
        RocketmqSource::connect(&world.spec(1, &[change]), "one")
            .await
            .unwrap()
            .route()
            .await
            .unwrap_err()
    };
    let unknown = connect(("topic", r#""NO_SUCH_TOPIC""#)).await;
    assert!(
        matches!(unknown, SourceError::UnknownTopic { .. }),
        "{unknown}"
    );
    assert!(unknown.to_string().contains("NO_SUCH_TOPIC"), "{unknown}");
    let started = Instant::now();
    let wrong = connect(("rocketmq", r#"{"nameServers": ["127.0.0.1:1"]}"#)).await;
    assert!(matches!(wrong, SourceError::Unreachable { .. }), "{wrong}");
    assert!(wrong.to_string().contains("127.0.0.1:1"), "{wrong}");
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}
