//! The suite: what traffic does, and what goes wrong with it.

use crate::random::Random;
use keylane_operator::simulate::{Poison, Scheduled, Span, Trace};

const QUEUES: u32 = 24;
/// Seeds of the traces of chance that the controller was tuned with.
pub const TUNED: std::ops::Range<u64> = 1..21;
/// Seeds of those it was not: the decimals of pi in groups of four, from the twenty-eighth group on. Nobody
/// chose them, and no rule was changed after their outcome was seen; whoever changes one takes the next
/// twenty-seven. (Rules before the present ones were judged by the first twenty-seven.)
pub const HELD_OUT: [u64; 20] = [
    5132, 8230, 6647, 938, 4460, 9550, 5822, 3172, 5359, 4081, 2848, 1117, 4502, 8410, 2701, 9385,
    2110, 5559, 6446, 2294,
];
/// The next groups: seeds of the held-out traces that have a shape.
const SHAPES: [u64; 7] = [8954, 9303, 8196, 4428, 8109, 7566, 5933];

fn trace(name: &str, seconds: u32, rate: impl Fn(u32) -> f64) -> Trace {
    Trace {
        name: name.to_owned(),
        seconds,
        queues: QUEUES,
        rate: (0..seconds).map(rate).collect(),
        ..Trace::default()
    }
}

fn step(at: u32, low: f64, high: f64) -> impl Fn(u32) -> f64 {
    move |second| if second < at { low } else { high }
}

fn ramp(from: u32, to: u32, low: f64, high: f64) -> impl Fn(u32) -> f64 {
    move |second| {
        let part = (f64::from(second) - f64::from(from)) / f64::from(to - from);
        low + (high - low) * part.clamp(0.0, 1.0)
    }
}

fn between(from: u32, to: u32, inside: f64, outside: f64) -> impl Fn(u32) -> f64 {
    move |second| {
        if (from..to).contains(&second) {
            inside
        } else {
            outside
        }
    }
}

/// Traces 1 to 13.
pub fn suite() -> Vec<Trace> {
    let flash = || trace("3 flash sale", 1800, between(600, 780, 6000.0, 200.0));
    let list = |seconds: u32, rate: &dyn Fn(u32) -> f64| Some((0..seconds).map(rate).collect());
    let mut noise = Random::new(4);
    let day: Vec<f64> = (0..7200)
        .map(|second| {
            let hour = f64::from(second) / 7200.0 * std::f64::consts::TAU;
            let usual = 1400.0 - 1100.0 * hour.cos();
            (usual * (1.0 + 0.1 * noise.normal())).max(0.0)
        })
        .collect();
    let mut weights = vec![0.5 / f64::from(QUEUES - 2); QUEUES as usize];
    (weights[3], weights[16]) = (0.25, 0.25);
    vec![
        trace("1 step", 1800, step(300, 300.0, 2400.0)),
        trace("2 ramp", 1800, ramp(300, 1200, 200.0, 3000.0)),
        flash(),
        Trace {
            name: "3s flash sale, scheduled".to_owned(),
            schedule: Some(Scheduled {
                from: 600,
                to: 780,
                rate: 6000.0,
            }),
            ..flash()
        },
        Trace {
            rate: day,
            ..trace("4 day", 7200, |_| 0.0)
        },
        Trace {
            hot_key_rate: list(1800, &between(300, 1500, 60.0, 0.0)),
            // 250/s a pod and 20/s that the key can have are no reason for more pods, with 60/s they would be.
            ..trace("5 hot key", 1800, |_| 1000.0)
        },
        Trace {
            downstream_cap: list(2400, &between(600, 1200, 1000.0, 1500.0)),
            ..trace("6 downstream", 2400, |_| 1200.0)
        },
        Trace {
            slowness: list(2400, &between(600, 1200, 2.0, 1.0)),
            ..trace("6b slow work", 2400, |_| 1200.0)
        },
        Trace {
            poison: Some(Poison {
                from: 600,
                to: 1800,
                queue: 5,
            }),
            // A start with the pods for 1000/s, which are busy with 1056/s: 264/s each, where 288/s are the
            // reason for more.
            ..trace("7 poison key", 2400, ramp(60, 360, 1000.0, 1056.0))
        },
        Trace {
            metrics_outage: Some(Span {
                from: 600,
                to: 1000,
            }),
            ..trace("8 metrics outage", 1800, ramp(600, 900, 600.0, 1800.0))
        },
        Trace {
            broker_outage: Some(Span { from: 600, to: 660 }),
            ..trace("9 broker restart", 1800, |_| 1200.0)
        },
        Trace {
            backlog: 200_000.0,
            ..trace("10 cold start", 1200, |_| 500.0)
        },
        trace("11 on/off", 2400, |second| {
            if second / 60 % 2 == 0 { 400.0 } else { 2400.0 }
        }),
        Trace {
            queue_weights: weights,
            ..trace("12 two heavy queues", 1800, ramp(300, 900, 300.0, 1000.0))
        },
        trace("13 constant", 7200, |_| 1000.0),
    ]
}

