//! Figures as tables for people. Pure.

use crate::figures::Figures;
use crate::gaps::Row;
use crate::schedule::Kind;
use crate::system::System;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

fn tell(time: Option<Duration>, unit: &str) -> String {
    time.map_or("-".to_owned(), |time| {
        format!("{:.1}{unit}", time.as_secs_f64())
    })
}

/// How long queues stood still, beside the goals.
pub fn of_one(system: System, figures: &Figures) -> String {
    let mut lines = vec![
        format!(
            "How long queues stood still ({}; gaps of 0.5 s and more):",
            system.name()
        ),
        format!(
            "  {:<24} {:>6}  {:>5} {:>8} {:>8} {:>6}  {:>13} {:>8} {:>5}",
            "event", "events", "gaps", "median", "worst", "goal", "among others", "too much", ""
        ),
    ];
    for (kind, row) in &figures.gaps {
        lines.push(format!(
            "  {:<24} {:>6}  {:>5} {:>8} {:>8} {:>4} s  {:>13} {:>8} {:>5}",
            kind.name(),
            row.events,
            row.alone.len(),
            tell(row.median(), " s"),
            tell(row.worst(), " s"),
            kind.goal().as_secs(),
            row.among_others.len(),
            tell(row.too_much(), " s"),
            if row.passes(*kind) { "pass" } else { "FAIL" }
        ));
    }
    lines.push(format!(
        "  {:<24} {:>6}  {:>5} {:>8} {:>8}\n",
        "(no event)",
        "",
        figures.unexplained.len(),
        "",
        tell(figures.unexplained.iter().max().copied(), " s")
    ));
    lines.join("\n")
}

/// One figure of a system.
type Count = fn(&Figures) -> String;

/// Width of what is told of one system.
const BLOCK: usize = 31;

/// The same events to several systems, side by side.
pub fn beside(systems: &[(System, Figures)]) -> String {
    let mut table = String::from(
        "How long queues stood still under the same schedule, seconds (gaps of 0.5 s and more; first those \
         that one\nevent explains: how many, the middle one, the longest; then those of several events that \
         overlap: how many, the longest):\n",
    );
    let mut line = |name: &str, goal: &str, events: &str, blocks: Vec<String>| {
        // Writing to a string does not fail.
        let _ = write!(table, "  {name:<24} {goal:>4} {events:>6}");
        for block in blocks {
            let _ = write!(table, "{block:>BLOCK$}");
        }
        table.push('\n');
    };
    let of_each = |tell: &dyn Fn(&Figures) -> String| -> Vec<String> {
        systems.iter().map(|(_, figures)| tell(figures)).collect()
    };
    let names = systems.iter().map(|(system, _)| system.name().to_owned());
    line("", "", "", names.collect());
    let heading = block(["gaps", "median", "worst", "more", "worst"]);
    line("event", "goal", "events", vec![heading; systems.len()]);
    let kinds: BTreeSet<Kind> = systems
        .iter()
        .flat_map(|(_, figures)| figures.gaps.keys().copied())
        .collect();
    for kind in kinds {
        let events = systems.iter().filter_map(|(_, all)| all.gaps.get(&kind));
        let events = events.map(|row| row.events).max().unwrap_or(0);
        line(
            kind.name(),
            &kind.goal().as_secs().to_string(),
            &events.to_string(),
            of_each(&|figures| gaps(figures.gaps.get(&kind).unwrap_or(&Row::default()))),
        );
    }
    line(
        "(no event)",
        "",
        "",
        of_each(&|figures| {
            let worst = figures.unexplained.iter().max().copied();
            let count = figures.unexplained.len().to_string();
            block([&count, "", &tell(worst, ""), "", ""])
        }),
    );
    let counts: [(&str, Count); 8] = [
        ("events", |all| all.events.to_string()),
        ("messages handled", |all| all.handled.to_string()),
        ("inversions", |all| all.inversions.to_string()),
        ("overlaps", |all| all.overlaps.to_string()),
        ("lost", |all| all.lost.to_string()),
        ("replayed", |all| all.replayed().to_string()),
        ("committed offsets back", |all| all.regressions.to_string()),
        ("written when frozen", |all| all.written_frozen.to_string()),
    ];
    for (name, count) in counts {
        line(name, "", "", of_each(&count));
    }
    for (system, _) in systems {
        for kind in Kind::ALL {
            if let Some(instead) = system.instead(kind) {
                let _ = writeln!(table, "{}: {} is {instead}", system.name(), kind.name());
            }
        }
    }
    table
}

fn gaps(row: &Row) -> String {
    block([
        &row.alone.len().to_string(),
        &tell(row.median(), ""),
        &tell(row.worst(), ""),
        &row.among_others.len().to_string(),
        &tell(row.worst_among_others(), ""),
    ])
}

fn block([gaps, median, worst, more, worst_of_them]: [&str; 5]) -> String {
    format!("{gaps:>6} {median:>6} {worst:>5}  {more:>4} {worst_of_them:>5}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Peer;
    use std::collections::BTreeMap;

    fn figures(alone: &[u64], inversions: u64) -> Figures {
        let row = Row {
            alone: alone.iter().copied().map(Duration::from_secs).collect(),
            among_others: vec![(Duration::from_secs(80), Duration::ZERO)],
            events: 4,
            ..Row::default()
        };
        Figures {
            inversions,
            gaps: BTreeMap::from([(Kind::PodGone, row)]),
            ..Figures::default()
        }
    }

    #[test]
    fn systems_stand_side_by_side_and_what_one_cannot_be_told_is_said() {
        let java = System::Peer(Peer::JavaOrderly);
        let table = beside(&[
            (System::Keylane, figures(&[2, 3, 4], 0)),
            (java, figures(&[61, 62], 17)),
        ]);
        let line = |name: &str| {
            let mut lines = table.lines();
            let line = lines.find(|line| line.trim_start().starts_with(name));
            let words = line.unwrap().split_whitespace();
            words.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            line("pod-gone").join(" "),
            "pod-gone 5 4 3 3.0 4.0 1 80.0 2 62.0 62.0 1 80.0"
        );
        assert_eq!(line("inversions"), ["inversions", "0", "17"]);
        let said = "java-orderly: pod-gone is process and handler killed, and nobody is told";
        assert!(table.contains(said), "{table}");
        assert!(!table.contains("keylane: "), "{table}");
        let widths: BTreeSet<usize> = table
            .lines()
            .filter(|line| line.starts_with("  "))
            .map(str::len)
            .collect();
        assert_eq!(widths.len(), 1, "{table}");
    }
}
