//! What is held back is changed: `spec.suspend`, and nothing else. What it becomes is worked out purely;
//! it is written only over what was read.

use super::connect::Cluster;
use super::{Format, PluginError};
use crate::crd::OrderedConsumer;
use clap::Args;
use keylane_consumer::contract::spec::Suspend;
use keylane_consumer::message::QueueId;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde_json::{Value, json};

/// Who writes, in metadata.managedFields.
const MANAGER: &str = "kubectl-keylane";
/// Tries when somebody else writes at the same time.
const TRIES: usize = 5;

/// What is to be held back or to go on.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct What {
    /// Name of the OrderedConsumer.
    pub name: String,
    /// Only this queue, as broker name/queue id, such as broker-a/3; may be given more than once.
    #[arg(long = "queue", value_name = "QUEUE", value_parser = queue)]
    queues: Vec<String>,
    /// Only messages with this key, itself and not its hash; may be given more than once.
    #[arg(long = "key", value_name = "KEY", allow_hyphen_values = true, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    keys: Vec<String>,
    /// Print what is suspended now for programs.
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Format>,
}

/// What was done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Done {
    namespace: String,
    name: String,
    /// What changed, in words; empty if it was so before.
    changed: Vec<String>,
    /// What is suspended now.
    suspended: Suspend,
    /// The same for people.
    #[serde(skip)]
    pub text: String,
}

fn queue(text: &str) -> Result<String, String> {
    match text.parse::<QueueId>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("write it as broker name/queue id, such as broker-a/3".to_owned()),
    }
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Suspend,
    Resume,
}

/// What becomes of `before`, and what of it that changes.
fn changed(before: &Suspend, what: &What, way: Way) -> (Suspend, Vec<String>) {
    let mut after = before.clone();
    let mut changes = Vec::new();
    if what.queues.is_empty() && what.keys.is_empty() {
        let all = way == Way::Suspend;
        if before.all != all {
            after.all = all;
            changes.push("everything".to_owned());
        }
    }
    for queue in &what.queues {
        if change(&mut after.queues, queue, way) {
            changes.push(named_queue(queue));
        }
    }
    for key in &what.keys {
        if change(&mut after.keys, key, way) {
            changes.push(named_key(key));
        }
    }
    (after, changes)
}

fn change(list: &mut Vec<String>, entry: &String, way: Way) -> bool {
    match (way, list.contains(entry)) {
        (Way::Suspend, false) => {
            list.push(entry.clone());
            true
        }
        (Way::Resume, true) => {
            list.retain(|other| other != entry);
            true
        }
        _ => false,
    }
}

fn named_queue(queue: &str) -> String {
    format!("queue {queue}")
}

fn named_key(key: &str) -> String {
    format!("key {key:?}")
}

/// What is held back, for people.
pub(super) fn held(suspend: &Suspend) -> Vec<String> {
    let mut held = Vec::new();
    if suspend.all {
        held.push("everything".to_owned());
    }
    held.extend(suspend.queues.iter().map(|queue| named_queue(queue)));
    held.extend(suspend.keys.iter().map(|key| named_key(key)));
    held
}

/// Carries it out; returns what there is to say.
pub(super) async fn carry_out(
    cluster: &Cluster,
    what: &What,
    way: Way,
) -> Result<Done, PluginError> {
    let doing = match way {
        Way::Suspend => "suspend",
        Way::Resume => "resume",
    };
    let doing = format!("{doing} OrderedConsumer {:?}", what.name);
    let mut tries = 0;
    loop {
        let consumer = cluster.consumer(&what.name).await?;
        let (after, changes) = changed(&consumer.spec.consumer.suspend, what, way);
        if changes.is_empty() {
            return Ok(done(&consumer, after, changes, what, way));
        }
        let patch = Patch::Merge(patch(&consumer, &after));
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api = cluster.consumers();
        match api.patch(&what.name, &parameters, &patch).await {
            Ok(written) => return Ok(done(&written, after, changes, what, way)),
            // Somebody wrote in between: what they changed is kept.
            Err(kube::Error::Api(status)) if status.code == 409 && tries < TRIES => tries += 1,
            Err(error) => return Err(cluster.error(&doing, error)),
        }
    }
}

