//! What would make the controller decide otherwise, in words, with the numbers of the last decision.

use super::facts::Facts;
use super::rules::{percent, pods_of};
use crate::controller::status::{
    BROKER_UNAVAILABLE, DOWNSTREAM_BOUND, HANDLER_UNAVAILABLE, HOT_KEY_BOUND, KEY_STUCK,
    METRICS_STALE, SCALING_LIMITED,
};
use crate::crd::{Mode, OrderedConsumer};
use crate::plugin::time;
use crate::scale::rules::{FEWER, TARGET_DOWN, TRIGGER, UTILISATION, WORTH};
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
    match facts.mode {
        Mode::Auto | Mode::LanesOnly if !facts.shared => lines.push(format!(
            "consumption is Broadcasting: each pod gets all messages, so spec.replicas ({}) is yours",
            facts.replicas
        )),
        Mode::Auto => {}
        Mode::LanesOnly => lines.push(format!(
            "autoscaling.mode is LanesOnly: spec.replicas ({}) is yours; Auto would have {}",
            facts.replicas,
            pods_of(facts.advised)
        )),
        Mode::Advise | Mode::Hold => {
            let pods = if facts.shared {
                format!("{} with ", pods_of(facts.advised))
            } else {
                String::new()
            };
            lines.push(format!(
                "autoscaling.mode is {:?}: nothing is changed; Auto would have {pods}{} lanes a pod",
                facts.mode, facts.advised_lanes
            ));
        }
    }
    if facts.owns_lanes() {
        lines.extend(lanes_change(facts));
    }
    if facts.owns_pods() {
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
    let more = if facts.brakes.downstream.is_some() {
        "more lanes: something behind the handler is the limit, they would finish no more"
            .to_owned()
    } else if facts.lanes >= facts.max_lanes {
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
            Some(queues) if queues <= have => format!(
                "more pods: autoscaling.maxReplicas is {}, and the topic has {queues} queues; raise both",
                facts.max_replicas
            ),
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
