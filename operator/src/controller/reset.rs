//! Resets of offsets that are asked for by an annotation: `keylane.dev/reset-offsets: "<id>: <position>"`.
//!
//! Whether a queue was reset is known in the group's journal, by the id, and nowhere else: pods are asked
//! again and again until between them they tell of every queue of the topic, so a queue that moves, a pod
//! that dies or another operator costs another round and resets nothing twice. What was asked for is in the
//! status before pods are, and an id that is done there is never asked for again, whatever the journal keeps.
//! It is an annotation and not a field of the spec because it happens once and then means nothing.

use super::Context;
use super::look::Pods;
use super::state::State;
use super::status::Findings;
use crate::crd::{OffsetsReset, OrderedConsumer, OrderedConsumerStatus, ResetPhase};
use crate::names;
use k8s_openapi::jiff::Timestamp;
use keylane_consumer::contract::offsets::{
    QueueReset, ResetOffsets, ResetReport, ResetState, ResetTo, is_id,
};
use keylane_consumer::contract::spec::Consumption;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tracing::info;

/// Time before a pod that refused is asked again: its queues stand still while their calls are to finish, at
/// most `drain.timeout`.
const AGAIN: Duration = Duration::from_secs(120);

/// What the annotation asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Names the request.
    pub id: String,
    /// Where the group is to go on.
    pub to: ResetTo,
}

/// Reads the annotation. An error says what to write.
pub fn wanted(object: &OrderedConsumer) -> Result<Option<Wanted>, String> {
    let Some(value) = object.annotations().get(names::RESET_OFFSETS) else {
        return Ok(None);
    };
    parse(value).map(Some).map_err(|reason| {
        let shown: String = value.chars().take(100).collect();
        format!(
            "metadata.annotations[{:?}] is {shown:?}: {reason}; write \"<id>: earliest\", \"<id>: latest\" or \
             \"<id>: 2026-11-11T00:00:00+08:00\", with an id that was not used before, or remove it",
            names::RESET_OFFSETS
        )
    })
}

fn parse(value: &str) -> Result<Wanted, String> {
    let (id, to) = value
        .split_once(':')
        .ok_or("it has no id and position, separated by a colon")?;
    let (id, to) = (id.trim(), to.trim());
    if !is_id(id) {
        return Err(format!(
            "the id {id:?} is not 1 to 63 letters, digits, '.', '_' and '-'"
        ));
    }
    let to: ResetTo = to.parse().map_err(|_| format!("{to:?} is no position"))?;
    if let ResetTo::Offset(offset) = to {
        return Err(format!(
            "offset {offset} means something else in each queue; one queue is reset by the admin API of its pod"
        ));
    }
    let id = id.to_owned();
    Ok(Wanted { id, to })
}

/// What is remembered of a reset between rounds. All of it can be asked for again.
#[derive(Debug, Default)]
pub struct Driven {
    id: String,
    /// What each pod last told, by its address.
    told: BTreeMap<String, ResetReport>,
    /// Why queues were not reset that are not yet.
    refused: BTreeMap<String, String>,
    /// Pods that are not asked before a time.
    held: BTreeMap<String, Instant>,
}

impl Driven {
    fn take(&mut self, now: Instant, address: String, report: ResetReport) {
        for of in &report.queues {
            match of.state {
                ResetState::Refused => {
                    let reason = of.reason.clone().unwrap_or_default();
                    self.refused.insert(of.queue.clone(), reason);
                    self.held.insert(address.clone(), now + AGAIN);
                }
                ResetState::Done => drop(self.refused.remove(&of.queue)),
                // It is tried again.
                ResetState::Waiting | ResetState::Draining | ResetState::Writing => {}
            }
        }
        self.told.insert(address, report);
    }

    /// What pods do not do because calls run, or for another reason of theirs.
    fn refusal(&self) -> Option<String> {
        let (queue, reason) = self.refused.first_key_value()?;
        let others = match self.refused.len() {
            1 => String::new(),
            number => format!(" ({} more queues likewise)", number - 1),
        };
        Some(format!(
            "queue {queue}: {reason}{others}; it is tried again every {AGAIN:?}"
        ))
    }
}

