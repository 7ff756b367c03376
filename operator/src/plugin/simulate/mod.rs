//! A peak before it comes: the controller that runs in the cluster, with the bounds of an OrderedConsumer
//! from a file, on a group made of arithmetic ([`crate::simulate`]). No cluster is asked.

mod load;
mod plot;
#[cfg(test)]
mod tests;

use super::PluginError;
use super::paint::Paint;
use super::time;
use crate::controller::{snapshot, validate};
use crate::crd::OrderedConsumer;
use crate::scale::{Policy, Window};
use crate::simulate::{self, Autopilot, EPOCH, Run, Setup, Sizes, Trace, World};
use clap::Args;
use k8s_openapi::jiff::Timestamp;
use keylane_consumer::contract::duration::DurationText;
use kube::ResourceExt;
use load::Load;
use serde::Deserialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Announced loads are looked for in steps of so many seconds, fewer than an announcement reaches ahead.
const STEP: u64 = 600;

/// What is to be simulated.
#[derive(Args, Clone, Debug)]
pub(super) struct Simulate {
    /// The OrderedConsumer, as YAML or JSON.
    #[arg(short, long, value_name = "FILE")]
    filename: PathBuf,
    #[command(flatten)]
    load: Load,
    /// How long a call takes.
    #[arg(long, value_name = "DURATION", default_value = "50ms")]
    work: DurationText,
    /// Messages a second that one pod can do at most, whatever its lanes. Default: half of what lanes.max
    /// do on paper.
    #[arg(long, value_name = "RATE", value_parser = load::rate)]
    pod_rate: Option<f64>,
    /// How long a pod takes to start.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pod_start: DurationText,
    /// When it begins, such as 2026-11-11T00:00:00+08:00: autoscaling.schedules count from there. Default: now.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
}

/// The number of pods changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    second: u32,
    from: u32,
    to: u32,
    reason: &'static str,
}

/// A run, and what it was a run of.
#[derive(Clone, Debug)]
struct Outcome {
    name: String,
    trace: Trace,
    world: World,
    policy: Policy,
    run: Run,
    changes: Vec<Change>,
}

/// Simulates; returns what there is to say.
pub(super) fn simulate(what: &Simulate, paint: Paint) -> Result<String, PluginError> {
    let trace = what.load.trace()?;
    let at = what.at.unwrap_or_else(Timestamp::now);
    let at = Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0));
    let consumer = read(&what.filename)?;
    let policy = Policy {
        schedules: announced(&consumer, at, trace.seconds),
        ..snapshot::policy(&consumer, at)
    };
    let service = what.work.get().as_secs_f64().max(1e-3);
    let paper = f64::from(policy.max_lanes) / service;
    let world = World {
        start_delay: u32::try_from(what.pod_start.get().as_secs()).unwrap_or(u32::MAX),
        service,
        pod_cap: what.pod_rate.unwrap_or(paper / 2.0),
        max_lanes: policy.max_lanes,
        ..World::default()
    };
    let replicas = consumer.replicas().unsigned_abs().max(1);
    Ok(text(
        &run(consumer.name(), trace, world, policy, replicas),
        paint,
    ))
}

fn run(name: &str, trace: Trace, world: World, policy: Policy, replicas: u32) -> Outcome {
    let setup = Setup {
        policy: policy.clone(),
        ..Setup::of(&trace)
    };
    let start = Sizes {
        lanes: policy.min_lanes,
        replicas,
    };
    let mut changes: Vec<Change> = Vec::new();
    let mut before = replicas;
    let mut autopilot = Autopilot::new(&trace, setup);
    let run = simulate::run(
        &trace,
        world,
        start,
        &mut autopilot,
        &mut |plant, decision| {
            let Some(decision) = decision.filter(|decision| decision.replicas != before) else {
                return;
            };
            changes.push(Change {
                second: plant.now(),
                from: before,
                to: decision.replicas,
                reason: decision.reason.as_str(),
            });
            before = decision.replicas;
        },
    );
    Outcome {
        name: name.to_owned(),
        trace,
        world,
        policy,
        run,
        changes,
    }
}

