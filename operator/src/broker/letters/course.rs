//! Which dead letters are sent again, and which not: the order of a key comes first. Pure.
//!
//! Letters are asked about in the order of their offsets, and each is answered once. From a letter that was not
//! sent on, nothing of its lane is.

use keylane_consumer::contract::spec::{ConsumerSpec, Mode, Unkeyed};
use keylane_consumer::exec::Redact;
use keylane_consumer::source::rocketmq::letters::Letter;
use keylane_consumer::source::rocketmq::subscription::Subscription;
use std::collections::{BTreeMap, BTreeSet};

/// What keeps its order. Wider than the executor's lanes, which are of one queue: which queue a letter came
/// from is not always known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Key(String),
    Unkeyed,
    All,
}

/// What is to be done with a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send it.
    Send,
    /// Its message was sent already as another letter: the broker had copied it twice. It counts as sent.
    Copy,
    /// Do not send it.
    Held(String),
    /// Nobody asked for its key.
    NotAsked,
}

/// One run over the letters of one queue.
pub struct Course<'s> {
    spec: &'s ConsumerSpec,
    subscription: Subscription,
    /// Only these keys, as they are or as they are shown.
    keys: &'s BTreeSet<String>,
    held: BTreeMap<Lane, String>,
    sent: BTreeSet<String>,
}

impl<'s> Course<'s> {
    /// A run; no keys are all letters.
    pub fn new(spec: &'s ConsumerSpec, keys: &'s BTreeSet<String>) -> Self {
        Self {
            spec,
            subscription: Subscription::new(&spec.filter),
            keys,
            held: BTreeMap::new(),
            sent: BTreeSet::new(),
        }
    }

    /// What is to be done with the next letter that was not sent yet.
    pub fn step(&mut self, letter: &Letter) -> Step {
        let key = letter.message.find_key(&self.spec.ordering.key);
        if !self.keys.is_empty() && !key.as_deref().is_some_and(|key| self.is_asked_for(key)) {
            return Step::NotAsked;
        }
        let lane = self.lane(key.as_deref());
        if let Some(first) = lane.and_then(|lane| self.held.get(&lane)) {
            return Step::Held(format!("an earlier one of its key was not sent: {first}"));
        }
        if letter.origin().is_some_and(|id| self.sent.contains(id)) {
            return Step::Copy;
        }
        if !self.subscription.wants(&letter.message) {
            let reason = "spec.filter leaves it out now, so nobody would handle it";
            self.hold(letter, reason);
            return Step::Held(reason.to_owned());
        }
        Step::Send
    }

    /// It was sent.
    pub fn sent(&mut self, letter: &Letter) {
        self.sent.extend(letter.origin().map(str::to_owned));
    }

    /// It was not, or that is not known: nothing of its lane is sent from now on.
    pub fn hold(&mut self, letter: &Letter, reason: &str) {
        let key = letter.message.find_key(&self.spec.ordering.key);
        if let Some(lane) = self.lane(key.as_deref()) {
            self.held.entry(lane).or_insert_with(|| reason.to_owned());
        }
    }

    fn is_asked_for(&self, key: &str) -> bool {
        self.keys.contains(key) || self.keys.contains(&shown(self.spec, key))
    }

    fn lane(&self, key: Option<&str>) -> Option<Lane> {
        let ordering = &self.spec.ordering;
        match (ordering.mode, key) {
            (Mode::None, _) => None,
            (Mode::Queue, _) => Some(Lane::All),
            (Mode::Key, Some(key)) => Some(Lane::Key(key.to_owned())),
            (Mode::Key, None) => (ordering.unkeyed == Unkeyed::OneLane).then_some(Lane::Unkeyed),
        }
    }
}

