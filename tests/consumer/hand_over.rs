//! Queues change hands: how long nobody runs them, and what runs twice.

use crate::function::{Function, failed};
use crate::process::{Process, program};
use crate::world::{Done, Handler, Running, SOON, World, now};
use keylane_consumer::contract::admin::Stats;
use keylane_consumer::lane::CallResult;
use keylane_tests::rocketmq::Message;
use keylane_tests::wait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What a queue may stand still at a clean hand-over. The goal is a second; a machine that is busy with
/// other tests gets another one, far less than the wait that a hand-over without a record costs.
const CLEAN: Duration = Duration::from_secs(2);
/// A call that takes long, and less than its timeout.
const SLOW: Duration = Duration::from_secs(4);

/// Sends to every queue in turn while something else goes on.
pub async fn while_sending<T>(
    world: &World,
    queues: usize,
    every: Duration,
    what: impl Future<Output = T>,
) -> T {
    let producer = world.producer().await;
    let send = async {
        let mut interval = tokio::time::interval(every);
        for number in 0u64.. {
            interval.tick().await;
            for queue in 0..queues {
                let message = Message::keyed(&format!("{queue}-{}", number % 5), "m");
                producer.send_to(queue, &message).await.unwrap();
            }
        }
    };
    tokio::select! {
        () = send => panic!("nothing more to send"),
        done = what => done,
    }
}

pub async fn until(handler: &Handler, what: &str, is_so: impl Fn(&[Done]) -> bool) {
    wait::until(SOON, what, async || {
        let done = handler.done();
        if is_so(&done) {
            Ok(())
        } else {
            Err(format!("{} calls done", done.len()))
        }
    })
    .await
    .unwrap();
}

/// Calls that succeeded for a message for which one had succeeded before.
pub fn repeated(done: &[Done]) -> Vec<&Done> {
    let mut seen = BTreeSet::new();
    let again = |done: &&Done| !seen.insert((done.queue.clone(), done.offset));
    done.iter().filter(again).collect()
}

pub fn after(done: &[Done], time: u64) -> usize {
    done.iter().filter(|done| done.start > time).count()
}

/// A member joins, and one leaves: every queue that moves stands still for a moment only, and nothing of
/// it runs twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_clean_hand_over_takes_a_moment_and_repeats_nothing() {
    let world = World::new("clean", 4).await;
    let handler = Handler::default();
    let port = handler.serve(0).await;
    let first = Running::with(&world, handler.clone(), port, &[]).await;
    let hand_over = async {
        until(&handler, "every queue runs", |done| {
            let queues: BTreeSet<_> = done.iter().map(|done| &done.queue).collect();
            queues.len() == 4 && done.len() > 200
        })
        .await;
        let joined = now();
        let second = Running::with(&world, handler.clone(), port, &[]).await;
        second
            .until_stats(|stats| stats.completed > 200, "the second works")
            .await;
        let joining = handler.longest_gap(joined);
        let left = now();
        first.stop().await;
        until(&handler, "the rest", |done| after(done, left) > 1_000).await;
        (second, joining, handler.longest_gap(left))
    };
    let (second, joining, leaving) =
        while_sending(&world, 4, Duration::from_millis(20), hand_over).await;
    second.stop().await;
    println!("longest gap when a member joined {joining:?}, when one left {leaving:?}");
    assert!(
        joining < CLEAN && leaving < CLEAN,
        "{joining:?}, {leaving:?}"
    );
    assert_eq!(repeated(&handler.done()), Vec::<&Done>::new());
    let verdict = handler.verdict();
    assert_eq!((verdict.inversions, verdict.overlaps), (0, 0));
}

