//! The library as a program uses it: described, run with a function, ended by a future; and its example.

use crate::world::{SOON, World};
use keylane_consumer::{Builder, Consumer, Delivery, Failure};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::oneshot;

/// `consumer/examples/orders.rs`.
const EXAMPLE: &str = env!("CARGO_BIN_EXE_orders-example");

/// Numbers of the messages, as they were handled, by key.
type Handled = Arc<Mutex<BTreeMap<String, Vec<u64>>>>;

fn consumer(world: &World) -> Builder {
    Consumer::builder()
        .name_servers([world.broker().name_server()])
        .topic(&world.topic)
        .group(&world.group)
        .lanes(8)
}

async fn record(handled: Handled, delivery: Delivery) -> Result<(), Failure> {
    let number = std::str::from_utf8(&delivery.message.body)?.parse()?;
    if delivery.attempt == 1 && number % 50 == 7 {
        return Err("the first attempt fails".into());
    }
    let mut handled = handled.lock().unwrap();
    let key = delivery.key.as_str().to_owned();
    handled.entry(key).or_default().push(number);
    Ok(())
}

/// Failed messages come again in their place; at the shutdown everything is committed, and a consumer that
/// is started after it gets nothing but what is new.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_gets_each_key_in_order_and_nothing_again_after_a_shutdown() {
    let world = World::new("library", 4).await;
    world.produce(200, 20).await;
    let handled = Handled::default();
    let (end, ended) = oneshot::channel::<()>();
    let mut end = Some(end);
    let of = handled.clone();
    let run = consumer(&world)
        .shutdown(async {
            let _either_way = ended.await;
        })
        .run(move |delivery| record(of.clone(), delivery));
    let run = tokio::spawn(run);
    keylane_tests::wait::until(SOON, "200 messages handled", async || {
        let count: usize = handled.lock().unwrap().values().map(Vec::len).sum();
        if count < 200 {
            return Err(format!("{count} handled"));
        }
        Ok(())
    })
    .await
    .unwrap();
    drop(end.take());
    run.await.unwrap().unwrap();
    let first = std::mem::take(&mut *handled.lock().unwrap());
    assert_eq!(first.len(), 20);
    for (key, numbers) in &first {
        assert_eq!(numbers.len(), 10, "{key}: {numbers:?}");
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
    }

    let of = handled.clone();
    let running = consumer(&world)
        .start(move |delivery| record(of.clone(), delivery))
        .await
        .unwrap();
    world.produce(20, 20).await;
    world.until_committed(220).await;
    running.stop().await.unwrap();
    let second: Vec<u64> = handled
        .lock()
        .unwrap()
        .values()
        .flatten()
        .copied()
        .collect();
    assert_eq!(second.len(), 20, "{second:?}");
    assert!(second.iter().all(|number| *number < 20), "{second:?}");
}

/// The example tells every order, those of each key in order, and drains at SIGTERM: nothing comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_tells_each_order_once_and_ends_well() {
    let world = World::new("example", 2).await;
    world.produce(200, 20).await;
    let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    // The second time there is one order more than the first has handled.
    for (count, new) in [(200, 200), (201, 1)] {
        let mut example = Command::new(EXAMPLE)
            .args([&world.broker().name_server(), &world.topic, &world.group])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(example.stdout.take().unwrap()).lines();
        for _ in 0..new {
            let line = tokio::time::timeout(SOON, lines.next_line()).await;
            let line = line.expect("an order in time").unwrap().expect("an order");
            let words: Vec<&str> = line.split_whitespace().collect();
            let ["queue", _, "offset", _, "key", key, "attempt", "1:", number] = words[..] else {
                panic!("{line}");
            };
            let of_key = told.entry(key.to_owned()).or_default();
            of_key.push(number.parse().unwrap());
        }
        world.until_committed(count).await;
        let pid = i32::try_from(example.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        let end = tokio::time::timeout(SOON, example.wait()).await;
        assert_eq!(end.expect("it ends").unwrap().code(), Some(0));
        assert_eq!(lines.next_line().await.unwrap(), None);
        if new == 200 {
            assert_eq!(told.len(), 20);
            for (key, numbers) in &told {
                assert!(
                    numbers.len() == 10 && numbers.is_sorted(),
                    "{key}: {numbers:?}"
                );
            }
            world.produce(1, 1).await;
        }
    }
    assert_eq!(told[r#""order-0""#].len(), 11);
}
