//! How many pods there are. A pod takes long to start and moves queues when it comes, so replicas follow
//! what is expected at the time a pod asked for now would be at work, not what is behind now: the backlog
//! that counts is the one that will be left then (O. J. Smith's predictor, 1957). Up when the fullest pod
//! would be too full; down only after fewer have been enough for a hold.

use super::demand::Demand;
use super::history::{Change, History};
use super::observe::Seen;
use super::placement::Placement;
use super::{HeavyQueue, Policy, Reason, Snapshot};
use keylane_consumer::ownership::Allocator;
use std::cell::RefCell;

/// Wanted utilisation of the fullest pod after a step up.
pub const TARGET: f64 = 0.8;
/// More pods only when the fullest would be fuller than this.
pub const TRIGGER: f64 = 0.9;
/// Utilisation after a step down.
pub const TARGET_DOWN: f64 = 0.65;
/// A backlog of so many seconds of arrivals is the lanes' business.
const TOLERATED: f64 = 10.0;
/// While pods start, only a need so much larger asks for more. A cold start too asks at once for all that it
/// needs by what is believed of a pod, rather than for twice as many a start: what is believed is cautious,
/// each doubling would cost another start, and pods that bring nothing go again.
const MUCH_MORE: f64 = 1.2;
/// Time between two steps up.
const UP_EVERY: f64 = 10.0;
/// Pods for a load that was announced are to be at work so long before it begins.
const EARLY: f64 = 15.0;
/// Less work than so many seconds of all pods is no backlog.
const LITTLE: f64 = 10.0;
/// A step down leaves at most this part.
pub const WORTH: f64 = 0.9;
/// Pods that came are judged so long after they were at work.
const SETTLED: f64 = 10.0;
/// Pods must bring this part of what they should.
const EFFECTIVE: f64 = 0.2;
/// After a step that brought nothing no other for so long.
const NO_UP: f64 = 300.0;
/// Figures missing for so long are stale.
pub(super) const STALE: f64 = 60.0;

/// How many pods, and why if that is worth saying.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wanted {
    pub replicas: u32,
    pub reason: Option<Reason>,
    /// Wanted beyond what is allowed.
    pub beyond: Option<u32>,
    /// Arrivals expected when a pod asked for now is at work.
    pub expected: Option<f64>,
}

/// Everything a step is decided on.
pub(super) struct Case<'c> {
    pub snapshot: &'c Snapshot,
    pub policy: &'c Policy,
    pub seen: &'c Seen,
    pub demand: &'c Demand,
    /// Of the queues of `snapshot`: what one question has cost the next one saves.
    pub allocator: RefCell<Allocator<'c>>,
}

impl<'c> Case<'c> {
    fn now(&self) -> f64 {
        self.snapshot.now.as_secs_f64()
    }

    fn most(&self) -> u32 {
        let queues = self.snapshot.queues.len() as u32;
        let bound = self.policy.max_replicas.max(self.policy.min_replicas);
        if queues == 0 {
            bound
        } else {
            bound.min(queues.max(self.policy.min_replicas))
        }
    }

    /// The largest load that was announced for the time from now until `horizon` seconds later.
    fn announced(&self, horizon: f64) -> Option<f64> {
        let now = self.now();
        let windows = self.policy.schedules.iter().filter(|window| {
            window.start.as_secs_f64() <= now + horizon && now < window.end.as_secs_f64()
        });
        windows.map(|window| window.per_second).reduce(f64::max)
    }

    /// Loads of queues if so much arrives in all and so much is behind in all.
    fn loads(&self, rate: f64, backlog_rate: f64, limit: f64) -> Vec<f64> {
        let queues = self.demand.rates.len().max(1) as f64;
        let (now, behind) = (self.demand.rate(), self.demand.backlog());
        let pairs = self.demand.rates.iter().zip(&self.demand.backlogs);
        let part = |part: f64, whole: f64| {
            if whole > 0.0 {
                part / whole
            } else {
                1.0 / queues
            }
        };
        pairs
            .map(|(queue, backlog)| {
                (part(*queue, now) * rate + part(*backlog, behind) * backlog_rate).min(limit)
            })
            .collect()
    }

    /// The fewest pods of which none gets more than `limit`, if so much arrives in all and so much is behind
    /// in all. Where no queue is known: if the load is shared evenly.
    fn fewest(&self, rate: f64, backlog_rate: f64, limit: f64) -> u32 {
        let (least, most) = (self.policy.min_replicas.max(1), self.most());
        if self.snapshot.queues.is_empty() {
            let even = ((rate + backlog_rate) / limit).ceil().clamp(0.0, 1e6) as u32;
            return even.max(least).min(most);
        }
        let loads = self.loads(rate, backlog_rate, limit);
        self.placement(loads).fewest(limit, least, most)
    }