fn done(
    consumer: &OrderedConsumer,
    after: Suspend,
    changes: Vec<String>,
    what: &What,
    way: Way,
) -> Done {
    Done {
        namespace: consumer.namespace().unwrap_or_default(),
        name: what.name.clone(),
        text: told(consumer, &after, &changes, what, way),
        changed: changes,
        suspended: after,
    }
}

/// `spec.suspend` alone, over what was read.
fn patch(consumer: &OrderedConsumer, after: &Suspend) -> Value {
    json!({
        "metadata": {"resourceVersion": consumer.resource_version(), "uid": consumer.uid()},
        "spec": {"suspend": {
            "all": after.all,
            // A merge takes out what is null; an empty list would stay.
            "queues": Some(&after.queues).filter(|queues| !queues.is_empty()),
            "keys": Some(&after.keys).filter(|keys| !keys.is_empty()),
        }},
    })
}

fn told(
    consumer: &OrderedConsumer,
    after: &Suspend,
    changes: &[String],
    what: &What,
    way: Way,
) -> String {
    let namespace = consumer.namespace().unwrap_or_default();
    let name = format!("{namespace}/{}", what.name);
    let mut lines = Vec::new();
    match (changes.is_empty(), way) {
        (true, Way::Suspend) => lines.push(format!(
            "{name}: that is suspended already, nothing is changed."
        )),
        (true, Way::Resume) => lines.push(format!(
            "{name}: that is not suspended, nothing is changed."
        )),
        (false, Way::Suspend) => {
            lines.push(format!("{name}: {} suspended.", changes.join(", ")));
            lines.push(
                "Running calls finish, nothing is lost, and pods take it over without a restart."
                    .to_owned(),
            );
        }
        (false, Way::Resume) => lines.push(format!("{name}: {} resumed.", changes.join(", "))),
    }
    let held = held(after);
    lines.push(if held.is_empty() {
        "Nothing is suspended.".to_owned()
    } else {
        format!("Suspended now: {}.", held.join(", "))
    });
    lines.push(format!("Next: {}", next(&namespace, after, what, way)));
    lines.join("\n") + "\n"
}

/// The command that is most likely wanted next: the way back, or a look.
fn next(namespace: &str, after: &Suspend, what: &What, way: Way) -> String {
    let command = |words: &str| format!("kubectl keylane {words} {} -n {namespace}", what.name);
    if way == Way::Resume {
        return command(if after.all { "resume" } else { "status" });
    }
    let mut back = command("resume");
    for queue in &what.queues {
        back += &format!(" --queue {}", quoted(queue));
    }
    for key in &what.keys {
        back += &format!(" --key {}", quoted(key));
    }
    back
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:@".contains(letter);
    if !word.starts_with('-') && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(queues: &[&str], keys: &[&str]) -> What {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        What {
            name: "orders".to_owned(),
            queues: owned(queues),
            keys: owned(keys),
            output: None,
        }
    }

    #[test]
    fn each_way_undoes_the_other_and_leaves_the_rest() {
        let before = Suspend {
            all: false,
            queues: vec!["b/1".to_owned()],
            keys: vec!["k".to_owned()],
        };
        for what in [
            what(&[], &[]),
            what(&["b/2"], &[]),
            what(&["b/2", "b/3"], &["l"]),
        ] {
            let (held, changes) = changed(&before, &what, Way::Suspend);
            assert!(!changes.is_empty() && held != before);
            assert_eq!(changed(&held, &what, Way::Suspend).1, Vec::<String>::new());
            assert_eq!(
                changed(&held, &what, Way::Resume),
                (before.clone(), changes)
            );
            assert_eq!(changed(&before, &what, Way::Resume).1, Vec::<String>::new());
        }
    }

    #[test]
    fn the_way_back_can_be_pasted_into_a_shell() {
        let odd = what(&["broker-a/3"], &["it's", "-x", "a b", "k"]);
        assert_eq!(
            next("shop", &Suspend::default(), &odd, Way::Suspend),
            r"kubectl keylane resume orders -n shop --queue broker-a/3 --key 'it'\''s' --key '-x' --key 'a b' --key k"
        );
    }
}
