//! A handler: how long a call takes, how it ends, and when the executor hears of it.

use super::plan::Plan;
use crate::lane::{CallResult, Time};
use rand::Rng;
use rand::rngs::StdRng;
use std::time::Duration;

/// What will come of a call.
#[derive(Debug)]
pub struct Fate {
    /// When it ends in truth, after its start.
    pub ends: Duration,
    /// When its result arrives.
    pub reported: Duration,
    pub acked: u32,
    pub result: CallResult,
    /// The executor hears of the true end.
    pub over: bool,
    /// A result comes after all, at the true end.
    pub late: bool,
    /// The handler dies of it, and of all calls with it.
    pub kills: bool,
}

/// Decides about a call of so many messages, the first of which is poison or not.
pub fn fate(rng: &mut StdRng, plan: &Plan, now: Time, messages: u32, poison: bool) -> Fate {
    let quick = Duration::from_micros(rng.random_range(0..plan.service_us.max(1)));
    let mut fate = Fate {
        ends: quick,
        reported: quick,
        acked: messages,
        result: CallResult::Done,
        over: false,
        late: false,
        kills: false,
    };
    let calm = now >= plan.faults_until;
    if calm || !poison && !rng.random_bool(plan.failures) {
        return fate;
    }
    let error = || "no".to_owned();
    let retry_after = rng.random_bool(0.3).then_some(quick);
    fate.acked = if poison {
        0
    } else {
        rng.random_range(0..messages)
    };
    let bound = plan.timeout + plan.cancel_grace;
    let between =
        |rng: &mut StdRng, from: Duration, to: Duration| from + (to - from).mul_f64(rng.random());
    fate.result = match rng.random_range(0..if poison { 3 } else { 9 }) {
        0 => CallResult::Failed {
            error: error(),
            retry_after,
        },
        1 => CallResult::Panicked { error: error() },
        2 if plan.killers && poison => {
            fate.kills = true;
            CallResult::Lost { error: error() }
        }
        2 => CallResult::Failed {
            error: error(),
            retry_after: None,
        },
        3 => CallResult::Permanent { error: error() },
        4 | 5 => {
            (fate.acked, fate.reported) = (0, plan.timeout);
            fate.ends = between(rng, plan.timeout, bound);
            (fate.over, fate.late) = (rng.random(), rng.random());
            CallResult::TimedOut
        }
        6 => {
            fate.acked = 0;
            fate.ends = between(rng, quick, bound);
            (fate.over, fate.late) = (rng.random(), rng.random());
            CallResult::Lost { error: error() }
        }
        // The handler has not begun.
        refused => {
            (fate.acked, fate.ends) = (0, Duration::ZERO);
            match refused {
                7 => CallResult::NotTaken {
                    error: error(),
                    retry_after,
                },
                _ => CallResult::NotSent,
            }
        }
    };
    fate
}
