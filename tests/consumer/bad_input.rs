//! What users get wrong: it is named where they look, and nothing is lost.

use crate::function::Function;
use crate::world::{Handler, Running, World};
use keylane_consumer::config::Config;
use keylane_consumer::contract::admin::Stats;
use keylane_consumer::source::rocketmq::RocketmqSource;
use keylane_consumer::source::{Source, SourceError};
use keylane_tests::rocketmq::Message;
use serde_json::json;
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A handler that is down from the start: no queue is taken, and the executor is not ready.
#[tokio::test(flavor = "multi_thread")]
async fn no_queue_is_taken_until_the_handler_answers() {
    let world = World::new("late", 1).await;
    let handler = Handler::default();
    let free = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    world.produce(10, 3).await;
    let running = Running::with(&world, handler.clone(), free, &[]).await;
    let stats = running
        .until_stats(|stats| stats.uptime_seconds > 1.0, "an executor that runs")
        .await;
    assert!(stats.queues.is_empty() && !stats.handler_available);
    assert!(!running.control().is_ready().await.unwrap());
    handler.serve(free).await;
    running.until_handled(10).await;
    assert!(running.control().is_ready().await.unwrap());
    running.stop().await;
}

/// Messages without a key share a lane, an empty body and one of 4 MiB arrive whole.
#[tokio::test(flavor = "multi_thread")]
async fn messages_without_a_key_empty_ones_and_large_ones_are_handled() {
    let world = World::new("odd", 1).await;
    let producer = world.producer().await;
    let large = vec![b'x'; (4 << 20) - 1024];
    let running = Running::start(&world, &[]).await;
    for body in ["one", "two", "three"] {
        producer.send_to(0, &Message::unkeyed(body)).await.unwrap();
    }
    producer.send_to(0, &Message::keyed("k", "")).await.unwrap();
    producer
        .send_to(0, &Message::keyed("k", large.clone()))
        .await
        .unwrap();
    running.until_handled(5).await;
    world.until_committed(5).await;
    let verdict = running.verdict();
    assert_eq!(
        (verdict.inversions, verdict.overlaps, verdict.keys),
        (0, 0, 2)
    );
    assert_eq!(running.handler().body_sizes(), [0, 3, 3, 5, large.len()]);
    running.stop().await;
}

/// A reply that cannot be decoded to its last byte finishes nothing, though the message after the one that
/// cannot be read is fine: the queue waits there, and what is wrong is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_is_not_taken_for_the_end_of_the_reply() {
    // The flag of a message that holds others. A broker stores it in any topic.
    const NEED_UNWRAP: u32 = 1 << 6;
    let world = World::new("unreadable", 1).await;
    let producer = world.producer().await;
    let send = async |message: Message| producer.send_to(0, &message).await.unwrap();
    send(Message::keyed("k", "first")).await;
    let running = Function::taking(&world, &[]).await;
    world.until_committed(1).await;
    send(Message::keyed("k", "packed").system_flag(NEED_UNWRAP)).await;
    send(Message::keyed("other", "after")).await;
    let named = |stats: &Stats| {
        let error = stats.broker_error.as_ref();
        error.is_some_and(|error| error.contains("offset 1 holds"))
    };
    let stats = running
        .until_stats("an error that names the message", named)
        .await;
    let error = stats.broker_error.as_deref().unwrap();
    assert!(error.contains("BatchCQ"), "{error}");
    // It was pulled again since, several times, and the brokers answered whatever else was asked.
    let later = stats.uptime_seconds + 3.0;
    let unnamed = Cell::new(0);
    let stats = running
        .until_stats("the same some time later", |stats| {
            unnamed.set(unnamed.get() + u32::from(!named(stats)));
            stats.uptime_seconds > later
        })
        .await;
    assert_eq!(unnamed.get(), 0);
    let queue = &stats.queues[0];
    assert_eq!((queue.watermark, queue.committed), (Some(1), Some(1)));
    assert_eq!(running.bodies(), ["first"]);
    running.stop().await;
    assert_eq!(world.progress().await[0].committed, 1);
}

