//! Two brokers, and topics whose queues become more and fewer.

use crate::faulty::{Faults, Faulty};
use crate::hand_over::{after, until, while_sending};
use crate::member::Member;
use crate::world::{Handler, Running, SOON, World, now};
use keylane_consumer::contract::admin::{GoneQueue, QueuePhase, Stats};
use keylane_consumer::handler::func::FuncHandler;
use keylane_consumer::lane::CallResult;
use keylane_consumer::ownership::LEASE;
use keylane_tests::rocketmq::Message;
use keylane_tests::wait;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// How many queues of each broker it runs.
fn owned(stats: &Stats) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let queues = stats.queues.iter();
    for queue in queues.filter(|queue| queue.phase == QueuePhase::Owned) {
        *counts.entry(queue.broker.clone()).or_default() += 1;
    }
    counts
}

/// Members and locks are each broker's own: two members share the queues of both, and while one broker is
/// away the queues of the other go on.
#[tokio::test(flavor = "multi_thread")]
async fn two_brokers_are_shared_and_one_that_is_away_stops_only_its_own_queues() {
    let world = World::with_own_broker("two", 2).await;
    let mut second = world.broker().beside("broker-b").await.unwrap();
    world.broker().create_topic(&world.topic, 2).await.unwrap();
    let handler = Handler::default();
    let port = handler.serve(0).await;
    let one = Running::with(&world, handler.clone(), port, &[]).await;
    let other = Running::with(&world, handler.clone(), port, &[]).await;
    for running in [&one, &other] {
        running
            .until_stats(
                |stats| owned(stats).values().sum::<usize>() == 2,
                "two queues each",
            )
            .await;
    }
    // Queues 0 and 1 are those of the first broker.
    let away = async {
        until(&handler, "work", |done| done.len() > 200).await;
        second.kill();
        let killed = now();
        until(&handler, "work on", |done| after(done, killed) > 400).await;
        killed
    };
    let killed = while_sending(&world, 2, Duration::from_millis(20), away).await;
    let gap = handler.longest_gap(killed);
    println!("longest gap of the other broker's queues: {gap:?}");
    assert!(gap < Duration::from_secs(2), "{gap:?}");
    second.restart().await.unwrap();
    let back = now();
    let all = async {
        until(&handler, "queues of both brokers", |done| {
            let recent = done.iter().filter(|done| done.start > back);
            recent
                .map(|done| &done.queue)
                .collect::<BTreeSet<_>>()
                .len()
                == 4
        })
        .await;
        Duration::from_micros(now() - back)
    };
    let gap = while_sending(&world, 4, Duration::from_millis(20), all).await;
    println!("{gap:?} after the broker was back");
    // Its queues were nobody else's meanwhile: a new tenure would wait for 20 s.
    assert!(gap < Duration::from_secs(10), "{gap:?}");
    one.stop().await;
    other.stop().await;
    let verdict = handler.verdict();
    assert_eq!((verdict.inversions, verdict.overlaps), (0, 0));
}

