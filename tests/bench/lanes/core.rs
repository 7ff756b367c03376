//! The lane core alone: no threads, no clock; calls end as soon as they are dispatched. Times are processor
//! time of the one thread there is, so that what else the machine does is left out.
//!
//! Messages are made when they are pulled, as a reply is decoded then, and freed some time after their
//! call; neither is measured.

mod curves;

use crate::Goal::{AtLeast, AtMost};
use crate::{Figure, Measurement, allocations, heap};
use cpu_time::ThreadTime;
use keylane_consumer::contract::spec::Key;
use keylane_consumer::lane::{
    Assignment, Call, CallResult, Finished, Held, Incoming, Input, LaneExecutor, Limits, Output,
    Place, Settings, Time,
};
use keylane_consumer::message::{Message, QueueId};
use keylane_consumer::sim::Steady;
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// All measurements of the core.
pub const MEASUREMENTS: &[Measurement] = &[
    ("core throughput", throughput),
    ("core hot key", hot_key),
    ("core cost by keys", curves::by_keys),
    ("core cost by queues", curves::by_queues),
    ("core memory of keys", memory_of_keys),
    ("core finished above a stuck head", finished_above),
    ("core in virtual time", virtual_time),
];

/// Calls between two answers to pulls, at most.
const CALLS_BETWEEN: usize = 64;
/// As much as is kept by default.
const DEFAULT: u64 = 20_000;
const ALL: u64 = 1 << 40;

/// What is in the queues.
#[derive(Clone, Copy)]
struct Topic {
    queues: u32,
    /// In all queues; each is in one queue. They come in no regular order, or each once if there are as
    /// many messages.
    keys: u64,
    /// In each queue.
    messages: u64,
}

impl Topic {
    fn key(&self, queue: u64, offset: u64) -> u64 {
        let (queues, all) = (
            u64::from(self.queues),
            self.messages * u64::from(self.queues),
        );
        if all == self.keys {
            return offset % self.messages * queues + queue;
        }
        // The first message of all is alone of its key.
        if offset == 0 && queue == 0 {
            return self.keys;
        }
        let pick = (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % self.keys.div_ceil(queues);
        (pick * queues + queue) % self.keys
    }
}

fn message(offset: u64, key: u64) -> Incoming {
    let name = format!("order-{key:08}");
    let mut message = Message {
        offset,
        properties: [("__SHARDINGKEY", name.as_str())].into_iter().collect(),
        ..Message::default()
    };
    message.key = message.find_key(&Key::default());
    Incoming {
        place: Place::Key,
        message: Arc::new(message),
    }
}

/// A core that consumes a topic.
struct Bench {
    core: LaneExecutor,
    topic: Topic,
    /// Offset of the first message of each queue.
    first: u64,
    pulls: Vec<(Assignment, u64, u32)>,
    calls: VecDeque<Call>,
    /// Calls that ended, with what they hold.
    ended: Vec<Call>,
    /// The call of the first message of all never ends.
    stuck: Option<Call>,
    finished: u64,
    /// What was measured.
    took: Duration,
    /// Allocations that were made for messages.
    made: usize,
}

impl Bench {
    fn new(lanes: u32, limits: Limits, topic: Topic) -> Self {
        let settings = Settings {
            lanes,
            limits,
            ..Settings::default()
        };
        Self {
            core: LaneExecutor::new(settings, 1),
            topic,
            first: 0,
            pulls: Vec::with_capacity(topic.queues as usize),
            calls: VecDeque::with_capacity(lanes as usize + 1),
            ended: Vec::with_capacity(CALLS_BETWEEN),
            stuck: None,
            finished: 0,
            took: Duration::ZERO,
            made: 0,
        }
    }

    fn assign(&mut self) {
        let begin = ThreadTime::now();
        for id in 0..self.topic.queues {
            let input = Input::Assign {
                queue: QueueId::new("b", id),
                assignment: Assignment(u64::from(id)),
                start: 0,
                lease: Time::MAX,
                finished: Finished::default(),
                held: Held::default(),
            };
            self.core.handle(Time::ZERO, input);
        }
        self.take();
        self.took += begin.elapsed();
    }

