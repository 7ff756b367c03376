//! A group made of figures: it does what a test says, and nothing by itself.

use super::*;

/// Seconds between two looks.
pub(super) const EVERY: f64 = 5.0;
/// Seconds a call takes.
pub(super) const SERVICE: f64 = 0.05;

/// Messages of a queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queue {
    arrived: f64,
    pub(super) unfinished: f64,
}

/// What a pod did.
#[derive(Clone, Copy, Debug, Default)]
struct Pod {
    completed: f64,
    rate: f64,
}

/// The group.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) queues: Vec<Queue>,
    /// Pods there are to be.
    pub(super) replicas: u32,
    /// Pods that have queues, the first of those that are ready.
    pub(super) at_work: usize,
    pods: Vec<Pod>,
    lanes: u32,
    looks: u32,
}

impl Group {
    /// So many pods at work on so many queues, with so many lanes each.
    pub(super) fn new(queues: usize, pods: usize, lanes: u32) -> Self {
        Self {
            queues: vec![Queue::default(); queues],
            replicas: pods as u32,
            at_work: pods,
            pods: vec![Pod::default(); pods],
            lanes,
            looks: 0,
        }
    }

    /// So many pods are ready.
    pub(super) fn ready(&mut self, pods: usize) {
        self.pods.resize(pods, Pod::default());
    }

    /// Seconds that have passed.
    pub(super) fn seconds(&self) -> f64 {
        EVERY * f64::from(self.looks)
    }

    /// The time to the next look passes. Of each queue so many messages arrive and are finished, a second.
    pub(super) fn pass(&mut self, of: impl Fn(usize) -> (f64, f64)) {
        self.looks += 1;
        for pod in &mut self.pods {
            pod.rate = 0.0;
        }
        for (index, queue) in self.queues.iter_mut().enumerate() {
            let (arrive, finish) = of(index);
            queue.arrived += arrive * EVERY;
            queue.unfinished += (arrive - finish) * EVERY;
            self.pods[index % self.at_work].rate += finish;
        }
        for pod in &mut self.pods {
            pod.completed += pod.rate * EVERY;
        }
    }

    /// What is seen of it now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let queues = (0..).zip(&self.queues).map(|(id, queue)| QueueSample {
            id: QueueId::new("b", id),
            max_offset: Some(queue.arrived.round() as u64),
            unfinished: Some(queue.unfinished.round() as u64),
            owner: Some(id as usize % self.at_work),
        });
        let unfinished = |pod: usize| {
            let own = self.queues.iter().skip(pod).step_by(self.at_work);
            own.map(|queue| queue.unfinished).sum::<f64>()
        };
        let pods = self.pods.iter().enumerate().map(|(index, pod)| {
            let busy = (pod.rate * SERVICE).round() as u32;
            PodSample {
                incarnation: format!("pod-{index}"),
                lanes: self.lanes,
                busy_lanes: busy,
                waiting_lanes: u32::from(busy >= self.lanes),
                busy_lane_seconds: pod.completed * SERVICE,
                completed: pod.completed.round() as u64,
                buffered: if index < self.at_work {
                    unfinished(index).round() as u64
                } else {
                    0
                },
                uptime_seconds: 1000.0 + self.seconds() - index as f64,
                cpu: None,
            }
        });
        Snapshot {
            now: Duration::from_secs_f64(1_700_000_000.0 + self.seconds()),
            replicas: self.replicas,
            ready: self.pods.len() as u32,
            queues: queues.collect(),
            pods: pods.collect(),
            ..Snapshot::default()
        }
    }
}
