//! What is behind the handler: a database, another service. When it is saturated more lanes make calls
//! longer and finish nothing more. Slow calls alone do not tell that from work that takes longer; fewer
//! lanes for a moment do: the calls of a saturated downstream become shorter, slower work does not.
//!
//! Promises: while the downstream is the limit there are about as many calls at once as it can use, also
//! when each of them takes longer than before, and every half minute a few more, to notice when it can do
//! more again.

use super::history::tidy;
use super::model::Model;
use super::observe::{SLOW, Seen};
use serde::{Deserialize, Serialize};

/// Calls must have been slow for so many looks.
const LOOKS: u32 = 3;
/// Most pods have all lanes busy: a load of one pod alone is not the downstream's.
const MOST: f64 = 0.6;
/// Part of what a pod has shown it can do, below which the pod itself is not the limit.
const BELOW_SHOWN: f64 = 0.85;
/// Lanes over what just saturates it, so that it stays busy.
const SPARE: f64 = 1.1;
const TRY_EVERY: f64 = 30.0;
const TRY_WITH: f64 = 1.3;
/// Calls this much longer than usual at most wait for nothing: with all lanes busy and some to spare that
/// means that the downstream can do more again.
const NOT_WAITING: f64 = 1.05;
/// More lanes brought more if it is so much more.
const MORE: f64 = 1.1;
/// Less is finished if it is less than this part of what was finished before.
const LESS: f64 = 0.85;
/// Less arrives than gets through, if few pods have all lanes busy at so many looks in a row.
const IDLE_LOOKS: u32 = 3;
/// A limit is remembered so long after it was left.
const REMEMBERED: f64 = 600.0;
/// After a try that was none the next one is so much later: until then the usual rules go on.
const TRY_AGAIN: f64 = 30.0;

/// What is known about the downstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Link {
    state: State,
    /// Until when to remember that the downstream was the limit.
    remembered_until: Option<f64>,
    /// Until when slow calls are not looked into: lanes could not be halved.
    unproven_until: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum State {
    Free {
        slow: u32,
    },
    /// Lanes are halved; what was before.
    Probing {
        call: f64,
        rate: f64,
        /// Lanes of a pod: only pods that have fewer show anything.
        #[serde(default)]
        lanes: u32,
        looks: u32,
    },
    /// At most so many messages get through.
    Bound {
        most: f64,
        next_try: f64,
        trying: u32,
        idle: u32,
        /// What got through when more pods brought nothing, if that is how it was found.
        #[serde(default)]
        pods: Option<f64>,
        /// Messages finished a second, and seconds of a call, at the last look.
        #[serde(default)]
        last: Option<(f64, f64)>,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Free { slow: 0 }
    }
}

/// What lanes have to obey.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Order {
    /// Nothing.
    None,
    /// Half of the lanes.
    Probe,
    /// So many lanes over all pods and no more pods; at times a few more, to see whether that brings more.
    Total { lanes: f64, most: f64 },
}

impl Link {
    /// Calls are slow and it is not known yet why: nothing else is learned from them.
    pub fn suspicious(&self) -> bool {
        match self.state {
            State::Free { slow } => slow > 0,
            State::Probing { .. } | State::Bound { .. } => true,
        }
    }

    /// What gets through at most, while that is the limit.
    pub fn bound(&self) -> Option<f64> {
        match self.state {
            State::Bound { most, .. } => Some(most),
            _ => None,
        }
    }

    /// The limit was met not long ago.
    pub fn remembered(&self, now: f64) -> bool {
        self.remembered_until.is_some_and(|until| now < until)
    }

    /// Until when a limit that was met is remembered.
    pub fn remembered_until(&self) -> Option<f64> {
        self.remembered_until
    }

    /// Pods that were added brought nothing: what is behind them is the limit. After a while that may be
    /// tried again.
    pub fn brought_nothing(&mut self, rate: f64, now: f64) {
        self.bind(rate, now, Some(tidy(rate)), None);
    }

    fn bind(&mut self, rate: f64, now: f64, pods: Option<f64>, last: Option<(f64, f64)>) {
        self.state = State::Bound {
            most: tidy(rate),
            next_try: tidy(now + TRY_EVERY),
            trying: 0,
            idle: 0,
            pods,
            last,
        };
        self.remembered_until = Some(tidy(now + REMEMBERED));
    }

    /// Lanes of a pod before they were halved, while they are.
    pub fn before_probe(&self) -> Option<u32> {
        match self.state {
            State::Probing { lanes, .. } => Some(lanes).filter(|lanes| *lanes > 0),
            State::Free { .. } | State::Bound { .. } => None,
        }
    }

