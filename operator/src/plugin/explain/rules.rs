//! The controller's rules in words, with the numbers of the last decision. The constants are its own.

use super::facts::Facts;
use crate::controller::status::{
    BROKER_UNAVAILABLE, DOWNSTREAM_BOUND, HANDLER_UNAVAILABLE, HOT_KEY_BOUND, KEY_STUCK,
    METRICS_STALE, SCALING_LIMITED,
};
use crate::crd::{Mode, OrderedConsumer};
use crate::plugin::time;
use crate::scale::rules::{
    DRAIN, FEWER, TARGET, TARGET_DOWN, TRIGGER, UTILISATION, WORTH, needed, working_off,
};
use crate::scale::{Brakes, Reason};
use keylane_consumer::contract::spec::Consumption;
use kube::ResourceExt;

/// Conditions that hold the size where it is, each with what helps in its message.
const LIMITS: [&str; 7] = [
    SCALING_LIMITED,
    HOT_KEY_BOUND,
    DOWNSTREAM_BOUND,
    KEY_STUCK,
    METRICS_STALE,
    BROKER_UNAVAILABLE,
    HANDLER_UNAVAILABLE,
];

/// Less than so many messages a second of a pod is nothing that was seen of it.
const SEEN: f64 = 0.1;

fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

pub(super) fn pods_of(number: u32) -> String {
    if number == 1 {
        "1 pod".to_owned()
    } else {
        format!("{number} pods")
    }
}

/// How lanes come about.
pub(super) fn lanes(facts: &Facts) -> Vec<String> {
    let mut lines = vec![format!(
        "rule: calls at once = messages/s of the busiest pod x seconds a call / {UTILISATION} (Little's law, lanes {} busy); a backlog counts as gone within {DRAIN:.0} s; {} to {} are allowed",
        percent(UTILISATION),
        facts.min_lanes,
        facts.max_lanes
    )];
    let Some(service) = facts.service else {
        lines.push(
            "how long a call takes is not known yet: lanes double while all are busy and more wait"
                .to_owned(),
        );
        return lines;
    };
    if let (Some(arriving), Some(unfinished)) = (facts.arriving, facts.unfinished) {
        let pods = facts.ready.max(1);
        let load = (arriving + unfinished / DRAIN) / f64::from(pods);
        let wanted = needed(service, load);
        let clamped = wanted.clamp(f64::from(facts.min_lanes), f64::from(facts.max_lanes));
        let within = if clamped == wanted {
            String::new()
        } else {
            format!(", within the bounds {clamped:.0}")
        };
        lines.push(format!(
            "here, with queues shared evenly: ({arriving:.1}/s that arrive + {unfinished:.0} unfinished / {DRAIN:.0} s) / {} x {} / {UTILISATION} = {wanted:.0}{within}",
            pods_of(pods),
            milliseconds(service)
        ));
    } else {
        lines.push("here: arrivals or backlog are unknown, lanes stay".to_owned());
    }
    if let Some(useful) = facts.useful_lanes {
        lines.push(format!(
            "a pod that was busy on all lanes gained nothing beyond {useful}: no more are given"
        ));
    }
    if facts.reason == Reason::DownstreamBound.as_str() {
        lines.push(
            "something behind the handler is the limit: instead of the rule, pods share the lanes that keep it busy"
                .to_owned(),
        );
    }
    if facts.reason == Reason::Probing.as_str() {
        lines
            .push("calls are slow: instead of the rule, half of the lanes for a moment".to_owned());
    }
    lines.push(format!(
        "it has {}: more at once when more are needed, fewer only when less than {} of them would do",
        facts.lanes,
        percent(FEWER)
    ));
    lines
}

