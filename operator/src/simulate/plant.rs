//! The group itself: queues with messages of all ages, pods with lanes and a CPU, a downstream they share.

mod view;

use super::Sizes;
use super::trace::Trace;
use keylane_consumer::message::QueueId;
use keylane_consumer::ownership::allocate;
use std::collections::BTreeSet;

/// What the cluster is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct World {
    /// Seconds from asking for a pod to its being ready.
    pub start_delay: u32,
    /// Seconds a queue stands still when it moves to another pod.
    pub handoff: u32,
    /// Seconds a call takes.
    pub service: f64,
    /// Messages a second the CPU of a pod can do.
    pub pod_cap: f64,
    /// Most lanes of a pod.
    pub max_lanes: u32,
}

impl Default for World {
    fn default() -> Self {
        Self {
            start_delay: 30,
            handoff: 2,
            service: 0.05,
            pod_cap: 320.0,
            max_lanes: 32,
        }
    }
}

/// Messages of one kind in one queue, in order of arrival: a share of a common curve.
#[derive(Clone, Debug, Default)]
struct Flow {
    share: f64,
    finished: f64,
    /// First second of which not everything is finished.
    oldest: usize,
}

impl Flow {
    fn waiting(&self, curve: &[f64]) -> f64 {
        (self.share * curve.last().copied().unwrap_or(0.0) - self.finished).max(0.0)
    }

    fn finish(&mut self, count: f64, curve: &[f64]) {
        self.finished += count;
        while self.oldest < curve.len()
            && self.share * curve[self.oldest] <= self.finished + 1e-6 * (1.0 + self.finished)
        {
            self.oldest += 1;
        }
    }

    fn age(&self, curve: &[f64]) -> f64 {
        curve.len().saturating_sub(self.oldest + 1) as f64
    }
}

/// One pod.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// Its name, never used again.
    pub name: String,
    born: u32,
    ready_at: u32,
    /// Lanes in force.
    pub lanes: u32,
    /// Busy lanes at the last tick.
    pub busy: f64,
    /// Whether more was there than its lanes could take.
    pub waiting: bool,
    /// Time-integral of busy lanes.
    pub busy_lane_seconds: f64,
    /// Messages finished.
    pub completed: f64,
    /// Messages finished in the last second.
    pub rate: f64,
}

/// The group.
pub struct Plant<'t> {
    trace: &'t Trace,
    world: World,
    second: u32,
    /// All arrivals until each second: of all keys but the special ones, of the hot key, of the poison key.
    curve: Vec<f64>,
    hot_curve: Vec<f64>,
    poison_curve: Vec<f64>,
    held_back: f64,
    flows: Vec<Flow>,
    hot: Flow,
    poison: Flow,
    owner: Vec<Option<usize>>,
    still_until: Vec<u32>,
    /// Messages of each queue that are being handled.
    in_flight: Vec<f64>,
    /// Offset below which everything of a queue is finished, and that of a second ago.
    watermarks: Vec<(f64, f64)>,
    ids: Vec<QueueId>,
    pods: Vec<Pod>,
    sizes: Sizes,
    finished_now: f64,
    inflation: f64,
    born: u32,
    ready_before: usize,
}

/// Queue of the hot key.
const HOT_QUEUE: usize = 0;
/// Messages of the poison key, a second, while it is one: three times what a lane usually does, so that it
/// makes a difference whether they are taken for demand.
const POISON_RATE: f64 = 60.0;
/// What producers held back arrives within so many seconds.
const BURST: f64 = 10.0;

impl<'t> Plant<'t> {
    /// A group that has settled at these sizes.
    pub fn new(trace: &'t Trace, world: World, sizes: Sizes) -> Self {
        let weights = trace.weights();
        let queues = weights.len();
        let mut plant = Self {
            trace,
            world,
            second: 0,
            curve: Vec::with_capacity(trace.seconds as usize + 1),
            hot_curve: Vec::new(),
            poison_curve: Vec::new(),
            held_back: 0.0,
            flows: weights
                .into_iter()
                .map(|share| Flow {
                    share,
                    ..Flow::default()
                })
                .collect(),
            hot: Flow {
                share: 1.0,
                ..Flow::default()
            },
            poison: Flow {
                share: 1.0,
                ..Flow::default()
            },
            owner: vec![None; queues],
            still_until: vec![0; queues],
            in_flight: vec![0.0; queues],
            watermarks: vec![(0.0, 0.0); queues],
            ids: (0..queues as u32)
                .map(|id| QueueId::new("broker-a", id))
                .collect(),
            pods: Vec::new(),
            sizes,
            finished_now: 0.0,
            inflation: 1.0,
            born: 0,
            ready_before: 0,
        };
        for _ in 0..sizes.replicas {
            plant.bear(0);
        }
        plant.allocate(false);
        plant
    }

