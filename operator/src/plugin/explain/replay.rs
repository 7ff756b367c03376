//! Decisions that were kept with all they were made of, decided again by the very function that decided
//! then. Pure.

use crate::plugin::paint::Paint;
use crate::plugin::tree::Tree;
use crate::scale::Recorded;
use serde::Serialize;
use std::collections::BTreeMap;

/// A decision that was kept, and what came out of deciding again.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::plugin) struct Replayed {
    /// When it was made, as its key in the ConfigMap: 20260131T235959.123Z.
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    then: Option<Sizes>,
    /// What is decided now, if that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Sizes>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    same: bool,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sizes {
    replicas_before: u32,
    replicas: u32,
    lanes: u32,
    reason: &'static str,
    message: String,
}

impl Sizes {
    fn of(recorded: &Recorded) -> Self {
        Self {
            replicas_before: recorded.inputs.replicas(),
            replicas: recorded.replicas,
            lanes: recorded.lanes,
            reason: recorded.reason.as_str(),
            message: recorded.message.clone(),
        }
    }
}

/// Decides again what the ConfigMap has kept, the oldest first.
pub(in crate::plugin) fn replay(kept: &BTreeMap<String, String>) -> Vec<Replayed> {
    let again = |(at, text): (&String, &String)| {
        let recorded: Recorded = match serde_json::from_str(text) {
            Ok(recorded) => recorded,
            Err(error) => {
                return Replayed {
                    at: at.clone(),
                    then: None,
                    now: None,
                    error: Some(error.to_string()),
                    same: false,
                };
            }
        };
        let now = recorded.replay();
        let same = now == recorded;
        Replayed {
            at: at.clone(),
            then: Some(Sizes::of(&recorded)),
            now: (!same).then(|| Sizes::of(&now)),
            error: None,
            same,
        }
    };
    kept.iter().map(again).collect()
}

/// Whether each came out as it was.
pub(in crate::plugin) fn all_same(replayed: &[Replayed]) -> bool {
    replayed.iter().all(|replayed| replayed.same)
}

/// The same for people.
pub(super) fn tree(replayed: &[Replayed], paint: Paint) -> Tree {
    if replayed.is_empty() {
        return Tree::new(
            "replay: no decision is kept yet; the operator keeps those that change pods, and lanes once a minute",
        );
    }
    let same = replayed.iter().filter(|replayed| replayed.same).count();
    let title = format!("replay: {same} of {} come out the same", replayed.len());
    let title = if same == replayed.len() {
        paint.well(&title)
    } else {
        paint.bad(&title)
    };
    Tree::new(title).with_all(replayed.iter().map(|replayed| line(replayed, paint)))
}

fn line(replayed: &Replayed, paint: Paint) -> Tree {
    let Some(then) = &replayed.then else {
        let error = replayed.error.as_deref().unwrap_or_default();
        return Tree::new(format!(
            "{}  {}: {error}",
            replayed.at,
            paint.bad("cannot be read, an operator of another version may have kept it")
        ));
    };
    let verdict = match &replayed.now {
        None => paint.well("the same"),
        Some(_) => paint.bad("differs"),
    };
    let tree = Tree::new(format!(
        "{}  {}: {verdict}",
        replayed.at,
        paint.strong(then.reason)
    ));
    match &replayed.now {
        None => tree.with(then.message.clone()),
        Some(now) => tree
            .with(format!("then: {}", sizes(then)))
            .with(format!("now: {}", sizes(now))),
    }
}

fn sizes(sizes: &Sizes) -> String {
    format!(
        "pods {} -> {}, {} lanes, {}: {}",
        sizes.replicas_before, sizes.replicas, sizes.lanes, sizes.reason, sizes.message
    )
}