/// A key as others may see it.
pub fn shown(spec: &ConsumerSpec, key: &str) -> String {
    let group = spec.redact_keys.then_some(spec.consumer_group.as_str());
    Redact { group }.key(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keylane_consumer::message::Message;
    use serde_json::{Value, json};

    fn spec(changes: Value) -> ConsumerSpec {
        let mut spec = json!({
            "rocketmq": {"nameServers": ["a:9876"]}, "topic": "T", "consumerGroup": "g",
            "handler": {"http": {"port": 8080}},
        });
        let fields = changes.as_object().cloned().unwrap_or_default();
        spec.as_object_mut().unwrap().extend(fields);
        serde_json::from_value(spec).unwrap()
    }

    fn letter(key: Option<&str>, origin: &str) -> Letter {
        let key = key.map(|key| ("__SHARDINGKEY", key));
        let properties = [("ORIGIN_MESSAGE_ID", origin), ("TAGS", "PAID")];
        Letter::of(Message {
            properties: properties.into_iter().chain(key).collect(),
            ..Message::default()
        })
    }

    /// What becomes of letters if those with these origins cannot be sent.
    fn run(spec: &ConsumerSpec, keys: &[&str], fails: &[&str], letters: &[Letter]) -> Vec<char> {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let mut course = Course::new(spec, &keys);
        let became = letters.iter().map(|letter| match course.step(letter) {
            Step::Send if fails.contains(&letter.origin().unwrap()) => {
                course.hold(letter, "no");
                'f'
            }
            Step::Send => {
                course.sent(letter);
                's'
            }
            Step::Copy => 'c',
            Step::Held(_) => 'h',
            Step::NotAsked => '-',
        });
        became.collect()
    }

    #[test]
    fn from_a_letter_that_was_not_sent_on_nothing_of_its_key_is() {
        let letters = [
            letter(Some("a"), "1"),
            letter(Some("b"), "2"),
            letter(Some("a"), "3"),
            letter(Some("b"), "4"),
            letter(None, "5"),
            letter(None, "6"),
        ];
        let key = spec(json!({}));
        assert_eq!(run(&key, &[], &[], &letters), ['s'; 6]);
        assert_eq!(
            run(&key, &[], &["1"], &letters),
            ['f', 's', 'h', 's', 's', 's']
        );
        assert_eq!(
            run(&key, &[], &["5"], &letters),
            ['s', 's', 's', 's', 'f', 'h']
        );
        let parallel = spec(json!({"ordering": {"unkeyed": "Parallel"}}));
        assert_eq!(
            run(&parallel, &[], &["5"], &letters),
            ['s', 's', 's', 's', 'f', 's']
        );
        let queue = spec(json!({"ordering": {"mode": "Queue"}}));
        assert_eq!(
            run(&queue, &[], &["2"], &letters),
            ['s', 'f', 'h', 'h', 'h', 'h']
        );
        let none = spec(json!({"ordering": {"mode": "None"}}));
        assert_eq!(
            run(&none, &[], &["1"], &letters),
            ['f', 's', 's', 's', 's', 's']
        );
    }

    #[test]
    fn a_copy_is_not_sent_again_unless_what_it_is_a_copy_of_was_not() {
        let letters = [
            letter(Some("a"), "1"),
            letter(Some("a"), "1"),
            letter(Some("a"), "2"),
        ];
        let spec = spec(json!({}));
        assert_eq!(run(&spec, &[], &[], &letters), ['s', 'c', 's']);
        assert_eq!(run(&spec, &[], &["1"], &letters), ['f', 'h', 'h']);
    }

    #[test]
    fn keys_are_asked_for_whole_as_they_are_or_as_they_are_shown() {
        let letters = [
            letter(Some("a"), "1"),
            letter(Some("b"), "2"),
            letter(None, "3"),
        ];
        let open = spec(json!({}));
        assert_eq!(run(&open, &["a"], &[], &letters), ['s', '-', '-']);
        let redacted = spec(json!({"redactKeys": true}));
        let hash = shown(&redacted, "b");
        assert!(hash.starts_with("sha256:"));
        assert_eq!(run(&redacted, &[&hash], &[], &letters), ['-', 's', '-']);
        assert_eq!(run(&open, &[&hash], &[], &letters), ['-', '-', '-']);
    }

    #[test]
    fn what_nobody_would_handle_is_held_with_what_follows_it() {
        let paid = |tag: &str| spec(json!({"filter": {"tags": [tag]}}));
        let letters = [letter(Some("a"), "1"), letter(Some("a"), "2")];
        assert_eq!(run(&paid("PAID"), &[], &[], &letters), ['s', 's']);
        assert_eq!(run(&paid("SHIPPED"), &[], &[], &letters), ['h', 'h']);
    }
}
