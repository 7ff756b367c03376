//! What a snapshot says together with the one before: rates, calls, and what is missing. A figure that is
//! missing keeps its last value with what has arrived since; an offset that steps back is a queue that was
//! made anew, and its sample says nothing.

use super::Snapshot;
use super::history::{History, PodMemory};
use std::collections::BTreeMap;

/// Weight of the newest sample of rates that are shown and compared.
const SMOOTHING: f64 = 0.5;
/// Lanes count as all busy from this part on.
const FULL: f64 = 0.9;
/// A pod that uses so much of its CPU can do no more.
pub(super) const FULL_CPU: f64 = 0.9;
/// Lanes count as idle below this part, after so many looks.
const IDLE: f64 = 0.6;
const IDLE_LOOKS: u32 = 2;
/// A call that takes so much longer than usual waits for something.
pub(super) const SLOW: f64 = 1.25;
/// What arrives so soon after an outage are messages that were held back.
const BURST: f64 = 15.0;
/// An outage: no figures for so long.
const OUTAGE: f64 = 20.0;

/// What is seen now.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Seconds since the last figures.
    pub elapsed: f64,
    /// Rate and unfinished messages of each queue, in the snapshot's order.
    pub queues: Vec<QueueSeen>,
    /// Messages that arrive, a second; none if no queue has been known yet.
    pub arrivals: Option<f64>,
    pub pods: Vec<PodSeen>,
    /// Messages finished a second over all pods, in this interval.
    pub completions: Option<f64>,
    /// Seconds a call took in this interval.
    pub call: Option<f64>,
    /// Used part of its CPU, of the pod that has least left; none if nobody measures it.
    pub cpu: Option<f64>,
    /// A figure of a broker is missing.
    pub broker_missing: bool,
    /// Rates of queues are of this interval; at the first look of an operator they are of its predecessor,
    /// or unknown.
    pub compared: bool,
    /// Figures of pods are missing: none answers, or not all that are ready.
    pub pods_missing: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QueueSeen {
    pub rate: f64,
    pub unfinished: f64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PodSeen {
    /// Messages finished a second.
    pub rate: Option<f64>,
    /// Seconds a call took.
    pub call: Option<f64>,
    /// Lanes it has.
    pub lanes: u32,
    /// All lanes are busy and more wait.
    pub full: bool,
    /// Its CPU is used up.
    pub hot: bool,
    /// Many lanes have been idle for a while: what is behind in its queues, more lanes cannot help.
    pub idle: bool,
    /// It was full at both ends of the interval and kept its queues: what it did is what it can do.
    pub saturated: bool,
}

impl Seen {
    pub fn missing(&self) -> bool {
        self.broker_missing || self.pods_missing
    }

    /// Unfinished messages of all queues.
    pub fn backlog(&self) -> f64 {
        self.queues.iter().map(|queue| queue.unfinished).sum()
    }

    /// Lanes of the pod with the most.
    pub fn lanes(&self) -> u32 {
        self.pods.iter().map(|pod| pod.lanes).max().unwrap_or(0)
    }

    /// Part of the pods that have all lanes busy.
    pub fn full(&self) -> f64 {
        let full = self.pods.iter().filter(|pod| pod.full).count();
        full as f64 / self.pods.len().max(1) as f64
    }
}

/// Compares with the last figures, which are replaced.
pub(super) fn observe(history: &mut History, snapshot: &Snapshot) -> Seen {
    let now = snapshot.now.as_secs_f64();
    let elapsed = history.at.map_or(0.0, |at| (now - at).max(0.0));
    history.at = Some(now);
    let mut seen = Seen {
        elapsed,
        pods_missing: (snapshot.pods.len() as u32) < snapshot.ready
            || (snapshot.pods.is_empty() && snapshot.replicas > 0),
        broker_missing: snapshot.queues.is_empty(),
        cpu: (snapshot.pods.iter().filter_map(|pod| pod.cpu)).reduce(f64::max),
        ..Seen::default()
    };
    queues(history, snapshot, now, &mut seen);
    pods(history, snapshot, &mut seen);
    learn(history, snapshot, &seen);
    seen
}

fn queues(history: &mut History, snapshot: &Snapshot, now: f64, seen: &mut Seen) {
    if snapshot.queues.is_empty() {
        return;
    }
    let before = std::mem::take(&mut history.queues.0);
    let mut before = before.into_iter().peekable();
    let known = &mut history.queues.0;
    known.reserve(snapshot.queues.len());
    let (mut total, mut any, mut fresh, mut gap) = (0.0, false, true, 0.0f64);
    for queue in &snapshot.queues {
        // Both are in order of the ids.
        while before.next_if(|(id, _)| *id < queue.id).is_some() {}
        let same = before.next_if(|(id, _)| *id == queue.id);
        let mut memory = same.map(|(_, memory)| memory).unwrap_or_default();
        match (queue.max_offset, memory.max_offset) {
            (Some(offset), Some((at, before))) if now > at => {
                if let Some(arrived) = offset.checked_sub(before) {
                    memory.rate = arrived as f64 / (now - at);
                    any = true;
                    gap = gap.max(now - at);
                } else {
                    fresh = false;
                }
                memory.max_offset = Some((now, offset));
            }
            (Some(offset), _) => {
                fresh = false;
                memory.max_offset = Some((now, offset));
            }
            (None, _) => {
                fresh = false;
                seen.broker_missing = true;
            }
        }
        let unfinished = match queue.unfinished {
            Some(count) => {
                memory.unfinished = Some((now, count as f64));
                count as f64
            }
            // What is not known has grown by what arrived since; less what was finished, which is not
            // known either.
            None => {
                seen.broker_missing = true;
                memory.unfinished.map_or(0.0, |(at, count)| {
                    count + memory.rate * (now - at).min(60.0)
                })
            }
        };
        total += memory.rate;
        seen.queues.push(QueueSeen {
            rate: memory.rate,
            unfinished,
        });
        known.push((queue.id.clone(), memory));
    }
    seen.compared = any;
    if fresh && any {
        if gap > OUTAGE {
            history.burst_until = Some(now + BURST);
        }
        history.arrivals.push(now, total);
    }
    seen.arrivals = history.arrivals.last(1).next();
}

fn pods(history: &mut History, snapshot: &Snapshot, seen: &mut Seen) {
    let mut known = BTreeMap::new();
    let mut owned = vec![Vec::new(); snapshot.pods.len()];
    for (index, queue) in (0u32..).zip(&snapshot.queues) {
        if let Some(pod) = queue.owner.and_then(|owner| owned.get_mut(owner)) {
            pod.push(index);
        }
    }
    let (mut seconds, mut completed, mut compared) = (0.0, 0.0, false);
    for (pod, queues) in snapshot.pods.iter().zip(owned) {
        let before = history.pods.remove(&pod.incarnation);
        let mut sample = PodSeen {
            lanes: pod.lanes,
            full: f64::from(pod.busy_lanes) >= FULL * f64::from(pod.lanes) && pod.waiting_lanes > 0,
            hot: pod.cpu.is_some_and(|cpu| cpu >= FULL_CPU),
            ..PodSeen::default()
        };
        let mut idle = 0;
        if let Some(before) = before
            && seen.elapsed > 0.5
        {
            let done = pod.completed.saturating_sub(before.completed) as f64;
            let busy = (pod.busy_lane_seconds - before.busy_seconds).max(0.0);
            sample.rate = Some(done / seen.elapsed);
            sample.call = (done >= 1.0).then(|| busy / done);
            sample.saturated = before.full && sample.full && queues == before.queues;
            let lanes = f64::from(pod.lanes.min(before.lanes));
            if pod.waiting_lanes == 0 && busy / seen.elapsed < IDLE * lanes {
                idle = before.idle + 1;
            }
            (seconds, completed, compared) = (seconds + busy, completed + done, true);
        }
        sample.idle = idle >= IDLE_LOOKS;
        seen.pods.push(sample);
        let memory = PodMemory {
            busy_seconds: pod.busy_lane_seconds,
            completed: pod.completed,
            lanes: pod.lanes,
            idle,
            full: sample.full,
            queues,
        };
        known.insert(pod.incarnation.clone(), memory);
    }
    history.pods = known;
    if compared {
        let smooth = |old: Option<f64>, new: f64| {
            Some(super::history::tidy(
                old.map_or(new, |old| old + SMOOTHING * (new - old)),
            ))
        };
        let rate = completed / seen.elapsed;
        seen.completions = Some(rate);
        seen.call = (completed >= 1.0).then(|| seconds / completed);
        history.completions = smooth(history.completions, rate);
        history.busy = smooth(history.busy, seconds / seen.elapsed);
    }
}

/// Service time from calls that waited for nothing, and what pods showed they can do.
fn learn(history: &mut History, snapshot: &Snapshot, seen: &Seen) {
    let usual = history.model.service();
    let (mut seconds, mut completed) = (0.0, 0.0);
    for pod in &seen.pods {
        let (Some(rate), Some(call)) = (pod.rate, pod.call) else {
            continue;
        };
        let slow = usual.is_some_and(|usual| call > 1.1 * usual);
        // Where all lanes are busy a longer call may be one that waits, and a much longer one anywhere.
        let most = if pod.full { 1.0 } else { SLOW };
        if usual.is_some_and(|usual| call > most * usual) {
            continue;
        }
        seconds += call * rate * seen.elapsed;
        completed += rate * seen.elapsed;
        if !slow && usual.is_some() {
            history.model.showed(rate);
        }
    }
    if completed >= 1.0 && !history.link.suspicious() {
        history
            .model
            .served(seconds / completed, completed, seen.elapsed);
    }
    if let Some(change) = &mut history.change
        && change.arrived.is_none()
    {
        let now = snapshot.now.as_secs_f64();
        let at_work = seen
            .pods
            .iter()
            .filter(|pod| pod.rate.is_some_and(|rate| rate > 0.0));
        if at_work.count() as u32 >= change.to {
            change.arrived = Some(now);
            // The interval in which it happened has passed only in part.
            history
                .model
                .started_in(now - change.at - 0.5 * seen.elapsed.min(10.0));
        } else if now - change.at > 600.0 || snapshot.replicas < change.to {
            // They do not come: nothing is learned from that.
            history.change = None;
        }
    }
}
