//! The library as a program uses it: described, run with a function, ended by a future.

use crate::world::{SOON, World};
use keylane_consumer::{Builder, Consumer, Delivery, Failure};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

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