/// Adds to what was found how far the reset is, and what holds it back.
pub fn find(
    object: &OrderedConsumer,
    driven: &Driven,
    last: Option<&OrderedConsumerStatus>,
    pods: Option<&Pods>,
    found: &mut Findings,
) {
    let last = last.and_then(|status| status.offsets_reset.as_ref());
    let wanted = match wanted(object) {
        Ok(wanted) => wanted,
        Err(reason) => {
            found.offsets_reset = last.cloned();
            found.reset_held = Some(reason);
            return;
        }
    };
    let Some(wanted) = wanted else {
        found.offsets_reset = last.cloned().map(withdrawn);
        return;
    };
    let same = last.filter(|last| last.id == wanted.id);
    if let Some(last) = same
        && (last.phase == ResetPhase::Done || last.to != wanted.to.to_string())
    {
        found.offsets_reset = Some(last.clone());
        found.reset_held = reused(last, &wanted);
        return;
    }
    let nothing = Driven::default();
    let driven = if driven.id == wanted.id {
        driven
    } else {
        &nothing
    };
    let told: Vec<&QueueReset> = driven.told.values().flat_map(|of| &of.queues).collect();
    let queues = pods.and_then(|pods| pods.queues.as_ref());
    let progress = progress(&wanted, queues, &told, Timestamp::now());
    if progress.phase != ResetPhase::Done {
        let held = obstacle(object, pods, found).or_else(|| driven.refusal());
        found.reset_held = held.map(|reason| {
            format!(
                "offsets are not reset to {} ({}): {reason}",
                wanted.to, wanted.id
            )
        });
    }
    found.offsets_reset = Some(progress);
}

/// Queues that are done would stay where the first position led, and others go to the second.
fn reused(last: &OffsetsReset, wanted: &Wanted) -> Option<String> {
    let Wanted { id, to } = wanted;
    (last.to != to.to_string()).then(|| {
        format!(
            "metadata.annotations[{:?}] asks for {to} with the id {id:?}, which was used for {}: choose an id that was \
             not used before",
            names::RESET_OFFSETS,
            last.to
        )
    })
}

/// Nobody asks for it any more: what was done stays done.
fn withdrawn(last: OffsetsReset) -> OffsetsReset {
    OffsetsReset {
        phase: match last.phase {
            ResetPhase::Pending => ResetPhase::Withdrawn,
            phase => phase,
        },
        ..last
    }
}

/// How far a reset is by what pods tell of queues.
fn progress(
    wanted: &Wanted,
    queues: Option<&BTreeSet<String>>,
    told: &[&QueueReset],
    now: Timestamp,
) -> OffsetsReset {
    let done: BTreeMap<&str, &QueueReset> = told
        .iter()
        .filter(|of| of.state == ResetState::Done)
        .map(|of| (of.queue.as_str(), *of))
        .collect();
    let is_done = |queue: &str| done.contains_key(queue);
    // Pods know queues of a broker that is down, which the name server does not tell any more.
    let all_told = told.iter().all(|of| is_done(&of.queue));
    let all_of =
        |queues: &BTreeSet<String>| !queues.is_empty() && queues.iter().all(|queue| is_done(queue));
    let all = all_told && queues.is_some_and(all_of);
    OffsetsReset {
        id: wanted.id.clone(),
        to: wanted.to.to_string(),
        phase: if all {
            ResetPhase::Done
        } else {
            ResetPhase::Pending
        },
        queues_done: done.len() as u32,
        skipped: done.values().map(|of| of.skipped).sum(),
        replayed: done.values().map(|of| of.replayed).sum(),
        completed_at: all.then(|| now.to_string()),
    }
}

