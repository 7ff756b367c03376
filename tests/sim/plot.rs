//! A picture of a trace: traffic, pods of each controller, age of the oldest message.

use crate::peers::settings;
use crate::suite::{self, Conditions, Row};
use keylane_operator::simulate::picture::{COLOURS, GREY, Line, Panel, picture};
use keylane_operator::simulate::{Moment, OBJECTIVE, Run, Trace};
use std::path::Path;

/// Writes a plot of the trace with each controller at its best setting among the rows.
pub fn write(
    directory: &Path,
    trace: &Trace,
    conditions: Conditions,
    rows: &[Row],
) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let file: String = trace
        .name
        .chars()
        .map(|letter| {
            if letter.is_alphanumeric() {
                letter
            } else {
                '-'
            }
        })
        .collect();
    std::fs::write(
        directory.join(format!("{file}.svg")),
        svg(trace, conditions, rows),
    )
}

fn svg(trace: &Trace, conditions: Conditions, rows: &[Row]) -> String {
    let runs = best(trace, conditions, rows);
    let series = |of: fn(&Moment) -> f64| -> Vec<Line> {
        let lines = runs.iter().zip(COLOURS);
        lines
            .map(|((name, run), colour)| Line {
                name: name.clone(),
                colour,
                values: run.course.iter().map(of).collect(),
            })
            .collect()
    };
    let mut traffic = vec![Line {
        name: "arriving".to_owned(),
        colour: GREY,
        values: (0..trace.seconds)
            .map(|second| Trace::at(&trace.rate, second).unwrap_or(0.0))
            .collect(),
    }];
    traffic.extend(series(|moment| moment.finished));
    let panel = |title, lines| Panel {
        title,
        lines,
        mark: None,
    };
    let panels = [
        panel("messages a second: arriving, finished", traffic),
        panel("pods", series(|moment| f64::from(moment.pods))),
        panel("lanes a pod", series(|moment| f64::from(moment.lanes))),
        Panel {
            title: "age of the oldest message, seconds",
            lines: series(|moment| moment.age),
            mark: Some(OBJECTIVE),
        },
    ];
    picture(&trace.name, &panels, trace.seconds)
}

/// The run of each controller at its setting with the fewest violations over all traces.
fn best(trace: &Trace, conditions: Conditions, rows: &[Row]) -> Vec<(String, Run)> {
    let mut runs = Vec::new();
    for controller in crate::CONTROLLERS {
        let own = rows.iter().filter(|row| row.controller == controller);
        let Some(row) = own.min_by(|left, right| left.violations().total_cmp(&right.violations()))
        else {
            continue;
        };
        if controller == "keylane" {
            runs.push((
                controller.to_owned(),
                suite::ours(trace, conditions, &mut |_, _| {}),
            ));
            continue;
        }
        let settings = settings(&|name| name == controller);
        if let Some(setting) = settings.iter().find(|setting| setting.name == row.setting) {
            let name = format!("{controller} {}", row.setting);
            runs.push((name, suite::peer(setting, trace, conditions.world)));
        }
    }
    runs
}