    /// Answers pulls until there are none: what may be in memory is.
    fn fill(&mut self) {
        while !self.pulls.is_empty() {
            let before = allocations();
            self.ended.clear();
            let replies: Vec<Input> = self
                .pulls
                .drain(..)
                .filter_map(|(assignment, offset, most)| {
                    let end = self.first + self.topic.messages;
                    let next = end.min(offset + u64::from(most));
                    let key = |offset| self.topic.key(assignment.0, offset);
                    let messages = (offset..next).map(|offset| message(offset, key(offset)));
                    (offset < next).then(|| Input::Pulled {
                        assignment,
                        from: offset,
                        next,
                        messages: messages.collect(),
                    })
                })
                .collect();
            self.made += allocations() - before;
            let begin = ThreadTime::now();
            for reply in replies {
                self.core.handle(Time::ZERO, reply);
                self.take();
            }
            self.took += begin.elapsed();
        }
    }

    fn take(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Dispatch(call) => self.calls.push_back(call),
                Output::Pull {
                    assignment,
                    offset,
                    max_messages,
                    ..
                } => self.pulls.push((assignment, offset, max_messages)),
                Output::SendBack(_) | Output::Record { .. } | Output::Drained { .. } => {}
            }
        }
    }

    /// Works until nothing is left to do.
    fn work(&mut self) {
        loop {
            self.fill();
            let begin = ThreadTime::now();
            for _ in 0..CALLS_BETWEEN {
                let Some(call) = self.calls.pop_front() else {
                    break;
                };
                let input = Input::CallEnded {
                    id: call.id,
                    acked: 1,
                    result: CallResult::Done,
                };
                self.core.handle(Time::ZERO, input);
                self.finished += 1;
                self.take();
                self.ended.push(call);
            }
            self.took += begin.elapsed();
            self.ended.clear();
            if self.calls.is_empty() && self.pulls.is_empty() {
                return;
            }
        }
    }
}

/// At most so many messages in memory.
fn limits(messages: u64) -> Limits {
    Limits {
        messages,
        bytes: u64::MAX / 4,
        span: u64::MAX,
        pull: 1024,
    }
}

/// The best of several short runs counts, because what else the machine does empties its caches.
const RUNS: u32 = 10;
const MESSAGES: u64 = 1 << 17;

/// What a message costs.
struct Cost {
    nanoseconds: f64,
    /// Bytes in memory when as much is as may be, messages included.
    memory: i64,
}

fn cost(topic: Topic, in_memory: u64) -> Cost {
    let mut best = Cost {
        nanoseconds: f64::INFINITY,
        memory: 0,
    };
    for _ in 0..RUNS {
        let before = heap();
        let mut bench = Bench::new(100, limits(in_memory), topic);
        bench.assign();
        bench.fill();
        best.memory = heap() - before;
        bench.work();
        assert_eq!(bench.finished, topic.messages * u64::from(topic.queues));
        let each = bench.took.as_secs_f64() * 1e9 / bench.finished as f64;
        best.nanoseconds = best.nanoseconds.min(each);
    }
    best
}

/// So many messages in all.
fn topic(queues: u32, keys: u64, messages: u64) -> Topic {
    Topic {
        queues,
        keys,
        messages: messages / u64::from(queues),
    }
}

fn throughput() -> Vec<Figure> {
    let topic = topic(8, 1_000, MESSAGES);
    let rate = 1e9 / cost(topic, DEFAULT).nanoseconds;
    let mut bench = Bench::new(100, limits(DEFAULT), topic);
    let before = allocations();
    bench.assign();
    bench.work();
    let made = allocations() - before - bench.made;
    let made = made as f64 / bench.finished as f64;
    vec![
        Figure::new("1,000 keys, 8 queues, 100 lanes", rate, "messages/s").goal(AtLeast(2e6)),
        Figure::new("allocations a message", made, "").goal(AtMost(0.05)),
    ]
}

fn hot_key() -> Vec<Figure> {
    let rate = 1e9 / cost(topic(1, 1, MESSAGES), DEFAULT).nanoseconds;
    vec![Figure::new("one key", rate, "messages/s").goal(AtLeast(300_000.0))]
}

/// Bytes that the allocator gives for a message.
fn message_size() -> f64 {
    let before = heap();
    let messages: [Incoming; 100] = std::array::from_fn(|at| message(at as u64, at as u64));
    let size = (heap() - before) as f64 / 100.0;
    drop(black_box(messages));
    size
}