/// How the number of pods comes about.
pub(super) fn pods(facts: &Facts) -> Vec<String> {
    let within = facts.max_message_age.min(facts.drain_within).as_secs_f64();
    let mut lines = vec![format!(
        "rule: the fewest pods of which the fullest is {} full with what is expected when a pod asked for now is at work, and with what is behind then, gone within {}; {} to {} are possible{}",
        percent(TARGET),
        time::span(within.max(20.0) as i64),
        facts.min_replicas,
        facts.most(),
        match facts.queues {
            Some(queues) if queues < facts.max_replicas =>
                format!(" (the topic has {queues} queues)"),
            _ => String::new(),
        }
    )];
    let (Some(capacity), Some(arriving), Some(unfinished)) =
        (facts.capacity, facts.arriving, facts.unfinished)
    else {
        lines.push(
            "here: what a pod can do, arrivals or backlog are not known yet, pods stay".to_owned(),
        );
        return lines;
    };
    let start = facts.start.unwrap_or(0.0);
    let expected = facts.expected.unwrap_or(arriving);
    let at_work = f64::from(facts.ready);
    let arrive = (arriving + expected) / 2.0 * start;
    let left = (unfinished + arrive - capacity * at_work * start).max(0.0);
    let ignored = facts.brakes.backlog_ignored_for;
    let behind = if ignored.is_some() {
        0.0
    } else {
        working_off(left, arriving, within)
    };
    let total = expected + behind;
    let need = (total / (TARGET * capacity)).ceil();
    let least = f64::from(facts.min_replicas);
    let clamped = need.clamp(least, f64::from(facts.most()).max(least));
    let bounds = if clamped == need {
        String::new()
    } else {
        format!(", within the bounds {clamped:.0}")
    };
    lines.push(format!(
        "here, with queues shared evenly: {expected:.1}/s expected in {start:.0} s + {behind:.1}/s for {left:.0} messages left then = {total:.1}/s; / ({} of {capacity:.1}/s that a pod can do) = {need:.0}{bounds}",
        percent(TARGET)
    ));
    if let Some(seconds) = ignored {
        lines.push(format!(
            "something behind the handler was the limit not long ago: more pods would not work off the backlog faster, so it asks for none for another {}",
            time::span(seconds.ceil() as i64)
        ));
    }
    lines.extend(brakes(&facts.brakes));
    lines
}

/// What keeps pods from following the rule.
fn brakes(brakes: &Brakes) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some((from, to)) = brakes.starting {
        lines.push(format!(
            "the step from {from} to {} is still under way: until they are at work only a need much larger asks for more, and none go",
            pods_of(to)
        ));
    }
    if brakes.slow {
        lines.push(
            "calls are slower than usual or something behind the handler is the limit: no more pods, they would not help"
                .to_owned(),
        );
    }
    if let Some(seconds) = brakes.no_more_for {
        lines.push(format!(
            "the last pods that came finished no more: none are added for another {}, but for a schedule",
            time::span(seconds.ceil() as i64)
        ));
    }
    lines
}

/// What would make it decide otherwise.
pub(super) fn would_change(facts: &Facts, consumer: &OrderedConsumer) -> Vec<String> {
    let mut lines = Vec::new();
    let name = consumer.name_any();
    if facts.replicas == 0 {
        lines.push(format!(
            "spec.replicas is 0, so nothing runs: kubectl scale oc/{name} --replicas=1 starts it"
        ));
        return lines;
    }
    let shared = consumer.spec.consumer.consumption == Consumption::Clustering;
    match facts.mode {
        Mode::Auto | Mode::LanesOnly if !shared => lines.push(format!(
            "consumption is Broadcasting: each pod gets all messages, so spec.replicas ({}) is yours",
            facts.replicas
        )),
        Mode::Auto => {}
        Mode::LanesOnly => lines.push(format!(
            "autoscaling.mode is LanesOnly: spec.replicas ({}) is yours; Auto would have {}",
            facts.replicas,
            pods_of(facts.advised)
        )),
        Mode::Advise => lines.push(format!(
            "autoscaling.mode is Advise: nothing is changed; Auto would have {}",
            pods_of(facts.advised)
        )),
        Mode::Hold => lines.push(
            "autoscaling.mode is Hold: nothing is changed; Auto or LanesOnly lets it follow the load"
                .to_owned(),
        ),
    }
    if matches!(facts.mode, Mode::Auto | Mode::LanesOnly) {
        lines.extend(lanes_change(facts));
    }
    if facts.mode == Mode::Auto && shared {
        lines.extend(pods_change(facts));
        if facts.schedules == 0 {
            lines.push(
                "a peak that is known before: autoscaling.schedules has pods ready when it begins"
                    .to_owned(),
            );
        }
    }
    let status = consumer.status.iter();
    let conditions = status.flat_map(|status| &status.conditions);
    let limits = conditions.filter(|condition| {
        condition.status == "True" && LIMITS.contains(&condition.type_.as_str())
    });
    lines.extend(limits.map(|condition| format!("{}: {}", condition.type_, condition.message)));
    lines
}

