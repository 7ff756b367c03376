//! The page about autoscaling: its tables are made here, from the same runs that everybody can repeat.

use crate::gates::{self, Gate, conditions};
use crate::suite::{self, Row};
use crate::traces;
use anyhow::{Context, Result};
use keylane_operator::simulate::{Score, Trace};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Where the tables stand on the page.
const BEGIN: &str = "<!-- made by cargo scale-sim -- --summary operator/docs/autoscaling.md -->\n";
/// Where the table of gates does.
const GATES: &str =
    "<!-- gates, made by cargo scale-sim -- --summary operator/docs/autoscaling.md -->\n";
const END: &str = "<!-- end -->\n";
const HANDOFFS: [u32; 2] = [2, 20];
/// Seconds until a pod is ready.
const START: u32 = 30;

/// The page before and after what stands between this line and the end of its tables.
fn around<'p>(text: &'p str, begin: &str, page: &Path) -> Result<(&'p str, &'p str)> {
    let missing = |line: &str| format!("{} has no line {line:?}", page.display());
    let (before, rest) = text
        .split_once(begin)
        .with_context(|| missing(begin.trim_end()))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| missing(END.trim_end()))?;
    Ok((before, after))
}

fn replaced(text: &str, begin: &str, page: &Path, tables: &str) -> Result<String> {
    let (before, after) = around(text, begin, page)?;
    Ok(format!("{before}{begin}{tables}{END}{after}"))
}