    /// Load of the fullest of the pods there are, by who dispatches from what; none while queues move.
    fn held(&self, loads: &[f64]) -> Option<f64> {
        let mut pods = vec![0.0f64; self.snapshot.pods.len()];
        for (queue, load) in self.snapshot.queues.iter().zip(loads) {
            *pods.get_mut(queue.owner?)? += load;
        }
        pods.into_iter().reduce(f64::max)
    }

    fn placement(&self, loads: Vec<f64>) -> Placement<'_, 'c> {
        let mut pods: Vec<_> = self.snapshot.pods.iter().collect();
        pods.sort_by(|left, right| right.uptime_seconds.total_cmp(&left.uptime_seconds));
        let members = pods.iter().map(|pod| pod.incarnation.as_str()).collect();
        let held = self.held(&loads);
        Placement::new(&self.allocator, loads, members).held(held)
    }
}

/// Decides. What is decided is remembered as if it were carried out if `owned`.
pub(super) fn replicas(case: &Case<'_>, history: &mut History, owned: bool) -> Wanted {
    let have = case.snapshot.replicas;
    let stay = |reason| Wanted {
        replicas: have,
        reason,
        beyond: None,
        expected: None,
    };
    if have == 0 {
        return stay(Some(Reason::Held));
    }
    let before = (history.calm.clone(), history.change.clone());
    let wanted = if case.seen.broker_missing {
        blind(case, history, stay)
    } else {
        match capacity(case, history) {
            // Not even for what was announced there is a number then: nobody knows what a pod can do.
            None => stay(None),
            Some(capacity) => {
                if let Some(back) = ineffective(case, history) {
                    Wanted {
                        replicas: back,
                        ..stay(Some(Reason::Ineffective))
                    }
                } else {
                    seeing(case, history, capacity)
                }
            }
        }
    };
    let wanted = Wanted {
        // Bounds bind only where replicas are the controller's.
        beyond: wanted.beyond.filter(|_| owned),
        ..wanted
    };
    if owned && wanted.replicas != have {
        let direction = if wanted.replicas > have { 1 } else { -1 };
        history.before_step = Some(before);
        history.calm.turned(direction, case.now());
        history.change = (direction > 0).then(|| Change {
            at: case.now(),
            from: have,
            to: wanted.replicas,
            before: history.completions.filter(|_| case.seen.full() >= 0.6),
            arrived: None,
        });
    }
    wanted
}

/// A step up for a load that was announced, where the fullest pod would be too full of that alone. It needs
/// no figures of now, and so it is taken also when they are missing or say nothing. None while something
/// behind the handler is seen to be the limit: more pods would finish no more.
fn scheduled(case: &Case<'_>, history: &History, capacity: f64) -> Option<Wanted> {
    let (now, have) = (case.now(), case.snapshot.replicas);
    let announced = case.announced(history.model.start() + EARLY)?;
    let just_changed = (history.calm.changed_at).is_some_and(|at| now - at < UP_EVERY);
    if just_changed || history.link.bound().is_some() {
        return None;
    }
    let need = |utilisation: f64| case.fewest(announced, 0.0, utilisation * capacity);
    let up = need(TARGET);
    (up > have && need(TRIGGER) > have).then_some(Wanted {
        replicas: up,
        reason: Some(Reason::Scheduled),
        beyond: None,
        expected: Some(announced),
    })
}

/// Brokers say nothing: nothing goes down. Pods that are all busy at full lanes need help, however much
/// there is; after a while there are at least as many as the fallback says, and as many as what was
/// announced needs, at any time.
fn blind(case: &Case<'_>, history: &History, stay: impl Fn(Option<Reason>) -> Wanted) -> Wanted {
    let (now, have) = (case.now(), case.snapshot.replicas);
    let mut wanted = have;
    let since = history.missing.longest(now);
    if since >= STALE {
        wanted = wanted.max(case.policy.fallback_replicas);
    }
    let lanes = history.lanes.unwrap_or(0);
    let useful = history
        .model
        .useful_lanes()
        .unwrap_or(u32::MAX)
        .min(case.policy.max_lanes);
    let starting = history
        .change
        .as_ref()
        .is_some_and(|change| change.arrived.is_none());
    let settled = history
        .calm
        .changed_at
        .is_none_or(|at| now - at >= history.model.start());
    if case.seen.full() >= 0.6
        && lanes >= useful
        && !starting
        && settled
        && since >= 15.0
        && history.link.bound().is_none()
    {
        wanted = wanted.max(have + have.div_ceil(2));
    }
    let wanted = wanted.min(case.most()).max(have);
    capacity(case, history)
        .and_then(|capacity| scheduled(case, history, capacity))
        .filter(|announced| announced.replicas > wanted)
        .unwrap_or(Wanted {
            replicas: wanted,
            ..stay(Some(Reason::MetricsMissing))
        })
}