/// Another address of a name server, until this is dropped.
async fn passing_on_to(name_server: String) -> (String, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let passing = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let to = name_server.clone();
            connections.spawn(async move {
                let mut server = TcpStream::connect(to).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    (address, AbortOnDropHandle::new(passing))
}

/// Name servers know the same; one that dies, or was dead from the start, is not missed.
#[tokio::test(flavor = "multi_thread")]
async fn of_several_name_servers_any_that_lives_is_enough() {
    let world = World::new("name-servers", 2).await;
    let (first, passing) = passing_on_to(world.broker().name_server()).await;
    let (second, _passing) = passing_on_to(world.broker().name_server()).await;
    let rocketmq = json!({"nameServers": [first, second]}).to_string();
    let changes = [("rocketmq", rocketmq.as_str())];
    let handler = Handler::default();
    let port = handler.serve(0).await;
    let one = Running::with(&world, handler.clone(), port, &changes).await;
    world.produce(100, 10).await;
    one.until_handled(100).await;
    drop(passing);
    // That the topic has more queues is known from a name server only.
    world.broker().create_topic(&world.topic, 4).await.unwrap();
    let all = |stats: &Stats| owned(stats).values().sum::<usize>() == 4;
    one.until_stats(all, "queues that the other name server tells of")
        .await;
    world.produce(300, 10).await;
    one.until_handled(400).await;
    one.stop().await;
    let other = Running::with(&world, handler.clone(), port, &changes).await;
    other.until_stats(all, "all queues").await;
    world.produce(100, 10).await;
    other.until_handled(500).await;
    world.until_committed(500).await;
    other.stop().await;
    let verdict = handler.verdict();
    assert_eq!((verdict.inversions, verdict.overlaps), (0, 0));
}

/// What a broker grants to one that no name server answers does not count. So it asks for nothing, and in time the
/// queues are free for those whom one answers; where it is alone it goes on when one answers again.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_no_name_server_answers_asks_for_no_lock() {
    let world = World::new("routeless", 2).await;
    let faults = Arc::<Faults>::default();
    let handler = FuncHandler::new(|_| async { CallResult::Done });
    let member = Member::start(&world, &[], Faulty::with(&faults), handler).await;
    world.produce(20, 5).await;
    world.until_committed(20).await;
    faults.routes.store(true, Ordering::Relaxed);
    tokio::time::sleep(LEASE + Duration::from_secs(2)).await;
    let asked = faults.locks.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(faults.locks.load(Ordering::Relaxed), asked);
    faults.routes.store(false, Ordering::Relaxed);
    world.produce(20, 5).await;
    world.until_committed(40).await;
    assert!(faults.locks.load(Ordering::Relaxed) > asked);
    member.stop().await;
}

/// A topic gets more queues while it is consumed: they are shared and consumed from their first message.
#[tokio::test(flavor = "multi_thread")]
async fn queues_that_a_topic_gets_are_shared_and_consumed_from_their_first_message() {
    let world = World::new("grows", 2).await;
    let handler = Handler::default();
    let port = handler.serve(0).await;
    let one = Running::with(&world, handler.clone(), port, &[]).await;
    let other = Running::with(&world, handler.clone(), port, &[]).await;
    world.produce(200, 20).await;
    one.until_handled(200).await;
    world.broker().create_topic(&world.topic, 6).await.unwrap();
    // Before anybody can have noticed.
    world.produce(600, 60).await;
    one.until_handled(800).await;
    world.until_committed(800).await;
    for running in [&one, &other] {
        running
            .until_stats(
                |stats| owned(stats).values().sum::<usize>() == 3,
                "three queues each",
            )
            .await;
    }
    let verdict = handler.verdict();
    assert_eq!(
        (verdict.inversions, verdict.overlaps, verdict.distinct),
        (0, 0, 800)
    );
    one.stop().await;
    other.stop().await;
}

/// A topic loses queues that are not consumed to their end: what is left is told, the others go on, and it
/// is consumed when the queues come back.
#[tokio::test(flavor = "multi_thread")]
async fn queues_that_a_topic_loses_are_given_away_and_what_is_left_in_them_is_told() {
    let world = World::new("shrinks", 3).await;
    let handler = Handler::default();
    let port = handler.serve(0).await;
    // It is not given up.
    let retry = r#"{"maxAttempts": 1000, "backoff": {"max": "1s"}, "budget": {"blocked": "24h", "per": "24h"}}"#;
    let running = Running::with(&world, handler.clone(), port, &[("retry", retry)]).await;
    let producer = world.producer().await;
    handler.fail_key("stuck");
    for number in 0..10 {
        let key = if number == 3 { "stuck" } else { "moves" };
        producer
            .send_to(2, &Message::keyed(key, "m"))
            .await
            .unwrap();
    }
    running.until_handled(9).await;
    // Until the offset is committed that says what is left.
    let committed = |stats: &Stats| stats.queues.iter().any(|queue| queue.committed == Some(3));
    running.until_stats(committed, "offset 3 committed").await;
    world.broker().create_topic(&world.topic, 2).await.unwrap();
    let gone = |stats: &Stats| {
        let left = GoneQueue {
            queue: "broker-a/2".into(),
            stranded: 7,
        };
        stats.gone_queues == [left] && stats.queues.len() == 2
    };
    running
        .until_stats(gone, "the queue gone and given away")
        .await;
    let producer = world.producer().await;
    for queue in [0, 1] {
        producer
            .send_to(queue, &Message::keyed("more", "m"))
            .await
            .unwrap();
    }
    running.until_handled(11).await;
    handler.mend_key("stuck");
    world.broker().create_topic(&world.topic, 3).await.unwrap();
    running.until_handled(12).await;
    wait::until(SOON, "nothing left", async || {
        let stats = running
            .control()
            .stats()
            .await
            .map_err(|gone| gone.to_string())?;
        let none = stats.gone_queues.is_empty();
        none.then_some(()).ok_or(format!("{:?}", stats.gone_queues))
    })
    .await
    .unwrap();
    let verdict = handler.verdict();
    // What was finished beyond the stuck key is not run again.
    assert_eq!(
        (verdict.inversions, verdict.overlaps, verdict.duplicates),
        (0, 0, 0)
    );
    running.stop().await;
}