/// Runs the suite with all controllers, and everything the gates ask for, and writes the tables into the page.
pub fn write(page: &Path, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<()> {
    let text = std::fs::read_to_string(page)
        .with_context(|| format!("{} cannot be read", page.display()))?;
    // Before the minutes that the runs take.
    for begin in [BEGIN, GATES] {
        around(&text, begin, page)?;
    }
    let traces = traces::tuning();
    let rows = HANDOFFS.map(|handoff| {
        eprintln!("The suite, hand-over {handoff} s");
        let conditions = conditions(START, handoff, None);
        suite::rows(&traces, conditions, &|_| true, progress)
    });
    let mut tables = own(&traces, [&rows[0][0].scores, &rows[1][0].scores]);
    for (handoff, rows) in HANDOFFS.iter().zip(&rows) {
        tables.push_str(&field(*handoff, rows));
    }
    let judged = judged(&gates::all(progress)?);
    let text = replaced(&text, BEGIN, page, &tables)?;
    let text = replaced(&text, GATES, page, &judged)?;
    std::fs::write(page, text).with_context(|| format!("{} cannot be written", page.display()))
}

/// The gates: a row for each letter and condition, with all its figures and limits. What changes where it is
/// wrong what the controller believes of a pod are its own figures, which have columns of their own.
fn judged(gates: &[Gate]) -> String {
    let mut rows: BTreeMap<(&str, Vec<u32>), [Vec<&Gate>; 3]> = BTreeMap::new();
    for gate in gates {
        let (name, error) = gate
            .name
            .split_once(' ')
            .unwrap_or((gate.name.as_str(), ""));
        let (letter, seconds) = name.split_once('/').unwrap_or((name, ""));
        let seconds = seconds
            .split('/')
            .filter_map(|part| part.parse::<u32>().ok());
        let column = match error {
            "" => 0,
            "x0.7" => 1,
            _ => 2,
        };
        rows.entry((letter, seconds.collect())).or_default()[column].push(gate);
    }
    let mut table = String::from(
        "\n| gate | conditions | figures and their limits | figures, a pod believed at 0.7 | at 1.5 | verdict |\n|---|---|---|---|---|---|\n",
    );
    for ((letter, seconds), columns) in &rows {
        let [learned, less, more] = columns;
        let learned: Vec<_> = learned.iter().map(|gate| gate.short()).collect();
        let figures = |gates: &[&Gate]| {
            let figures: Vec<_> = gates.iter().map(|gate| gate.figure().to_string()).collect();
            figures.join("; ")
        };
        let failed: Vec<_> = columns
            .iter()
            .flatten()
            .filter(|gate| !gate.pass)
            .map(|gate| gate.name.as_str())
            .collect();
        let verdict = if failed.is_empty() {
            "holds".to_owned()
        } else {
            format!("does not hold: {}", failed.join(", "))
        };
        let _ = writeln!(
            table,
            "| {letter} | {} | {} | {} | {} | {verdict} |",
            place(seconds),
            learned.join("; "),
            figures(less),
            figures(more)
        );
    }
    table
}

/// The conditions of a gate.
fn place(seconds: &[u32]) -> String {
    match seconds {
        [start, handoff] => format!("start {start} s, hand-over {handoff} s"),
        [handoff] => format!("hand-over {handoff} s"),
        _ => String::new(),
    }
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

    fn page() -> String {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/docs/autoscaling.md");
        std::fs::read_to_string(page).expect("the page is there")
    }

    /// What stands between this line and the end of its tables.
    fn made<'p>(text: &'p str, begin: &str) -> &'p str {
        let (_, rest) = text.split_once(begin).expect("it has tables");
        let (tables, _) = rest.split_once(END).expect("they end");
        tables
    }

    fn cells_of(tables: &str) -> Vec<Vec<&str>> {
        let lines = tables.lines().filter(|line| line.starts_with("| "));
        lines
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect()
    }

    fn number(cell: &str) -> u64 {
        cell.trim_end_matches(" s").parse().expect(cell)
    }

    #[test]
    fn the_totals_of_the_page_are_the_sums_of_its_rows() {
        let text = page();
        let rows = cells_of(made(&text, BEGIN));
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
        let text = page();
        let quick = ["1 ", "6 ", "9 ", "13 ", "14 random 7"];
        let traces = traces::tuning();
        let quick = traces
            .iter()
            .filter(|trace| quick.iter().any(|name| trace.name.starts_with(name)));
        for trace in quick {
            let cells = HANDOFFS.map(|handoff| {
                let conditions = conditions(START, handoff, None);
                cells(&suite::ours(trace, conditions, &mut |_, _| {}).score)
            });
            let row = format!("| {} | {} |", trace.name, cells.join(" | "));
            assert!(
                made(&text, BEGIN).contains(&row),
                "the page has no {row}\nmake it anew: cargo scale-sim -- --summary operator/docs/autoscaling.md"
            );
        }
    }

    /// What the page says was measured for a gate.
    fn measured(table: &str, letter: &str, seconds: &[u32], what: &str) -> String {
        let place = place(seconds);
        let rows = cells_of(table);
        let row = rows
            .iter()
            .find(|cells| cells[..2] == [letter, place.as_str()]);
        let row = row.unwrap_or_else(|| panic!("the page has no {letter} at {place}"));
        let entry = row[2].split("; ").find(|entry| entry.ends_with(what));
        let entry = entry.unwrap_or_else(|| panic!("{letter} at {place} has no {what}"));
        entry.split(' ').next().unwrap_or_default().to_owned()
    }

    #[test]
    fn the_gates_of_the_page_have_the_figures_that_the_simulation_gives() {
        let text = page();
        let table = made(&text, GATES);
        let suite = traces::suite();
        let held_out = traces::held_out();
        let find = |traces: &[Trace], name: &str| {
            let trace = traces.iter().find(|trace| trace.name.starts_with(name));
            trace.expect(name).clone()
        };
        let rows = cells_of(made(&text, BEGIN));
        let totals = rows.iter().filter(|cells| cells[0] == "keylane");
        for (handoff, total) in HANDOFFS.into_iter().zip(totals) {
            let conditions = conditions(START, handoff, None);
            let score =
                |name: &str| suite::ours(&find(&suite, name), conditions, &mut |_, _| {}).score;
            let says = |letter: &str, what: &str, figure: f64| {
                let said = measured(table, letter, &[handoff], what);
                assert_eq!(said, figure.to_string(), "{letter}/{handoff}: {what}");
            };
            for (trace, what) in [
                ("3s", "violations of the scheduled flash sale"),
                ("12 ", "violations of trace 12"),
            ] {
                says("D", what, f64::from(score(trace).violation_seconds));
            }
            let what = "seconds until trace 10 is drained";
            says("D", what, gates::drained(&score("10 ")));
            let what = "reversals in trace 11";
            says("B", what, f64::from(score("11 ").reversals));
            // The table of traces has the reversals of all.
            says("B", "reversals", number(total[5]) as f64);
            let mut calm = Vec::new();
            gates::constant("B", &find(&suite, "13 "), conditions, &mut calm);
            says("B", calm[0].measured(), calm[0].figure());
        }
        let mut calm = Vec::new();
        let level = find(&held_out, "h5 ");
        gates::constant("H", &level, conditions(START, 2, None), &mut calm);
        let said = measured(table, "H", &[START, 2], calm[0].measured());
        assert_eq!(said, calm[0].figure().to_string());
    }

    fn gate(name: &str, figure: f64, limit: f64) -> Gate {
        Gate::most(name, "reversals, a fifth of theirs", figure, limit)
    }

    #[test]
    fn gates_are_a_row_for_each_letter_and_condition_and_a_failure_is_named() {
        let table = judged(&[
            gate("B/20", 5.0, 13.8),
            gate("B/2 x0.7", 14.0, 13.8),
            gate("B/2 x1.5", 6.25, 13.8),
            gate("B/2", 4.0, 13.8),
            gate("B/2", 1.0, 2.0),
            gate("H/90/2", 0.0, 0.0),
        ]);
        let rows: Vec<&str> = table.lines().skip(3).collect();
        assert_eq!(
            rows,
            [
                "| B | hand-over 2 s | 4 ≤ 13.8 reversals; 1 ≤ 2 reversals | 14 | 6.25 | does not hold: B/2 x0.7 |",
                "| B | hand-over 20 s | 5 ≤ 13.8 reversals |  |  | holds |",
                "| H | start 90 s, hand-over 2 s | 0 ≤ 0 reversals |  |  | holds |",
            ]
        );
        assert_eq!(measured(&table, "B", &[20], "reversals"), "5");
    }
}
