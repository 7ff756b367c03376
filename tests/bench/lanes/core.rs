//! The lane core alone: no threads, no clock; calls end as soon as they are dispatched. Times are processor
//! time of the one thread there is, so that what else the machine does is left out.

use crate::Goal::{AtLeast, AtMost};
use crate::{Figure, Measurement, allocations, heap};
use cpu_time::ThreadTime;
use keylane_consumer::lane::{
    Assignment, CallId, CallResult, Finished, Held, Incoming, Input, LaneExecutor, Limits, Output,
    Place, Settings, Time,
};
use keylane_consumer::message::{Message, QueueId, Text};
use keylane_consumer::sim::Steady;
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// All measurements of the core.
pub const MEASUREMENTS: &[Measurement] = &[
    ("core throughput", throughput),
    ("core hot key", hot_key),
    ("core cost by keys", cost_by_keys),
    ("core cost by queues", cost_by_queues),
    ("core memory of keys", memory_of_keys),
    ("core finished above a stuck head", finished_above),
    ("core in virtual time", virtual_time),
];

/// The messages of a queue, made beforehand; the first one has the offset of the stock.
#[derive(Default)]
struct Stock {
    offset: u64,
    messages: Vec<Incoming>,
}

/// A topic that is held in memory, and a core that consumes it.
struct Bench {
    core: LaneExecutor,
    stocks: Vec<Stock>,
    calls: VecDeque<CallId>,
    finished: u64,
}

fn names(keys: u64) -> Vec<Text> {
    (0..keys)
        .map(|key| format!("order-{key:08}").into())
        .collect()
}

fn message(offset: u64, key: &Text) -> Incoming {
    let message = Message {
        offset,
        key: Some(key.clone()),
        ..Message::default()
    };
    Incoming {
        place: Place::Key,
        message: Arc::new(message),
    }
}

