//! What is known of other processes of the group.

use super::terms::{Death, Facts};
use crate::journal::Incarnation;
use crate::ownership::membership::pod_of;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Members that left and strangers that are remembered, each, of one broker: a limit to memory.
const REMEMBERED: usize = 1024;
/// A list may have been made before somebody who was heard of since was on it; the one after the next
/// was not.
const LISTS: u64 = 2;

/// What a broker's lists of members said.
#[derive(Debug, Default)]
struct Listed {
    /// Lists so far.
    heard: u64,
    members: BTreeSet<String>,
    /// Those that were members and are not.
    left: BTreeSet<String>,
    /// Those that were never on a list, and the number of lists when they were first heard of. Who has
    /// just started holds queues before others see it listed.
    strangers: BTreeMap<String, u64>,
}

impl Listed {
    fn lacks(&self, incarnation: &str) -> bool {
        let unlisted = |since: &u64| self.heard >= since + LISTS;
        self.left.contains(incarnation) || self.strangers.get(incarnation).is_some_and(unlisted)
    }
}

/// What a list of members tells that was not known before.
#[derive(Debug)]
pub struct News {
    /// Anything at all.
    pub any: bool,
    /// Who left.
    pub left: Vec<String>,
}

/// The others, as far as they are known.
#[derive(Debug)]
pub struct Others {
    me: Incarnation,
    /// The pod this process runs in.
    pod: Option<String>,
    listed: BTreeMap<Arc<str>, Listed>,
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
            listed: BTreeMap::new(),
            gone: BTreeSet::new(),
            idle: false,
        }
    }

    /// The members that a broker lists; returns what is known by it.
    pub fn present(&mut self, broker: &Arc<str>, members: BTreeSet<String>) -> News {
        let of = self.listed.entry(broker.clone()).or_default();
        of.heard += 1;
        let told = of.strangers.values().any(|since| of.heard == since + LISTS);
        if of.members == members {
            return News {
                any: told,
                left: Vec::new(),
            };
        }
        let before = std::mem::replace(&mut of.members, members);
        // A list without us tells that the broker lost sight of us, not that we left.
        let gone = |one: &String| !of.members.contains(one) && **one != *self.me;
        let left: Vec<String> = before.into_iter().filter(gone).collect();
        of.left.retain(|left| !of.members.contains(left));
        of.left.extend(left.iter().cloned());
        of.strangers.retain(|name, _| !of.members.contains(name));
        while of.left.len() > REMEMBERED {
            of.left.pop_first();
        }
        News { any: true, left }
    }

    /// Hears of one incarnation at a broker, from a lock or the journal.
    pub fn heard_of(&mut self, broker: &str, incarnation: &Incarnation) {
        let Some(of) = self.listed.get_mut(broker) else {
            return;
        };
        let known = of.members.contains(&**incarnation) || of.left.contains(&**incarnation);
        if !known && !of.strangers.contains_key(&**incarnation) {
            if of.strangers.len() >= REMEMBERED {
                of.strangers.clear();
            }
            of.strangers.insert(incarnation.to_string(), of.heard);
        }
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
        let listed = self.listed.get(broker);
        let absent = listed.is_some_and(|of| of.lacks(incarnation));
        let pod = pod_of(incarnation);
        let succeeds = |member: &String| **member != **incarnation && pod_of(member) == pod;
        let back = listed.is_some_and(|of| of.members.iter().any(succeeds));
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
            back: pod.is_some() && back,
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
        let before = ["keylane:uid-1:a", "keylane:uid-1:b", "keylane:uid-2:c"];
        others.present(&broker, before.map(str::to_owned).into());
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
    fn a_pod_is_back_when_another_process_of_it_is_listed() {
        let mut others = Others::new("keylane:uid-1:b".into(), Some("uid-1"));
        let broker: Arc<str> = "a".into();
        let back = |others: &Others, name: &str| others.facts("a", &name.into()).back;
        let before = ["keylane:uid-1:b", "keylane:uid-2:c"];
        others.present(&broker, before.map(str::to_owned).into());
        assert!(!back(&others, "keylane:uid-2:c"), "it is itself there");
        assert!(!back(&others, "somebody"));
        let after = ["keylane:uid-1:b", "keylane:uid-2:d"];
        others.present(&broker, after.map(str::to_owned).into());
        assert!(back(&others, "keylane:uid-2:c"));
    }

    #[test]
    fn who_was_never_listed_is_absent_only_by_lists_made_after_it_was_heard_of() {
        let mut others = Others::new("keylane:me:1".into(), None);
        let broker: Arc<str> = "a".into();
        let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        let (new, never) = ("keylane:new:1".into(), "keylane:never:1".into());
        others.present(&broker, list(&["keylane:me:1"]));
        for one in [&new, &never] {
            others.heard_of("a", one);
            assert!(!others.facts("a", one).absent);
        }
        // This one may have been made before.
        assert!(!others.present(&broker, list(&["keylane:me:1"])).any);
        others.heard_of("a", &never);
        assert!(!others.facts("a", &never).absent);
        assert!(
            others
                .present(&broker, list(&["keylane:me:1", "keylane:new:1"]))
                .any
        );
        assert!(others.facts("a", &never).absent);
        assert!(!others.facts("a", &new).absent);
        // Who was there and is not is known at once.
        let news = others.present(&broker, list(&["keylane:me:1"]));
        assert!(news.any && news.left == ["keylane:new:1"]);
        assert!(others.facts("a", &new).absent);
        // We ourselves never leave.
        let news = others.present(&broker, list(&[]));
        assert!(news.any && news.left.is_empty());
    }

    #[test]
    fn a_host_that_is_no_pod_proves_nothing() {
        let others = Others::new("keylane:host:b".into(), None);
        let facts = others.facts("a", &"keylane:host:a".into());
        assert_eq!(facts.death, Death::Unproven);
    }
}
