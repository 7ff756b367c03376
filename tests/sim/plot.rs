//! A picture of a trace: traffic, pods of each controller, age of the oldest message.

use crate::peers::settings;
use crate::suite::{self, Conditions, Row};
use keylane_operator::simulate::{Moment, OBJECTIVE, Run, Trace};
use std::fmt::Write;
use std::path::Path;

const WIDTH: f64 = 900.0;
const PANEL: f64 = 180.0;
const LEFT: f64 = 60.0;
const GAP: f64 = 34.0;
/// Distinct also for most who see few colours (Okabe and Ito, 2008).
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];

/// A line of a panel.
struct Line {
    name: String,
    colour: &'static str,
    values: Vec<f64>,
}

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
        colour: "#777777",
        values: (0..trace.seconds)
            .map(|second| Trace::at(&trace.rate, second).unwrap_or(0.0))
            .collect(),
    }];
    traffic.extend(series(|moment| moment.finished));
    let panels = [
        ("messages a second: arriving, finished", traffic, None),
        ("pods", series(|moment| f64::from(moment.pods)), None),
        (
            "lanes a pod",
            series(|moment| f64::from(moment.lanes)),
            None,
        ),
        (
            "age of the oldest message, seconds",
            series(|moment| moment.age),
            Some(OBJECTIVE),
        ),
    ];
    let height = (PANEL + GAP) * panels.len() as f64 + GAP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"18\" font-size=\"15\">{}</text>\n",
        WIDTH + LEFT + 20.0,
        escape(&trace.name)
    );
    for (index, (title, lines, mark)) in panels.iter().enumerate() {
        panel(
            &mut svg,
            GAP + (PANEL + GAP) * index as f64,
            title,
            lines,
            *mark,
            trace.seconds,
        );
    }
    svg.push_str("</svg>\n");
    svg
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

fn panel(svg: &mut String, top: f64, title: &str, lines: &[Line], mark: Option<f64>, seconds: u32) {
    let values = lines.iter().flat_map(|line| line.values.iter().copied());
    let most = values.chain(mark).fold(1.0, f64::max);
    let y = |value: f64| top + PANEL - value / most * (PANEL - 24.0);
    let x = |second: f64| LEFT + second / f64::from(seconds) * WIDTH;
    // Writing to a String cannot fail.
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\">{title}</text>",
        top + 10.0
    );
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {} V{} H{}\" stroke=\"#999\" fill=\"none\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{most:.0}</text><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{seconds} s</text>",
        y(most),
        top + PANEL,
        LEFT + WIDTH,
        LEFT - 5.0,
        y(most) + 4.0,
        LEFT + WIDTH,
        top + PANEL + 14.0
    );
    if let Some(mark) = mark {
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {} H{}\" stroke=\"#999\" stroke-dasharray=\"4 4\"/>",
            y(mark),
            LEFT + WIDTH
        );
    }
    let step = (seconds as usize / 900).max(1);
    for (index, line) in lines.iter().enumerate() {
        let points = line.values.iter().enumerate().step_by(step);
        let points: Vec<_> = points
            .map(|(second, value)| (x(second as f64).round(), y(*value).round()))
            .collect();
        let points: Vec<_> = (0..points.len())
            .filter(|index| turns(&points, *index))
            .map(|index| format!("{},{}", points[index].0, points[index].1))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.3\"/><text x=\"{}\" y=\"{}\" fill=\"{}\">{}</text>",
            points.join(" "),
            line.colour,
            LEFT + 260.0 + 130.0 * (index as f64),
            top + 10.0,
            line.colour,
            escape(line.name.split(' ').next().unwrap_or_default())
        );
    }
}

/// Whether a line cannot do without this point: it is not on the level of both its neighbours.
fn turns(points: &[(f64, f64)], index: usize) -> bool {
    let level = |other: Option<&(f64, f64)>| other.is_some_and(|point| point.1 == points[index].1);
    let before = index.checked_sub(1).and_then(|before| points.get(before));
    !(level(before) && level(points.get(index + 1)))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