    /// Judges the calls since the last look. `spare` are the lanes that may be taken from a pod; none where
    /// lanes are not the controller's: nothing can be tried then, and slow calls alone say nothing.
    pub fn step(&mut self, seen: &Seen, model: &mut Model, now: f64, spare: Option<u32>) {
        if spare.is_none() && matches!(self.state, State::Probing { .. }) {
            // They are given back before the try has shown anything.
            self.state = State::Free { slow: 0 };
            self.unproven_until = Some(tidy(now + TRY_AGAIN));
            return;
        }
        if spare.is_none() && self.bound().is_some() {
            self.rest(seen);
            return;
        }
        let (Some(call), Some(rate), Some(usual)) = (seen.call, seen.completions, model.service())
        else {
            self.rest(seen);
            return;
        };
        let slow = call / usual >= SLOW;
        let full = seen.full() >= MOST;
        let remembered = self.remembered(now);
        let this = Some((tidy(rate), tidy(call * 1e3) / 1e3));
        match &mut self.state {
            State::Free { slow: looks } => {
                if !(slow && full) {
                    *looks = 0;
                    local(seen, model, usual);
                    return;
                }
                if used_up(seen, model) {
                    *looks = 0;
                    local(seen, model, usual);
                    return;
                }
                let can_try = spare.is_some_and(|lanes| lanes > 0);
                if !can_try || self.unproven_until.is_some_and(|until| now < until) {
                    *looks = 0;
                    return;
                }
                *looks += 1;
                if *looks >= LOOKS {
                    self.state = State::Probing {
                        call: tidy(call * 1e3) / 1e3,
                        rate: tidy(rate),
                        lanes: seen.lanes(),
                        looks: 0,
                    };
                }
            }
            State::Probing {
                call: before,
                rate: most,
                lanes,
                looks,
            } => {
                *looks += 1;
                let halved = seen.lanes() < *lanes;
                // Lanes were set since the last look at the earliest; calls that began before end first.
                if (halved && call < 0.8 * *before) || *looks >= 2 {
                    let (before, most) = (*before, *most);
                    self.state = State::Free { slow: 0 };
                    if !halved {
                        // Nothing was tried, so nothing is learned: pods were not told.
                        self.unproven_until = Some(tidy(now + TRY_AGAIN));
                    } else if call < 0.85 * before {
                        self.bind(most, now, None, this);
                    } else {
                        model.works_at(call);
                    }
                }
            }
            State::Bound {
                most,
                next_try,
                trying,
                idle,
                pods,
                last,
            } => {
                let room = *trying == 0 && full && call <= NOT_WAITING * usual;
                // Fewer lanes finish less, and their calls are no longer for that: they wait for nothing.
                let too_few = *trying == 0
                    && full
                    && last.is_some_and(|(before, took)| rate < LESS * before && call <= took);
                if *trying > 0 {
                    *trying -= 1;
                    if rate > MORE * *most {
                        *most = tidy(rate);
                        *next_try = tidy(now);
                        if !slow {
                            self.remembered_until = Some(tidy(now + REMEMBERED));
                            self.state = State::Free { slow: 0 };
                            return;
                        }
                        // Calls waited for nothing when there were fewer: they are slower by themselves.
                        model.works_at(last.map_or(call, |(_, took)| took.min(call)));
                    }
                } else if too_few {
                    model.works_at(call.max(usual));
                } else if room {
                    *most = tidy(rate.max(*most));
                    *next_try = tidy(now);
                } else {
                    *most = tidy(*most + 0.3 * (rate - *most));
                }
                *last = this;
                *idle = idle_looks(*idle, seen);
                // What got through when there were more pods shows nothing of what one can do.
                let found = *pods;
                let shown = found.is_none_or(|found| rate > MORE * found) && used_up(seen, model);
                let pods_full = full && (hot(seen) || shown);
                let forgotten = found.is_some() && !remembered;
                // Less arrives than gets through, or pods do all they can: it is not the limit any more.
                if *idle >= IDLE_LOOKS || pods_full || forgotten {
                    self.state = State::Free { slow: 0 };
                    return;
                }
                if *trying == 0 && now >= *next_try {
                    *trying = 1;
                    *next_try = tidy(now + TRY_EVERY);
                }
            }
        }
    }

    /// There are no calls to judge by: none ended, or lanes are somebody else's. Where lanes are free none
    /// waits for the downstream: it is no limit then, and nothing else would ever say so.
    fn rest(&mut self, seen: &Seen) {
        if let State::Bound { idle, .. } = &mut self.state
            && !seen.pods_missing
        {
            *idle = idle_looks(*idle, seen);
            if *idle >= IDLE_LOOKS {
                self.state = State::Free { slow: 0 };
            }
        }
    }

    /// What lanes are to do now.
    pub fn order(&self, model: &Model) -> Order {
        match (&self.state, model.service()) {
            (State::Probing { .. }, _) => Order::Probe,
            (State::Bound { most, trying, .. }, Some(service)) => {
                let lanes = most * service * SPARE;
                // At least one more: a part of a lane is none.
                let tried = (lanes * TRY_WITH).max(lanes.ceil() + 1.0);
                Order::Total {
                    lanes,
                    most: if *trying > 0 { tried } else { lanes },
                }
            }
            _ => Order::None,
        }
    }
}

/// Looks in a row at which few pods had all lanes busy.
fn idle_looks(before: u32, seen: &Seen) -> u32 {
    if seen.full() < 0.5 { before + 1 } else { 0 }
}

/// Whether the pods themselves are the limit: their CPU is used up, or those with all lanes busy finish
/// about as much as a pod has ever been seen to. The second also where their CPU is known not to be used
/// up: what a pod can do may end at something else of its own, most often its pool of connections, and more
/// pods help then. If they do not, because it was something that all share, they are found to have brought
/// nothing.
fn used_up(seen: &Seen, model: &Model) -> bool {
    let full = seen.pods.iter().filter(|pod| pod.full);
    let rates: Vec<f64> = full.filter_map(|pod| pod.rate).collect();
    let each = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    hot(seen) || (!rates.is_empty() && each >= BELOW_SHOWN * model.shown())
}

/// Most pods use up their CPU.
fn hot(seen: &Seen) -> bool {
    seen.pods.iter().filter(|pod| pod.hot).count() * 2 > seen.pods.len()
}

/// Pods with slow calls and all lanes busy can do no more.
fn local(seen: &Seen, model: &mut Model, usual: f64) {
    let rates = seen.pods.iter().filter_map(|pod| {
        let slow = pod.call.is_some_and(|call| call >= 1.15 * usual);
        pod.rate.filter(|rate| pod.saturated && slow && *rate > 0.0)
    });
    let (sum, count) = rates.fold((0.0, 0.0), |(sum, count), rate| (sum + rate, count + 1.0));
    if count > 0.0 {
        model.saturated_at(sum / count);
    }
}
