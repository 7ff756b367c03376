//! How many lanes each pod runs. Lanes close the backlog loop: they act within seconds, so they may follow
//! what is there. Enough for the fullest pod, by Little's law (1961): calls at once = calls a second x
//! seconds a call.

use super::demand::Demand;
use super::history::History;
use super::link::Order;
use super::observe::Seen;
use super::{Policy, Reason, Snapshot};
use std::collections::BTreeMap;

/// A backlog is to be gone within this time (seconds), as far as lanes can do it; below that the loop is
/// unstable with hand-overs of 20 s.
pub const DRAIN: f64 = 20.0;
/// Wanted part of busy lanes.
pub const UTILISATION: f64 = 0.8;
/// Fewer lanes only if less than this part of them would do.
pub const FEWER: f64 = 0.75;

/// More lanes brought more if so many times as much is finished.
const MORE: f64 = 1.1;

/// Lanes that are needed for so many messages a second, each of which takes so many seconds.
pub fn needed(service: f64, load: f64) -> f64 {
    (service * load / UTILISATION).ceil()
}

/// What pods have to do.
pub(super) struct ToDo<'t> {
    pub snapshot: &'t Snapshot,
    pub demand: &'t Demand,
    /// Pods there are to be.
    pub pods: u32,
}

/// Lanes a pod, and why.
pub(super) fn lanes(
    to_do: &ToDo<'_>,
    policy: &Policy,
    history: &History,
    seen: &Seen,
    order: Order,
) -> (u32, Reason) {
    let snapshot = to_do.snapshot;
    let most = policy.max_lanes.max(policy.min_lanes);
    let clamp = |lanes: u32| lanes.clamp(policy.min_lanes, most);
    let reported = snapshot.pods.iter().map(|pod| pod.lanes).max();
    let current = history.lanes.or(reported).unwrap_or(policy.min_lanes);
    if snapshot.pods.is_empty() {
        return (clamp(current), Reason::MetricsMissing);
    }
    let full = seen.pods.iter().any(|pod| pod.full);
    let Some(service) = history.model.service() else {
        let lanes = if full && grew(history, seen) {
            current.saturating_mul(2)
        } else {
            current
        };
        return (clamp(lanes), Reason::Learning);
    };
    match order {
        Order::Probe => return (clamp((current / 2).max(1)), Reason::Probing),
        Order::Total { lanes, most } => {
            let part = to_do.parts().into_iter().fold(0.0, f64::max);
            // Those that stay have what is done now by those that go.
            let part = part.max(1.0 / f64::from(to_do.pods.max(1)));
            // Rounded up to keep the downstream busy, but a try is not to overload it.
            let lanes = (lanes * part).ceil().max((most * part).floor());
            return (clamp(lanes.clamp(1.0, 1e6) as u32), Reason::DownstreamBound);
        }
        Order::None => {}
    }
    let useful = history.model.useful_lanes().unwrap_or(u32::MAX);
    let wanted = needed(service, to_do.fullest());
    let wanted = clamp((wanted.min(1e6) as u32).min(useful));
    if wanted > current {
        return (wanted, Reason::LanesUp);
    }
    if seen.missing() {
        return (clamp(current), Reason::MetricsMissing);
    }
    if current > useful.max(policy.min_lanes) {
        return (clamp(useful), Reason::LanesDown);
    }
    // Where a pod has none free, fewer cannot be enough, whatever the figures say.
    if !full && f64::from(wanted) < FEWER * f64::from(current) {
        return (wanted, Reason::LanesDown);
    }
    (clamp(current), Reason::Steady)
}

/// Whether the lanes that were added last, while it is not known yet how long a call takes, brought more:
/// something behind the handler that can do no more must not get twice as many calls every few seconds.
fn grew(history: &History, seen: &Seen) -> bool {
    match (history.before_doubling, seen.completions) {
        (Some(before), Some(now)) => now >= MORE * before,
        _ => true,
    }
}

/// Lanes of the pods that have less to do than the busiest, which has `most`: what gets through is shared
/// as the work is, or queues of pods with many of them would fall behind those of pods with few. Whoever has
/// what when pods go is not known yet.
pub(super) fn fewer(to_do: &ToDo<'_>, policy: &Policy, most: u32) -> BTreeMap<String, u32> {
    let snapshot = to_do.snapshot;
    if to_do.pods < snapshot.replicas {
        return BTreeMap::new();
    }
    let parts = to_do.parts();
    let busiest = parts.iter().copied().fold(0.0, f64::max);
    let pods = snapshot.pods.iter().zip(parts);
    let lanes = pods.map(|(pod, part)| {
        let lanes = (f64::from(most) * part / busiest).round().clamp(1.0, 1e6) as u32;
        (pod.incarnation.clone(), lanes.max(policy.min_lanes))
    });
    lanes.filter(|(_, lanes)| *lanes < most).collect()
}

/// Lanes of pods that are not the controller's to change.
pub(super) struct Kept {
    /// Of the pod with the most, and of pods to come.
    pub most: u32,
    /// Of pods that have fewer, by incarnation.
    pub fewer: BTreeMap<String, u32>,
}

/// What pods have where lanes are not the controller's: each keeps what it was last told, and one that is new
/// gets what the one with the most has. Lanes that were taken to see what happens are given back.
pub(super) fn kept(snapshot: &Snapshot, policy: &Policy, history: &History) -> Kept {
    if let Some(most) = history.link.before_probe() {
        return Kept {
            most,
            fewer: BTreeMap::new(),
        };
    }
    let reported = snapshot.pods.iter().map(|pod| pod.lanes).max();
    let most = history.lanes.or(reported).unwrap_or(policy.min_lanes);
    let mut fewer = history.fewer_lanes.clone();
    if history.last.is_none() {
        // What a predecessor told them may not have been written. Pods that are older than its last look
        // have it.
        let now = snapshot.now.as_secs_f64();
        let older = |age: f64| history.at.is_none_or(|at| now - age <= at);
        for pod in &snapshot.pods {
            if older(pod.uptime_seconds) && pod.lanes < most {
                fewer.entry(pod.incarnation.clone()).or_insert(pod.lanes);
            }
        }
    }
    Kept { most, fewer }
}

impl ToDo<'_> {
    /// Part of each pod in all there is to do.
    fn parts(&self) -> Vec<f64> {
        let loads = self.loads();
        let (sum, even) = (loads.iter().sum::<f64>(), 1.0 / loads.len().max(1) as f64);
        let part = |load: f64| if sum > 0.0 { load / sum } else { even };
        loads.into_iter().map(part).collect()
    }

    /// Messages a second the busiest pod has to finish.
    fn fullest(&self) -> f64 {
        self.loads().into_iter().fold(0.0, f64::max)
    }

    /// Messages a second each pod has to finish. Queues nobody dispatches from yet will be somebody's.
    fn loads(&self) -> Vec<f64> {
        let mut pods = vec![0.0f64; self.snapshot.pods.len()];
        let mut nobodys = 0.0;
        let loads = self.demand.rates.iter().zip(&self.demand.backlogs);
        for (queue, (rate, backlog)) in self.snapshot.queues.iter().zip(loads) {
            let load = rate + backlog / DRAIN;
            match queue.owner.and_then(|owner| pods.get_mut(owner)) {
                Some(pod) => *pod += load,
                None => nobodys += load,
            }
        }
        let each = nobodys / pods.len().max(1) as f64;
        pods.into_iter().map(|load| load + each).collect()
    }
}
