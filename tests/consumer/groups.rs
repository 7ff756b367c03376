//! A group that is to be taken over, as its brokers tell of it.

use crate::world::World;
use keylane_consumer::exec::incarnation;
use keylane_consumer::source::Source as _;
use keylane_consumer::source::rocketmq::RocketmqSource;
use keylane_operator::broker::groups::{Group, GroupError, Wanted, find};
use keylane_tests::wait;
use std::time::Duration;

async fn until(wanted: &Wanted, condition: impl Fn(&Group) -> bool) -> Group {
    wait::until(
        Duration::from_secs(60),
        "what is known of the group",
        async || {
            let group = find(wanted).await.map_err(|error| error.to_string())?;
            if condition(&group) {
                Ok(group)
            } else {
                Err(format!("{group:?}"))
            }
        },
    )
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_are_named_with_what_they_subscribe_until_they_leave() {
    let world = World::new("migrated", 2).await;
    let wanted = Wanted {
        group: world.group.clone(),
        name_servers: vec![world.broker().name_server().to_owned()],
    };
    let none = find(&wanted).await;
    assert!(matches!(none, Err(GroupError::NoSuch { .. })), "{none:?}");

    world.produce(10, 10).await;
    let spec = world.spec(1, &[("filter", r#"{"tags": ["PAID", "SHIPPED"]}"#)]);
    // What a client of RocketMQ's own calls itself.
    let other = RocketmqSource::connect(&spec, "10.0.0.7@4711")
        .await
        .unwrap();
    let ours = RocketmqSource::connect(&spec, &incarnation("host"))
        .await
        .unwrap();
    let broker = world.broker().name();
    for source in [&other, &ours] {
        source.route().await.unwrap();
        source.heartbeat(broker).await.unwrap();
    }
    other.commit(&world.queue(1), 2).await.unwrap();
    let both = until(&wanted, |group| {
        group.members.len() == 1 && group.keylane_members == 1
    })
    .await;
    assert_eq!(both.members[0].client_id, "10.0.0.7@4711");
    assert!(
        both.members[0].address.starts_with("127.0.0.1:"),
        "{both:?}"
    );
    assert!(!both.broadcasting);
    let topics: Vec<_> = both.topics.iter().collect();
    let [(name, topic)] = topics[..] else {
        panic!("{topics:?}");
    };
    assert_eq!(*name, world.topic);
    assert_eq!(topic.expression.as_deref(), Some("PAID || SHIPPED"));
    assert_eq!(
        (topic.expression_type.as_str(), topic.committed_queues),
        ("TAG", 1)
    );

    // Nobody is there any more: where it was is known still.
    other.leave(broker).await.unwrap();
    ours.leave(broker).await.unwrap();
    let left = until(&wanted, |group| {
        group.members.is_empty() && group.keylane_members == 0
    })
    .await;
    let topic = &left.topics[&world.topic];
    assert_eq!((&topic.expression, topic.committed_queues), (&None, 1));
}
