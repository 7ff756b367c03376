//! One process that takes a thousand queues at once.

use crate::function::Function;
use crate::world::World;
use keylane_consumer::contract::admin::QueuePhase;
use keylane_tests::wait;
use std::time::Duration;

const QUEUES: u32 = 1024;
const MESSAGES: u64 = 4096;
/// Several times what a busy machine needs. Where each queue did what is to be done once for the group, or
/// parked pulls took up all that the client may have under way, it took minutes or came to no end.
const WITHIN: Duration = Duration::from_secs(60);

/// What is done once for a group (its first offsets, its journal) is not done once for each queue, and
/// questions about many queues do not time out for waiting behind each other.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_takes_a_thousand_queues_of_a_new_group_has_them_in_seconds() {
    let world = World::with_own_broker("many", QUEUES).await;
    world.produce(MESSAGES, 100).await;
    let function = Function::taking(&world, &[]).await;
    wait::until(WITHIN, "all queues held, everything finished", async || {
        let stats = function.control.stats().await;
        let stats = stats.map_err(|gone| gone.to_string())?;
        let owned = stats.queues.iter();
        let owned = owned.filter(|queue| queue.phase == QueuePhase::Owned);
        let owned = owned.count();
        if owned == QUEUES as usize && stats.completed == MESSAGES {
            return Ok(());
        }
        let (finished, error) = (stats.completed, stats.broker_error);
        Err(format!(
            "{owned} queues held, {finished} messages finished, {error:?}"
        ))
    })
    .await
    .unwrap();
    world.until_committed(MESSAGES).await;
    function.stop().await;
}
