//! How many lanes a pod runs and how many pods there are. Pure: no clock, no I/O; the same inputs give
//! the same decision.
//!
//! Lanes close the backlog loop, every call; replicas follow only when lanes cannot, every 15 s
//! (a loop with the delay of a pod start must not chase a raw backlog). Nothing goes down on missing
//! data, and a key that is slow by itself is not demand.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

/// A backlog is to be gone within this time, as far as lanes can do it.
const DRAIN_BY_LANES: f64 = 20.0;
/// A backlog that lasts longer than this at full lanes asks for pods.
const DRAIN_BY_PODS: f64 = 60.0;
/// Wanted utilisation, and that after a step down.
const UTILISATION: f64 = 0.8;
const UTILISATION_AFTER_DOWN: f64 = 0.65;
/// Completions after which the service time is believed.
const LEARNED_AFTER: f64 = 500.0;
/// Sooner than this a call says only what the last one said: rounds may come at any time.
const LANES_EVERY: Duration = Duration::from_secs(4);
const REPLICAS_EVERY: Duration = Duration::from_secs(15);
const STARTING_AT_MOST: Duration = Duration::from_secs(90);
const PROBE_EVERY: Duration = Duration::from_secs(30);
/// Weight of the newest sample.
const SMOOTHING: f64 = 0.5;

/// Bounds and mode, from the OrderedConsumer.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Who owns the number of replicas.
    pub mode: Mode,
    /// Fewest lanes of a pod.
    pub min_lanes: u32,
    /// Most lanes of a pod.
    pub max_lanes: u32,
    /// Fewest pods.
    pub min_replicas: u32,
    /// Most pods.
    pub max_replicas: u32,
    /// How long fewer pods must have been enough before there are fewer.
    pub hold: Duration,
}

impl Policy {
    /// The usual hold.
    pub const HOLD: Duration = Duration::from_secs(60);
}

/// Who owns the number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The controller does.
    Auto,
    /// Somebody else does.
    LanesOnly,
}

/// What is known at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Time since the operator's start.
    pub now: Duration,
    /// Wanted pods.
    pub replicas: u32,
    /// Ready pods.
    pub ready: u32,
    /// Queues of the topic.
    pub queues: Option<u32>,
    /// Sum of the end offsets of all queues; none if one is unknown.
    pub max_offsets: Option<u64>,
    /// Messages that are not finished; none if a queue or pod is unknown.
    pub unfinished: Option<u64>,
    /// The pods that answered.
    pub pods: Vec<PodSample>,
}

/// What one pod knows of itself. Counters belong to one incarnation.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSample {
    /// Identity of the process.
    pub incarnation: String,
    /// Lane target in force.
    pub lanes: u32,
    /// Calls running now.
    pub busy_lanes: u32,
    /// Lanes ready to run without a slot.
    pub waiting_lanes: u32,
    /// Time-integral of busy lanes, in seconds.
    pub busy_lane_seconds: f64,
    /// Messages finished.
    pub completed: u64,
    /// Age of the process in seconds.
    pub uptime_seconds: f64,
    /// Keys with messages in memory.
    pub live_keys: u64,
}

/// What is remembered between two calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    at: Option<Duration>,
    max_offsets: Option<(Duration, u64)>,
    /// When lanes were last decided, and on how many.
    lanes_at: Option<(Duration, u32)>,
    pods: BTreeMap<String, (f64, u64)>,
    arrivals: Option<f64>,
    completions: Option<f64>,
    busy: Option<f64>,
    /// Lane-seconds and completions the service time is made of, with the old ones fading.
    served: (f64, f64),
    /// Largest completion rate seen, and with how many lanes a pod.
    best: Option<(f64, u32)>,
    stalled: u32,
    probed_at: Option<Duration>,
    replicas_at: Option<Duration>,
    scaled_up_at: Option<Duration>,
    fewer_since: Option<Duration>,
    last_direction: i8,
    reversals: u32,
}