/// The last step up brought nothing while everything was busy: back.
fn ineffective(case: &Case<'_>, history: &mut History) -> Option<u32> {
    let now = case.now();
    let change = history.change.as_ref()?;
    let arrived = change.arrived?;
    if now < arrived + SETTLED {
        return None;
    }
    let change = history.change.take()?;
    let (before, rate) = (change.before?, case.seen.completions?);
    let should = before * (f64::from(change.to) / f64::from(change.from.max(1)) - 1.0);
    if case.seen.full() < 0.6 || rate - before >= EFFECTIVE * should {
        return None;
    }
    history.link.brought_nothing(rate.max(before), now);
    history.calm.no_up_before = Some(now + NO_UP);
    Some(change.from).filter(|from| *from < case.snapshot.replicas)
}

/// Messages a second that are expected of a pod.
fn capacity(case: &Case<'_>, history: &History) -> Option<f64> {
    let lanes = case.policy.max_lanes;
    let few = (case.seen.pods.iter()).any(|pod| pod.full && pod.lanes < lanes);
    if few {
        history.model.hoped_capacity(case.policy)
    } else {
        history.model.capacity(case.policy)
    }
}

fn seeing(case: &Case<'_>, history: &mut History, capacity: f64) -> Wanted {
    let (now, have) = (case.now(), case.snapshot.replicas);
    let horizon = history.model.start();
    let Some(arriving) = arriving(case, history) else {
        return scheduled(case, history, capacity).unwrap_or(Wanted {
            replicas: have,
            reason: None,
            beyond: None,
            expected: None,
        });
    };
    let announced = case.announced(horizon + EARLY);
    let forecast = arriving + history.arrivals.rise() * horizon;
    let expected = forecast.max(announced.unwrap_or(0.0));
    let left = left_behind(case, history, capacity, arriving, forecast, horizon);
    let within = case
        .policy
        .max_message_age
        .as_secs_f64()
        .min(case.policy.drain_within.as_secs_f64());
    // Not long ago the downstream was the limit: what is behind goes down as fast as it lets through.
    let backlog_rate = if history.link.remembered(now) {
        0.0
    } else {
        working_off(left, arriving, within)
    };
    let need = |utilisation: f64| case.fewest(expected, backlog_rate, utilisation * capacity);
    let most = case.most();
    let up = need(TARGET);
    let result = |replicas, reason| Wanted {
        replicas,
        reason,
        beyond: None,
        expected: Some(expected),
    };
    if up > have && need(TRIGGER) > have {
        let starting = history
            .change
            .as_ref()
            .is_some_and(|change| change.arrived.is_none());
        if starting && f64::from(up) < MUCH_MORE * f64::from(have) {
            return result(have, Some(Reason::PodsStarting));
        }
        if history.link.suspicious() {
            // What is behind says nothing while calls are slow; what was announced comes all the same.
            let bound = history.link.bound().map(|_| Reason::DownstreamBound);
            return scheduled(case, history, capacity).unwrap_or(result(have, bound));
        }
        if history.calm.no_up_before.is_some_and(|until| now < until) && announced.is_none() {
            return result(have, Some(Reason::DownstreamBound));
        }
        if history
            .calm
            .changed_at
            .is_some_and(|at| now - at < UP_EVERY)
        {
            return result(have, Some(Reason::PodsStarting));
        }
        let reason = if announced.is_some_and(|rate| rate > forecast) {
            Reason::Scheduled
        } else {
            Reason::ReplicasUp
        };
        return result(up, Some(reason));
    }
    let total = expected + backlog_rate;
    let too_much = have >= most && total > TARGET * capacity * f64::from(most);
    let bound = history.link.bound().is_some();
    if let Some(down) = down(case, history, capacity, expected) {
        return result(down, Some(Reason::ReplicasDown));
    }
    Wanted {
        // More pods would finish no more: it is not their number that is the limit.
        beyond: (too_much && !bound).then(|| (total / (TARGET * capacity)).ceil().min(1e6) as u32),
        ..result(
            have,
            too_much.then_some(if bound {
                Reason::DownstreamBound
            } else {
                Reason::AtMaximum
            }),
        )
    }
}

