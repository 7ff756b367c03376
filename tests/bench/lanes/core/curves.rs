//! What a message costs with more and more keys and queues.
//!
//! The work for a message is the same everywhere. What grows is what has to be in memory, and with it the
//! time until the processor has what it needs of it: at a message's arrival about eight lines of 64 bytes
//! (the message, its text, the table of its queue, its lane, its node), at its call about six, at its end
//! about six again (now the table, to take the lane out). A profile shows that time where such a line is
//! first touched: counting the message's text up, finding and removing the lane in the table.
//!
//! So each point is shown with what one access to a random place in as much memory takes on this machine,
//! in the same run ([`access`]), and the goal is that a message costs no more than at the cheapest point
//! plus a fixed number of such accesses ([`ACCESSES`]), however many keys and queues there are.

use super::{ALL, Cost, DEFAULT, MESSAGES, Topic, cost, topic};
use crate::Figure;
use crate::Goal::AtMost;
use cpu_time::ThreadTime;
use std::hint::black_box;

/// Lines of memory that a message needs at its arrival, its call and its end.
const ACCESSES: f64 = 20.0;

struct Point {
    name: String,
    topic: Topic,
    in_memory: u64,
}

pub fn by_keys() -> Vec<Figure> {
    let keys = [10, 100, 1_000, 10_000, 100_000, 1_000_000];
    let points = [(DEFAULT, "20,000"), (ALL, "all")].map(|(in_memory, what)| {
        keys.map(|keys| Point {
            name: format!("{keys} keys, {what} messages in memory"),
            topic: topic(8, keys, MESSAGES.max(keys.next_power_of_two())),
            in_memory,
        })
    });
    points.into_iter().flat_map(curve).collect()
}

pub fn by_queues() -> Vec<Figure> {
    curve([1, 8, 64, 256, 1_024].map(|queues| Point {
        name: format!("{queues} queues, 10,000 keys"),
        topic: topic(queues, 10_000, MESSAGES),
        in_memory: DEFAULT,
    }))
}

fn curve<const POINTS: usize>(points: [Point; POINTS]) -> Vec<Figure> {
    let costs: Vec<Cost> = points
        .iter()
        .map(|point| cost(point.topic, point.in_memory))
        .collect();
    let nanoseconds = costs.iter().map(|cost| cost.nanoseconds);
    let cheapest = nanoseconds.fold(f64::INFINITY, f64::min);
    let mut figures = Vec::new();
    for (Point { name, .. }, cost) in points.into_iter().zip(costs) {
        let away = access(cost.memory);
        let (mib, more) = (cost.memory >> 20, cost.nanoseconds - cheapest);
        figures.extend([
            Figure::new(name.clone(), cost.nanoseconds, "ns/message"),
            Figure::new(format!("{name}: a random access in {mib} MiB"), away, "ns"),
            Figure::new(
                format!("{name}: more than at best"),
                more / away,
                "accesses",
            )
            .goal(AtMost(ACCESSES)),
        ]);
    }
    figures
}

/// Nanoseconds of one access to a random place in about this much memory that depends on the one before.
fn access(memory: i64) -> f64 {
    const STEPS: u32 = 1 << 19;
    /// What a processor takes from memory at once.
    #[derive(Clone)]
    #[repr(align(64))]
    struct Line(u32);
    let lines = (memory.max(1 << 12) as u64 / 64).next_power_of_two() / 2;
    // The generator of Knuth and Lewis goes through all numbers below a power of two.
    let next = |line: u32| line.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    let mask = (lines - 1) as u32;
    let all: Vec<Line> = (0..=mask).map(|line| Line(next(line) & mask)).collect();
    let run = |_| {
        let begin = ThreadTime::now();
        let end = (0..STEPS).fold(0, |at: u32, _| all[at as usize].0);
        let took = begin.elapsed();
        black_box(end);
        took.as_secs_f64() * 1e9 / f64::from(STEPS)
    };
    (0..3).map(run).fold(f64::INFINITY, f64::min)
}