    /// One second passes.
    pub fn tick(&mut self) {
        self.arrive();
        if self.ready().count() != self.ready_before {
            self.allocate(true);
        }
        self.serve();
        self.second += 1;
        for queue in 0..self.ids.len() {
            let watermark = self.max_offset(queue) - self.watermark_lag(queue);
            self.watermarks[queue] = (watermark, self.watermarks[queue].0);
        }
    }

    /// Sizes from now on.
    pub fn resize(&mut self, sizes: Sizes) {
        self.sizes = sizes;
        let before = self.ready().count();
        while self.pods.len() < sizes.replicas as usize {
            self.bear(self.second + self.world.start_delay);
        }
        // As a ReplicaSet does: those that are not ready first, then the youngest.
        self.pods.truncate(sizes.replicas as usize);
        for pod in &mut self.pods {
            pod.lanes = sizes.lanes;
        }
        if self.ready().count() != before {
            self.allocate(true);
        }
    }

    /// Lanes of each pod by its name, until sizes change.
    pub fn set_lanes(&mut self, lanes: impl Fn(&str) -> u32) {
        for pod in &mut self.pods {
            pod.lanes = lanes(&pod.name);
        }
    }

    fn bear(&mut self, ready_at: u32) {
        self.born += 1;
        self.pods.push(Pod {
            name: format!("pod-{}", self.born),
            born: self.second,
            ready_at,
            lanes: self.sizes.lanes,
            ..Pod::default()
        });
    }

    fn arrive(&mut self) {
        let (trace, second) = (self.trace, self.second);
        let add = |curve: &mut Vec<f64>, count: f64| {
            let sum = curve.last().copied().unwrap_or(0.0) + count;
            curve.push(sum);
        };
        let mut sent = Trace::at(&trace.rate, second).unwrap_or(0.0);
        let down = Trace::within(trace.broker_outage, second);
        if down {
            self.held_back += sent;
            sent = 0.0;
        } else if let Some(outage) = trace.broker_outage
            && second >= outage.to
            && self.held_back > 0.0
        {
            let length = f64::from(outage.to - outage.from);
            let again = (self.held_back).min(length * sent / BURST + 1.0);
            self.held_back -= again;
            sent += again;
        }
        if second == 0 {
            sent += trace.backlog;
        }
        add(&mut self.curve, sent);
        let hot = trace
            .hot_key_rate
            .as_deref()
            .and_then(|rate| Trace::at(rate, second));
        add(
            &mut self.hot_curve,
            if down { 0.0 } else { hot.unwrap_or(0.0) },
        );
        let poisoned = self.poisoned_at(second) && !down;
        add(
            &mut self.poison_curve,
            if poisoned { POISON_RATE } else { 0.0 },
        );
    }

    fn allocate(&mut self, moving: bool) {
        let members: BTreeSet<String> = self.ready().map(|pod| pod.name.clone()).collect();
        self.ready_before = members.len();
        let ids: BTreeSet<QueueId> = self.ids.iter().cloned().collect();
        let allocation = allocate(&ids, &members);
        let mut owner = vec![None; self.ids.len()];
        for (member, queues) in allocation {
            let pod = self.pods.iter().position(|pod| pod.name == member);
            for queue in queues {
                owner[queue.id as usize] = pod;
            }
        }
        for (queue, pod) in owner.into_iter().enumerate() {
            // Pods leave from the end, so an index stays its pod's.
            if moving && self.owner[queue] != pod {
                self.still_until[queue] = self.second + self.world.handoff;
            }
            self.owner[queue] = pod;
        }
    }

    fn usual_call(&self) -> f64 {
        let slowness = self.trace.slowness.as_deref();
        self.world.service
            * slowness
                .and_then(|list| Trace::at(list, self.now()))
                .unwrap_or(1.0)
    }