/// A queue that gets more than one pod can do, and falls behind for it: it is in one pod, so that no number
/// of pods helps.
pub(super) fn heavy_queue(case: &Case<'_>, history: &History) -> Option<HeavyQueue> {
    let capacity = history.model.capacity(case.policy)?;
    if history.link.suspicious() || case.seen.missing() {
        return None;
    }
    let queues = case.snapshot.queues.iter().zip(&case.demand.rates);
    let heavy = queues.zip(&case.demand.backlogs);
    let heavy = heavy.filter(|((queue, rate), backlog)| {
        let pod = queue.owner.and_then(|owner| case.seen.pods.get(owner));
        **rate > capacity && **backlog > TOLERATED * **rate && pod.is_some_and(|pod| pod.full)
    });
    let ((queue, rate), _) =
        heavy.max_by(|((_, left), _), ((_, right), _)| left.total_cmp(right))?;
    Some(HeavyQueue {
        queue: queue.id.to_string(),
        per_second: *rate,
    })
}

/// Messages a second beside those that arrive, so that what is left is gone within so many seconds. What
/// arrives in a few seconds is no backlog.
pub fn working_off(left: f64, arriving: f64, within: f64) -> f64 {
    (left - TOLERATED * arriving).max(0.0) / within.max(20.0)
}

/// What arrives now, without what producers send again after an outage.
fn arriving(case: &Case<'_>, history: &History) -> Option<f64> {
    let now = case.now();
    let last: Vec<f64> = history.arrivals.last(2).collect();
    let newest = *last.first()?;
    let rate = last.iter().sum::<f64>() / last.len() as f64;
    let rate = rate.max(newest.min(2.0 * rate));
    let total = if history.burst_until.is_some_and(|until| now < until) {
        history.arrivals.last(18).fold(rate, f64::min)
    } else {
        rate
    };
    // Without what a hot or stuck key asks in vain.
    let (all, served) = (
        case.seen.queues.iter().map(|queue| queue.rate).sum::<f64>(),
        case.demand.rate(),
    );
    Some(if all > 0.0 {
        total * served / all
    } else {
        total
    })
}

/// Messages that will be left when a pod asked for now is at work.
fn left_behind(
    case: &Case<'_>,
    history: &History,
    capacity: f64,
    arriving: f64,
    forecast: f64,
    horizon: f64,
) -> f64 {
    let have = f64::from(case.snapshot.replicas);
    let (at_work, ahead) = match &history.change {
        Some(change) if change.arrived.is_none() => {
            let ahead = (case.now() - change.at).clamp(0.0, horizon);
            (
                f64::from(change.from),
                (have - f64::from(change.from)).max(0.0) * ahead,
            )
        }
        _ => (have, 0.0),
    };
    let arrive = (arriving + forecast) / 2.0 * horizon;
    let finish = capacity * (at_work * horizon + ahead);
    (case.demand.backlog() + arrive - finish).max(0.0)
}

/// Fewer pods, if they have been enough for the hold.
fn down(case: &Case<'_>, history: &History, capacity: f64, expected: f64) -> Option<u32> {
    let (now, have) = (case.now(), case.snapshot.replicas);
    let hold = history.calm.hold(case.policy.hold.as_secs_f64(), now);
    let busy = case.seen.missing()
        || !case.seen.compared
        || history.calm.owned_since.is_some_and(|at| now - at < hold)
        || history
            .change
            .as_ref()
            .is_some_and(|change| change.arrived.is_none())
        || history.link.suspicious()
        || case.snapshot.ready < have
        || case.demand.backlog() > LITTLE * capacity * f64::from(have)
        || history.calm.changed_at.is_some_and(|at| now - at < hold);
    if busy {
        return None;
    }
    let usual = history.arrivals.quantile(now, hold, 0.95)?;
    let (all, served) = (
        case.seen.queues.iter().map(|queue| queue.rate).sum::<f64>(),
        case.demand.rate(),
    );
    let usual = if all > 0.0 {
        usual * served / all
    } else {
        usual
    };
    let sure = history.model.sure_capacity(case.policy)?;
    let limit = TARGET_DOWN * sure;
    let loads = case.loads(usual.max(expected), 0.0, limit);
    let least = case.policy.min_replicas.max(have.div_ceil(2)).max(1);
    let enough = case.placement(loads).fewest(limit, least, have);
    // Every step moves queues: one pod of many is not worth that.
    (enough < have && f64::from(enough) <= WORTH * f64::from(have)).then_some(enough)
}
