//! The RocketMQ of the tests does what tests rely on, as RocketMQ's own tool sees it.

use std::time::{Duration, Instant};

use keylane_tests::rocketmq::{Broker, Message, mqadmin};
use keylane_tests::wait;

const LIMIT: Duration = Duration::from_secs(20);

fn orders(keys: usize, count: usize) -> impl Iterator<Item = Message> {
    (0..count).map(move |n| Message::keyed(&format!("order-{}", n % keys), format!("event {n}")))
}

/// What mqadmin's `topicStatus` says each queue holds, by queue id.
async fn held(broker: &Broker, topic: &str) -> Vec<i64> {
    let text = mqadmin(&broker.name_server(), &["topicStatus", "-t", topic])
        .await
        .unwrap();
    let mut rows: Vec<(u32, i64)> = text
        .lines()
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [name, id, min, max, ..] = columns[..] else {
                return None;
            };
            let count = max.parse::<i64>().ok()? - min.parse::<i64>().ok()?;
            (name == broker.name()).then_some((id.parse().ok()?, count))
        })
        .collect();
    rows.sort_unstable();
    rows.into_iter().map(|(_, count)| count).collect()
}

#[tokio::test]
async fn a_backlog_is_sent_fast_and_lies_in_the_queues_of_its_keys() {
    let broker = Broker::shared().await;
    broker.create_topic("Backlog", 8).await.unwrap();
    let producer = broker.producer("Backlog").await.unwrap();
    assert_eq!(producer.queues(), 8);
    let start = Instant::now();
    let counts = producer.send_all(orders(1_000, 100_000)).await.unwrap();
    let per_second = 100_000.0 / start.elapsed().as_secs_f64();
    println!("sent 100,000 messages at {per_second:.0}/s");
    let counts: Vec<i64> = counts.into_iter().map(|count| count as i64).collect();
    assert_eq!(counts.iter().sum::<i64>(), 100_000);
    wait::until(LIMIT, format!("{counts:?} in the queues"), async || {
        let held = held(broker, "Backlog").await;
        if held == counts {
            Ok(())
        } else {
            Err(format!("{held:?}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn single_messages_go_where_they_are_told_with_all_they_carry() {
    let broker = Broker::shared().await;
    broker.create_topic("Singles", 3).await.unwrap();
    let producer = broker.producer("Singles").await.unwrap();
    let message = Message::keyed("order-1", "paid")
        .tag("PAID")
        .property("region", "eu");
    for offset in 0..3 {
        let sent = producer.send_to(2, &message).await.unwrap();
        assert_eq!((sent.queue, sent.offset), (2, offset));
    }
    let keyed = producer.send(&message).await.unwrap();
    assert_eq!(keyed.queue as usize, producer.queue_of("order-1"));
    assert!(producer.send_to(3, &message).await.is_err());
    let big = Message::unkeyed(vec![b'x'; 4 * 1024 * 1024]);
    producer.send_to(0, &big).await.unwrap();
    producer.send_to(0, &Message::unkeyed("")).await.unwrap();

    let args = ["queryMsgByOffset", "-t", "Singles", "-b", broker.name()];
    let args = [&args[..], &["-i", "2", "-o", "1"]].concat();
    let text = mqadmin(&broker.name_server(), &args).await.unwrap();
    for expected in ["PAID", "order-1", "region", "eu"] {
        assert!(text.contains(expected), "no {expected} in {text}");
    }
}

#[tokio::test]
async fn progress_tells_both_offsets_of_every_queue() {
    let broker = Broker::shared().await;
    broker.create_topic("Progress", 2).await.unwrap();
    let producer = broker.producer("Progress").await.unwrap();
    producer.send_to(1, &Message::unkeyed("a")).await.unwrap();
    wait::until(LIMIT, "a message in queue 1", async || {
        let progress = broker.progress("nobody", "Progress").await.unwrap();
        let rows: Vec<_> = progress
            .iter()
            .map(|row| (row.queue, row.broker_offset, row.consumer_offset))
            .collect();
        if rows == [(0, 0, 0), (1, 1, 0)] {
            Ok(())
        } else {
            Err(format!("{rows:?}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_broker_keeps_its_messages_when_it_is_restarted_or_killed_and_answers_again_after_a_pause()
 {
    let mut broker = Broker::start().await.unwrap();
    broker.create_topic("Kept", 1).await.unwrap();
    let producer = broker.producer("Kept").await.unwrap();
    producer.send_all(orders(10, 1_000)).await.unwrap();

    broker.restart().await.unwrap();
    let producer = broker.producer("Kept").await.unwrap();
    let next = producer.send(&Message::keyed("a", "")).await.unwrap();
    assert_eq!(next.offset, 1_000);

    broker.kill();
    assert!(broker.producer("Kept").await.is_err());
    broker.restart().await.unwrap();

    let producer = broker.producer("Kept").await.unwrap();
    broker.pause();
    let message = Message::keyed("a", "");
    let sending = producer.send(&message);
    tokio::pin!(sending);
    let frozen = tokio::time::timeout(Duration::from_millis(300), &mut sending).await;
    assert!(frozen.is_err(), "a frozen broker answered: {frozen:?}");
    broker.resume();
    assert!(sending.await.unwrap().offset > 0);
}

/// Starts a broker, says where it is, and waits to be killed: the other half of the next test.
#[tokio::test]
async fn a_broker_of_a_killed_process_dies_with_it() {
    const ROLE: &str = "KEYLANE_TEST_ROLE_VICTIM";
    if std::env::var_os(ROLE).is_some() {
        let broker = Broker::start().await.unwrap();
        println!("\nbroker at {} {}", broker.address(), broker.name_server());
        return std::future::pending().await;
    }
    use tokio::io::{AsyncBufReadExt, BufReader};
    let mut victim = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_broker_of_a_killed_process_dies_with_it"])
        .arg("--nocapture")
        .env(ROLE, "1")
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let addresses = loop {
        let line = lines.next_line().await.unwrap().expect("no broker started");
        if let Some(addresses) = line.strip_prefix("broker at ") {
            break addresses.to_owned();
        }
    };
    victim.kill().await.unwrap();
    for address in addresses.split(' ') {
        wait::until(LIMIT, format!("nobody at {address}"), async || {
            match tokio::net::TcpStream::connect(address).await {
                Ok(_) => Err("somebody answers"),
                Err(_) => Ok(()),
            }
        })
        .await
        .unwrap();
    }
}