/// A member that is to end waits for a call that runs, and another joins meanwhile, as when pods are replaced:
/// only the queue of that call waits.
#[tokio::test(flavor = "multi_thread")]
async fn queues_do_not_wait_for_a_member_that_drains() {
    let world = World::new("drains", 8).await;
    let handler = Handler::default();
    let port = handler.serve(0).await;
    let first = Running::with(&world, handler.clone(), port, &[]).await;
    let second = Running::with(&world, handler.clone(), port, &[]).await;
    let hand_over = async {
        let works = |stats: &Stats| stats.completed > 200 && stats.queues.len() == 4;
        first.until_stats(works, "the first works").await;
        let stats = second.until_stats(works, "the second works").await;
        handler.slow_down("slow", SLOW);
        let message = Message::keyed("slow", "m");
        let queue = stats.queues[0].id as usize;
        let producer = world.producer().await;
        producer.send_to(queue, &message).await.unwrap();
        let runs = wait::until(SOON, "the slow call", async || {
            let runs = handler.is_slowed_down("slow");
            if runs {
                Ok(())
            } else {
                Err("it has not begun".to_owned())
            }
        });
        runs.await.unwrap();
        let drains = now();
        let third = Running::with(&world, handler.clone(), port, &[]);
        let ((), third) = tokio::join!(second.stop(), third);
        let left = now();
        until(&handler, "the rest", |done| after(done, left) > 1_000).await;
        (third, drains, left)
    };
    let (third, drains, left) =
        while_sending(&world, 8, Duration::from_millis(20), hand_over).await;
    let done = handler.done();
    let slow = |done: &&Done| done.end - done.start >= SLOW.as_micros() as u64;
    let slow = done.iter().find(slow).expect("the slow call");
    assert!(drains < slow.end && slow.end <= left);
    let gap = handler.longest_gap_beside(drains, &slow.queue);
    println!("longest gap of the other queues {gap:?}");
    assert!(gap < CLEAN, "{gap:?}");
    assert_eq!(repeated(&done), Vec::<&Done>::new());
    let verdict = handler.verdict();
    assert_eq!((verdict.inversions, verdict.overlaps), (0, 0));
    first.stop().await;
    third.stop().await;
}