/// What is to be, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Lanes of each pod.
    pub lanes: u32,
    /// Pods.
    pub replicas: u32,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, in a sentence with numbers.
    pub message: String,
    /// The numbers.
    pub inputs: Inputs,
}

/// The numbers a decision was made of. Rates are messages a second over all pods.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Inputs {
    /// Messages that arrive.
    pub arrival_rate: Option<f64>,
    /// Messages that are finished.
    pub completion_rate: Option<f64>,
    /// Seconds a call takes.
    pub service_seconds: Option<f64>,
    /// Busy lanes over all pods, on average.
    pub busy_lanes: Option<f64>,
    /// Messages that are not finished.
    pub unfinished: Option<u64>,
    /// Messages a second that one pod can finish.
    pub pod_capacity: Option<f64>,
}

/// Why a decision is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// What there is fits the load.
    Steady,
    /// Too little was seen yet to know how long a call takes.
    Learning,
    /// Lanes follow the load up.
    LanesUp,
    /// Lanes follow the load down.
    LanesDown,
    /// Lanes are at their maximum and the backlog needs more pods.
    ReplicasUp,
    /// Fewer pods have been enough for the hold.
    ReplicasDown,
    /// Pods that were asked for are not ready yet.
    PodsStarting,
    /// More would be needed than the bounds or the queues allow.
    AtMaximum,
    /// Few keys hold the backlog: more lanes or pods cannot help.
    KeyBound,
    /// More lanes did not finish more: something behind the handler is the limit.
    DownstreamBound,
    /// Figures are missing: nothing goes down.
    MetricsMissing,
}

impl Reason {
    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "Steady",
            Self::Learning => "Learning",
            Self::LanesUp => "LanesUp",
            Self::LanesDown => "LanesDown",
            Self::ReplicasUp => "ReplicasUp",
            Self::ReplicasDown => "ReplicasDown",
            Self::PodsStarting => "PodsStarting",
            Self::AtMaximum => "AtMaximum",
            Self::KeyBound => "KeyBound",
            Self::DownstreamBound => "DownstreamBound",
            Self::MetricsMissing => "MetricsMissing",
        }
    }
}

/// Decides. To be called every few seconds with the history of the call before.
pub fn decide(snapshot: &Snapshot, policy: &Policy, history: &History) -> (Decision, History) {
    let mut next = history.clone();
    next.observe(snapshot);
    let current = snapshot
        .pods
        .iter()
        .map(|pod| pod.lanes)
        .max()
        .unwrap_or(policy.min_lanes);
    let service = next.service_seconds();
    let known = snapshot.unfinished.zip(next.arrivals);
    let (lanes, mut reason) = match next.lanes_at {
        Some((at, lanes)) if snapshot.now < at + LANES_EVERY => {
            let within = lanes.clamp(policy.min_lanes, policy.max_lanes.max(policy.min_lanes));
            (
                within,
                if service.is_some() {
                    Reason::Steady
                } else {
                    Reason::Learning
                },
            )
        }
        _ => {
            let decided = lanes(snapshot, policy, &mut next, current, service, known);
            next.lanes_at = Some((snapshot.now, decided.0));
            decided
        }
    };
    let mut replicas = snapshot.replicas;
    // At 0 somebody stopped the consumer; an HPA leaves that alone too.
    if policy.mode == Mode::Auto && snapshot.replicas > 0 {
        let (wanted, why) = wanted_replicas(snapshot, policy, &mut next, lanes, service, known);
        replicas = wanted.clamp(
            policy.min_replicas,
            policy.max_replicas.max(policy.min_replicas),
        );
        reason = why.unwrap_or(reason);
    }
    let inputs = Inputs {
        arrival_rate: next.arrivals,
        completion_rate: next.completions,
        service_seconds: service,
        busy_lanes: next.busy,
        unfinished: snapshot.unfinished,
        pod_capacity: service.map(|service| f64::from(policy.max_lanes) / service),
    };
    let message = message(reason, current, lanes, snapshot.replicas, replicas, &inputs);
    (
        Decision {
            lanes,
            replicas,
            reason,
            message,
            inputs,
        },
        next,
    )
}

