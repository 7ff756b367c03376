//! Two OrderedConsumers on one consumer group would take messages from each other: the older keeps it.
//! Pure.
//!
//! The same brokers are meant where a name server's address is the same text. Other names of one address
//! are found by the executors, who see each other in the group.

use crate::crd::OrderedConsumer;
use kube::ResourceExt;
use std::sync::Arc;

/// Why a consumer has to wait; none if it may run. Nothing of another namespace is named.
pub fn lost(object: &OrderedConsumer, all: &[Arc<OrderedConsumer>]) -> Option<String> {
    let older = all
        .iter()
        .filter(|other| other.uid() != object.uid() && contends(object, other))
        .find(|other| age(other) < age(object))?;
    let group = &object.spec.consumer.consumer_group;
    let holder = if older.namespace() == object.namespace() {
        format!("the older OrderedConsumer {:?}", older.name_any())
    } else {
        "an older OrderedConsumer of another namespace".to_owned()
    };
    Some(format!(
        "spec.consumerGroup {group:?} of these brokers is kept by {holder}: no pods are run; use another group, or delete the older one"
    ))
}

fn contends(one: &OrderedConsumer, other: &OrderedConsumer) -> bool {
    let (one, other) = (&one.spec.consumer, &other.spec.consumer);
    let servers = &other.rocketmq.name_servers;
    let mut ours = one.rocketmq.name_servers.iter();
    one.consumer_group == other.consumer_group
        && ours.any(|name| servers.iter().any(|other| other.eq_ignore_ascii_case(name)))
}

/// Older is less; the uid decides between objects of one second.
fn age(object: &OrderedConsumer) -> impl Ord {
    (
        object.metadata.creation_timestamp.clone(),
        object.metadata.uid.clone(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::validate::tests;
    use serde_json::from_value;

    fn consumer(namespace: &str, uid: &str, created: &str) -> OrderedConsumer {
        let mut object = tests::object(tests::template());
        object.metadata.namespace = Some(namespace.into());
        object.metadata.name = Some(format!("name-{uid}"));
        object.metadata.uid = Some(uid.into());
        object.metadata.creation_timestamp = from_value(created.into()).unwrap();
        object
    }

    const EARLY: &str = "2026-01-01T00:00:00Z";
    const LATE: &str = "2026-01-01T00:00:01Z";

    #[test]
    fn the_oldest_keeps_the_group_and_a_foreign_namespace_is_not_named() {
        let (old, new) = (consumer("shop", "2", EARLY), consumer("shop", "1", LATE));
        let all = [Arc::new(old.clone()), Arc::new(new.clone())];
        assert_eq!(lost(&old, &all), None);
        let text = lost(&new, &all).unwrap();
        assert!(
            text.contains("\"name-2\"") && text.contains("\"g\""),
            "{text}"
        );
        let foreign = [Arc::new(consumer("bank", "2", EARLY))];
        let text = lost(&new, &foreign).unwrap();
        assert!(!text.contains("bank") && !text.contains("name-2"), "{text}");
        // In one second the uid decides.
        let same = [Arc::new(consumer("shop", "0", LATE))];
        assert!(lost(&new, &same).is_some());
    }

    #[test]
    fn other_brokers_or_another_group_are_no_contest() {
        let new = consumer("shop", "1", LATE);
        let mut old = consumer("shop", "2", EARLY);
        old.spec.consumer.rocketmq.name_servers = vec!["NS:9876".into(), "b:1".into()];
        assert!(lost(&new, &[Arc::new(old.clone())]).is_some());
        old.spec.consumer.rocketmq.name_servers = vec!["b:1".into()];
        assert_eq!(lost(&new, &[Arc::new(old.clone())]), None);
        old = consumer("shop", "2", EARLY);
        old.spec.consumer.consumer_group = "other".into();
        assert_eq!(lost(&new, &[Arc::new(old)]), None);
    }
}
