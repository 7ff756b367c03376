//! What came of a run, and of all of them.

use super::{Teller, seconds, table};
use crate::figures::Figures;
use crate::gaps::Row;
use crate::record::now;
use crate::schedule::Kind;
use crate::system::System;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

impl Teller {
    /// What came of a run, for people and as its last object.
    pub fn summary(&self, system: System, figures: &Figures) {
        self.tell(system, figures);
        let mut object = told(figures);
        object.insert("summary".into(), json!(system.name()));
        self.line(now(), Value::Object(object));
    }

    /// How far a system is with its runs.
    pub fn so_far(&self, system: System, planned: usize, sum: &Figures) {
        let failed = match &sum.failed()[..] {
            [] => "all passed".to_owned(),
            seeds => format!("FAILED: seeds {seeds:?}"),
        };
        self.say(&format!(
            "piece {} of {planned} ({}): {} events by now, {} messages, {} inversions, {} overlaps, {} lost; {failed}",
            sum.runs.len(),
            system.name(),
            sum.events,
            sum.handled,
            sum.inversions,
            sum.overlaps,
            sum.lost,
        ));
    }

    /// What came of all runs: one table, and one object for each system.
    pub fn sums(&self, systems: &[(System, Figures)]) {
        if let [(system, figures)] = systems {
            self.tell(*system, figures);
        } else {
            eprintln!("\n{}", table::beside(systems));
            for (system, figures) in systems {
                eprintln!("{}", sentence(*system, figures));
            }
        }
        for (system, figures) in systems {
            let seeds: Vec<u64> = figures.runs.iter().map(|(seed, _)| *seed).collect();
            let instead = Kind::ALL
                .into_iter()
                .filter_map(|kind| Some((kind.name(), system.instead(kind)?)));
            let mut object = told(figures);
            object.insert("sum".into(), json!(system.name()));
            object.insert("seeds".into(), json!(seeds));
            object.insert("failed".into(), json!(figures.failed()));
            object.insert("instead".into(), json!(instead.collect::<BTreeMap<_, _>>()));
            self.line(now(), Value::Object(object));
        }
    }

    /// Why it was all no success, for people: each object has told it already.
    pub fn failed(&self, why: &[String]) {
        for reason in why {
            self.say(&format!("FAILED: {reason}"));
        }
    }

    fn tell(&self, system: System, figures: &Figures) {
        eprintln!("\n{}", table::of_one(system, figures));
        eprintln!("{}", sentence(system, figures));
        for (event, count) in &figures.replayed_by {
            eprintln!("  {count:6} replayed because of {event}");
        }
    }
}

fn sentence(system: System, figures: &Figures) -> String {
    let seeds = match figures.runs[..] {
        [(seed, _)] => format!("seed {seed}"),
        [(first, _), .., (last, _)] => {
            format!("seeds {first} to {last}, {} runs", figures.runs.len())
        }
        [] => "no run".into(),
    };
    format!(
        "{}, {seeds}: {} events, {} calls, {} messages of {}; {} inversions, {} overlaps, {} lost, \
         {} replayed ({} unexplained), {} calls written by frozen processes ({} broke order), \
         {} committed offsets that went back for too long, {} of {} exits clean, {} crashed",
        system.name(),
        figures.events,
        figures.calls,
        figures.handled,
        figures.stored,
        figures.inversions,
        figures.overlaps,
        figures.lost,
        figures.replayed(),
        figures.replayed_unexplained(),
        figures.written_frozen,
        figures.broken_by_frozen,
        figures.regressions,
        figures.clean_exits,
        figures.exits,
        figures.crashed,
    )
}

fn told(figures: &Figures) -> Map<String, Value> {
    let gaps: BTreeMap<&str, Value> = figures
        .gaps
        .iter()
        .map(|(kind, row)| (kind.name(), told_row(*kind, row)))
        .collect();
    let worst_unexplained = figures.unexplained.iter().max().copied();
    let told = json!({
        "events": figures.events, "calls": figures.calls,
        "messages": figures.stored, "handled": figures.handled,
        "inversions": figures.inversions, "overlaps": figures.overlaps,
        "lost": figures.lost, "replayed": figures.replayed(),
        "replayed_unexplained": figures.replayed_unexplained(), "replayed_by": figures.replayed_by,
        "written_frozen": figures.written_frozen, "broken_by_frozen": figures.broken_by_frozen,
        "regressions": figures.regressions, "clean_exits": figures.clean_exits,
        "exits": figures.exits, "crashed": figures.crashed,
        "uncommitted": figures.uncommitted, "gaps": gaps, "gaps_unexplained": figures.unexplained.len(),
        "worst_unexplained": seconds(worst_unexplained.unwrap_or_default()), "passed": figures.passed(),
        "goals_met": figures.meets_goals(), "missed": figures.misses(),
    });
    match told {
        Value::Object(told) => told,
        _ => Map::new(),
    }
}

fn told_row(kind: Kind, row: &Row) -> Value {
    json!({
        "events": row.events, "gaps": row.alone.len(), "median": row.median().map(seconds),
        "worst": row.worst().map(seconds), "goal": seconds(kind.goal()),
        "among_others": row.among_others.len(),
        "worst_among_others": row.worst_among_others().map(seconds),
        "too_much": row.too_much().map(seconds),
        "passed": row.passes(kind),
    })
}