    fn downstream_cap(&self) -> Option<f64> {
        let list = self.trace.downstream_cap.as_deref();
        list.and_then(|list| Trace::at(list, self.now()))
    }

    /// Whether the poison key does not move now.
    pub fn poisoned(&self) -> bool {
        self.poisoned_at(self.now())
    }

    fn poisoned_at(&self, second: u32) -> bool {
        self.trace
            .poison
            .is_some_and(|poison| (poison.from..poison.to).contains(&second))
    }

    /// Messages of the special keys that can be finished in one second, of a queue.
    fn special(&self, queue: usize, call: f64) -> (f64, f64) {
        let serial = 1.0 / call;
        let hot = if queue == HOT_QUEUE {
            self.hot.waiting(&self.hot_curve).min(serial)
        } else {
            0.0
        };
        let here = self
            .trace
            .poison
            .is_some_and(|poison| poison.queue as usize == queue);
        let poison = if here && !self.poisoned() {
            self.poison.waiting(&self.poison_curve).min(serial)
        } else {
            0.0
        };
        (hot, poison)
    }

    fn serve(&mut self) {
        let call = self.usual_call();
        let down = Trace::within(self.trace.broker_outage, self.second);
        self.in_flight.fill(0.0);
        let mut wanted = vec![0.0; self.pods.len()];
        let mut available = vec![0.0; self.ids.len()];
        for (queue, here) in available.iter_mut().enumerate() {
            let Some(pod) = self.owner[queue] else {
                continue;
            };
            if self.still_until[queue] > self.second || down {
                continue;
            }
            let (hot, poison) = self.special(queue, call);
            *here = self.flows[queue].waiting(&self.curve) + hot + poison;
            wanted[pod] += *here;
        }
        let cap = self.world.pod_cap;
        let rate_at = |call: f64, pod: usize| {
            let lanes = f64::from(self.pods[pod].lanes);
            wanted[pod].min(lanes / call).min(cap)
        };
        let total = |call: f64| (0..wanted.len()).map(|pod| rate_at(call, pod)).sum::<f64>();
        let mut taking = call;
        if let Some(most) = self.downstream_cap().filter(|most| total(call) > *most) {
            // The calls become longer until just as many get through.
            let (mut short, mut long) = (call, call * 1e4);
            for _ in 0..50 {
                let middle = (short * long).sqrt();
                if total(middle) > most {
                    short = middle
                } else {
                    long = middle
                }
            }
            taking = long;
        }
        self.inflation = taking / call;
        let rates: Vec<f64> = (0..wanted.len()).map(|pod| rate_at(taking, pod)).collect();
        self.finished_now = rates.iter().sum();
        for (pod, rate) in rates.iter().enumerate() {
            let waiting = *rate < wanted[pod] - 1e-6;
            let state = &mut self.pods[pod];
            let lanes = f64::from(state.lanes);
            state.waiting = waiting;
            state.busy = if waiting {
                lanes
            } else {
                (rate * taking).min(lanes)
            };
            state.busy_lane_seconds += state.busy;
            state.completed += rate;
            state.rate = *rate;
            let lasts = if *rate > 0.0 { state.busy / rate } else { 0.0 };
            self.share_out(pod, *rate, call, lasts, &available);
        }
    }

    /// Finishes messages of a pod's queues, the same for each that has them.
    fn share_out(&mut self, pod: usize, rate: f64, call: f64, lasts: f64, available: &[f64]) {
        let mut queues: Vec<usize> = (0..self.ids.len())
            .filter(|queue| self.owner[*queue] == Some(pod) && available[*queue] > 0.0)
            .collect();
        queues.sort_by(|left, right| available[*left].total_cmp(&available[*right]));
        let (mut left, mut count) = (rate, queues.len());
        for queue in queues {
            let part = available[queue].min(left / count as f64);
            (left, count) = (left - part, count - 1);
            self.in_flight[queue] = part * lasts;
            let (hot, poison) = self.special(queue, call);
            let (hot, poison) = (hot.min(part), poison.min((part - hot).max(0.0)));
            self.hot.finish(hot, &self.hot_curve);
            self.poison.finish(poison, &self.poison_curve);
            self.flows[queue].finish(part - hot - poison, &self.curve);
        }
    }
}
