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

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of the elements of a document, if each that is opened is closed in its turn.
    fn elements(svg: &str) -> Option<Vec<&str>> {
        let (mut open, mut all) = (Vec::new(), Vec::new());
        let mut rest = svg;
        while let Some((text, tag)) = rest.split_once('<') {
            let (tag, after) = tag.split_once('>')?;
            // No text outside of the document, and none that could be taken for a tag.
            let outside = open.is_empty() && !text.trim().is_empty();
            if outside || text.contains('>') || tag.contains('<') {
                return None;
            }
            rest = after;
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name) {
                    return None;
                }
                continue;
            }
            // Each value in quotes.
            if tag.matches('"').count() != 2 * tag.matches('=').count() {
                return None;
            }
            let name = tag.split([' ', '/']).next()?;
            all.push(name);
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        (open.is_empty() && rest.trim().is_empty()).then_some(all)
    }

    #[test]
    fn elements_are_found_only_in_what_is_well_formed() {
        assert_eq!(elements("<a x=\"1\"><b/>t</a>"), Some(vec!["a", "b"]));
        for wrong in [
            "<a>",
            "<a></b>",
            "<a x=1></a>",
            "<a>1 > 0</a>",
            "t<a/>",
            "<a",
        ] {
            assert_eq!(elements(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_plot_is_well_formed_and_has_the_trace_and_each_controller_at_its_best_setting() {
        let trace = Trace {
            name: "5 < 6 & \"more\"".to_owned(),
            seconds: 120,
            queues: 4,
            rate: vec![100.0],
            ..Trace::default()
        };
        let conditions = Conditions::default();
        let wanted = |name: &str| ["keylane", "hpa"].contains(&name);
        let rows = suite::rows(
            std::slice::from_ref(&trace),
            conditions,
            &wanted,
            &|_, _| {},
        );
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &trace, conditions, &rows).unwrap();
        let svg = std::fs::read_to_string(directory.path().join("5---6----more-.svg")).unwrap();
        let elements = elements(&svg).expect(&svg);
        assert_eq!(elements[0], "svg");
        // Four panels with a line for each controller, and one for what arrives.
        let lines = elements.iter().filter(|name| **name == "polyline").count();
        assert_eq!(lines, 4 * 2 + 1);
        assert!(svg.contains(">5 &lt; 6 &amp; \"more\"</text>"), "{svg}");
        for name in [">arriving</text>", ">keylane</text>", ">hpa</text>"] {
            assert!(svg.contains(name), "no {name}");
        }
    }
}
