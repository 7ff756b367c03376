//! What is known of other processes of the group.

use super::terms::{Death, Facts};
use crate::journal::Incarnation;
use crate::ownership::membership::pod_of;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The others, as far as they are known.
#[derive(Debug)]
pub struct Others {
    me: Incarnation,
    /// The pod this process runs in.
    pod: Option<String>,
    present: BTreeMap<Arc<str>, BTreeSet<String>>,
    gone: BTreeSet<String>,
    /// The handler of this pod has said that nothing runs of what those sent who were here before.
    pub idle: bool,
}

impl Others {
    /// Nothing is known yet.
    pub fn new(me: Incarnation, pod: Option<&str>) -> Self {
        Self {
            me,
            pod: pod.map(str::to_owned),
            present: BTreeMap::new(),
            gone: BTreeSet::new(),
            idle: false,
        }
    }

    /// The members that a broker lists; returns whether they are others than before.
    pub fn present(&mut self, broker: &Arc<str>, members: BTreeSet<String>) -> bool {
        if self.present.get(broker) == Some(&members) {
            return false;
        }
        self.present.insert(broker.clone(), members);
        true
    }

    /// A pod of which all containers ended.
    pub fn gone(&mut self, pod: &str) {
        self.gone.insert(pod.to_owned());
    }

    /// What is known of one incarnation, as a member at this broker.
    pub fn facts(&self, broker: &str, incarnation: &Incarnation) -> Facts {
        if *incarnation == self.me {
            return Facts::default();
        }
        let absent = self
            .present
            .get(broker)
            .is_some_and(|members| !members.contains(&**incarnation));
        let pod = pod_of(incarnation);
        let same_pod = pod.is_some() && pod == self.pod.as_deref();
        let death = if pod.is_some_and(|pod| self.gone.contains(pod)) {
            Death::Pod
        } else if same_pod {
            // One executor runs in a pod, and it is this one.
            Death::Executor
        } else {
            Death::Unproven
        };
        Facts {
            absent,
            death,
            idle: same_pod && self.idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_counts_as_death() {
        let mut others = Others::new("keylane:uid-1:b".into(), Some("uid-1"));
        let broker: Arc<str> = "a".into();
        let facts = |others: &Others, name: &str| others.facts("a", &name.into());
        assert_eq!(facts(&others, "keylane:uid-2:c"), Facts::default());
        others.present(&broker, BTreeSet::from(["keylane:uid-1:b".into()]));
        others.idle = true;
        let former = facts(&others, "keylane:uid-1:a");
        assert!(former.absent && former.idle && former.death == Death::Executor);
        let other = facts(&others, "keylane:uid-2:c");
        assert!(other.absent && !other.idle && other.death == Death::Unproven);
        others.gone("uid-2");
        assert_eq!(facts(&others, "keylane:uid-2:c").death, Death::Pod);
        assert_eq!(facts(&others, "keylane:uid-1:b"), Facts::default());
    }

    #[test]
    fn a_host_that_is_no_pod_proves_nothing() {
        let others = Others::new("keylane:host:b".into(), None);
        let facts = others.facts("a", &"keylane:host:a".into());
        assert_eq!(facts.death, Death::Unproven);
    }
}