/// The OrderedConsumer of a file, checked as the operator checks it.
fn read(path: &Path) -> Result<validate::Consumer, PluginError> {
    let wrong = |reason: String| PluginError::Input {
        path: path.display().to_string(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    for document in serde_norway::Deserializer::from_str(&text) {
        let document = serde_json::Value::deserialize(document);
        let document = document.map_err(|error| wrong(error.to_string()))?;
        if document["kind"] != "OrderedConsumer" {
            continue;
        }
        let mut object: OrderedConsumer =
            serde_json::from_value(document).map_err(|error| wrong(error.to_string()))?;
        // What the API server would give it.
        object.metadata.uid.get_or_insert_default();
        let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
        object.metadata.namespace = Some(namespace);
        return validate::validate(&object).map_err(|error| wrong(error.to_string()));
    }
    Err(wrong(
        "no OrderedConsumer is in it: it needs a document with kind: OrderedConsumer".to_owned(),
    ))
}

/// The loads that are announced while it runs, in the time of the run.
fn announced(consumer: &validate::Consumer, at: Duration, seconds: u32) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for schedule in consumer.schedules() {
        for ahead in (0..=u64::from(seconds)).step_by(STEP as usize) {
            for window in schedule.windows(at + Duration::from_secs(ahead)) {
                let in_run =
                    |moment: Duration| (Duration::from_secs(EPOCH) + moment).saturating_sub(at);
                let window = Window {
                    start: in_run(window.start),
                    end: in_run(window.end),
                    ..window
                };
                if !windows.contains(&window) {
                    windows.push(window);
                }
            }
        }
    }
    windows
}

/// The outcome for people.
fn text(outcome: &Outcome, paint: Paint) -> String {
    let (run, world, policy) = (&outcome.run, &outcome.world, &outcome.policy);
    let mut text = String::new();
    let span = |seconds: u32| time::span(i64::from(seconds));
    let _ = writeln!(
        text,
        "OrderedConsumer {}: {} with {} queues; a call takes {:.0} ms, a pod does {:.0}/s at most and starts in {}",
        paint.strong(&outcome.name),
        span(outcome.trace.seconds),
        outcome.trace.queues,
        world.service * 1e3,
        world.pod_cap,
        span(world.start_delay)
    );
    let _ = writeln!(
        text,
        "mode {:?}, {} to {} pods, {} to {} lanes; it begins with nothing learned\n",
        policy.mode, policy.min_replicas, policy.max_replicas, policy.min_lanes, policy.max_lanes
    );
    text += &plot::plot(&run.course);
    let score = &run.score;
    let objective = policy.max_message_age.as_secs_f64();
    let late = run.course.iter().filter(|moment| moment.age > objective);
    let late = u32::try_from(late.count()).unwrap_or(u32::MAX);
    let verdict = format!(
        "oldest message at worst {:.0} s old; older than maxMessageAge ({objective:.0} s) for {}",
        score.worst_age,
        span(late)
    );
    let left = run.course.last().map_or(0.0, |moment| moment.backlog);
    let _ = writeln!(
        text,
        "\n{}",
        if late == 0 {
            paint.well(&verdict)
        } else {
            paint.bad(&verdict)
        }
    );
    let _ = writeln!(
        text,
        "at most {} pods; {:.1} pod-hours, {:.1} would carry the load of each second; {left:.0} messages are left at the end",
        score.most_pods,
        score.pod_seconds as f64 / 3600.0,
        score.least_pod_seconds as f64 / 3600.0
    );
    for change in &outcome.changes {
        let _ = writeln!(
            text,
            "  {:>7}  pods {} -> {}  {}",
            span(change.second),
            change.from,
            change.to,
            change.reason
        );
    }
    text
}
