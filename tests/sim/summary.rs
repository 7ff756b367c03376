//! The page about autoscaling: its tables are made here, from the same runs that everybody can repeat.

use crate::suite::{self, Conditions, Row};
use crate::traces;
use anyhow::{Context, Result};
use keylane_operator::simulate::{Score, Trace, World};
use std::fmt::Write;
use std::path::Path;

/// Where the tables stand on the page.
const BEGIN: &str = "<!-- made by cargo scale-sim -- --summary operator/docs/autoscaling.md -->\n";
const END: &str = "<!-- end -->\n";
const HANDOFFS: [u32; 2] = [2, 20];

fn conditions(handoff: u32) -> Conditions {
    Conditions {
        world: World {
            handoff,
            ..World::default()
        },
        capacity_error: None,
    }
}

/// Runs the suite with all controllers and writes the tables into the page.
pub fn write(page: &Path, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<()> {
    let text = std::fs::read_to_string(page)
        .with_context(|| format!("{} cannot be read", page.display()))?;
    let (before, rest) = text
        .split_once(BEGIN)
        .with_context(|| format!("{} has no line {BEGIN:?}", page.display()))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("{} has no line {END:?}", page.display()))?;
    let traces = traces::tuning();
    let rows = HANDOFFS.map(|handoff| {
        eprintln!("The suite, hand-over {handoff} s");
        suite::rows(&traces, conditions(handoff), &|_| true, progress)
    });
    let mut tables = own(&traces, [&rows[0][0].scores, &rows[1][0].scores]);
    for (handoff, rows) in HANDOFFS.iter().zip(&rows) {
        tables.push_str(&field(*handoff, rows));
    }
    std::fs::write(page, format!("{before}{BEGIN}{tables}{END}{after}"))
        .with_context(|| format!("{} cannot be written", page.display()))
}

/// Ours, trace by trace.
fn own(traces: &[Trace], scores: [&Vec<Score>; 2]) -> String {
    let mut table = String::from(
        "\n| trace | hand-over 2 s: violations | pods | changes | reversals | oldest | hand-over 20 s: violations | pods | changes | reversals | oldest |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (index, trace) in traces.iter().enumerate() {
        let cells = scores.map(|scores| cells(&scores[index])).join(" | ");
        let _ = writeln!(table, "| {} | {cells} |", trace.name);
    }
    table
}

/// One score as the cells of a row.
fn cells(score: &Score) -> String {
    format!(
        "{} s | {:.2} | {} | {} | {:.0} s",
        score.violation_seconds,
        score.pod_seconds as f64 / score.least_pod_seconds as f64,
        score.actions,
        score.reversals,
        score.worst_age
    )
}

/// Everybody over the whole suite: the setting with the fewest violations, and that with the fewest among
/// those that use no more pods than ours.
fn field(handoff: u32, rows: &[Row]) -> String {
    let ours = rows[0].pods();
    let mut table = format!(
        "\nThe whole suite, hand-over {handoff} s:\n\n| controller | setting | violations | pods | changes | reversals |\n|---|---|---|---|---|---|\n"
    );
    let mut line = |row: &Row, what: &str| {
        let _ = writeln!(
            table,
            "| {} | {}{what} | {:.0} s | {:.2} | {:.0} | {:.0} |",
            row.controller,
            row.setting,
            row.violations(),
            row.pods(),
            row.sum(|score| f64::from(score.actions)),
            row.sum(|score| f64::from(score.reversals))
        );
    };
    line(&rows[0], "");
    for controller in ["keda", "flink", "numaflow", "hpa"] {
        let best = |most: f64| {
            let of_it = rows
                .iter()
                .filter(|row| row.controller == controller && row.pods() <= most);
            of_it.min_by(|left, right| left.violations().total_cmp(&right.violations()))
        };
        if let Some(row) = best(f64::INFINITY) {
            line(row, " (fewest violations)");
        }
        if let Some(row) = best(ours) {
            line(row, " (fewest with no more pods)");
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_totals_of_the_page_are_the_sums_of_its_rows() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/docs/autoscaling.md");
        let text = std::fs::read_to_string(page).expect("the page is there");
        let (_, rest) = text.split_once(BEGIN).expect("it has tables");
        let (tables, _) = rest.split_once(END).expect("they end");
        let lines = tables.lines().filter(|line| line.starts_with("| "));
        let rows: Vec<Vec<&str>> = lines
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let number = |cell: &str| cell.trim_end_matches(" s").parse::<u64>().expect(cell);
        let traces: Vec<_> = rows
            .iter()
            .filter(|cells| cells.len() == 11 && cells[0] != "trace")
            .collect();
        assert_eq!(traces.len(), traces::tuning().len());
        let totals: Vec<_> = rows.iter().filter(|cells| cells[0] == "keylane").collect();
        assert_eq!(totals.len(), HANDOFFS.len());
        // Violations, changes and reversals; pods are no sum.
        for (total, first) in totals.into_iter().zip([1, 6]) {
            let sum = |column: usize| {
                traces
                    .iter()
                    .map(|cells| number(cells[column]))
                    .sum::<u64>()
            };
            let sums = [sum(first), sum(first + 2), sum(first + 3)];
            assert_eq!([number(total[2]), number(total[4]), number(total[5])], sums);
        }
    }

    #[test]
    fn the_page_says_what_the_simulation_gives() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/docs/autoscaling.md");
        let text = std::fs::read_to_string(page).expect("the page is there");
        let quick = ["1 ", "6 ", "9 ", "13 ", "14 random 7"];
        let traces = traces::tuning();
        let quick = traces
            .iter()
            .filter(|trace| quick.iter().any(|name| trace.name.starts_with(name)));
        for trace in quick {
            let cells = HANDOFFS.map(|handoff| {
                cells(&suite::ours(trace, conditions(handoff), &mut |_, _| {}).score)
            });
            let row = format!("| {} | {} |", trace.name, cells.join(" | "));
            assert!(
                text.contains(&row),
                "the page has no {row}\nmake it anew: cargo scale-sim -- --summary operator/docs/autoscaling.md"
            );
        }
    }
}
