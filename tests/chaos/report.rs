//! What is told: progress and tables on standard error, one JSON object a line on standard output.

use crate::gaps::{self, Row};
use crate::happened::Happened;
use crate::order;
use crate::record::{Count, now};
use crate::run::Outcome;
use crate::schedule::{Kind, Planned};
use crate::verdict::Verdict;
use jiff::Timestamp;
use keylane_tests::judge::Micros;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Tells what happens.
pub struct Teller {
    json: bool,
    began: Micros,
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

impl Teller {
    /// From now on.
    pub fn new(json: bool) -> Self {
        Self { json, began: now() }
    }

    /// Seconds since the start.
    fn since(&self, at: Micros) -> f64 {
        seconds(Duration::from_micros(at.saturating_sub(self.began)))
    }

    /// One JSON object with its time.
    fn line(&self, at: Micros, mut value: Value) {
        if !self.json {
            return;
        }
        value["at"] = json!(self.since(at));
        let time = i64::try_from(at)
            .ok()
            .and_then(|at| Timestamp::from_microsecond(at).ok());
        value["time"] = json!(time.map(|time| format!("{time:.6}")));
        println!("{value}");
    }

    /// A sentence for people.
    pub fn say(&self, text: &str) {
        eprintln!("{:8.1} s  {text}", self.since(now()));
    }

    /// An event begins, or ends.
    pub fn event(&self, planned: &Planned, at: Micros, begins: bool) {
        let name = planned.kind.name();
        let whom = planned
            .member
            .map_or(String::new(), |member| format!(" member {member}"));
        let lasts = planned.lasts.as_secs_f64();
        self.say(&match begins {
            true if planned.lasts.is_zero() => format!("{name}{whom}"),
            true => format!("{name}{whom} for {lasts:.1} s"),
            false => format!("{name}{whom} ends"),
        });
        let event = if begins { "begins" } else { "ends" };
        self.line(
            at,
            json!({"event": event, "kind": name, "member": planned.member, "lasts": seconds(planned.lasts)}),
        );
    }

    /// What was away serves again.
    pub fn serves(&self, event: &Happened) {
        self.say(&format!("{}: it serves again", event.kind.name()));
        self.line(
            event.until,
            json!({"event": "serves", "kind": event.kind.name()}),
        );
    }

    /// A process ended by itself.
    pub fn crashed(&self, member: usize, code: i32) {
        self.say(&format!("member {member} ended by itself with code {code}"));
        self.line(
            now(),
            json!({"event": "crashed", "member": member, "code": code}),
        );
    }

    /// How far it is.
    pub fn progress(&self, events: usize, count: Count) {
        self.say(&format!(
            "{events} events, {} calls, {} messages handled, {} calls run",
            count.calls, count.handled, count.running
        ));
    }

    /// Every verdict in the order of time.
    pub fn verdicts(&self, outcome: &Outcome, verdict: &Verdict) {
        let event = |index: usize| {
            let event = &outcome.events[index];
            json!({"kind": event.kind.name(), "member": event.member, "at": self.since(event.at)})
        };
        let mut lines: Vec<(Micros, Value)> = Vec::new();
        for gap in &verdict.gaps {
            let events: Vec<Value> = gap.events.iter().map(|index| event(*index)).collect();
            lines.push((
                gap.to,
                json!({
                    "verdict": "gap", "queue": gap.queue, "seconds": seconds(gap.length()), "too_much": seconds(gap.too_much),
                    "members": [gap.members.0, gap.members.1], "events": events,
                }),
            ));
        }
        for replay in &verdict.replays {
            let lay = Duration::from_micros(replay.again.0 - replay.handled.0);
            lines.push((
                replay.again.0,
                json!({
                    "verdict": "replay", "queue": replay.message.0, "offset": replay.message.1,
                    "members": [replay.handled.1, replay.again.1], "seconds_after": seconds(lay),
                    "event": replay.event.map_or(json!("unexplained"), event),
                }),
            ));
        }
        for example in &verdict.order.examples {
            lines.push((
                example.start,
                json!({
                    "verdict": example.kind, "queue": example.queue, "key": example.key,
                    "offset": example.offset, "other": example.other,
                }),
            ));
        }
        for index in &verdict.frozen {
            let call = &outcome.calls[*index];
            lines.push((
                call.start,
                json!({
                    "verdict": "written by a frozen process", "queue": call.queue, "key": call.key,
                    "offset": call.offset, "member": call.member,
                }),
            ));
        }
        for (queue, offset) in &verdict.lost {
            lines.push((
                now(),
                json!({"verdict": "lost", "queue": queue, "offset": offset}),
            ));
        }
        for (regression, lasted) in &verdict.regressions {
            lines.push((
                regression.since,
                json!({
                    "verdict": "committed offset went back", "queue": regression.queue,
                    "from": regression.from, "to": regression.to, "seconds": seconds(*lasted),
                }),
            ));
        }
        lines.sort_by_key(|(at, _)| *at);
        for (at, line) in lines {
            self.line(at, line);
        }
    }

