//! What a process with many idle queues asks of a broker in one question, against what it asks of one queue.

use crate::function::Function;
use crate::offsets::until_put_right;
use crate::world::World;
use keylane_consumer::contract::admin::QueuePhase;
use keylane_consumer::journal::{Body, Record, encode};
use keylane_consumer::message::Topic;
use keylane_consumer::source::Source;
use keylane_consumer::source::journal::Journal;
use keylane_tests::wait;
use std::collections::BTreeSet;
use std::time::Duration;

/// Enough to be asked for together.
const QUEUES: u32 = 16;
const MESSAGES: u64 = 160;
/// Leases are renewed every 3 s, and each renewal reads the journal.
const NOTICED: Duration = Duration::from_secs(8);

fn foreign_claim() -> Vec<u8> {
    encode(&Record {
        by: "keylane:another:0".into(),
        body: Body::Claim { predecessor: None },
    })
}

/// One that has everything finished and committed, and every queue.
async fn idle(world: &World) -> Function {
    world.produce(MESSAGES, 64).await;
    let function = Function::taking(world, &[]).await;
    world.until_committed(MESSAGES).await;
    until_owned(&function, &BTreeSet::from_iter(0..QUEUES)).await;
    function
}

async fn owned(function: &Function) -> BTreeSet<u32> {
    let stats = function.control.stats().await.unwrap();
    let owned = stats.queues.iter();
    let owned = owned.filter(|queue| queue.phase == QueuePhase::Owned);
    owned.map(|queue| queue.id).collect()
}

async fn until_owned(function: &Function, queues: &BTreeSet<u32>) {
    wait::until(NOTICED, "the queues that are owned", async || {
        let owned = owned(function).await;
        if owned == *queues {
            Ok(())
        } else {
            Err(format!("{owned:?}"))
        }
    })
    .await
    .unwrap();
}

/// The one question says of every queue what a question about it says.
#[tokio::test(flavor = "multi_thread")]
async fn one_answer_about_all_queues_says_what_an_answer_about_each_says() {
    let world = World::new("together", 3).await;
    let source = world.source("one").await;
    let broker = world.broker().name();
    source.heartbeat(broker).await.unwrap();
    for (queue, records) in [(0, 0), (1, 1), (2, 70)] {
        source.records(&world.queue(queue), 0).await.unwrap();
        for _ in 0..records {
            let appended = source.append(&world.queue(queue), foreign_claim()).await;
            appended.unwrap();
        }
    }
    source.commit(&world.queue(1), 0).await.unwrap();
    source.commit(&world.queue(2), 5).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ends = source.ends(broker, Topic::Main).await;
    for id in 0..3 {
        let one = source.records(&world.queue(id), 0).await.unwrap();
        assert_eq!(ends.get(&id), Some(&(one.min, one.max)), "queue {id}");
    }
    // What was never committed reads as 0, too.
    let committed = source.committed_of_all(broker, Topic::Main).await;
    assert_eq!(Vec::from_iter(committed), [(0, 0), (1, 0), (2, 5)]);
}

/// A journal that is not there: the broker refuses, and each queue is asked for by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_tells_nothing() {
    let world = World::new("together_refused", 1).await;
    let source = world.source("one").await;
    let ends = source.ends(world.broker().name(), Topic::Main).await;
    assert!(ends.is_empty(), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_somebody_moves_in_one_of_many_idle_queues_is_put_right() {
    let world = World::new("together_moved", QUEUES).await;
    let function = idle(&world).await;
    let source = world.source("watcher").await;
    // As soon as they are right they are moved again.
    for _ in 0..2 {
        let mut right = Vec::new();
        for (queue, moved) in [(3, 0), (5, 1), (7, 1_000)] {
            let queue_right = source.committed(&world.queue(queue)).await.unwrap();
            right.push((queue, queue_right));
            world.commit_as_somebody_else(queue, moved).await;
        }
        for (queue, right) in right {
            until_put_right(&world, &source, queue, right).await;
        }
    }
    assert_eq!(function.seen().len() as u64, MESSAGES);
    function.stop().await;
}

/// Somebody claims one of many idle queues: that one is stopped with the next renewal, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_in_one_of_many_idle_queues_stops_that_queue() {
    let world = World::new("together_claimed", QUEUES).await;
    let function = idle(&world).await;
    let other = world.source("other").await;
    let claimed = other.append(&world.queue(3), foreign_claim()).await;
    claimed.unwrap();
    let mut others = BTreeSet::from_iter(0..QUEUES);
    others.remove(&3);
    until_owned(&function, &others).await;
    function.stop().await;
}
