//! Where consumption begins, and what is done when offsets stop meaning what they meant.

use crate::function::Function;
use crate::world::{SOON, World};
use keylane_consumer::source::Source;
use keylane_consumer::source::rocketmq::RocketmqSource;
use keylane_tests::rocketmq::{Message, mqadmin};
use keylane_tests::wait;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is committed is compared with the broker every 2 s; a machine that is busy gets some more.
const PUT_RIGHT: Duration = Duration::from_secs(6);

fn now_ms() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_millis()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_last_only_what_is_sent_afterwards_is_consumed() {
    let world = World::new("last", 2).await;
    world.produce(20, 10).await;
    let running = Function::taking(&world, &[("startFrom", r#"{"position": "Last"}"#)]).await;
    // The starting offset is committed at once, without a message.
    world.until_committed(20).await;
    assert!(running.seen().is_empty());
    world.produce(10, 10).await;
    world.until_committed(30).await;
    assert_eq!(running.seen().len(), 10);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_timestamp_what_was_stored_later_is_consumed() {
    let world = World::new("timestamp", 1).await;
    let producer = world.producer().await;
    let send = async |body: &str| {
        let message = Message::keyed("k", body.to_owned());
        producer.send_to(0, &message).await.unwrap();
    };
    send("before").await;
    let sent = now_ms();
    wait::until(SOON, "another moment", async || {
        if now_ms() > sent + 50 {
            Ok(())
        } else {
            Err("not yet")
        }
    })
    .await
    .unwrap();
    let between = i64::try_from(sent + 25).unwrap();
    send("after").await;
    let second = between.div_euclid(1000);
    let at = format!(
        "{}.{:03}Z",
        utc(second).trim_end_matches('Z'),
        between.rem_euclid(1000)
    );
    let start = format!(r#"{{"position": "Timestamp", "timestamp": "{at}"}}"#);
    let running = Function::taking(&world, &[("startFrom", &start)]).await;
    world.until_committed(2).await;
    assert_eq!(running.bodies(), ["after"]);
    running.stop().await;
}

/// RFC 3339 of a second since the epoch.
fn utc(second: i64) -> String {
    k8s_openapi::jiff::Timestamp::from_second(second)
        .unwrap()
        .to_string()
}

/// An offset that is committed counts, whatever startFrom says.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_has_an_offset_goes_on_from_it() {
    let world = World::new("goes_on", 1).await;
    world.produce(10, 1).await;
    let source = world.source("earlier").await;
    source.heartbeat(world.broker().name()).await.unwrap();
    source.commit(&world.queue(0), 7).await.unwrap();
    source.leave(world.broker().name()).await.unwrap();
    let running = Function::taking(&world, &[("startFrom", r#"{"position": "Last"}"#)]).await;
    world.until_committed(10).await;
    assert_eq!(running.bodies(), ["7", "8", "9"]);
    running.stop().await;
}

/// A topic that is deleted and made anew begins at offset 0 again: everything new is consumed.
#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_consumed_from_its_beginning() {
    let world = World::new("recreated", 1).await;
    let running = Function::taking(&world, &[]).await;
    world.produce(50, 5).await;
    world.until_committed(50).await;
    let args = ["deleteTopic", "-c", "keylane", "-t", &world.topic];
    mqadmin(&world.broker().name_server(), &args).await.unwrap();
    world.broker().create_topic(&world.topic, 1).await.unwrap();
    let producer = world.producer().await;
    for number in 0..5 {
        let message = Message::keyed("new", format!("new {number}"));
        producer.send_to(0, &message).await.unwrap();
    }
    let seen = running.until_seen(55).await;
    let new: Vec<&str> = seen[50..].iter().map(|seen| seen.body.as_str()).collect();
    assert_eq!(new, ["new 0", "new 1", "new 2", "new 3", "new 4"]);
    world.until_committed(5).await;
    running.stop().await;
}

/// A broker loses the last messages it stored, but not the offset that is committed beyond them: what it
/// stores in their place is new, and all of it is consumed.
#[tokio::test(flavor = "multi_thread")]
async fn what_takes_the_place_of_messages_a_broker_lost_is_consumed() {
    let mut world = World::with_own_broker("truncated", 1).await;
    let running = Function::taking(&world, &[]).await;
    world.produce(50, 5).await;
    world.until_committed(50).await;
    world.keep_log().await;
    world.produce(50, 5).await;
    world.until_committed(100).await;
    world.truncate_log().await;
    let producer = world.producer().await;
    let mut new = Vec::new();
    for number in 0..20 {
        let message = Message::keyed("new", format!("new {number}"));
        producer.send_to(0, &message).await.unwrap();
        new.push(format!("new {number}"));
    }
    world.until_committed(70).await;
    let bodies = running.bodies();
    let seen: Vec<&String> = bodies
        .iter()
        .filter(|body| body.starts_with("new"))
        .collect();
    assert_eq!(seen, Vec::from_iter(&new));
    running.stop().await;
}

/// Waits until the broker has this as committed of a queue again.
pub async fn until_put_right(
    world: &World,
    source: &RocketmqSource,
    queue: u32,
    right: Option<u64>,
) {
    wait::until(PUT_RIGHT, "the offset put right", async || {
        let committed = source.committed(&world.queue(queue)).await;
        match committed.map_err(|error| error.to_string())? {
            committed if committed == right => Ok(()),
            other => Err(format!("{other:?} instead of {right:?}")),
        }
    })
    .await
    .unwrap();
}

/// Nothing comes any more that would be committed: an offset that somebody moves is put right all the same,
/// and again as soon as it is moved again.
#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_somebody_moves_is_put_right_at_the_next_interval() {
    let world = World::new("foreign", 1).await;
    let running = Function::taking(&world, &[]).await;
    world.produce(100, 10).await;
    world.until_committed(100).await;
    let source = world.source("watcher").await;
    for moved in [7, 0, 1_000] {
        world.commit_as_somebody_else(0, moved).await;
        until_put_right(&world, &source, 0, Some(100)).await;
    }
    assert_eq!((running.seen().len(), running.moved()), (100, 3));
    running.stop().await;
}

/// Where every commit has something new and writes over whatever somebody moved, in few queues and in as many
/// as are looked at together.
#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_somebody_moves_while_messages_come_is_told_too() {
    for queues in [1, 16] {
        let world = World::new(&format!("busy-{queues}"), queues).await;
        let running = Function::taking(&world, &[]).await;
        let (producer, source) = (world.producer().await, world.source("watcher").await);
        let (mut sent, mut moves) = (0, 0);
        wait::until(SOON, "three moves told", async || {
            for queue in 0..queues {
                let message = Message::keyed(&format!("k{queue}"), format!("{sent}"));
                producer.send_to(queue as usize, &message).await.unwrap();
                sent += 1;
            }
            let committed = source.committed(&world.queue(0)).await.unwrap();
            // The first time that it commits, or has put it right.
            if running.moved() == moves && committed > Some(1) {
                if moves == 3 {
                    return Ok(());
                }
                world.commit_as_somebody_else(0, 1).await;
                moves += 1;
            }
            Err(format!("{} of {moves} are told", running.moved()))
        })
        .await
        .unwrap();
        world.until_committed(sent).await;
        assert_eq!((running.seen().len() as u64, running.moved()), (sent, 3));
        running.stop().await;
    }
}

/// Somebody resets the offsets of a group that consumes: nothing is lost, nothing is skipped.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_is_pending_at_the_broker_skips_nothing() {
    let world = World::with_settings("reset", 1, &[("useServerSideResetOffset", "true")]).await;
    let running = Function::taking(&world, &[]).await;
    world.produce(50, 5).await;
    world.until_committed(50).await;
    let args = [
        "resetOffsetByTime",
        "-g",
        &world.group,
        "-t",
        &world.topic,
        "-s",
        "0",
    ];
    let printed = mqadmin(&world.broker().name_server(), &args).await.unwrap();
    assert!(printed.contains("reset"), "{printed}");
    world.produce(50, 5).await;
    world.until_committed(100).await;
    let mut bodies = running.bodies();
    bodies.sort();
    bodies.dedup();
    assert_eq!((running.seen().len(), bodies.len()), (100, 50));
    running.stop().await;
}
