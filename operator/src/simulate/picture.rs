//! Pictures of runs, as SVG: panels below each other over the same time.

use std::fmt::Write;

const WIDTH: f64 = 900.0;
const PANEL: f64 = 180.0;
const LEFT: f64 = 60.0;
const GAP: f64 = 34.0;
/// Colours of lines. Distinct also for most who see few colours (Okabe and Ito, 2008).
pub const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];
/// The colour of what everything else is seen against.
pub const GREY: &str = "#777777";

/// A line of a panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its name; the first word is shown.
    pub name: String,
    /// Its colour.
    pub colour: &'static str,
    /// A value for each second.
    pub values: Vec<f64>,
}

/// Lines over one scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What is measured, with its unit.
    pub title: &'static str,
    /// The lines.
    pub lines: Vec<Line>,
    /// A level to compare with.
    pub mark: Option<f64>,
}

/// An SVG document.
pub fn picture(title: &str, panels: &[Panel], seconds: u32) -> String {
    let height = (PANEL + GAP) * panels.len() as f64 + GAP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"18\" font-size=\"15\">{}</text>\n",
        WIDTH + LEFT + 20.0,
        escape(title)
    );
    for (index, panel) in panels.iter().enumerate() {
        let top = GAP + (PANEL + GAP) * index as f64;
        draw(&mut svg, top, panel, seconds);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, top: f64, panel: &Panel, seconds: u32) {
    let Panel { title, lines, mark } = panel;
    let values = lines.iter().flat_map(|line| line.values.iter().copied());
    let most = values.chain(*mark).fold(1.0, f64::max);
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
    if let Some(mark) = *mark {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_each_line_once_with_the_points_where_it_turns() {
        let line = |name: &str, values: &[f64]| Line {
            name: name.to_owned(),
            colour: COLOURS[0],
            values: values.to_vec(),
        };
        let panel = Panel {
            title: "pods",
            lines: vec![
                line("flat", &[1.0; 9]),
                line("step", &[0.0, 0.0, 0.0, 2.0, 2.0, 2.0]),
            ],
            mark: Some(2.0),
        };
        let svg = picture("a < b", &[panel], 9);
        assert!(svg.contains("a &lt; b") && svg.contains("stroke-dasharray"));
        let points = |name: &str| {
            let line = svg
                .lines()
                .find(|line| line.ends_with(&format!("{name}</text>")));
            let points = line.unwrap().split('"').nth(1).unwrap();
            points.split(' ').count()
        };
        assert_eq!((points("flat"), points("step")), (2, 4));
    }
}
