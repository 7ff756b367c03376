//! A process is asked to end before its queues run.

use crate::function::Function;
use crate::world::World;
use keylane_consumer::contract::admin::QueuePhase;
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
