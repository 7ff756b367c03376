//! What can be seen of a group from outside: by its operator, and by those who judge the run.

use super::{Flow, HOT_QUEUE, Plant, Pod, World};
use crate::simulate::{Moment, Sizes, Trace};
use keylane_consumer::message::QueueId;

/// What is told of a key's arrivals is of so many seconds, as what a look at the brokers says of a queue's.
const LATELY: usize = 5;

/// Messages of a curve that arrived lately, a second.
fn lately(curve: &[f64]) -> f64 {
    let before = curve.len().checked_sub(LATELY + 1);
    let before = before.map_or(0.0, |index| curve[index]);
    (curve.last().copied().unwrap_or(0.0) - before) / LATELY as f64
}

impl Plant<'_> {
    /// The last second that has passed.
    pub fn now(&self) -> u32 {
        self.second.saturating_sub(u32::from(
            !self.curve.is_empty() && self.curve.len() as u32 == self.second,
        ))
    }

    /// The cluster.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The trace.
    pub fn trace(&self) -> &Trace {
        self.trace
    }

    /// Sizes asked for.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// The queues.
    pub fn ids(&self) -> &[QueueId] {
        &self.ids
    }

    /// Pods that are ready.
    pub fn ready(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(|pod| pod.ready_at <= self.second)
    }

    /// Index among all pods, which are in order of birth, of the one that dispatches from a queue now.
    pub fn dispatches(&self, queue: usize) -> Option<usize> {
        self.owner[queue].filter(|_| self.still_until[queue] < self.second)
    }

    /// Age of a pod in seconds.
    pub fn uptime(&self, pod: &Pod) -> f64 {
        f64::from(self.second - pod.born)
    }

    /// Messages a queue ever got.
    pub fn max_offset(&self, queue: usize) -> f64 {
        let all = |flow: &Flow, curve: &[f64]| flow.share * curve.last().copied().unwrap_or(0.0);
        let mut offset = all(&self.flows[queue], &self.curve);
        if queue == HOT_QUEUE {
            offset += all(&self.hot, &self.hot_curve);
        }
        if self
            .trace
            .poison
            .is_some_and(|poison| poison.queue as usize == queue)
        {
            offset += all(&self.poison, &self.poison_curve);
        }
        offset
    }

    /// Messages of a queue that are not finished, those being handled included.
    pub fn unfinished(&self, queue: usize) -> f64 {
        let mut count = self.flows[queue].waiting(&self.curve) + self.in_flight[queue];
        if queue == HOT_QUEUE {
            count += self.hot_waiting();
        }
        if self
            .trace
            .poison
            .is_some_and(|poison| poison.queue as usize == queue)
        {
            count += self.poison_waiting();
        }
        count
    }

    /// Messages of a queue after its committed offset, which never passes an unfinished message and is
    /// a second old on average.
    pub fn committed_lag(&self, queue: usize) -> f64 {
        (self.max_offset(queue) - self.watermarks[queue].1).max(0.0)
    }

    /// Messages of a queue from its first unfinished one on.
    pub(super) fn watermark_lag(&self, queue: usize) -> f64 {
        let mut oldest = self.flows[queue].oldest;
        if queue == HOT_QUEUE && self.hot_waiting() >= 1.0 {
            oldest = oldest.min(self.hot.oldest);
        }
        let here = self
            .trace
            .poison
            .is_some_and(|poison| poison.queue as usize == queue);
        if here && self.poison_waiting() >= 1.0 {
            oldest = oldest.min(self.poison.oldest);
        }
        let since = |curve: &[f64], share: f64| {
            let before = oldest.checked_sub(1).and_then(|index| curve.get(index));
            share * (curve.last().copied().unwrap_or(0.0) - before.copied().unwrap_or(0.0))
        };
        if oldest == self.flows[queue].oldest {
            return self.unfinished(queue);
        }
        let mut lag = since(&self.curve, self.flows[queue].share);
        if queue == HOT_QUEUE {
            lag += since(&self.hot_curve, 1.0);
        }
        if here {
            lag += since(&self.poison_curve, 1.0);
        }
        lag
    }

    /// Messages of the hot key that wait.
    pub fn hot_waiting(&self) -> f64 {
        self.hot.waiting(&self.hot_curve)
    }

    /// Messages of the hot key that arrive, a second, and its queue.
    pub fn hot_key(&self) -> Option<(f64, usize)> {
        self.trace.hot_key_rate.as_ref()?;
        Some((lately(&self.hot_curve), HOT_QUEUE))
    }

    /// Messages of the poison key that arrive, a second, those of it that wait, and its queue.
    pub fn poison_key(&self) -> Option<(f64, f64, usize)> {
        let poison = self.trace.poison?;
        let (rate, waiting) = (lately(&self.poison_curve), self.poison_waiting());
        Some((rate, waiting, poison.queue as usize))
    }

    fn poison_waiting(&self) -> f64 {
        self.poison.waiting(&self.poison_curve)
    }

    /// Whether brokers tell their figures.
    pub fn broker_answers(&self) -> bool {
        let second = self.now();
        !Trace::within(self.trace.metrics_outage, second)
            && !Trace::within(self.trace.broker_outage, second)
    }

    /// How many times its usual time the downstream takes.
    pub fn inflation(&self) -> f64 {
        self.inflation
    }

    /// Used part of a pod's CPU.
    pub fn cpu(&self, pod: &Pod) -> f64 {
        pod.rate / self.world.pod_cap
    }

    /// Messages finished in the last second.
    pub fn finished_now(&self) -> f64 {
        self.finished_now
    }

    /// As few pods as could carry what is sent now.
    pub fn least_pods(&self) -> u32 {
        let rate = Trace::at(&self.trace.rate, self.now()).unwrap_or(0.0);
        let rate = self.downstream_cap().map_or(rate, |most| rate.min(most));
        let pod = (f64::from(self.world.max_lanes) / self.usual_call()).min(self.world.pod_cap);
        ((rate / pod).ceil() as u32).clamp(1, self.trace.queues)
    }

    /// The last second in figures. Ages and backlogs are those of keys that can be helped.
    pub fn moment(&self) -> Moment {
        let ages = self.flows.iter().map(|flow| flow.age(&self.curve));
        Moment {
            arriving: Trace::at(&self.trace.rate, self.now()).unwrap_or(0.0),
            finished: self.finished_now,
            backlog: self
                .flows
                .iter()
                .map(|flow| flow.waiting(&self.curve))
                .sum(),
            age: ages.fold(0.0, f64::max),
            pods: self.pods.len() as u32,
            lanes: self.sizes.lanes,
        }
    }
}