/// One key is stuck, thousands of messages beyond it are finished: a clean stop keeps that.
#[tokio::test(flavor = "multi_thread")]
async fn what_finished_beyond_a_stuck_key_does_not_run_again_after_a_clean_stop() {
    let world = World::new("beyond", 1).await;
    let handler = Handler::default();
    let port = handler.serve(0).await;
    handler.fail_key("order-0");
    let changes = [("retry", r#"{"maxAttempts": 2, "onExhausted": "Block"}"#)];
    let first = Running::with(&world, handler.clone(), port, &changes).await;
    world.produce(10_000, 1_000).await;
    let beyond = 10_000 - 10;
    first.until_handled(beyond).await;
    first.stop().await;
    let second = Running::with(&world, handler.clone(), port, &changes).await;
    // What comes after it is what it runs first, if nothing runs again.
    world.produce(1_000, 1_000).await;
    second.until_handled(beyond + 999).await;
    assert_eq!(repeated(&handler.done()), Vec::<&Done>::new());
    let stats = second
        .until_stats(|stats| stats.blocked_keys == 1, "the stuck key")
        .await;
    assert_eq!(stats.queues[0].watermark, Some(0));
    second.stop().await;
}

/// The same with as many messages as `KEYLANE_BEYOND` says (100,000 without it): one record tells them all.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_finished_beyond_a_stuck_key_are_not_handled_again() {
    let beyond = std::env::var("KEYLANE_BEYOND");
    let count: usize = beyond.map_or(100_000, |text| text.parse().expect("a number of messages"));
    let world = World::new("far_beyond", 1).await;
    world.produce(count as u64, 1_000).await;
    let calls: Arc<Vec<AtomicU32>> = Arc::new((0..count).map(|_| AtomicU32::new(0)).collect());
    let changes = [("retry", r#"{"maxAttempts": 2, "onExhausted": "Block"}"#)];
    let start = || {
        let calls = calls.clone();
        Function::start(&world, &changes, move |delivery| {
            let body = String::from_utf8_lossy(&delivery.message.body);
            let number: usize = body.parse().expect("a number");
            calls[number].fetch_add(1, Ordering::Relaxed);
            if delivery.key.as_str() == "order-0" {
                failed().into()
            } else {
                CallResult::Done.into()
            }
        })
    };
    let first = start().await;
    let all_others = (count - count.div_ceil(1_000)) as u64;
    let stats = first
        .until_stats("all but the stuck key", |stats| {
            stats.completed >= all_others
        })
        .await;
    assert_eq!(stats.queues[0].watermark, Some(0));
    first.stop().await;
    let second = start().await;
    // What comes after it is what it runs first, if nothing runs again.
    world.produce(1_000, 1_000).await;
    let stats = second
        .until_stats("what is new", |stats| stats.completed >= 999)
        .await;
    assert_eq!(stats.completed, 999);
    for (number, calls) in calls.iter().enumerate() {
        let new = usize::from(number < 1_000);
        if number % 1_000 != 0 {
            assert_eq!(calls.load(Ordering::Relaxed) as usize, 1 + new, "{number}");
        }
    }
    println!("{all_others} finished beyond the stuck key, 0 handled again");
    second.stop().await;
}

/// SIGKILL in the middle of work: what had finished long enough before does not run again, and what runs
/// again keeps its order.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_only_the_last_moments_run_again() {
    let world = World::new("killed", 2).await;
    let handler = Handler::default();
    let port = handler.serve(0).await;
    handler.fail_key("0-0");
    let kill = async {
        let first = Process::start(&world, port).await;
        until(&handler, "work for a while", |done| done.len() > 1_500).await;
        let killed = now();
        drop(first);
        let second = Process::start(&world, port).await;
        until(&handler, "work again", |done| {
            after(done, killed + 5_000_000) > 1_500
        })
        .await;
        (second, killed)
    };
    let (second, killed) = while_sending(&world, 2, Duration::from_millis(10), kill).await;
    let done = handler.done();
    let gap = handler.longest_gap(killed);
    let mut first_end: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    for done in &done {
        first_end
            .entry((&done.queue, done.offset))
            .or_insert(done.end);
    }
    let again = repeated(&done);
    let oldest = again.iter().map(|done| {
        let ended = first_end[&(done.queue.as_str(), done.offset)];
        Duration::from_micros(killed.saturating_sub(ended))
    });
    let oldest = oldest.max().unwrap_or_default();
    println!(
        "gap {gap:?}, {} ran again, the oldest had finished {oldest:?} before the kill",
        again.len()
    );
    assert!(oldest <= Duration::from_millis(2_500), "{oldest:?}");
    assert_eq!(second.terminate().await, Some(0));
    let verdict = handler.verdict();
    assert_eq!((verdict.inversions, verdict.overlaps), (0, 0));
}

/// A broker dies and comes back without its locks: its queues go on under the tenure they had.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_back_is_consumed_from_again_within_seconds() {
    let mut world = World::with_own_broker("back", 2).await;
    let running = Running::start(&world, &[]).await;
    world.produce(100, 10).await;
    running.until_handled(100).await;
    world.restart_broker().await;
    let back = now();
    world.produce(100, 10).await;
    running.until_handled(200).await;
    let done = running.handler().done();
    let first = done
        .iter()
        .map(|done| done.start)
        .find(|start| *start > back);
    let gap = Duration::from_micros(first.unwrap() - back);
    println!("{gap:?} after the broker was back");
    // A new tenure would wait for 20 s.
    assert!(gap < Duration::from_secs(10), "{gap:?}");
    assert_eq!(repeated(&done), Vec::<&Done>::new());
    running.stop().await;
}

/// A process is stopped for 90 s and wakes up: its queue is taken over meanwhile, and no call of it
/// overlaps with one of the process that took it. It mostly waits, and does so beside the other tests.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_frozen_loses_its_queue_and_does_no_harm_when_it_wakes() {
    // A program that had to be built first would begin with a backlog: 500 messages would be handled before
    // each of the two has its queue.
    tokio::task::spawn_blocking(program).await.unwrap();
    let world = World::new("frozen", 2).await;
    let handler = Handler::default();
    let port = handler.serve(0).await;
    let freeze = async {
        let first = Process::start(&world, port).await;
        let second = Process::start(&world, port).await;
        until(&handler, "work", |done| done.len() > 500).await;
        let frozen = now();
        first.signal(rustix::process::Signal::STOP);
        // The broker frees the lock after 60 s, then whoever takes it waits for L + B; a machine that is busy
        // gets some more.
        let frozen_for = Duration::from_secs(90);
        tokio::time::sleep(frozen_for).await;
        let still = now() - Duration::from_secs(2).as_micros() as u64;
        let both = |done: &[Done]| {
            let lately = done.iter().filter(|done| done.start > still);
            lately
                .map(|done| &done.queue)
                .collect::<BTreeSet<_>>()
                .len()
                == 2
        };
        assert!(
            both(&handler.done()),
            "a queue stands still after {frozen_for:?}"
        );
        let gap = handler.longest_gap(frozen);
        // One that nobody had to wait for was not the frozen one's.
        assert!(gap > Duration::from_secs(30), "{gap:?}");
        first.signal(rustix::process::Signal::CONT);
        let woken = now();
        until(&handler, "work on", |done| after(done, woken) > 500).await;
        println!("longest gap while frozen {gap:?}");
        assert!(gap < Duration::from_secs(60 + 20 + 8), "{gap:?}");
        (first, second)
    };
    let (first, second) = while_sending(&world, 2, Duration::from_millis(50), freeze).await;
    assert_eq!(first.terminate().await, Some(0));
    assert_eq!(second.terminate().await, Some(0));
    let verdict = handler.verdict();
    assert_eq!((verdict.inversions, verdict.overlaps), (0, 0));
}
