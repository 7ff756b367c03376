//! What is told: progress and tables on standard error, one JSON object a line on standard output.

mod summary;
mod table;
mod verdicts;

use crate::happened::Happened;
use crate::record::{Count, now};
use crate::schedule::{Kind, Planned};
use crate::system::System;
use jiff::Timestamp;
use keylane_tests::judge::Micros;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Tells what happens.
pub struct Teller {
    json: bool,
    began: Micros,
    /// The system and the seed of the run that is told of.
    run: Option<(System, u64)>,
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

impl Teller {
    /// From now on.
    pub fn new(json: bool) -> Self {
        Self {
            json,
            began: now(),
            run: None,
        }
    }

    /// Tells of one run, by the same clock.
    pub fn of(&self, system: System, seed: u64) -> Self {
        Self {
            run: Some((system, seed)),
            ..*self
        }
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
        if let Some((system, seed)) = self.run {
            value["system"] = json!(system.name());
            value["seed"] = json!(seed);
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

    /// A run begins.
    pub fn begins(&self, plan: &[Planned], length: Duration) {
        let Some((system, seed)) = self.run else {
            return;
        };
        let (name, minutes) = (system.name(), length.as_secs_f64() / 60.0);
        let events = plan.len();
        self.say(&format!(
            "{name}, seed {seed}: {events} events in {minutes:.1} minutes"
        ));
        let kinds: BTreeSet<Kind> = plan.iter().map(|event| event.kind).collect();
        for kind in kinds {
            if let Some(instead) = system.instead(kind) {
                self.say(&format!("  {} is to {name}: {instead}", kind.name()));
            }
        }
    }

    /// A run came to no end.
    pub fn no_end(&self, why: &anyhow::Error) {
        self.say(&format!("came to no end: {why:#}"));
        self.line(
            now(),
            json!({"verdict": "no end", "why": format!("{why:#}")}),
        );
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
}
