//! How many lanes a pod runs and how many pods there are. Pure: no clock, no I/O; the same inputs give
//! the same decision, so a recorded decision can be replayed.
//!
//! Lanes close the backlog loop, every few seconds; replicas follow the forecast, because a loop with the
//! delay of a pod start must not chase a raw backlog. Nothing goes down on missing data; a key that is slow
//! by itself, a head that does not move and a saturated downstream are not demand. What a call takes, what
//! a pod can do and how long it takes to start is learned.

mod brakes;
mod decision;
mod demand;
mod history;
mod input;
mod lanes;
mod link;
mod model;
mod observe;
mod placement;
mod record;
mod replicas;
pub mod schedule;
#[cfg(test)]
mod tests;

pub use brakes::Brakes;
pub use decision::{Decision, HeavyQueue, HotKey, Inputs, Limits, Reason, Stale};
pub use history::History;
pub use input::{KeyLoad, Mode, PodSample, Policy, QueueSample, Snapshot, Window};
pub use model::Model;
pub use record::{Record, Recorded};

/// The rules of lanes and replicas, for those who explain a decision.
pub mod rules {
    pub use super::lanes::{DRAIN, FEWER, UTILISATION, needed};
    pub use super::replicas::{TARGET, TARGET_DOWN, TRIGGER, WORTH, working_off};
}

use decision::Sizes;
use keylane_consumer::ownership::Allocator;
use link::Order;
use observe::Seen;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Sooner than this a call says only what the last one said: rounds may come at any time.
const EVERY: f64 = 4.0;

/// Decides. To be called every few seconds with the history of the call before. Lanes and replicas are
/// decided at each call: replicas are kept calm by their hold and their forecast, and would only come later
/// if they were looked at less often.
pub fn decide(snapshot: &Snapshot, policy: &Policy, history: &History) -> (Decision, History) {
    let mut next = history.clone();
    let now = snapshot.now.as_secs_f64();
    let soon = history.at.is_some_and(|at| (at..at + EVERY).contains(&now));
    if let Some(last) = history.last.as_ref().filter(|_| soon) {
        next.before_step = None;
        return (repeated(last, snapshot, policy), next);
    }
    next.before_step = None;
    let owned = policy.mode == Mode::Auto;
    if owned && history.mode.is_some_and(|mode| mode != Mode::Auto) {
        next.calm.owned_since = Some(now);
    }
    next.mode = Some(policy.mode);
    let seen = observe::observe(&mut next, snapshot);
    next.missing
        .note(now, seen.broker_missing, seen.pods_missing);
    let kept = (!policy.mode.owns_lanes()).then(|| lanes::kept(snapshot, policy, history));
    if let Some(kept) = &kept {
        next.lanes = Some(kept.most);
    }
    let reported = snapshot.pods.iter().map(|pod| pod.lanes).max();
    let before = next.lanes.or(reported).unwrap_or(policy.min_lanes);
    let spare = kept
        .is_none()
        .then(|| before.saturating_sub(policy.min_lanes));
    next.link.step(&seen, &mut next.model, now, spare);
    let demand = demand::demand(snapshot, &seen, &next);
    let case = replicas::Case {
        snapshot,
        policy,
        seen: &seen,
        demand: &demand,
        allocator: RefCell::new(Allocator::new(
            snapshot.queues.iter().map(|queue| &queue.id),
        )),
    };
    let wanted = replicas::replicas(&case, &mut next, owned);
    let advised = match snapshot.replicas {
        // At 0 somebody stopped the consumer; an HPA leaves that alone too.
        0 => 0,
        _ => wanted.replicas.clamp(
            policy.min_replicas,
            policy.max_replicas.max(policy.min_replicas),
        ),
    };
    let replicas = if owned { advised } else { snapshot.replicas };
    // Also what pods have shown that brought nothing and go again.
    let order = next.link.order(&next.model);
    let to_do = lanes::ToDo {
        snapshot,
        demand: &demand,
        pods: replicas,
    };
    let (lanes, lanes_reason) = lanes::lanes(&to_do, policy, &next, &seen, order);
    let limits = Limits {
        scaling: wanted.beyond,
        heavy_queue: replicas::heavy_queue(&case, &next),
        hot_keys: demand.hot.clone(),
        stuck_key: demand.stuck.clone(),
        downstream: next.link.bound(),
        stale: stale(&next, now),
    };
    let key_bound = demand.key_bound || (!demand.hot.is_empty() && seen.backlog() > 0.0);
    let reason = reason(policy, wanted.reason, lanes_reason, key_bound);
    let inputs = inputs(policy, &next, &seen, wanted.expected);
    let kept = kept.unwrap_or_else(|| lanes::Kept {
        most: lanes,
        fewer: match order {
            Order::Total { .. } => lanes::fewer(&to_do, policy, lanes),
            Order::None | Order::Probe => BTreeMap::new(),
        },
    });
    let decided = Decision {
        lanes: kept.most,
        fewer_lanes: kept.fewer,
        advised_lanes: lanes,
        replicas,
        advised,
        reason,
        message: decision::explain(
            reason,
            Sizes {
                lanes: (before, lanes),
                replicas: (snapshot.replicas, advised),
            },
            &inputs,
            &limits,
        ),
        inputs,
        limits,
    };
    if lanes_reason != Reason::Learning {
        next.before_doubling = None;
    } else if decided.lanes > before {
        next.before_doubling = seen.completions.map(history::tidy);
    }
    next.lanes = Some(decided.lanes);
    next.fewer_lanes.clone_from(&decided.fewer_lanes);
    next.last = Some(decided.clone());
    (decided, next)
}

