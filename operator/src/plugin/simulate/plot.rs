//! The course of a run in a few lines of text.

use crate::plugin::time;
use crate::simulate::Moment;
use std::fmt::Write;

/// Columns of a line at most.
const COLUMNS: usize = 72;
/// Nothing, and eight heights.
const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

type Line = (&'static str, fn(&Moment) -> f64);

const LINES: [Line; 6] = [
    ("arriving/s", |moment| moment.arriving),
    ("finished/s", |moment| moment.finished),
    ("unfinished", |moment| moment.backlog),
    ("oldest, s", |moment| moment.age),
    ("pods", |moment| f64::from(moment.pods)),
    ("lanes a pod", |moment| f64::from(moment.lanes)),
];

/// A line for each figure; a column shows the most of its time.
pub(super) fn plot(course: &[Moment]) -> String {
    let mut text = String::new();
    let each = course.len().div_ceil(COLUMNS).max(1);
    for (name, of) in LINES {
        let columns: Vec<f64> = course
            .chunks(each)
            .map(|chunk| chunk.iter().map(of).fold(0.0, f64::max))
            .collect();
        let most = columns.iter().copied().fold(0.0, f64::max);
        let bars: String = columns.iter().map(|value| bar(*value, most)).collect();
        let _ = writeln!(text, "{name:>11} {bars} at most {most:.0}");
    }
    let columns = course.len().div_ceil(each);
    let end = time::span(i64::try_from(course.len()).unwrap_or(i64::MAX));
    let _ = writeln!(
        text,
        "{:>11} 0{end:>width$}",
        "",
        width = columns.saturating_sub(1)
    );
    text
}

/// What is there at all is seen.
fn bar(value: f64, most: f64) -> char {
    if value <= 0.0 || most <= 0.0 {
        return HEIGHTS[0];
    }
    let height = (value / most * 8.0).round() as usize;
    HEIGHTS[height.clamp(1, 8)]
}