/// A topic of records that hold several messages each is refused before there is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_batches_in_records_is_refused_from_the_start() {
    let world = World::new("batches", 1).await;
    let topic = "T_of_batches";
    let options = [
        "updateTopic",
        "-c",
        "keylane",
        "-t",
        topic,
        "-r",
        "1",
        "-w",
        "1",
    ];
    let all = [&options[..], &["-a", "+queue.type=BatchCQ"]].concat();
    world.broker().mqadmin(&all).await.unwrap();
    let running = Running::start(&world, &[("topic", &format!("{topic:?}"))]).await;
    let named = |stats: &Stats| {
        let error = stats.broker_error.as_ref();
        error.is_some_and(|error| error.contains(topic) && error.contains("BatchCQ"))
    };
    running
        .until_stats(named, "an error that names the topic")
        .await;
    running.stop().await;
}

/// A topic that does not exist yet: said so, and consumed once it does.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_topic_is_reported_and_consumed_once_it_exists() {
    let world = World::new("unknown", 1).await;
    let running = Running::start(&world, &[("topic", r#""T_not_yet""#)]).await;
    let named = |stats: &Stats| {
        stats
            .broker_error
            .as_ref()
            .is_some_and(|error| error.contains("T_not_yet") && error.contains("updateTopic"))
    };
    running
        .until_stats(named, "an error that names the topic")
        .await;
    world.broker().create_topic("T_not_yet", 1).await.unwrap();
    let producer = world.broker().producer("T_not_yet").await.unwrap();
    producer
        .send_to(0, &Message::keyed("k", "m"))
        .await
        .unwrap();
    running.until_handled(1).await;
    running
        .until_stats(|stats| stats.broker_error.is_none(), "the error gone")
        .await;
    running.stop().await;
}

/// A name server that is not there is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_name_server_is_named() {
    let world = World::new("wrong", 1).await;
    let running = Running::start(
        &world,
        &[("rocketmq", r#"{"nameServers": ["127.0.0.1:1"]}"#)],
    )
    .await;
    let named = |stats: &Stats| {
        stats
            .broker_error
            .as_ref()
            .is_some_and(|error| error.contains("127.0.0.1:1"))
    };
    running
        .until_stats(named, "an error that names the address")
        .await;
    running.stop().await;
}

/// A server that announces an answer of two gigabytes and sends it: it is not read, whatever was asked.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_is_not_read() {
    const MOST: u64 = 64 << 20;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let name_server = listener.local_addr().unwrap().to_string();
    let sent = Arc::new(AtomicU64::new(0));
    let counted = sent.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sent = counted.clone();
            tokio::spawn(async move {
                let mut request = [0; 1024];
                let _asked = stream.read(&mut request).await;
                let announced = i32::MAX.to_be_bytes();
                let mut next = stream.write_all(&announced).await;
                while next.is_ok() && sent.fetch_add(1 << 16, Ordering::SeqCst) < 2 * MOST {
                    next = stream.write_all(&[0; 1 << 16]).await;
                }
            });
        }
    });
    let document = json!({
        "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer", "metadata": {"name": "test"},
        "spec": {
            "rocketmq": {"nameServers": [name_server]}, "topic": "T", "consumerGroup": "G",
            "handler": {"http": {"port": 1}},
        },
    });
    let config = Config::parse(&document.to_string(), Path::new("test.yaml")).unwrap();
    let source = RocketmqSource::connect(config.spec(), "test")
        .await
        .unwrap();
    let error = source.route().await.unwrap_err();
    assert!(matches!(error, SourceError::Unreachable { .. }), "{error}");
    let sent = sent.load(Ordering::SeqCst);
    assert!((1..MOST).contains(&sent), "{sent} bytes were taken");
}