fn lanes(
    snapshot: &Snapshot,
    policy: &Policy,
    next: &mut History,
    current: u32,
    service: Option<f64>,
    known: Option<(u64, f64)>,
) -> (u32, Reason) {
    let clamp = |lanes: u32| lanes.clamp(policy.min_lanes, policy.max_lanes.max(policy.min_lanes));
    if snapshot.pods.is_empty() {
        return (clamp(current), Reason::MetricsMissing);
    }
    let full = snapshot
        .pods
        .iter()
        .any(|pod| pod.waiting_lanes > 0 && pod.busy_lanes >= pod.lanes);
    let Some(service) = service else {
        let lanes = if full {
            current.saturating_mul(2)
        } else {
            current
        };
        return (clamp(lanes), Reason::Learning);
    };
    let Some((unfinished, arrivals)) = known else {
        return (clamp(current), Reason::MetricsMissing);
    };
    let pods = snapshot.pods.len() as f64;
    let demand = (arrivals + unfinished as f64 / DRAIN_BY_LANES) / pods;
    let keys = snapshot
        .pods
        .iter()
        .map(|pod| pod.live_keys)
        .max()
        .unwrap_or(0);
    let useful = u32::try_from(keys * 2)
        .unwrap_or(u32::MAX)
        .saturating_add(policy.min_lanes);
    let wanted = clamp(((service * demand / UTILISATION).ceil().min(1e6) as u32).min(useful));
    if wanted > current {
        if next.stalled >= 2 {
            let due = next
                .probed_at
                .is_none_or(|at| snapshot.now >= at + PROBE_EVERY);
            if !due {
                return (clamp(current), Reason::DownstreamBound);
            }
            next.probed_at = Some(snapshot.now);
            return (
                clamp(wanted.min(current + current.div_ceil(3))),
                Reason::DownstreamBound,
            );
        }
        // The service time was learned with fewer lanes: a step at most doubles twice.
        return (
            clamp(wanted.min(current.saturating_mul(4))),
            Reason::LanesUp,
        );
    }
    // The split between pods is not even: what is enough on average is not for a pod that has no lane free.
    if full {
        return (clamp(current), Reason::Steady);
    }
    if f64::from(wanted) < 0.75 * f64::from(current) {
        return (wanted, Reason::LanesDown);
    }
    (clamp(current), Reason::Steady)
}

