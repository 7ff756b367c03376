//! What was found, one line each.

use super::{Teller, seconds};
use crate::record::now;
use crate::run::Outcome;
use crate::verdict::Verdict;
use keylane_tests::judge::Micros;
use serde_json::{Value, json};
use std::time::Duration;

impl Teller {
    /// What a run should not have shown, for people: each object has told it already.
    pub fn faults(&self, outcome: &Outcome, verdict: &Verdict) {
        for gap in verdict.gaps.iter().filter(|gap| !gap.too_much.is_zero()) {
            let events = gap.events.iter().map(|index| {
                let event = &outcome.events[*index];
                let whom = event.member.map(|member| format!(" member {member}"));
                let (name, whom) = (event.kind.name(), whom.unwrap_or_default());
                format!("{name}{whom} at {:.1} s", self.since(event.at))
            });
            let events: Vec<String> = events.collect();
            self.say(&format!(
                "queue {} stood still from {:.1} to {:.1} s, with member {} before and {} after; events excuse it, \
                 but for {:.1} s: [{}]",
                gap.queue,
                self.since(gap.from),
                self.since(gap.to),
                gap.members.0,
                gap.members.1,
                gap.too_much.as_secs_f64(),
                events.join(", "),
            ));
        }
        for (regression, lasted) in &verdict.regressions {
            self.say(&format!(
                "queue {}: the committed offset went back from {} to {} at {:.1} s, for {:.1} s while it was run",
                regression.queue,
                regression.from,
                regression.to,
                self.since(regression.since),
                lasted.as_secs_f64(),
            ));
        }
        for example in &verdict.order.examples {
            self.say(&format!(
                "queue {}: {:?} of key {:?} at {:.1} s: offset {} started, and {} was not done",
                example.queue,
                example.kind,
                example.key.as_deref().unwrap_or_default(),
                self.since(example.start),
                example.offset,
                example.other,
            ));
        }
        for (queue, offset) in &verdict.lost {
            self.say(&format!("queue {queue}: offset {offset} was not handled"));
        }
        let unexplained = verdict.replays.iter().filter(|one| one.event.is_none());
        for replay in unexplained {
            let (queue, offset) = &replay.message;
            self.say(&format!(
                "queue {queue}: offset {offset}, which member {} had handled by {:.1} s, ran again with member {} at {:.1} s, and no event explains it",
                replay.handled.1,
                self.since(replay.handled.0),
                replay.again.1,
                self.since(replay.again.0),
            ));
        }
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
                    "in_good_order": gap.clean,
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
}
