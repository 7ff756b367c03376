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

    /// An event begins that lasts so long, or ends if that is not said; the member may be a pod.
    pub fn event(&self, event: &Happened, pod: Option<&str>, lasts: Option<Duration>) {
        let name = event.kind.name();
        let mut whom = event
            .member
            .map_or(String::new(), |member| format!(" member {member}"));
        if let Some(pod) = pod {
            whom += &format!(" ({pod})");
        }
        self.say(&match lasts {
            Some(Duration::ZERO) => format!("{name}{whom}"),
            Some(lasts) => format!("{name}{whom} for {:.1} s", lasts.as_secs_f64()),
            None => format!("{name}{whom} ends"),
        });
        let (told, at) = match lasts {
            Some(_) => ("begins", event.at),
            None => ("ends", event.until),
        };
        let lasts = lasts.unwrap_or(Duration::from_micros(event.until - event.at));
        let mut line =
            json!({"event": told, "kind": name, "member": event.member, "lasts": seconds(lasts)});
        if let Some(pod) = pod {
            line["pod"] = json!(pod);
        }
        self.line(at, line);
    }

    /// From now on others can know of an event: a handler that was started again answers, or an end was
    /// reported.
    pub fn known(&self, event: &Happened) {
        let name = event.kind.name();
        let member = event.member.unwrap_or_default();
        let after = self.since(event.until) - self.since(event.at);
        self.say(&format!(
            "{name} member {member} is known after {after:.1} s"
        ));
        self.line(
            event.until,
            json!({"event": "known", "kind": name, "member": event.member}),
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

    /// A member ended by itself.
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
