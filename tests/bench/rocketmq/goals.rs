//! What Keylane is to reach, where a run can tell whether it does: beside the others of the same run, or of what
//! its lanes can do at best. Pure.
//!
//! Nothing is judged under another load than that of the goals, nor beside a system that does not take part.

use crate::load::Load;
use crate::options::Handler;
use crate::peers::Peer;
use keylane_tests::goal::Goal;

const QUEUES: u32 = 8;
const KEYS: u64 = 1_000;
/// Of the CPU time a message that RocketMQ's consumers use.
const CPU: f64 = 0.5;
/// Times the rate of the one peer that keeps the same order.
const OF_PARALLEL_CONSUMER: f64 = 2.5;
/// Messages a second while latency is judged, and the median of it, milliseconds.
const RATE: u32 = 1_000;
const P50_MS: f64 = 3.0;
/// Of what the other keys reach without a hot one: all of it but what one run differs from the next.
const BESIDE_HOT_KEY: f64 = 0.95;
const IDLE_QUEUES: u32 = 1_024;
const IDLE_CPU_PERCENT: f64 = 3.0;
const IDLE_MIB: f64 = 150.0;

/// Medians of what a system did.
#[derive(Clone, Copy, Debug)]
pub struct Medians {
    pub system: &'static str,
    pub per_second: f64,
    pub cpu_s_per_100k: f64,
    /// Milliseconds from sending to handling: median and 99th percentile.
    pub latency: Option<(f64, f64)>,
}

/// The goals that Keylane can be judged by beside these peers.
pub fn goals(handler: Handler, load: &Load, own: &Medians, peers: &[Medians]) -> Vec<Goal> {
    if load.queues != QUEUES || load.keys != KEYS || load.hot > 0 {
        return Vec::new();
    }
    let reaches = |least: f64| vec![Goal::least("messages/s".into(), own.per_second, least)];
    match (handler, load.work_ms, load.lanes, load.rate) {
        (Handler::Noop, 0, _, Some(RATE)) => latency(own, peers),
        (_, _, _, Some(_)) => Vec::new(),
        (Handler::Noop, 0, ..) => peers
            .iter()
            .flat_map(|peer| without_work(own, peer))
            .collect(),
        (Handler::Noop, 1, 100, _) => peers
            .iter()
            .filter(|peer| peer.system == Peer::JavaConcurrent.name())
            .map(|peer| faster(own, peer, 1.0))
            .collect(),
        // At best 10,000 and 1,000.
        (Handler::Noop, 10, 100, _) => reaches(9_700.0),
        (Handler::Noop, 100, 100, _) => reaches(990.0),
        (Handler::Http, 0, ..) => reaches(20_000.0),
        (Handler::Http, 10, 256, _) => reaches(15_000.0),
        (Handler::Grpc, 0, ..) => reaches(60_000.0),
        _ => Vec::new(),
    }
}

fn without_work(own: &Medians, peer: &Medians) -> Vec<Goal> {
    if peer.system == Peer::ParallelConsumer.name() {
        return vec![faster(own, peer, OF_PARALLEL_CONSUMER)];
    }
    vec![faster(own, peer, 1.0), cheaper(own, peer)]
}

fn faster(own: &Medians, peer: &Medians, times: f64) -> Goal {
    let what = format!("messages/s, as a multiple of {}", peer.system);
    Goal::least(what, own.per_second / peer.per_second, times)
}

fn cheaper(own: &Medians, peer: &Medians) -> Goal {
    let what = format!("CPU time a message, as a part of {}", peer.system);
    Goal::most(what, own.cpu_s_per_100k / peer.cpu_s_per_100k, CPU)
}

fn latency(own: &Medians, peers: &[Medians]) -> Vec<Goal> {
    let Some((p50, p99)) = own.latency else {
        return Vec::new();
    };
    let beside = peers.iter().filter_map(|peer| {
        let (_, limit) = peer.latency?;
        let what = format!("p99 from sent to handled, ms, beside {}", peer.system);
        Some(Goal::most(what, p99, limit))
    });
    let median = Goal::most("p50 from sent to handled, ms".into(), p50, P50_MS);
    std::iter::once(median).chain(beside).collect()
}

/// What the other keys are to reach beside a hot one. Without work all keys share the processor, and what the
/// hot one needs of it the others do not have.
pub fn beside_hot_key(load: &Load, share: f64) -> Option<Goal> {
    let what = "messages/s of the other keys beside the hot one, as a part of theirs alone";
    (load.work_ms > 0).then(|| Goal::least(what.into(), share, BESIDE_HOT_KEY))
}

