//! A peak before it comes: the controller that runs in the cluster, with the bounds of an OrderedConsumer
//! from a file, on a group made of arithmetic ([`crate::simulate`]). No cluster is asked.

mod load;
mod plot;
mod report;
#[cfg(test)]
mod tests;

use super::paint::Paint;
use super::{Format, PluginError};
use crate::controller::{snapshot, validate};
use crate::crd::OrderedConsumer;
use crate::scale::{Policy, Window};
use crate::simulate::{self, Autopilot, EPOCH, Run, Setup, Sizes, Trace, World};
use clap::Args;
use k8s_openapi::jiff::Timestamp;
use keylane_consumer::contract::duration::DurationText;
use kube::ResourceExt;
use load::Load;
use serde::{Deserialize, Serialize};
use std::io::Write;
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
    /// Write a picture of the run into this file, as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print it for programs.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    /// When it begins, such as 2026-11-11T00:00:00+08:00: autoscaling.schedules count from there. Default: now.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
}

/// The number of pods changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Change {
    /// Seconds after the beginning.
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

/// Simulates; what there is to say goes to `out`.
pub(super) fn simulate(
    what: &Simulate,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<(), PluginError> {
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
    let outcome = run(consumer.name(), trace, world, policy, replicas);
    if let Some(path) = &what.svg {
        std::fs::write(path, report::picture(&outcome)).map_err(|error| PluginError::Input {
            path: path.display().to_string(),
            reason: format!("the picture cannot be written: {error}"),
        })?;
    }
    match what.output {
        Some(format) => format.write(&report::report(&outcome), out),
        None => Ok(write!(out, "{}", report::text(&outcome, paint))?),
    }
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
