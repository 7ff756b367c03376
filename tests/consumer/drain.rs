//! A process is asked to end before its queues run, or while it says that it is there.

use crate::faulty::{Faults, Faulty};
use crate::function::Function;
use crate::member::Member;
use crate::world::{SOON, World};
use keylane_consumer::contract::admin::QueuePhase;
use keylane_consumer::handler::func::FuncHandler;
use keylane_consumer::lane::CallResult;
use keylane_tests::wait;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Far less than drain.timeout, which is 10 s here, and than the wait for calls of a former owner, which is
/// 20 s.
const AT_ONCE: Duration = Duration::from_secs(5);

/// It would have to wait longer for the calls of a killed process than it may itself go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_asked_to_end_while_it_waits_gives_the_queue_back_at_once() {
    let world = World::new("ends_waiting", 1).await;
    let first = Function::taking(&world, &[]).await;
    world.produce(10, 5).await;
    world.until_committed(10).await;
    first.kill().await;
    let second = Function::taking(&world, &[]).await;
    second
        .until_stats("it waits", |stats| {
            let mut queues = stats.queues.iter();
            queues.any(|queue| queue.phase == QueuePhase::Waiting)
        })
        .await;
    // Its claim is there by now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = Instant::now();
    second.stop().await;
    let took = asked.elapsed();
    assert!(took < AT_ONCE, "{took:?}");
    let third = Function::taking(&world, &[]).await;
    world.produce(10, 5).await;
    world.until_committed(20).await;
    third.stop().await;
}

/// A broker that takes in a heartbeat after the connections of its client ended lists that client for two minutes, and
/// the others leave it its share.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_leaves_the_group_while_a_heartbeat_is_under_way() {
    let world = World::new("leaves", 1).await;
    let faults = Arc::<Faults>::default();
    faults.beats.store(true, Ordering::Relaxed);
    let handler = FuncHandler::new(|_| async { CallResult::Done });
    let member = Member::start(&world, &[], Faulty::with(&faults), handler).await;
    world.produce(10, 5).await;
    world.until_committed(10).await;
    wait::until(SOON, "a heartbeat", async || {
        match faults.beating.load(Ordering::Relaxed) {
            0 => Err("none is under way"),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    member.stop().await;
    let (leaves, between) = &faults.leaves;
    assert_eq!(leaves.load(Ordering::Relaxed), 1);
    assert_eq!(between.load(Ordering::Relaxed), 0);
}
