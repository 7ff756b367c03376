//! The journal on a real broker.

use crate::world::{Running, World};
use keylane_consumer::journal::{Body, Keys, Progress, Record, WINDOW, decode, encode, topic};
use keylane_consumer::source::Source;
use keylane_consumer::source::journal::Journal;
use keylane_tests::rocketmq::{Message, Producer};
use std::collections::BTreeSet;
use std::time::Duration;

fn claim(by: &str) -> Record {
    Record {
        by: by.into(),
        body: Body::Claim { predecessor: None },
    }
}

/// Records follow each other in the queue they are about, and are read back as they were written.
#[tokio::test(flavor = "multi_thread")]
async fn records_are_read_back_from_the_queue_they_are_about() {
    let world = World::new("j_records", 3).await;
    let source = world.source("one").await;
    source.heartbeat(world.broker().name()).await.unwrap();
    let queue = world.queue(2);
    let before = source.records(&queue, 0).await.unwrap();
    assert_eq!((before.min, before.max, before.found.len()), (0, 0, 0));
    for expected in 0..70 {
        let record = encode(&claim(&format!("keylane:test:{expected}")));
        assert_eq!(source.append(&queue, record).await.unwrap(), expected);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut read = Vec::new();
    while read.len() < 70 {
        let records = source.records(&queue, read.len() as u64).await.unwrap();
        assert_eq!((records.min, records.max), (0, 70));
        assert!(!records.found.is_empty());
        read.extend(records.found);
    }
    for (number, (offset, record)) in read.iter().enumerate() {
        assert_eq!(*offset, number as u64);
        assert_eq!(decode(record), Ok(claim(&format!("keylane:test:{number}"))));
    }
    let other = source.records(&world.queue(1), 0).await.unwrap();
    assert_eq!(other.max, 0);
}

/// An owner died that had written records so large that the broker returns them one by one: its successor
/// reads all of them that count.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_whose_journal_is_full_of_large_records_is_taken_over() {
    // As a broker comes: 256 KiB a pull.
    let settings = [("maxTransferBytesOnMessageInMemory", "262144")];
    let world = World::with_settings("j_large", 1, &settings).await;
    let source = world.source("one").await;
    source.heartbeat(world.broker().name()).await.unwrap();
    let (queue, by) = (world.queue(0), "keylane:another:gone");
    source.append(&queue, encode(&claim(by))).await.unwrap();
    let progress = Progress {
        keys: Keys::new(0..Keys::LISTED as u64),
        ..Progress::default()
    };
    let record = encode(&Record {
        by: by.into(),
        body: Body::Progress { epoch: 0, progress },
    });
    assert!(record.len() > 128 << 10, "two of them fit into a pull");
    for _ in 0..WINDOW {
        source.append(&queue, record.clone()).await.unwrap();
    }
    source.leave(world.broker().name()).await.unwrap();
    world.produce(50, 10).await;
    let running = Running::start(&world, &[]).await;
    running.until_handled(50).await;
    world.until_committed(50).await;
    running.stop().await;
}

/// A topic that grows gets more queues in its journal.
#[tokio::test(flavor = "multi_thread")]
async fn the_journal_grows_with_the_topic() {
    let world = World::new("j_grows", 1).await;
    let source = world.source("one").await;
    source.heartbeat(world.broker().name()).await.unwrap();
    let record = encode(&claim("keylane:test:1"));
    source
        .append(&world.queue(0), record.clone())
        .await
        .unwrap();
    world.broker().create_topic(&world.topic, 9).await.unwrap();
    source.route().await.unwrap();
    assert_eq!(source.append(&world.queue(8), record).await.unwrap(), 0);
}

/// A witness is the message at an offset, and another one after the topic was made anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_names_one_message() {
    let world = World::new("j_witness", 1).await;
    let source = world.source("one").await;
    source.heartbeat(world.broker().name()).await.unwrap();
    let queue = world.queue(0);
    assert_eq!(source.witness(&queue, 0).await.unwrap(), None);
    world.produce(2, 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let first = source.witness(&queue, 0).await.unwrap().unwrap();
    let second = source.witness(&queue, 1).await.unwrap().unwrap();
    assert_eq!((first.offset, second.offset), (0, 1));
    assert!(first.physical_offset < second.physical_offset);
    assert_eq!(source.witness(&queue, 0).await.unwrap(), Some(first));
    assert_eq!(source.witness(&queue, 2).await.unwrap(), None);
}

/// The lock of another client is given back in its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_given_back_in_anothers_name() {
    let world = World::new("j_unlock", 1).await;
    let (one, two) = (world.source("one").await, world.source("two").await);
    let (broker, queues) = (world.broker().name(), BTreeSet::from([world.queue(0)]));
    assert_eq!(one.lock(broker, &queues).await.unwrap(), queues);
    assert!(two.lock(broker, &queues).await.unwrap().is_empty());
    two.unlock_for(broker, &queues, "another").await.unwrap();
    assert!(two.lock(broker, &queues).await.unwrap().is_empty());
    two.unlock_for(broker, &queues, "one").await.unwrap();
    assert_eq!(two.lock(broker, &queues).await.unwrap(), queues);
}

/// Somebody writes what is no record into the journal of a running group: it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_the_journal_stops_nothing() {
    let world = World::new("j_garbage", 1).await;
    let running = Running::start(&world, &[]).await;
    world.produce(50, 10).await;
    running.until_handled(50).await;
    let journal = topic(&world.group);
    let garbage = Producer::connect(&world.broker().name_server(), &journal)
        .await
        .unwrap();
    for _ in 0..100 {
        garbage
            .send_to(0, &Message::unkeyed("no record"))
            .await
            .unwrap();
    }
    world.produce(50, 10).await;
    running.until_handled(100).await;
    world.until_committed(100).await;
    running.stop().await;
    let again = Running::start(&world, &[]).await;
    world.produce(50, 10).await;
    again.until_handled(50).await;
    let verdict = again.verdict();
    assert_eq!((verdict.inversions, verdict.overlaps), (0, 0));
    again.stop().await;
}