/// What waiting may cost.
pub fn idle(queues: u32, cpu_percent: f64, rss_mib: f64) -> Vec<Goal> {
    if queues != IDLE_QUEUES {
        return Vec::new();
    }
    vec![
        Goal::most(
            "% of a core while idle".into(),
            cpu_percent,
            IDLE_CPU_PERCENT,
        ),
        Goal::most("RSS while idle, MiB".into(), rss_mib, IDLE_MIB),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::USUAL;

    const OWN: Medians = Medians {
        system: "keylane",
        per_second: 100_000.0,
        cpu_s_per_100k: 0.5,
        latency: Some((1.0, 9.0)),
    };

    fn peers() -> Vec<Medians> {
        let of = |system, per_second, p99| Medians {
            system,
            per_second,
            cpu_s_per_100k: 1.0,
            latency: Some((1.0, p99)),
        };
        vec![
            of("java-orderly", 100_000.0, 9.0),
            of("java-concurrent", 90_000.0, 10.0),
        ]
    }

    fn reached(goals: &[Goal]) -> Vec<bool> {
        goals.iter().map(Goal::is_reached).collect()
    }

    #[test]
    fn without_work_keylane_is_judged_beside_each_peer() {
        let all = goals(Handler::Noop, &USUAL, &OWN, &peers());
        assert_eq!(reached(&all), [true; 4]);
        let slower = Medians {
            per_second: 99_000.0,
            cpu_s_per_100k: 0.51,
            ..OWN
        };
        let missed = goals(Handler::Noop, &USUAL, &slower, &peers());
        assert_eq!(reached(&missed), [false, false, true, false]);
        assert!(goals(Handler::Noop, &USUAL, &OWN, &[]).is_empty());
    }

    #[test]
    fn without_work_it_is_to_be_much_faster_than_what_keeps_the_same_order() {
        for (per_second, is_reached) in [(40_000.0, true), (40_001.0, false)] {
            let peer = Medians {
                system: Peer::ParallelConsumer.name(),
                per_second,
                ..OWN
            };
            let all = goals(Handler::Noop, &USUAL, &OWN, &[peer]);
            assert_eq!(reached(&all), [is_reached], "{per_second}");
        }
    }

    #[test]
    fn with_little_work_it_is_to_be_faster_than_what_keeps_no_order() {
        let load = Load {
            work_ms: 1,
            ..USUAL
        };
        let one = goals(Handler::Noop, &load, &OWN, &peers());
        assert_eq!(reached(&one), [true]);
        assert!(one[0].to_string().contains("java-concurrent"), "{}", one[0]);
    }

    #[test]
    fn latency_is_judged_at_its_rate_beside_the_peers_of_the_run() {
        let load = Load {
            rate: Some(RATE),
            ..USUAL
        };
        let all = goals(Handler::Noop, &load, &OWN, &peers());
        assert_eq!(reached(&all), [true; 3]);
        let late = Medians {
            latency: Some((3.1, 9.5)),
            ..OWN
        };
        let missed = goals(Handler::Noop, &load, &late, &peers());
        assert_eq!(reached(&missed), [false, false, true]);
        let load = Load {
            rate: Some(2 * RATE),
            ..USUAL
        };
        assert!(goals(Handler::Noop, &load, &OWN, &peers()).is_empty());
    }

    #[test]
    fn what_has_a_rate_of_its_own_to_reach_can_miss_it() {
        let cases = [
            (Handler::Noop, 10, 100, 9_700.0),
            (Handler::Noop, 100, 100, 990.0),
            (Handler::Http, 0, 100, 20_000.0),
            (Handler::Http, 10, 256, 15_000.0),
            (Handler::Grpc, 0, 100, 60_000.0),
        ];
        for (handler, work_ms, lanes, limit) in cases {
            let load = Load {
                work_ms,
                lanes,
                ..USUAL
            };
            for (per_second, is_reached) in [(limit, true), (limit - 1.0, false)] {
                let own = Medians { per_second, ..OWN };
                let goals = goals(handler, &load, &own, &peers());
                assert_eq!(reached(&goals), [is_reached], "{handler:?} {load:?}");
            }
        }
    }

    #[test]
    fn another_load_is_not_judged() {
        for load in [
            Load { queues: 4, ..USUAL },
            Load { keys: 50, ..USUAL },
            Load { hot: 50, ..USUAL },
            Load {
                work_ms: 10,
                lanes: 50,
                ..USUAL
            },
        ] {
            assert!(goals(Handler::Noop, &load, &OWN, &peers()).is_empty());
        }
        assert!(beside_hot_key(&USUAL, 0.5).is_none());
        assert!(idle(64, 50.0, 500.0).is_empty());
    }

    #[test]
    fn a_hot_key_and_waiting_can_cost_too_much() {
        let load = Load {
            work_ms: 10,
            ..USUAL
        };
        let beside = |share| beside_hot_key(&load, share).map(|goal| goal.is_reached());
        assert_eq!((beside(0.96), beside(0.9)), (Some(true), Some(false)));
        assert_eq!(reached(&idle(1_024, 3.0, 150.0)), [true, true]);
        assert_eq!(reached(&idle(1_024, 3.1, 151.0)), [false, false]);
    }
}
