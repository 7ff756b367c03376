//! Why an OrderedConsumer has so many lanes and pods: the last decision, the rules with its numbers in
//! them, and what would change it. Pure.
//!
//! A status tells the load of all queues together. The rules look at the fullest pod; where only sums are
//! known, they are worked out here as if queues were shared evenly, and that is said. A decision kept with
//! all it was made of is made again exactly ([`replay`]).

mod change;
mod facts;
pub(super) mod replay;
mod rules;
#[cfg(test)]
mod tests;

use super::paint::Paint;
use super::tree::Tree;
use crate::crd::{LastDecision, OrderedConsumer};
use facts::Facts;
use kube::ResourceExt;
use serde::Serialize;

/// Why there are so many lanes and pods.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    namespace: String,
    name: String,
    /// None: nothing was decided yet.
    decision: Option<LastDecision>,
    /// The rule of lanes, with numbers.
    lanes: Vec<String>,
    /// The rule of pods, with numbers.
    pods: Vec<String>,
    would_change: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed: Option<Vec<replay::Replayed>>,
}

/// Explains the last decision.
pub(super) fn explain(consumer: &OrderedConsumer) -> Explanation {
    let status = consumer.status.as_ref();
    let decision = status.and_then(|status| status.decision.clone());
    let facts = Facts::of(consumer);
    Explanation {
        namespace: consumer.namespace().unwrap_or_default(),
        name: consumer.name_any(),
        lanes: facts.as_ref().map(rules::lanes).unwrap_or_default(),
        pods: facts.as_ref().map(rules::pods).unwrap_or_default(),
        would_change: match &facts {
            Some(facts) => change::would_change(facts, consumer),
            None => vec![
                "the operator decides once it has looked at brokers and pods; kubectl keylane check says what keeps it from that"
                    .to_owned(),
            ],
        },
        decision: decision.map(|decision| LastDecision {
            history: None,
            ..decision
        }),
        replayed: None,
    }
}

/// The same for people.
pub(super) fn text(explanation: &Explanation, paint: Paint) -> String {
    let name = format!("{}/{}", explanation.namespace, explanation.name);
    let name = paint.strong(&name);
    let mut tree = match &explanation.decision {
        None => Tree::new(format!("OrderedConsumer {name}: nothing is decided yet")),
        Some(decision) => Tree::new(format!(
            "OrderedConsumer {name}: {} lanes a pod, {} ({})",
            decision.lanes,
            rules::pods_of(decision.replicas),
            paint.strong(&decision.reason)
        ))
        .with(format!("decided: {}", decision.message)),
    };
    for (title, lines) in [
        ("lanes", &explanation.lanes),
        ("pods", &explanation.pods),
        ("what would change it", &explanation.would_change),
    ] {
        if !lines.is_empty() {
            tree = tree.with(Tree::new(title).with_all(lines.iter().cloned()));
        }
    }
    if let Some(replayed) = &explanation.replayed {
        tree = tree.with(replay::tree(replayed, paint));
    }
    tree.to_string()
}
