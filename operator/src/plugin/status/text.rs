//! A report as a tree for people.

use super::Report;
use super::pods::PodLine;
use crate::controller::status::{HOT_KEY_BOUND, KEY_SPANS_QUEUES, KEY_STUCK, READY};
use crate::plugin::paint::Paint;
use crate::plugin::suspend;
use crate::plugin::time;
use crate::plugin::tree::Tree;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::time::Duration;

/// Conditions that are about keys.
const ABOUT_KEYS: [&str; 3] = [HOT_KEY_BOUND, KEY_STUCK, KEY_SPANS_QUEUES];

/// The tree.
pub(in crate::plugin) fn text(report: &Report, paint: Paint) -> String {
    let phase = match report.phase.as_str() {
        "Ready" => paint.well("Ready"),
        "Suspended" | "Unseen" | "ScaledToZero" => paint.note(&report.phase),
        phase => paint.bad(phase),
    };
    let name = format!("{}/{}", report.namespace, report.name);
    let mut tree = Tree::new(format!(
        "OrderedConsumer {}  {phase}: {}",
        paint.strong(&name),
        report.message
    ));
    if report.outdated {
        let note =
            "the spec was changed; what follows was seen before the operator looked at it again";
        tree = tree.with(paint.note(note));
    }
    let queues = report.queues.map_or_else(
        || "queues unknown".to_owned(),
        |queues| count(queues, "queue"),
    );
    tree = tree
        .with(format!(
            "topic {} ({queues}), group {}, ordering {:?}, {:?}",
            report.topic, report.consumer_group, report.ordering, report.consumption
        ))
        .with(load(report))
        .with(size(report));
    let held = suspend::held(&report.suspended);
    if !held.is_empty() {
        tree = tree.with(paint.note(&format!("suspended: {}", held.join(", "))));
    }
    tree = tree.with(pods(report, paint));
    let keys = keys(report, paint);
    if !keys.is_empty() {
        tree = tree.with(Tree::new("keys").with_all(keys));
    }
    if let Some(reset) = &report.offsets_reset {
        tree = tree.with(format!(
            "offsets reset to {} ({}): {:?}, {} done, {} offsets skipped, {} consumed again",
            reset.to,
            reset.id,
            reset.phase,
            count(reset.queues_done, "queue"),
            reset.skipped,
            reset.replayed
        ));
    }
    if let Some(decision) = &report.decision {
        tree = tree.with(
            Tree::new(format!("last decision: {}", paint.strong(&decision.reason)))
                .with(decision.message.clone()),
        );
    }
    if let Some(conditions) = conditions(report, paint) {
        tree = tree.with(conditions);
    }
    tree.to_string()
}

fn count(number: u32, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}

fn load(report: &Report) -> Tree {
    let lag = match &report.lag {
        Some(lag) => format!(
            "lag: {} messages not finished{}, {} after the committed offsets",
            lag.unfinished,
            lag.oldest
                .map_or_else(String::new, |age| format!(" (the oldest for {age})")),
            lag.messages
        ),
        None => "lag: unknown".to_owned(),
    };
    let rates = report.rates.as_ref();
    let rate = |rate: Option<&String>| {
        rate.map_or_else(|| "unknown".to_owned(), |rate| format!("{rate}/s"))
    };
    let rates = format!(
        "rates: {} arrive, {} are finished",
        rate(rates.and_then(|rates| rates.arriving.as_ref())),
        rate(rates.and_then(|rates| rates.completed.as_ref())),
    );
    let mut load = Tree::new("load").with(lag).with(rates);
    let gone_in = report.lag.and_then(|lag| lag.drained_in);
    if let Some(time) = gone_in.filter(|time| time.get() > Duration::from_secs(1)) {
        load = load.with(format!(
            "at these rates the backlog is gone in about {time}"
        ));
    }
    load
}

fn size(report: &Report) -> Tree {
    let size = &report.size;
    let known = |number: Option<i32>| {
        number.map_or_else(|| "unknown".to_owned(), |number| number.to_string())
    };
    let lanes = size
        .lanes
        .map_or_else(|| "unknown".to_owned(), |lanes| lanes.to_string());
    let busy = report
        .decision
        .as_ref()
        .and_then(|decision| decision.inputs.busy_lanes.as_ref())
        .map_or_else(String::new, |busy| format!(", {busy} busy over all pods"));
    Tree::new(format!("size (autoscaling {:?})", size.mode))
        .with(format!(
            "pods: {} wanted, {} there, {} ready (autoscaling allows {} to {})",
            size.wanted,
            known(size.current),
            known(size.ready),
            size.min_replicas,
            size.max_replicas
        ))
        .with(format!(
            "lanes: {lanes} a pod{busy} ({} to {} allowed)",
            size.min_lanes, size.max_lanes
        ))
}

