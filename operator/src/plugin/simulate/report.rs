//! What came out of a run: for people, for programs, and as a picture.

use super::{Change, Outcome, plot};
use crate::plugin::paint::Paint;
use crate::plugin::time;
use crate::simulate::Moment;
use crate::simulate::picture::{self, COLOURS, GREY, Line, Panel};
use serde::Serialize;
use std::fmt::Write as _;

/// A run for programs. Times are seconds, counts are messages.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report<'o> {
    name: &'o str,
    seconds: u32,
    /// Age of the oldest message at its worst.
    worst_age_seconds: f64,
    max_message_age_seconds: f64,
    /// Seconds in which the oldest message was older than that.
    late_seconds: u32,
    most_pods: u32,
    pod_hours: f64,
    /// The pod-hours that would carry the load of each second.
    least_pod_hours: f64,
    left_at_the_end: f64,
    changes: &'o [Change],
}

/// The outcome for programs.
pub(super) fn report(outcome: &Outcome) -> Report<'_> {
    let score = &outcome.run.score;
    Report {
        name: &outcome.name,
        seconds: outcome.trace.seconds,
        worst_age_seconds: score.worst_age,
        max_message_age_seconds: objective(outcome),
        late_seconds: late(outcome),
        most_pods: score.most_pods,
        pod_hours: score.pod_seconds as f64 / 3600.0,
        least_pod_hours: score.least_pod_seconds as f64 / 3600.0,
        left_at_the_end: left(outcome),
        changes: &outcome.changes,
    }
}

/// The outcome as SVG.
pub(super) fn picture(outcome: &Outcome) -> String {
    let line = |name: &str, colour, of: fn(&Moment) -> f64| Line {
        name: name.to_owned(),
        colour,
        values: outcome.run.course.iter().map(of).collect(),
    };
    let panel = |title, lines: Vec<Line>| Panel {
        title,
        lines,
        mark: None,
    };
    let panels = [
        panel(
            "messages a second",
            vec![
                line("arriving", GREY, |moment| moment.arriving),
                line("finished", COLOURS[0], |moment| moment.finished),
            ],
        ),
        panel(
            "unfinished messages",
            vec![line("unfinished", COLOURS[0], |moment| moment.backlog)],
        ),
        Panel {
            title: "age of the oldest message, seconds",
            lines: vec![line("age", COLOURS[1], |moment| moment.age)],
            mark: Some(objective(outcome)),
        },
        panel(
            "pods",
            vec![line("pods", COLOURS[2], |moment| f64::from(moment.pods))],
        ),
        panel(
            "lanes a pod",
            vec![line("lanes", COLOURS[2], |moment| f64::from(moment.lanes))],
        ),
    ];
    picture::picture(&outcome.name, &panels, outcome.trace.seconds)
}

fn objective(outcome: &Outcome) -> f64 {
    outcome.policy.max_message_age.as_secs_f64()
}

/// Seconds in which the oldest message was older than it should be.
fn late(outcome: &Outcome) -> u32 {
    let objective = objective(outcome);
    let course = outcome.run.course.iter();
    let late = course.filter(|moment| moment.age > objective).count();
    u32::try_from(late).unwrap_or(u32::MAX)
}

fn left(outcome: &Outcome) -> f64 {
    outcome
        .run
        .course
        .last()
        .map_or(0.0, |moment| moment.backlog)
}

/// The outcome for people.
pub(super) fn text(outcome: &Outcome, paint: Paint) -> String {
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
    let (score, objective, late) = (&run.score, objective(outcome), late(outcome));
    let verdict = format!(
        "oldest message at worst {:.0} s old; older than maxMessageAge ({objective:.0} s) for {}",
        score.worst_age,
        span(late)
    );
    let left = left(outcome);
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