    /// The summary, for people and as the last object.
    pub fn summary(&self, what: &str, seed: u64, outcome: &Outcome, verdict: &Verdict) {
        let (rows, unexplained) = gaps::by_kind(&verdict.gaps, &outcome.events);
        self.table(what, &rows, &unexplained);
        let worst_unexplained = unexplained.iter().max().copied().unwrap_or_default();
        let unexplained_replays = verdict
            .replays
            .iter()
            .filter(|one| one.event.is_none())
            .count();
        let by_event = by_event(outcome, &verdict.replays);
        let clean_exits = outcome
            .exits
            .iter()
            .filter(|code| **code == Some(0))
            .count();
        eprintln!(
            "{what}, seed {seed}: {} events, {} calls, {} messages of {}; {} inversions, {} overlaps, {} lost, \
             {} replayed ({unexplained_replays} unexplained), {} calls written by frozen processes ({} broke order), \
             {} committed offsets that went back for too long, {clean_exits} of {} exits clean, {} crashed",
            outcome.events.len(),
            outcome.calls.len(),
            verdict.order.distinct,
            verdict.stored,
            verdict.order.inversions,
            verdict.order.overlaps,
            verdict.lost.len(),
            verdict.replays.len(),
            verdict.frozen.len(),
            verdict.broken_by_frozen,
            verdict.regressions.len(),
            outcome.exits.len(),
            outcome.crashed,
        );
        for (event, count) in &by_event {
            eprintln!("  {count:6} replayed because of {event}");
        }
        let gaps: BTreeMap<&str, Value> = rows
            .iter()
            .map(|(kind, row)| (kind.name(), told(*kind, row)))
            .collect();
        self.line(
            now(),
            json!({
                "summary": what, "seed": seed, "events": outcome.events.len(), "calls": outcome.calls.len(),
                "messages": verdict.stored, "handled": verdict.order.distinct,
                "inversions": verdict.order.inversions, "overlaps": verdict.order.overlaps,
                "lost": verdict.lost.len(), "replayed": verdict.replays.len(),
                "replayed_unexplained": unexplained_replays, "replayed_by": by_event,
                "written_frozen": verdict.frozen.len(), "broken_by_frozen": verdict.broken_by_frozen,
                "regressions": verdict.regressions.len(), "clean_exits": clean_exits,
                "exits": outcome.exits.len(), "crashed": outcome.crashed,
                "uncommitted": verdict.uncommitted, "gaps": gaps, "gaps_unexplained": unexplained.len(),
                "worst_unexplained": seconds(worst_unexplained), "passed": verdict.passes(outcome),
            }),
        );
    }

    fn table(&self, what: &str, rows: &BTreeMap<Kind, Row>, unexplained: &[Duration]) {
        let tell = |time: Option<Duration>| {
            time.map_or("-".to_owned(), |time| {
                format!("{:.1} s", time.as_secs_f64())
            })
        };
        eprintln!("\nHow long queues stood still ({what}; gaps of 0.5 s and more):");
        eprintln!(
            "  {:<24} {:>6}  {:>5} {:>8} {:>8} {:>6}  {:>13} {:>8} {:>5}",
            "event", "events", "gaps", "median", "worst", "goal", "among others", "too much", ""
        );
        for (kind, row) in rows {
            eprintln!(
                "  {:<24} {:>6}  {:>5} {:>8} {:>8} {:>4} s  {:>13} {:>8} {:>5}",
                kind.name(),
                row.events,
                row.alone.len(),
                tell(row.median()),
                tell(row.worst()),
                kind.goal().as_secs(),
                row.among_others.len(),
                tell(row.too_much()),
                if row.passes(*kind) { "pass" } else { "FAIL" }
            );
        }
        eprintln!(
            "  {:<24} {:>6}  {:>5} {:>8} {:>8}\n",
            "(no event)",
            "",
            unexplained.len(),
            "",
            tell(unexplained.iter().max().copied())
        );
    }
}

fn told(kind: Kind, row: &Row) -> Value {
    json!({
        "events": row.events, "gaps": row.alone.len(), "median": row.median().map(seconds),
        "worst": row.worst().map(seconds), "goal": seconds(kind.goal()),
        "among_others": row.among_others.len(),
        "too_much": row.too_much().map(seconds),
        "passed": row.passes(kind),
    })
}

/// Replays by the kind of event that explains them.
fn by_event(outcome: &Outcome, replays: &[order::Replay]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for replay in replays {
        let name = replay
            .event
            .map_or("unexplained", |event| outcome.events[event].kind.name());
        *counts.entry(name).or_insert(0) += 1;
    }
    counts
}
