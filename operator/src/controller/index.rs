//! What a watch has told of one kind, by the consumer it belongs to, so that looking at one consumer costs
//! no more when there are many. Pure: fed with events.
//!
//! The consumer is taken from the label; whether an object really belongs to it is checked by owner uids
//! where that matters.

use crate::names;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Namespace and name of a consumer.
pub type Name = (String, String);

type Objects<K> = HashMap<Name, HashMap<String, Arc<K>>>;

/// Objects of one kind.
#[derive(Debug)]
pub struct Index<K> {
    objects: Objects<K>,
    /// What a listing that runs has brought so far.
    listing: Option<Objects<K>>,
    complete: bool,
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            listing: None,
            complete: false,
        }
    }
}

impl<K: Resource> Index<K> {
    /// Takes an event in; returns the consumers whose objects may have changed.
    pub fn take(&mut self, event: Event<K>) -> BTreeSet<Name> {
        match event {
            Event::Init => {
                self.listing = Some(HashMap::new());
                BTreeSet::new()
            }
            Event::InitApply(object) => {
                if let Some(listing) = &mut self.listing {
                    put(listing, object);
                }
                BTreeSet::new()
            }
            Event::InitDone => {
                self.complete = true;
                let listed = self.listing.take().unwrap_or_default();
                let before = std::mem::replace(&mut self.objects, listed);
                before
                    .into_keys()
                    .chain(self.objects.keys().cloned())
                    .collect()
            }
            Event::Apply(object) => put(&mut self.objects, object).into_iter().collect(),
            Event::Delete(object) => {
                let Some(name) = consumer(&object) else {
                    return BTreeSet::new();
                };
                if let Some(of) = self.objects.get_mut(&name) {
                    of.remove(&object.uid().unwrap_or_default());
                    if of.is_empty() {
                        self.objects.remove(&name);
                    }
                }
                BTreeSet::from([name])
            }
        }
    }

    /// Whether the first listing is complete.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The objects of a consumer, in no order.
    pub fn of(&self, consumer: &Name) -> Vec<Arc<K>> {
        let objects = self.objects.get(consumer);
        objects
            .into_iter()
            .flat_map(HashMap::values)
            .cloned()
            .collect()
    }
}

fn put<K: Resource>(objects: &mut Objects<K>, object: K) -> Option<Name> {
    let name = consumer(&object)?;
    let of = objects.entry(name.clone()).or_default();
    of.insert(object.uid()?, Arc::new(object));
    Some(name)
}

/// The consumer an object says it belongs to.
fn consumer<K: Resource>(object: &K) -> Option<Name> {
    let name = object.labels().get(names::NAME_LABEL)?.clone();
    Some((object.namespace()?, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn pod(uid: &str, consumer: &str) -> Pod {
        let labels = json!({names::NAME_LABEL: consumer});
        let metadata = json!({"namespace": "shop", "name": uid, "uid": uid, "labels": labels});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn name(consumer: &str) -> Name {
        ("shop".into(), consumer.into())
    }

    #[test]
    fn a_listing_replaces_everything_at_its_end_and_names_who_is_touched() {
        let mut index = Index::default();
        index.take(Event::Init);
        assert!(index.take(Event::InitApply(pod("1", "a"))).is_empty());
        assert!(index.of(&name("a")).is_empty() && !index.is_complete());
        assert_eq!(index.take(Event::InitDone), BTreeSet::from([name("a")]));
        assert_eq!(
            index.take(Event::Apply(pod("2", "a"))),
            BTreeSet::from([name("a")])
        );
        assert_eq!(index.of(&name("a")).len(), 2);
        // Events were lost; pod 1 and 2 went meanwhile.
        index.take(Event::Init);
        index.take(Event::InitApply(pod("3", "b")));
        assert_eq!(index.of(&name("a")).len(), 2);
        assert_eq!(
            index.take(Event::InitDone),
            BTreeSet::from([name("a"), name("b")])
        );
        assert!(index.of(&name("a")).is_empty() && index.is_complete());
        assert_eq!(
            index.take(Event::Delete(pod("3", "b"))),
            BTreeSet::from([name("b")])
        );
        assert!(index.objects.is_empty());
    }

    #[test]
    fn what_says_of_no_consumer_is_left_out() {
        let mut index = Index::default();
        let mut stranger = pod("1", "a");
        stranger.metadata.labels = None;
        assert!(index.take(Event::Apply(stranger)).is_empty());
        assert!(index.objects.is_empty());
    }
}