fn memory_of_keys() -> Vec<Figure> {
    const KEYS: u64 = 1 << 20;
    let size = message_size();
    let nothing = heap();
    let mut bench = Bench::new(100, limits(ALL), topic(8, 20_000, 160_000));
    // An executor that has worked before.
    bench.assign();
    bench.work();
    let baseline = heap() - nothing;
    bench.first = bench.topic.messages;
    bench.topic = topic(8, KEYS, KEYS);
    for queue in 0..8 {
        let input = Input::PullFailed {
            assignment: Assignment(queue),
            retry_at: Time::ZERO,
        };
        bench.core.handle(Time::ZERO, input);
    }
    bench.take();
    let before = heap();
    bench.fill();
    let live = (heap() - before) as f64 / KEYS as f64 - size;
    assert_eq!(bench.core.summary(Time::ZERO).live_keys, KEYS);
    let begin = ThreadTime::now();
    black_box(bench.core.summary(Time::ZERO));
    let summary = begin.elapsed();
    bench.work();
    assert_eq!(bench.finished, KEYS + 160_000);
    let after = heap() - nothing;
    let ratio = after as f64 / baseline as f64;
    vec![
        Figure::new(
            format!("bookkeeping of a live key of {KEYS}"),
            live,
            "bytes",
        )
        .goal(AtMost(200.0)),
        Figure::new("an executor before", baseline as f64 / 1024.0, "KiB"),
        Figure::new(
            "an executor when all are finished",
            after as f64 / 1024.0,
            "KiB",
        ),
        Figure::new("that, to before", ratio, "").goal(AtMost(1.05)),
        Figure::new(
            "summary with all of them live",
            summary.as_secs_f64() * 1e3,
            "ms",
        )
        .goal(AtMost(5.0)),
    ]
}

/// What an executor with the default limits keeps after a million messages of one queue, with the first of
/// them finished or not.
fn kept(stuck: bool) -> (Bench, f64) {
    let before = heap();
    let mut bench = Bench::new(100, Limits::default(), topic(1, 1_000, 1_000_001));
    bench.assign();
    bench.fill();
    let first = bench.calls.pop_front();
    assert!(first.as_ref().is_some_and(|call| call.message.offset == 0));
    if stuck {
        bench.stuck = first;
    } else {
        bench.calls.extend(first);
    }
    bench.work();
    let kept = (heap() - before) as f64 / 1024.0;
    (bench, kept)
}

fn finished_above() -> Vec<Figure> {
    let (_, without) = kept(false);
    let (bench, with) = kept(true);
    let progress = bench.core.progress(Assignment(0));
    let above = progress.map_or(0, |progress| progress.finished_above);
    let name = format!("kept with {above} finished above a stuck head");
    let mut figures = vec![
        Figure::new(
            "finished above a stuck head, default limits",
            above as f64,
            "messages",
        )
        .goal(AtLeast(1e6)),
        Figure::new(name, with - without, "KiB").goal(AtMost(256.0)),
    ];
    for (pattern, step) in [("all", 1), ("every other", 2)] {
        let before = heap();
        let mut finished = Finished::new(0);
        for offset in 1..=1_000_000 {
            finished.finish(offset * step);
        }
        let kept = (heap() - before) as f64 / 1024.0;
        let begin = ThreadTime::now();
        let copy = black_box(finished.clone());
        let took = begin.elapsed().as_secs_f64() * 1e3;
        assert_eq!(copy.finished_above(), 1_000_000);
        let begin = ThreadTime::now();
        let ranges = black_box(copy.ranges().count());
        let walked = begin.elapsed().as_secs_f64() * 1e3;
        figures.extend([
            Figure::new(format!("1,000,000 finished, {pattern} offset"), kept, "KiB")
                .goal(AtMost(256.0)),
            Figure::new(format!("snapshot of them, {pattern} offset"), took, "ms")
                .goal(AtMost(5.0)),
            Figure::new(format!("walk over their {ranges} ranges"), walked, "ms"),
        ]);
    }
    figures
}

fn virtual_time() -> Vec<Figure> {
    let steady = Steady {
        lanes: 100,
        queues: 8,
        keys: 1_000,
        service: Duration::from_millis(10),
        stuck: false,
    };
    let mut figures = Vec::new();
    for (service, seconds) in [(10, 60), (100, 600)] {
        let steady = Steady {
            service: Duration::from_millis(service),
            ..steady
        };
        let ideal = 100.0 * 1e3 * seconds as f64 / service as f64 * 0.999;
        let share = steady.finished_in(Duration::from_secs(seconds)) as f64 / ideal * 100.0;
        let name = format!("100 lanes at {service} ms, of the ideal");
        figures.push(Figure::new(name, share, "%").goal(AtLeast(99.9)));
    }
    let time = Duration::from_secs(60);
    let stuck = Steady {
        stuck: true,
        ..steady
    };
    let share = stuck.finished_in(time) as f64 / steady.finished_in(time) as f64 * 100.0;
    figures.push(
        Figure::new("one key stuck, of the others' throughput", share, "%").goal(AtLeast(99.0)),
    );
    figures
}