fn lanes_change(facts: &Facts) -> Vec<String> {
    let Some(service) = facts.service else {
        return vec![
            "lanes: 500 finished messages, or 20 in a minute, tell how long a call takes"
                .to_owned(),
        ];
    };
    let load = |lanes: f64| lanes * UTILISATION / service;
    let lanes = f64::from(facts.lanes);
    let more = if facts.lanes >= facts.max_lanes {
        format!("more lanes: lanes.max is {}, raise it", facts.max_lanes)
    } else if let Some(useful) = facts.useful_lanes.filter(|useful| facts.lanes >= *useful) {
        format!(
            "more lanes: a pod gained nothing beyond {useful}; more CPU for its containers, or calls that need less of it"
        )
    } else {
        format!(
            "more lanes: when the busiest pod has to finish more than {:.1}/s",
            load(lanes)
        )
    };
    let fewer = if f64::from(facts.min_lanes) >= FEWER * lanes {
        format!("fewer lanes: lanes.min is {}", facts.min_lanes)
    } else {
        format!(
            "fewer lanes: when it has to finish no more than {:.1}/s",
            load((FEWER * lanes).ceil() - 1.0)
        )
    };
    vec![more, fewer]
}

fn pods_change(facts: &Facts) -> Vec<String> {
    let have = facts.replicas;
    let mut lines = Vec::new();
    let most = facts.most();
    if have >= most && facts.brakes.downstream.is_some() {
        lines.push(
            "more pods: something behind the handler is the limit, they would finish no more"
                .to_owned(),
        );
    } else if have >= most {
        lines.push(match facts.queues {
            Some(queues) if queues <= have && facts.max_replicas > have => {
                format!("more pods: the topic has {queues} queues, and a pod without one has nothing to do; give it more queues")
            }
            _ => format!("more pods: autoscaling.maxReplicas is {}, raise it", facts.max_replicas),
        });
    } else if let Some(capacity) = facts.capacity {
        lines.push(format!(
            "more pods: when more than {:.1}/s are expected ({} of what {} can do), or a backlog that they cannot work off",
            TRIGGER * capacity * f64::from(have),
            percent(TRIGGER),
            pods_of(have)
        ));
    }
    // One pod of many is not worth moving queues, and at most half of them go at a time.
    let fewer = (f64::from(have) * WORTH).floor() as u32;
    if have <= facts.min_replicas || fewer < facts.min_replicas.max(1) {
        let least = facts.min_replicas;
        lines.push(format!("fewer pods: autoscaling.minReplicas is {least}"));
    } else if let Some(capacity) = facts.sure_capacity.filter(|capacity| *capacity > SEEN) {
        lines.push(format!(
            "fewer pods: when no more than {:.1}/s ({} of what {} can do) have arrived for {}",
            TARGET_DOWN * capacity * f64::from(fewer),
            percent(TARGET_DOWN),
            pods_of(fewer),
            time::span(facts.hold.as_secs() as i64)
        ));
    } else {
        lines.push("fewer pods: only once it was seen what a pod can do".to_owned());
    }
    lines
}