fn wanted_replicas(
    snapshot: &Snapshot,
    policy: &Policy,
    next: &mut History,
    lanes: u32,
    service: Option<f64>,
    known: Option<(u64, f64)>,
) -> (u32, Option<Reason>) {
    let (now, have) = (snapshot.now, snapshot.replicas);
    if have < policy.min_replicas || have > policy.max_replicas.max(policy.min_replicas) {
        return (have, None);
    }
    let Some((unfinished, arrivals)) = known else {
        next.fewer_since = None;
        return (have, Some(Reason::MetricsMissing));
    };
    let Some(service) = service else {
        return (have, None);
    };
    // Measured where pods were saturated: calls may be shorter on paper than CPUs allow.
    let paper = f64::from(policy.max_lanes) / service;
    let saturated = snapshot
        .pods
        .iter()
        .all(|pod| pod.busy_lanes * 10 >= pod.lanes * 8)
        && lanes >= policy.max_lanes;
    let measured = next
        .completions
        .map(|rate| rate / snapshot.pods.len().max(1) as f64);
    let capacity = if saturated {
        measured.unwrap_or(paper).min(paper)
    } else {
        paper
    }
    .max(f64::MIN_POSITIVE);
    let needed = |utilisation: f64, within: f64| {
        let rate = arrivals + unfinished as f64 / within;
        ((rate / (utilisation * capacity)).ceil().min(1e6) as u32).max(1)
    };
    let starting = snapshot.ready < have
        && next
            .scaled_up_at
            .is_some_and(|at| now < at + STARTING_AT_MOST);
    let enough = needed(UTILISATION_AFTER_DOWN, DRAIN_BY_PODS).max(policy.min_replicas);
    let little = (unfinished as f64) < 10.0 * capacity * f64::from(have.max(1));
    next.fewer_since = if enough < have && little {
        next.fewer_since.or(Some(now))
    } else {
        None
    };
    let up = needed(UTILISATION, DRAIN_BY_PODS);
    if starting && up > have {
        return (have, Some(Reason::PodsStarting));
    }
    if next.replicas_at.is_some_and(|at| now < at + REPLICAS_EVERY) {
        return (have, None);
    }
    if up > have && lanes >= policy.max_lanes {
        if next.stalled >= 2 {
            return (have, Some(Reason::DownstreamBound));
        }
        let busy: u32 = snapshot.pods.iter().map(|pod| pod.busy_lanes).sum();
        let slots: u32 = snapshot.pods.iter().map(|pod| pod.lanes).sum();
        if busy * 2 < slots {
            return (have, Some(Reason::KeyBound));
        }
        let most = policy.max_replicas.min(snapshot.queues.unwrap_or(u32::MAX));
        let wanted = up.min(have.saturating_mul(2)).min(most);
        if wanted <= have {
            return (have, Some(Reason::AtMaximum));
        }
        next.turned(1);
        next.replicas_at = Some(now);
        next.scaled_up_at = Some(now);
        return (wanted, Some(Reason::ReplicasUp));
    }
    let hold = policy.hold * 2u32.pow(next.reversals.min(5));
    if next
        .fewer_since
        .is_some_and(|since| now >= since + hold.min(Duration::from_secs(1800)))
    {
        next.turned(-1);
        next.replicas_at = Some(now);
        next.fewer_since = None;
        return (
            enough.max(have.div_ceil(2)).max(policy.min_replicas),
            Some(Reason::ReplicasDown),
        );
    }
    (have, None)
}

impl History {
    fn service_seconds(&self) -> Option<f64> {
        let (seconds, completed) = self.served;
        (completed >= LEARNED_AFTER && seconds > 0.0).then(|| seconds / completed)
    }

    fn turned(&mut self, direction: i8) {
        if self.last_direction == -direction && direction > 0 {
            self.reversals += 1;
        }
        self.last_direction = direction;
    }

    fn observe(&mut self, snapshot: &Snapshot) {
        let elapsed = self
            .at
            .map(|at| snapshot.now.saturating_sub(at).as_secs_f64())
            .filter(|elapsed| *elapsed > 0.5);
        let smooth =
            |old: Option<f64>, new: f64| Some(old.map_or(new, |old| old + SMOOTHING * (new - old)));
        let lanes = snapshot.pods.iter().map(|pod| pod.lanes).max().unwrap_or(0);
        if let Some((now, offsets)) = snapshot.max_offsets.map(|offsets| (snapshot.now, offsets)) {
            match self.max_offsets {
                Some((at, old)) if now.saturating_sub(at).as_secs_f64() > 0.5 => {
                    // A step back is a reset: that sample says nothing.
                    if let Some(arrived) = offsets.checked_sub(old) {
                        let rate = arrived as f64 / now.saturating_sub(at).as_secs_f64();
                        self.arrivals = smooth(self.arrivals, rate);
                    }
                    self.max_offsets = Some((now, offsets));
                }
                Some(_) => {}
                None => self.max_offsets = Some((now, offsets)),
            }
        }
        if let Some(elapsed) = elapsed {
            let (mut seconds, mut completed, mut seen) = (0.0, 0.0, 0);
            for pod in &snapshot.pods {
                if let Some((old_seconds, old_completed)) = self.pods.get(&pod.incarnation) {
                    seconds += (pod.busy_lane_seconds - old_seconds).max(0.0);
                    completed += pod.completed.saturating_sub(*old_completed) as f64;
                    seen += 1;
                }
            }
            if seen > 0 {
                let rate = completed / elapsed;
                self.judge(rate, lanes, snapshot);
                self.completions = smooth(self.completions, rate);
                self.busy = smooth(self.busy, seconds / elapsed);
                let (old_seconds, old_completed) = self.served;
                // About the last ten thousand completions count.
                let keep = 1.0 - (completed / 10_000.0).min(0.5);
                self.served = (
                    old_seconds * keep + seconds,
                    old_completed * keep + completed,
                );
            }
        }
        if elapsed.is_some() || self.at.is_none() {
            self.at = Some(snapshot.now);
            self.pods = snapshot
                .pods
                .iter()
                .map(|pod| {
                    (
                        pod.incarnation.clone(),
                        (pod.busy_lane_seconds, pod.completed),
                    )
                })
                .collect();
        }
    }

