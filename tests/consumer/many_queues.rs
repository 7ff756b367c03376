//! One process that takes a thousand queues at once.

use crate::member::Member;
use crate::world::World;
use keylane_consumer::contract::admin::QueuePhase;
use keylane_consumer::handler::func::FuncHandler;
use keylane_consumer::handler::{Delivery, Outcome};
use keylane_consumer::lane::CallResult;

const QUEUES: u32 = 1024;
const MESSAGES: u64 = 4096;
/// Of each queue. It takes 14 on an idle machine and twice as many on one that is busy for a minute, as what runs is looked
/// after meanwhile. Where each queue commits the first offsets of all, it is a thousand.
const REQUESTS: u64 = 100;

/// What is done once for a group (its first offsets, its journal) is not done once for each queue, and
/// questions about many queues do not time out for waiting behind each other, which came to no end. How long it
/// takes is up to the machine (`cargo bench-rocketmq -- --queues 1024 --idle` tells it), how much is asked is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_takes_a_thousand_queues_of_a_new_group_asks_little_of_each() {
    let world = World::with_own_broker("many", QUEUES).await;
    world.produce(MESSAGES, 100).await;
    let mut beside = None;
    let handler = FuncHandler::new(|_: Delivery| {
        let done: Outcome = CallResult::Done.into();
        std::future::ready(done)
    });
    let spec = world.spec(1, &[]);
    let member = Member::start(
        &world,
        &[],
        |source| {
            beside = Some(source.beside(&spec));
            source
        },
        handler,
    )
    .await;
    member
        .until_stats("all queues held, everything finished", |stats| {
            let owned = stats.queues.iter();
            let owned = owned.filter(|queue| queue.phase == QueuePhase::Owned);
            owned.count() == QUEUES as usize && stats.completed == MESSAGES
        })
        .await;
    let requests = beside.unwrap().take_requests() / u64::from(QUEUES);
    assert!(requests <= REQUESTS, "{requests} requests a queue");
    world.until_committed(MESSAGES).await;
    member.stop().await;
}
