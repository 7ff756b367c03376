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
pub use decision::{Decision, HotKey, Inputs, Limits, Reason, Stale};
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
use link::Order;
use observe::Seen;
use std::collections::BTreeMap;

/// Sooner than this a call says only what the last one said: rounds may come at any time.
const EVERY: f64 = 4.0;

/// Decides. To be called every few seconds with the history of the call before.
pub fn decide(snapshot: &Snapshot, policy: &Policy, history: &History) -> (Decision, History) {
    let mut next = history.clone();
    let now = snapshot.now.as_secs_f64();
    if history.at.is_some_and(|at| now < at + EVERY) {
        return (repeated(snapshot, policy, history), next);
    }
    let seen = observe::observe(&mut next, snapshot);
    next.missing
        .note(now, seen.broker_missing, seen.pods_missing);
    let order = next.link.step(&seen, &mut next.model, now);
    let demand = demand::demand(snapshot, &seen, &next);
    let reported = snapshot.pods.iter().map(|pod| pod.lanes).max();
    let before = next.lanes.or(reported).unwrap_or(policy.min_lanes);
    let (lanes, lanes_reason) = lanes::lanes(snapshot, policy, &next, &seen, &demand, order);
    let case = replicas::Case {
        snapshot,
        policy,
        seen: &seen,
        demand: &demand,
    };
    let owned = policy.mode == Mode::Auto;
    let wanted = replicas::replicas(&case, &mut next, owned);
    let advised = match snapshot.replicas {
        // At 0 somebody stopped the consumer; an HPA leaves that alone too.
        0 => 0,
        _ => wanted.replicas.clamp(
            policy.min_replicas,
            policy.max_replicas.max(policy.min_replicas),
        ),
    };
    let lanes_owned = matches!(policy.mode, Mode::Auto | Mode::LanesOnly);
    let limits = Limits {
        scaling: wanted.beyond,
        hot_key: demand.hot.clone(),
        stuck_key: demand.stuck.clone(),
        downstream: next.link.bound(),
        stale: stale(&next, now),
    };
    let key_bound = demand.key_bound || (demand.hot.is_some() && seen.backlog() > 0.0);
    let reason = reason(policy, wanted.reason, lanes_reason, key_bound);
    let inputs = inputs(policy, &next, &seen, wanted.expected);
    let decided = Decision {
        lanes: if lanes_owned { lanes } else { before },
        fewer_lanes: match order {
            Order::Total { .. } if lanes_owned => lanes::fewer(snapshot, policy, &demand, lanes),
            _ => BTreeMap::new(),
        },
        replicas: if owned { advised } else { snapshot.replicas },
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
    next.lanes = Some(decided.lanes);
    next.fewer_lanes.clone_from(&decided.fewer_lanes);
    next.last_reason = Some(reason);
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

/// Between two looks: what was decided, within the bounds of now.
fn repeated(snapshot: &Snapshot, policy: &Policy, history: &History) -> Decision {
    let most = policy.max_lanes.max(policy.min_lanes);
    let lanes = history
        .lanes
        .unwrap_or(policy.min_lanes)
        .clamp(policy.min_lanes, most);
    let mut replicas = snapshot.replicas;
    if policy.mode == Mode::Auto && replicas > 0 {
        replicas = replicas.clamp(
            policy.min_replicas,
            policy.max_replicas.max(policy.min_replicas),
        );
    }
    let inputs = inputs(policy, history, &Seen::default(), None);
    let (reason, limits) = (
        history.last_reason.unwrap_or(Reason::Steady),
        Limits::default(),
    );
    let sizes = Sizes {
        lanes: (lanes, lanes),
        replicas: (replicas, replicas),
    };
    Decision {
        lanes,
        fewer_lanes: history.fewer_lanes.clone(),
        replicas,
        advised: replicas,
        reason,
        message: decision::explain(reason, sizes, &inputs, &limits),
        inputs,
        limits,
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

    /// Lanes of a pod, as last decided.
    pub fn lanes(&self) -> Option<u32> {
        self.lanes
    }

    /// What was learned.
    pub fn model(&self) -> &Model {
        &self.model
    }
}