    /// Whether more lanes brought more.
    fn judge(&mut self, rate: f64, lanes: u32, snapshot: &Snapshot) {
        let busy = snapshot
            .pods
            .iter()
            .all(|pod| pod.busy_lanes * 10 >= pod.lanes * 9 && pod.waiting_lanes > 0);
        match self.best {
            _ if !busy => self.stalled = 0,
            Some((best, at)) if lanes > at + at / 4 => {
                if rate < best * 1.1 {
                    self.stalled += 1;
                } else {
                    self.stalled = 0;
                    self.best = Some((rate, lanes));
                }
            }
            _ => self.best = Some((rate, lanes)),
        }
    }
}

fn message(
    reason: Reason,
    from_lanes: u32,
    lanes: u32,
    from: u32,
    replicas: u32,
    inputs: &Inputs,
) -> String {
    let known = |value: Option<f64>, unit: &str| {
        value.map_or_else(
            || format!("unknown {unit}"),
            |value| format!("{value:.0} {unit}"),
        )
    };
    let took = inputs.service_seconds.map_or_else(String::new, |seconds| {
        format!(", {:.1} ms a call", seconds * 1e3)
    });
    let figures = format!(
        "{}, {}, {}{took}",
        known(inputs.arrival_rate, "messages/s arrive"),
        known(inputs.completion_rate, "messages/s finish"),
        known(
            inputs.unfinished.map(|unfinished| unfinished as f64),
            "unfinished"
        ),
    );
    let sizes = match (from_lanes == lanes, from == replicas) {
        (true, true) => format!("{lanes} lanes a pod, {replicas} pods"),
        (false, true) => format!("{from_lanes} -> {lanes} lanes a pod, {replicas} pods"),
        (true, false) => format!("{lanes} lanes a pod, {from} -> {replicas} pods"),
        (false, false) => format!("{from_lanes} -> {lanes} lanes a pod, {from} -> {replicas} pods"),
    };
    let why = match reason {
        Reason::Steady => "it fits",
        Reason::Learning => "learning how long a call takes",
        Reason::LanesUp => "more lanes are needed",
        Reason::LanesDown => "fewer lanes are enough",
        Reason::ReplicasUp => "lanes are at their maximum, more pods are needed",
        Reason::ReplicasDown => "fewer pods have been enough for a while",
        Reason::PodsStarting => "waiting for pods that start",
        Reason::AtMaximum => "more is needed than the bounds and the queues allow",
        Reason::KeyBound => "few keys hold the backlog, more cannot help",
        Reason::DownstreamBound => {
            "more lanes did not finish more, something behind the handler is the limit"
        }
        Reason::MetricsMissing => "figures are missing, nothing is taken down",
    };
    format!("{sizes}: {why} ({figures})")
}
