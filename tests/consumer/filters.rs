//! Filters: what does not match is finished, and never seen.

use crate::function::Function;
use crate::world::World;
use keylane_tests::rocketmq::Message;

/// "Aa" and "BB" have one hash code, which is all that the broker compares.
#[tokio::test(flavor = "multi_thread")]
async fn tags_are_told_apart_even_if_their_hashes_are_the_same() {
    let world = World::new("tags", 1).await;
    let producer = world.producer().await;
    for (number, tag) in ["Aa", "BB", "C", "Aa", "BB", "C"].iter().enumerate() {
        let message = Message::keyed("k", format!("{tag}{number}")).tag(tag);
        producer.send_to(0, &message).await.unwrap();
    }
    producer
        .send_to(0, &Message::keyed("k", "untagged"))
        .await
        .unwrap();
    let running = Function::taking(&world, &[("filter", r#"{"tags": ["Aa", "D"]}"#)]).await;
    world.until_committed(7).await;
    assert_eq!(running.bodies(), ["Aa0", "Aa3"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_is_applied_by_a_broker_that_filters_properties() {
    let world = World::with_settings("sql", 1, &[("enablePropertyFilter", "true")]).await;
    let producer = world.producer().await;
    for amount in 1..=10 {
        let message =
            Message::keyed("k", format!("{amount}")).property("amount", &amount.to_string());
        producer.send_to(0, &message).await.unwrap();
    }
    let filter = r#"{"sql": "amount > 3 AND amount BETWEEN 1 AND 6"}"#;
    let running = Function::taking(&world, &[("filter", filter)]).await;
    world.until_committed(10).await;
    assert_eq!(running.bodies(), ["4", "5", "6"]);
    running.stop().await;

    let wrong = Function::taking(&world, &[("filter", r#"{"sql": "amount >"}"#)]).await;
    wrong
        .until_stats("a complaint about the expression", |stats| {
            stats
                .broker_error
                .as_ref()
                .is_some_and(|error| error.contains("spec.filter.sql"))
        })
        .await;
    wrong.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_filter_properties_is_named_with_what_to_do() {
    let world = World::new("nosql", 1).await;
    world.produce(3, 1).await;
    let running = Function::taking(&world, &[("filter", r#"{"sql": "a = 1"}"#)]).await;
    running
        .until_stats("a complaint about the broker", |stats| {
            stats
                .broker_error
                .as_ref()
                .is_some_and(|error| error.contains("enablePropertyFilter=true"))
        })
        .await;
    assert!(running.bodies().is_empty());
    running.stop().await;
}