/// Trace 14: steps and ramps of chance, on queues of chance.
pub fn random(seed: u64) -> Trace {
    let mut random = Random::new(seed);
    let seconds = 2400;
    let mut rate = Vec::with_capacity(seconds as usize);
    let mut level = random.between(200.0, 1500.0);
    while rate.len() < seconds as usize {
        let length = random.between(180.0, 600.0) as usize;
        let next = random.between(200.0, 3000.0);
        // A third are steps, the rest ramps that take part of their time.
        let climb = if random.unit() < 0.33 {
            1.0
        } else {
            random.between(60.0, 400.0)
        };
        for second in 0..length {
            let part = (second as f64 / climb).min(1.0);
            let usual = level + (next - level) * part;
            rate.push((usual * (1.0 + 0.05 * random.normal())).max(0.0));
        }
        level = next;
    }
    rate.truncate(seconds as usize);
    Trace {
        name: format!("14 random {seed}"),
        seconds,
        queues: QUEUES,
        queue_weights: (0..QUEUES).map(|_| random.between(0.5, 1.5)).collect(),
        rate,
        ..Trace::default()
    }
}

/// What the controller was tuned with.
pub fn tuning() -> Vec<Trace> {
    suite().into_iter().chain(TUNED.map(random)).collect()
}

/// What it was not tuned with: traces of chance, and shapes with levels and times of chance.
pub fn held_out() -> Vec<Trace> {
    let [steps, down, ramp_up, wave, constant, bursts, behind] = SHAPES.map(Random::new);
    let shapes = [
        two_steps(steps),
        step_down(down),
        steep_ramp(ramp_up),
        waves(wave),
        level(constant),
        short_bursts(bursts),
        backlog(behind),
    ];
    shapes.into_iter().chain(HELD_OUT.map(random)).collect()
}

fn two_steps(mut random: Random) -> Trace {
    let low = random.between(200.0, 800.0);
    let (middle, high) = (
        low + random.between(600.0, 1400.0),
        low + random.between(1600.0, 2600.0),
    );
    let first = random.between(300.0, 600.0) as u32;
    let second = first + random.between(500.0, 1000.0) as u32;
    trace("h1 two steps", 2400, move |at| {
        if at < first {
            low
        } else if at < second {
            middle
        } else {
            high
        }
    })
}

fn step_down(mut random: Random) -> Trace {
    let (high, low) = (random.between(1800.0, 3000.0), random.between(200.0, 900.0));
    trace(
        "h2 step down",
        2400,
        step(random.between(400.0, 900.0) as u32, high, low),
    )
}

fn steep_ramp(mut random: Random) -> Trace {
    let (low, high) = (random.between(200.0, 500.0), random.between(2000.0, 3000.0));
    let from = random.between(200.0, 600.0) as u32;
    let to = from + random.between(200.0, 400.0) as u32;
    trace("h3 steep ramp", 1800, ramp(from, to, low, high))
}

fn waves(mut random: Random) -> Trace {
    let middle = random.between(900.0, 1500.0);
    let (height, period) = (
        middle * random.between(0.5, 0.8),
        random.between(600.0, 1200.0),
    );
    let rate = (0..3600).map(|second| {
        let turn = f64::from(second) / period * std::f64::consts::TAU;
        (middle + height * turn.sin()) * (1.0 + 0.1 * random.normal())
    });
    let rate = rate.map(|rate| rate.max(0.0)).collect();
    Trace {
        rate,
        ..trace("h4 waves", 3600, |_| 0.0)
    }
}

fn level(mut random: Random) -> Trace {
    let rate = random.between(500.0, 2500.0);
    trace("h5 constant", 3600, move |_| rate)
}

fn short_bursts(mut random: Random) -> Trace {
    let (usual, burst) = (random.between(400.0, 900.0), random.between(2000.0, 3000.0));
    let (every, lasts) = (
        random.between(300.0, 500.0) as u32,
        random.between(20.0, 60.0) as u32,
    );
    trace("h6 bursts", 2400, move |second| {
        if second % every < lasts { burst } else { usual }
    })
}

fn backlog(mut random: Random) -> Trace {
    let rate = random.between(500.0, 1500.0);
    Trace {
        backlog: random.between(50_000.0, 150_000.0),
        ..trace("h7 backlog", 1200, move |_| rate)
    }
}