/// The sources whose figures have been missing for long.
fn stale(history: &History, now: f64) -> Option<Stale> {
    let long = |since: Option<f64>| {
        let seconds = since.map(|since| now - since);
        seconds.filter(|seconds| *seconds >= replicas::STALE)
    };
    let stale = Stale {
        brokers: long(history.missing.brokers),
        pods: long(history.missing.pods),
    };
    (stale != Stale::default()).then_some(stale)
}

/// Between two looks: what was decided last, within the bounds of now. What limits the group is no less so.
fn repeated(last: &Decision, snapshot: &Snapshot, policy: &Policy) -> Decision {
    let most = policy.max_lanes.max(policy.min_lanes);
    let lanes = if policy.mode.owns_lanes() {
        last.lanes.clamp(policy.min_lanes, most)
    } else {
        last.lanes
    };
    let mut replicas = snapshot.replicas;
    if policy.mode == Mode::Auto && replicas > 0 {
        replicas = replicas.clamp(
            policy.min_replicas,
            policy.max_replicas.max(policy.min_replicas),
        );
    }
    let owned = policy.mode == Mode::Auto;
    let limits = Limits {
        scaling: last.limits.scaling.filter(|_| owned),
        ..last.limits.clone()
    };
    let sizes = Sizes {
        lanes: (lanes, lanes),
        replicas: (snapshot.replicas, replicas),
    };
    Decision {
        lanes,
        replicas,
        advised: if owned { replicas } else { last.advised },
        message: decision::explain(last.reason, sizes, &last.inputs, &limits),
        limits,
        ..last.clone()
    }
}

/// The reason that says most: of replicas before lanes, of what limits before what fits.
fn reason(policy: &Policy, replicas: Option<Reason>, lanes: Reason, key_bound: bool) -> Reason {
    if policy.mode == Mode::Hold {
        return Reason::Held;
    }
    match (replicas, lanes) {
        (Some(reason), _) if policy.mode != Mode::LanesOnly => reason,
        (_, Reason::Steady) if key_bound => Reason::KeyBound,
        (_, lanes) => lanes,
    }
}

fn inputs(policy: &Policy, history: &History, seen: &Seen, expected: Option<f64>) -> Inputs {
    let known = !seen.queues.is_empty() && !seen.missing();
    Inputs {
        arrival_rate: history.arrivals.last(1).next(),
        expected_rate: expected,
        completion_rate: history.completions,
        call_seconds: seen.call,
        service_seconds: history.model.service(),
        busy_lanes: history.busy,
        unfinished: known.then(|| seen.backlog().round() as u64),
        pod_capacity: history.model.capacity(policy),
        start_seconds: Some(history.model.start()),
        cpu: seen.cpu,
    }
}

impl History {
    /// A history that begins with a model learned elsewhere.
    pub fn with_model(model: Model) -> Self {
        Self {
            model,
            ..Self::default()
        }
    }

    /// The step that was decided last was not taken: replicas could not be written. It is as if it had not
    /// been decided, and it may be decided again.
    pub fn step_not_taken(&mut self) {
        if let Some((calm, change)) = self.before_step.take() {
            (self.calm, self.change) = (calm, change);
        }
    }

    /// Lanes of a pod, as last decided; of the pod with the most, where they differ.
    pub fn lanes(&self) -> Option<u32> {
        self.lanes
    }

    /// Lanes of pods that were to have fewer, as last decided, by incarnation.
    pub fn fewer_lanes(&self) -> &BTreeMap<String, u32> {
        &self.fewer_lanes
    }

    /// What was learned.
    pub fn model(&self) -> &Model {
        &self.model
    }
}
