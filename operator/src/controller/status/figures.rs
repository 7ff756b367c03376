//! Figures and lists of a status, rounded, and within their size whatever an API server, a broker or a handler
//! said.

use super::Findings;
use crate::broker::Lag;
use crate::crd::{self, DecisionInputs, LastDecision, OrderedConsumerStatus};
use crate::scale::{Decision, History, Inputs};
use keylane_consumer::contract::admin::StuckKey;
use keylane_consumer::contract::duration::DurationText;

/// Keys of one kind that are listed.
pub(super) const LISTED_KEYS: usize = 10;
/// Bytes of a message.
pub(super) const LONGEST_MESSAGE: usize = 600;
/// Bytes of a text in a list.
pub(super) const LONGEST_LISTED: usize = 200;
/// Bytes of what autoscaling remembers.
const LONGEST_HISTORY: usize = 8 << 10;
/// Bytes of a status, as JSON.
pub(super) const LARGEST: usize = 16 << 10;

/// A decision with its numbers, and with what autoscaling remembers.
pub(super) fn decision(decision: &Decision, found: &Findings) -> LastDecision {
    let differs = |advised: u32, is: u32| Some(advised).filter(|advised| *advised != is);
    let history = found.history.as_ref();
    LastDecision {
        lanes: decision.lanes,
        replicas: decision.replicas,
        reason: decision.reason.as_str().to_owned(),
        message: bounded(&decision.message, LONGEST_MESSAGE),
        advised_replicas: differs(decision.advised, decision.replicas),
        advised_lanes: differs(decision.advised_lanes, decision.lanes),
        inputs: inputs(&decision.inputs),
        history: history.and_then(|history| history.written(LONGEST_HISTORY)),
    }
}

fn inputs(inputs: &Inputs) -> DecisionInputs {
    let text = |value: Option<f64>| value.map(|value| format!("{value:.1}"));
    let milliseconds = |value: Option<f64>| text(value.map(|seconds| seconds * 1e3));
    DecisionInputs {
        expected_rate: text(inputs.expected_rate),
        call_milliseconds: milliseconds(inputs.call_seconds),
        service_milliseconds: milliseconds(inputs.service_seconds),
        busy_lanes: text(inputs.busy_lanes),
        pod_capacity: text(inputs.pod_capacity),
        start_seconds: text(inputs.start_seconds),
        cpu_percent: text(inputs.cpu.map(|part| part * 100.0)),
    }
}

/// Keeps a status within its size: what is last in its lists goes first, then what autoscaling remembers of
/// queues.
pub(super) fn fit(status: &mut OrderedConsumerStatus) {
    let fits = |status: &OrderedConsumerStatus| {
        serde_json::to_vec(status).is_ok_and(|text| text.len() <= LARGEST)
    };
    while !fits(status) {
        let lists = [
            status.blocked_keys.len(),
            status.stuck_keys.len(),
            status.hot_keys.len(),
        ];
        match lists.iter().max() {
            None | Some(0) => break,
            Some(most) if *most == lists[0] => drop(status.blocked_keys.pop()),
            Some(most) if *most == lists[1] => drop(status.stuck_keys.pop()),
            Some(_) => drop(status.hot_keys.pop()),
        }
    }
    if !fits(status)
        && let Some(decision) = &mut status.decision
    {
        let history = decision.history.take();
        let history = history.and_then(|text| serde_json::from_str::<History>(&text).ok());
        decision.history = history.and_then(|history| history.written(0));
    }
}

/// How far behind, how old that is, and when it will be gone.
pub(super) fn lag(known: &Lag, decision: Option<&Decision>) -> crd::Lag {
    let rates = decision.map(|decision| &decision.inputs);
    let surplus = rates.and_then(|rates| Some(rates.completion_rate? - rates.arrival_rate?));
    let surplus = surplus.filter(|surplus| *surplus > 0.0);
    crd::Lag {
        messages: known.messages,
        unfinished: known.unfinished,
        oldest: known.oldest.map(span),
        drained_in: surplus.map(|surplus| span((known.unfinished as f64 / surplus).ceil())),
    }
}

/// Seconds; from an hour on whole minutes.
fn span(seconds: f64) -> DurationText {
    // As many hours as the format has digits for.
    let seconds = seconds.round().clamp(0.0, 99_999.0 * 3600.0) as u64;
    DurationText::from_secs(if seconds < 3600 {
        seconds
    } else {
        seconds / 60 * 60
    })
}

pub(super) fn hot(decision: &Decision) -> Vec<crd::HotKey> {
    let keys = decision.limits.hot_keys.iter().take(LISTED_KEYS);
    keys.map(|hot| crd::HotKey {
        key: bounded(&hot.key, LONGEST_LISTED),
        queue: hot.queue.clone(),
        per_second: format!("{:.1}", hot.per_second),
        waiting: span(hot.waiting_seconds),
    })
    .collect()
}

pub(super) fn stuck(keys: &[StuckKey]) -> Vec<crd::StuckKey> {
    let keys = keys.iter().take(LISTED_KEYS);
    keys.map(|stuck| crd::StuckKey {
        key: bounded(&stuck.key, LONGEST_LISTED),
        queue: stuck.queue.clone(),
        offset: stuck.offset,
        stuck_for: span(stuck.seconds),
        attempts: stuck.attempts,
        last_error: bounded(&stuck.last_error, LONGEST_LISTED),
    })
    .collect()
}

/// So many bytes of a text, whatever an API server, a broker or a handler said.
pub(in crate::controller) fn bounded(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end));
    format!("{}…", &text[..end.unwrap_or(0)])
}
