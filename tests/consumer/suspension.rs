//! Suspension while the executor runs, through the file it was started with.

use crate::function::Function;
use crate::world::{SOON, World};
use keylane_consumer::config::Config;
use keylane_consumer::exec::follow;
use keylane_consumer::lane::CallResult;
use keylane_tests::rocketmq::Message;
use keylane_tests::wait;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A file that an executor follows.
struct Followed {
    dir: tempfile::TempDir,
}

impl Followed {
    fn path(&self) -> PathBuf {
        self.dir.path().join("consumer.yaml")
    }

    fn write(&self, world: &World, suspend: &str) {
        let document = world.document(1, &[("suspend", suspend)]);
        // As the kubelet does it: the new file takes the place of the old one.
        let new = self.dir.path().join("new");
        std::fs::write(&new, document.to_string()).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_file_suspends_is_not_handled_until_it_says_so() {
    let world = World::new("suspend", 2).await;
    let producer = world.producer().await;
    let send = async |queue: usize, key: &str, body: &str| {
        let message = Message::keyed(key, body.to_owned());
        producer.send_to(queue, &message).await.unwrap();
    };
    let followed = Followed {
        dir: tempfile::tempdir().unwrap(),
    };
    followed.write(&world, "{}");
    let running = Function::taking(&world, &[]).await;
    let (path, control) = (followed.path(), running.control.clone());
    let known = Config::read(&path).unwrap();
    let follower = tokio::spawn(async move { follow(&path, &known, &control).await });
    send(0, "a", "a1").await;
    running.until_seen(1).await;

    // One key.
    followed.write(&world, r#"{"keys": ["a"]}"#);
    running
        .until_stats("key a suspended", |stats| stats.suspended.keys == ["a"])
        .await;
    send(0, "a", "a2").await;
    send(0, "b", "b1").await;
    running.until_seen(2).await;
    let stats = running
        .until_stats("a2 in memory", |stats| stats.buffered == 1)
        .await;
    assert_eq!(stats.live_keys, 1);
    assert_eq!(running.bodies(), ["a1", "b1"]);

    // One queue instead; the key goes on.
    let queue = format!(r#"{{"queues": ["{}/1"]}}"#, world.broker().name());
    followed.write(&world, &queue);
    running.until_seen(3).await;
    running
        .until_stats("queue 1 suspended", |stats| {
            stats.suspended.queues.len() == 1
                && stats
                    .queues
                    .iter()
                    .all(|queue| queue.suspended == (queue.id == 1))
        })
        .await;
    send(1, "c", "c1").await;
    running
        .until_stats("c1 in memory", |stats| stats.buffered == 1)
        .await;
    assert_eq!(running.bodies(), ["a1", "b1", "a2"]);

    // Everything, then nothing.
    followed.write(&world, r#"{"all": true}"#);
    running
        .until_stats("all suspended", |stats| stats.suspended.all)
        .await;
    send(0, "d", "d1").await;
    running
        .until_stats("d1 in memory", |stats| stats.buffered == 2)
        .await;
    assert_eq!(running.seen().len(), 3);

    // A file that cannot be used changes nothing.
    std::fs::write(followed.path(), "not: [a, consumer").unwrap();
    let before = running.control.stats().await.unwrap().uptime_seconds;
    running
        .until_stats("two more looks at the file", |stats| {
            stats.uptime_seconds > before + 2.5
        })
        .await;
    assert!(running.control.stats().await.unwrap().suspended.all);
    followed.write(&world, "{}");
    running.until_seen(5).await;
    running.stop().await;
    // It ends with the executor, at the next change.
    followed.write(&world, r#"{"all": true}"#);
    let ended = wait::until(SOON, "the end of the follower", async || {
        if follower.is_finished() {
            Ok(())
        } else {
            Err("it follows")
        }
    });
    ended.await.unwrap();
}

/// In the middle of work: what was decided on and waits for a thread when everything is suspended is not
/// handed to the handler either.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_dispatched_once_a_suspension_is_confirmed() {
    /// A thread that looked just before may be on its way into the handler.
    const ON_ITS_WAY: Duration = Duration::from_millis(50);
    let world = World::new("confirmed", 2).await;
    world.produce(2_000, 500).await;
    // It blocks its thread, so that of 64 lanes nearly all wait for one.
    let running = Function::start(&world, &[], |_| {
        std::thread::sleep(Duration::from_millis(20));
        CallResult::Done.into()
    })
    .await;
    for round in 1..=5 {
        running.until_seen(round * 100).await;
        let all = world.spec(1, &[("suspend", r#"{"all": true}"#)]);
        running.control.reconfigure(all).await.unwrap();
        tokio::time::sleep(ON_ITS_WAY).await;
        let confirmed = running.seen().len();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(running.seen().len(), confirmed, "round {round}");
        let stats = running.control.stats().await.unwrap();
        assert_eq!((stats.busy_lanes, stats.suspended.all), (0, true));
        let none = world.spec(1, &[]);
        running.control.reconfigure(none).await.unwrap();
    }
    running.stop().await;
}

/// What waits in memory is handled at once when the suspension ends: nobody looks for it at intervals.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_resumed_goes_on_at_once() {
    let world = World::new("resume", 1).await;
    let running = Function::taking(&world, &[]).await;
    let suspend = |what: &str| world.spec(1, &[("suspend", what)]);
    let mut delays = Vec::new();
    for round in 1..=9 {
        let all = suspend(r#"{"all": true}"#);
        running.control.reconfigure(all).await.unwrap();
        world.produce(1, 1).await;
        running
            .until_stats("a message in memory", |stats| stats.buffered == 1)
            .await;
        assert_eq!(running.seen().len(), round - 1, "handled while suspended");
        let resumed = Instant::now();
        running.control.reconfigure(suspend("{}")).await.unwrap();
        while running.seen().len() < round {
            assert!(resumed.elapsed() < SOON, "it does not go on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        delays.push(resumed.elapsed());
    }
    delays.sort();
    println!(
        "goes on after {:?}, in the median {:?}",
        delays[0], delays[4]
    );
    // The shortest, as the machine may be busy with everything else that is tested.
    assert!(delays[0] <= Duration::from_millis(50), "{delays:?}");
    running.stop().await;
}