fn pods(report: &Report, paint: Paint) -> Tree {
    let Some(pods) = &report.pods else {
        return Tree::new("pods: you may not list them; kubectl keylane check tells your rights");
    };
    if pods.is_empty() {
        return Tree::new("pods: none");
    }
    let longest = pods.iter().map(|pod| pod.name.len()).max();
    let longest = longest.unwrap_or_default();
    Tree::new("pods").with_all(pods.iter().map(|pod| line(pod, longest, paint)))
}

fn line(pod: &PodLine, longest: usize, paint: Paint) -> Tree {
    let ready = format!("{}/{} containers ready", pod.ready, pod.containers);
    let ready = if pod.ready == pod.containers {
        paint.well(&ready)
    } else {
        paint.note(&ready)
    };
    let restarts = if pod.restarts > 0 {
        let times = count(pod.restarts.unsigned_abs(), "restart");
        format!(", {}", paint.note(&times))
    } else {
        String::new()
    };
    let node = pod.node.as_deref();
    let work = pod.work.map_or_else(String::new, |work| {
        format!(
            "; {}, {} of {} lanes busy",
            count(work.queues, "queue"),
            work.busy_lanes,
            work.lanes
        )
    });
    let tree = Tree::new(format!(
        "{:longest$}  {}, {ready}{restarts}, {} old{}{work}",
        pod.name,
        pod.phase,
        pod.age,
        node.map_or_else(String::new, |node| format!(", on {node}"))
    ));
    match &pod.problem {
        Some(problem) => tree.with(paint.bad(problem)),
        None => tree,
    }
}

fn keys(report: &Report, paint: Paint) -> Vec<String> {
    let bad = report.conditions.iter().filter(|condition| {
        condition.status == "True" && ABOUT_KEYS.contains(&condition.type_.as_str())
    });
    let mut keys: Vec<_> = bad
        .map(|condition| problem(condition, report, paint))
        .collect();
    keys.extend(report.hot_keys.iter().map(|hot| {
        format!(
            "hot: {:?} ({}) gets {}/s and has {} of work waiting",
            hot.key, hot.queue, hot.per_second, hot.waiting
        )
    }));
    keys.extend(report.stuck_keys.iter().map(|stuck| {
        let why = match stuck.last_error.as_str() {
            "" => String::new(),
            error => format!(": {error}"),
        };
        let (key, queue, offset) = (&stuck.key, &stuck.queue, stuck.offset);
        let tried = count(stuck.attempts, "failed attempt");
        format!(
            "stuck: {key:?} ({queue} at {offset}) for {}, {tried}{why}",
            stuck.stuck_for
        )
    }));
    keys.extend(report.blocked_keys.iter().map(|key| {
        paint.bad(&format!(
            "{key} waits for a person: its message has used up its attempts (retry.onExhausted is Block)"
        ))
    }));
    keys
}

fn problem(condition: &Condition, report: &Report, paint: Paint) -> String {
    format!(
        "{}: {} {}",
        paint.bad(&condition.type_),
        condition.message,
        paint.faint(&format!(
            "(for {})",
            time::since(condition.last_transition_time.0, report.now)
        ))
    )
}

/// The problems that are not about keys, and what is well.
fn conditions(report: &Report, paint: Paint) -> Option<Tree> {
    let (mut problems, mut well) = (Vec::new(), 0);
    for condition in &report.conditions {
        match condition.status.as_str() {
            // The first line says it.
            _ if condition.type_ == READY => {}
            "True" if ABOUT_KEYS.contains(&condition.type_.as_str()) => {}
            "True" => problems.push(problem(condition, report, paint)),
            _ => well += 1,
        }
    }
    if well > 0 {
        let which = if problems.is_empty() {
            format!("all {well}")
        } else {
            format!("{well} others")
        };
        let well = paint.well(&format!("{which} as they should be"));
        problems.push(format!("{well} (-o yaml shows them)"));
    }
    (!problems.is_empty()).then(|| Tree::new("conditions").with_all(problems))
}
