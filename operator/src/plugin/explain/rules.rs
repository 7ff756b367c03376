//! The controller's rules in words, with the numbers of the last decision. The constants are its own.

use super::facts::Facts;
use crate::plugin::time;
use crate::scale::rules::{DRAIN, FEWER, TARGET, UTILISATION, needed, working_off};
use crate::scale::{Brakes, Reason};

pub(super) fn percent(part: f64) -> String {
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

/// What came of a number that is beyond what may be, and which bound that is.
fn bounded(wanted: f64, allowed: f64, least: &str, most: &str) -> String {
    if allowed == wanted {
        return String::new();
    }
    let bound = if allowed > wanted { least } else { most };
    format!(", within the bounds {allowed:.0} ({bound})")
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
        if !facts.owns_lanes() {
            lines.push(keeps(facts));
        }
        return lines;
    };
    if let (Some(arriving), Some(unfinished)) = (facts.arriving, facts.unfinished) {
        let pods = facts.ready.max(1);
        let load = (arriving + unfinished / DRAIN) / f64::from(pods);
        let wanted = needed(service, load);
        let clamped = wanted.clamp(f64::from(facts.min_lanes), f64::from(facts.max_lanes));
        let within = bounded(wanted, clamped, "lanes.min", "lanes.max");
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
    lines.push(if facts.owns_lanes() {
        format!(
            "it has {}: more at once when more are needed, fewer only when less than {} of them would do",
            facts.lanes,
            percent(FEWER)
        )
    } else {
        keeps(facts)
    });
    lines
}

/// That the rule of lanes is not followed.
fn keeps(facts: &Facts) -> String {
    format!(
        "it has {} and keeps them: autoscaling.mode is {:?}",
        facts.lanes, facts.mode
    )
}

/// How the number of pods comes about.
pub(super) fn pods(facts: &Facts) -> Vec<String> {
    if !facts.shared {
        return vec![
            "consumption is Broadcasting: each pod gets all messages, however many there are"
                .to_owned(),
        ];
    }
    let within = facts.max_message_age.min(facts.drain_within).as_secs_f64();
    let rule = if facts.owns_pods() {
        "rule".to_owned()
    } else {
        format!("rule of mode Auto, not followed in {:?}", facts.mode)
    };
    let mut lines = vec![format!(
        "{rule}: the fewest pods of which the fullest is {} full with what is expected when a pod asked for now is at work, and with what is behind then, gone within {}; {} to {} are possible{}",
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
        if let Some(fallback) = facts.fallback.filter(|_| facts.owns_pods()) {
            lines.push(format!(
                "where figures are missing for a minute there are at least {} (autoscaling.fallback)",
                pods_of(fallback)
            ));
        }
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
    let bounds = bounded(need, clamped, "autoscaling.minReplicas", facts.most_by());
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