/// What makes it unsafe or impossible to begin or go on.
fn obstacle(object: &OrderedConsumer, pods: Option<&Pods>, found: &Findings) -> Option<String> {
    if object.spec.consumer.consumption == Consumption::Broadcasting {
        return Some("spec.consumption is Broadcasting, which keeps no offsets".to_owned());
    }
    if let Some(shared) = found
        .group_shared
        .as_ref()
        .or(found.foreign_members.as_ref())
    {
        return Some(shared.clone());
    }
    let Some(pods) = pods else {
        return Some("pods cannot be asked; other conditions say why".to_owned());
    };
    if pods.queues.is_none() {
        return Some("the brokers do not tell the queues of the topic".to_owned());
    }
    pods.unable_to_reset.clone()
}

/// Asks pods, if there is something to ask for that is in the status.
pub async fn drive(
    context: &Context,
    state: &mut State,
    object: &OrderedConsumer,
    found: &Findings,
    pods: &Pods,
) {
    let Some(client) = state.pods().cloned() else {
        return;
    };
    let driven = &mut state.reset;
    let pending = |of: &&OffsetsReset| of.phase == ResetPhase::Pending;
    let asked_for = found.offsets_reset.as_ref().filter(pending);
    let wanted = wanted(object).ok().flatten();
    let (Some(asked_for), Some(wanted)) = (asked_for, wanted) else {
        return;
    };
    let same = asked_for.id == wanted.id && asked_for.to == wanted.to.to_string();
    if !same || obstacle(object, Some(pods), found).is_some() {
        return;
    }
    if !context.tenure.holds() {
        return;
    }
    if driven.id != wanted.id {
        *driven = Driven {
            id: wanted.id.clone(),
            ..Driven::default()
        };
    }
    let now = Instant::now();
    driven.held.retain(|_, until| now < *until);
    driven
        .told
        .retain(|address, _| pods.addresses.contains(address));
    let request = ResetOffsets {
        id: wanted.id,
        to: wanted.to,
        queue: None,
        wait: false,
    };
    let asked = pods
        .addresses
        .iter()
        .filter(|address| !driven.held.contains_key(*address));
    let asked: Vec<String> = asked.cloned().collect();
    let answers = client.reset_offsets(&asked, &request).await;
    for (address, answer) in asked.into_iter().zip(answers) {
        match answer {
            Ok(report) => driven.take(now, address, report),
            Err(error) => {
                // It may drain, and others get its queues.
                info!("{}: {error}", object.name_any());
                driven.told.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str, state: ResetState, replayed: u64) -> QueueReset {
        QueueReset {
            queue: name.to_owned(),
            state,
            replayed,
            ..QueueReset::default()
        }
    }

    fn names(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_annotation_is_read_as_people_write_it() {
        let wanted = parse("2026-11-26.a: earliest").unwrap();
        assert_eq!(
            (wanted.id.as_str(), wanted.to),
            ("2026-11-26.a", ResetTo::Earliest)
        );
        assert_eq!(parse("a:latest").unwrap().to, ResetTo::Latest);
        let time = parse("a: 2026-11-11T00:00:00+08:00").unwrap().to;
        assert_eq!(time.to_string(), "2026-11-10T16:00:00Z");
        for (value, says) in [
            ("earliest", "no id and position"),
            ("", "no id and position"),
            (": earliest", "the id \"\""),
            ("a b: earliest", "the id \"a b\""),
            ("a: yesterday", "\"yesterday\" is no position"),
            ("a:", "\"\" is no position"),
            // The id of a time that has none.
            ("2026-11-11T00:00:00Z", "\"00:00Z\" is no position"),
            ("a: 7", "offset 7 means something else in each queue"),
        ] {
            let reason = parse(value).unwrap_err();
            assert!(reason.contains(says), "{value}: {reason}");
        }
    }

    #[test]
    fn it_is_done_when_every_queue_of_the_topic_is_whoever_tells() {
        let wanted = parse("a: earliest").unwrap();
        let all = names(&["b/0", "b/1"]);
        let (done, moving) = (ResetState::Done, ResetState::Waiting);
        let (first, second) = (queue("b/0", done, 3), queue("b/1", done, 4));
        let moves = queue("b/1", moving, 0);
        let progress = |queues, told: &[&QueueReset]| {
            let progress = progress(&wanted, queues, told, Timestamp::UNIX_EPOCH);
            (progress.phase, progress.queues_done, progress.replayed)
        };
        let pending = ResetPhase::Pending;
        assert_eq!(progress(Some(&all), &[]), (pending, 0, 0));
        assert_eq!(progress(Some(&all), &[&first, &moves]), (pending, 1, 3));
        // A queue of a broker that the name server does not tell any more.
        let gone = queue("c/0", ResetState::Waiting, 0);
        assert_eq!(progress(Some(&all), &[&first, &second, &gone]).0, pending);
        // Two tell of a queue that moved: it is counted once.
        let twice = [&first, &first, &second];
        assert_eq!(progress(Some(&all), &twice), (ResetPhase::Done, 2, 7));
        // Which queues there are is not known: nothing says that these are all.
        assert_eq!(progress(None, &twice), (pending, 2, 7));
        assert_eq!(progress(Some(&BTreeSet::new()), &twice).0, pending);
    }

    #[test]
    fn what_pods_refuse_is_told_until_it_is_done_and_they_are_left_in_peace_meanwhile() {
        let report = |queues| ResetReport {
            id: "a".into(),
            to: ResetTo::Earliest,
            skipped: 0,
            replayed: 0,
            queues,
        };
        let refused = |name: &str| QueueReset {
            reason: Some("keys order-7".into()),
            ..queue(name, ResetState::Refused, 0)
        };
        let (mut driven, now) = (Driven::default(), Instant::now());
        let done = || queue("b/2", ResetState::Done, 1);
        driven.take(now, "pod".into(), report(vec![done()]));
        assert_eq!((driven.refusal(), driven.held.len()), (None, 0));
        let queues = vec![refused("b/0"), refused("b/1"), done()];
        driven.take(now, "pod".into(), report(queues));
        let said = driven.refusal().unwrap();
        let says = "queue b/0: keys order-7 (1 more queues likewise)";
        assert!(said.contains(says), "{said}");
        assert_eq!(driven.held.len(), 1);
        // It is tried again: nothing says yet that the reason is gone.
        let tried = vec![queue("b/0", ResetState::Draining, 0)];
        driven.take(now, "pod".into(), report(tried));
        assert_eq!(driven.refusal().unwrap(), said);
        let all = ["b/0", "b/1"].map(|name| queue(name, ResetState::Done, 1));
        driven.take(now, "pod".into(), report(all.to_vec()));
        assert_eq!(driven.refusal(), None);
    }

    #[test]
    fn an_id_that_was_used_for_another_position_is_refused() {
        let first = parse("a: earliest").unwrap();
        let last = progress(&first, None, &[], Timestamp::UNIX_EPOCH);
        assert_eq!(reused(&last, &first), None);
        let said = reused(&last, &parse("a: latest").unwrap()).unwrap();
        for part in [names::RESET_OFFSETS, "asks for latest", "used for earliest"] {
            assert!(said.contains(part), "{said}");
        }
        let time = parse("b: 2026-11-11T00:00:00+08:00").unwrap();
        let last = progress(&time, None, &[], Timestamp::UNIX_EPOCH);
        let same = parse("b: 2026-11-10T16:00:00Z").unwrap();
        assert_eq!(reused(&last, &same), None);
    }

    #[test]
    fn what_is_withdrawn_before_it_is_done_says_so_and_what_is_done_stays() {
        let wanted = parse("a: earliest").unwrap();
        let pending = progress(&wanted, None, &[], Timestamp::UNIX_EPOCH);
        assert_eq!(withdrawn(pending.clone()).phase, ResetPhase::Withdrawn);
        let done = OffsetsReset {
            phase: ResetPhase::Done,
            ..pending
        };
        assert_eq!(withdrawn(done.clone()), done);
    }
}