/// Messages of each queue; keys come in no regular order, each in one queue.
fn stocks(queues: u32, keys: &[Text], messages: u64) -> Vec<Stock> {
    let (queues, all) = (u64::from(queues), keys.len() as u64);
    let stock = |queue: u64| {
        let incoming = |offset: u64| {
            let pick = (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % all.div_ceil(queues);
            message(offset, &keys[((pick * queues + queue) % all) as usize])
        };
        Stock {
            offset: 0,
            messages: (0..messages / queues).map(incoming).collect(),
        }
    };
    (0..queues).map(stock).collect()
}

impl Bench {
    fn new(lanes: u32, limits: Limits, stocks: Vec<Stock>) -> Self {
        let settings = Settings {
            lanes,
            limits,
            ..Settings::default()
        };
        Self {
            core: LaneExecutor::new(settings, 1),
            stocks,
            calls: VecDeque::with_capacity(lanes as usize + 1),
            finished: 0,
        }
    }

    fn assign(&mut self) {
        for id in 0..self.stocks.len() as u32 {
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
    }

    /// Takes outputs; pulls are answered at once.
    fn take(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Dispatch(call) => self.calls.push_back(call.id),
                Output::Pull {
                    assignment,
                    offset,
                    max_messages,
                    ..
                } => {
                    let stock = &self.stocks[assignment.0 as usize];
                    let begin = (offset - stock.offset) as usize;
                    let end = stock.messages.len().min(begin + max_messages as usize);
                    if begin < end {
                        let messages = stock.messages[begin..end].to_vec();
                        let input = Input::Pulled {
                            assignment,
                            from: offset,
                            next: offset + messages.len() as u64,
                            messages,
                        };
                        self.core.handle(Time::ZERO, input);
                    }
                }
                Output::SendBack(_) | Output::Record { .. } | Output::Drained { .. } => {}
            }
        }
    }

    fn finish_one(&mut self) -> bool {
        let Some(id) = self.calls.pop_front() else {
            return false;
        };
        let input = Input::CallEnded {
            id,
            acked: 1,
            result: CallResult::Done,
        };
        self.core.handle(Time::ZERO, input);
        self.finished += 1;
        self.take();
        true
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

/// Nanoseconds a message, of the processor's time, from the first pull to the last end; the best of several
/// runs, because what else the machine does empties its caches.
fn nanoseconds(queues: u32, keys: u64, in_memory: u64) -> f64 {
    const MESSAGES: u64 = 1 << 18;
    let messages = MESSAGES.max(keys.next_power_of_two());
    let names = names(keys);
    let run = |_| {
        let mut bench = Bench::new(100, limits(in_memory), stocks(queues, &names, messages));
        let begin = ThreadTime::now();
        bench.assign();
        while bench.finish_one() {}
        let took = begin.elapsed();
        assert_eq!(bench.finished, messages);
        took.as_secs_f64() * 1e9 / bench.finished as f64
    };
    (0..RUNS).map(run).fold(f64::INFINITY, f64::min)
}

const RUNS: u32 = 8;
/// As much as is kept by default.
const DEFAULT: u64 = 20_000;
const ALL: u64 = 1 << 40;

fn throughput() -> Vec<Figure> {
    let rate = 1e9 / nanoseconds(8, 1_000, DEFAULT);
    // Messages are made before, so what is allocated meanwhile is the core's.
    let mut bench = Bench::new(100, limits(DEFAULT), stocks(8, &names(1_000), 200_000));
    let before = allocations();
    bench.assign();
    while bench.finish_one() {}
    let made = (allocations() - before) as f64 / bench.finished as f64;
    vec![
        Figure::new("1,000 keys, 8 queues, 100 lanes", rate, "messages/s").goal(AtLeast(2e6)),
        Figure::new("allocations a message", made, "").goal(AtMost(0.05)),
    ]
}

fn hot_key() -> Vec<Figure> {
    let rate = 1e9 / nanoseconds(1, 1, DEFAULT);
    vec![Figure::new("one key", rate, "messages/s").goal(AtLeast(300_000.0))]
}

fn cost_by_keys() -> Vec<Figure> {
    let mut figures = Vec::new();
    for (in_memory, what) in [(DEFAULT, "20,000"), (ALL, "all")] {
        for keys in [10, 100, 1_000, 10_000, 100_000, 1_000_000] {
            let name = format!("{keys} keys, {what} messages in memory");
            figures.push(Figure::new(
                name,
                nanoseconds(8, keys, in_memory),
                "ns/message",
            ));
        }
    }
    figures
}

fn cost_by_queues() -> Vec<Figure> {
    let queues = [1, 8, 64, 256, 1_024];
    let cost = |queues: u32| {
        let name = format!("{queues} queues, 10,000 keys");
        Figure::new(name, nanoseconds(queues, 10_000, DEFAULT), "ns/message")
    };
    queues.map(cost).into()
}

fn memory_of_keys() -> Vec<Figure> {
    const KEYS: u64 = 1_000_000;
    let (few, all) = (names(20_000), names(KEYS));
    let nothing = heap();
    let mut bench = Bench::new(100, limits(ALL), Vec::new());
    // An executor that has worked before.
    bench.stocks = stocks(8, &few, 160_000);
    bench.assign();
    while bench.finish_one() {}
    bench.stocks = Vec::new();
    let baseline = heap() - nothing;
    let stock = |queue: u64| {
        let offsets = 20_000..20_000 + KEYS / 8;
        let key = |offset: u64| &all[((offset - 20_000) * 8 + queue) as usize];
        Stock {
            offset: 20_000,
            messages: offsets.map(|offset| message(offset, key(offset))).collect(),
        }
    };
    bench.stocks = (0..8).map(stock).collect();
    let pulled = heap();
    for queue in 0..8 {
        let input = Input::PullFailed {
            assignment: Assignment(queue),
            retry_at: Time::ZERO,
        };
        bench.core.handle(Time::ZERO, input);
    }
    bench.take();
    let live = (heap() - pulled) as f64 / KEYS as f64;
    assert_eq!(bench.core.summary(Time::ZERO).live_keys, KEYS);
    let begin = ThreadTime::now();
    black_box(bench.core.summary(Time::ZERO));
    let summary = begin.elapsed();
    while bench.finish_one() {}
    assert_eq!(bench.finished, KEYS + 160_000);
    bench.stocks = Vec::new();
    let after = heap() - nothing;
    let ratio = after as f64 / baseline as f64;
    vec![
        Figure::new("bookkeeping of a live key", live, "bytes").goal(AtMost(200.0)),
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

fn finished_above() -> Vec<Figure> {
    let mut figures = Vec::new();
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
